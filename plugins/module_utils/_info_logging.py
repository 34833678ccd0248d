# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this host records: the kernel's audit, the journal, libvirt's logs, and whether its clock is right."""

from __future__ import annotations

import re
import shlex
import stat
import typing as t

from . import _libvirtd
from ._host import HardeningError, Host
from ._infocontext import Context

_COMMAND_SECONDS = 5.0
_DIRECTORIES = ("/var/log/libvirt", "/var/log/libvirt/qemu", "/var/log/swtpm", "/var/log/swtpm/libvirt/qemu")
_SHOWN = 20
_JOURNALD = "systemd/journald.conf"
_PLACES = ("/etc", "/run", "/usr/local/lib", "/usr/lib")
_STORAGE_RE = re.compile(r"^\s*Storage\s*=\s*(\S+)", re.MULTILINE)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``logging``; its keys are documented in hypervisor_info."""
    host = context.host
    return {
        "audit": _audit(host),
        "journal": {"storage": _storage(host), "persistent": host.exists("/var/log/journal")},
        "clock_synchronized": _synchronized(host),
        "directories": [_directory(host, path) for path in _DIRECTORIES if host.exists(path)],
    }


def _audit(host: Host) -> dict[str, t.Any]:
    configured = [host.text_optional(path) or "" for path in _rule_files(host)]
    loaded = _auditctl(host, "-l")
    status = dict(line.split(None, 1) for line in (_auditctl(host, "-s") or "").splitlines() if " " in line)
    enabled = status.get("enabled", "").strip()
    return {
        "installed": host.has_command("auditd"),
        "running": _libvirtd.running(host, "auditd") is not None,
        "enabled": int(enabled) if enabled.isdigit() else None,
        "watched": None if loaded is None else _watched(loaded),
        "watched_configured": sorted({path for text in configured for path in _watched(text)}),
    }


def _rule_files(host: Host) -> list[str]:
    rules = [f"/etc/audit/rules.d/{name}" for name in host.list("/etc/audit/rules.d") if name.endswith(".rules")]
    return rules or ["/etc/audit/audit.rules"]


def _auditctl(host: Host, option: str) -> str | None:
    """What auditctl(8) prints, None where it is missing or not let (a container has no audit of its own)."""
    if not host.has_command("auditctl"):
        return None
    try:
        done = host.run(["auditctl", option], timeout=_COMMAND_SECONDS)
    except HardeningError:
        return None
    return done.out if done.rc == 0 else None


def _watched(rules: str) -> list[str]:
    """The paths that audit rules watch: ``-w PATH``, and ``-F path=`` or ``-F dir=`` of the newer form."""
    found = set()
    for line in rules.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        for option, value in zip(words, words[1:]):
            if option == "-w":
                found.add(value)
            elif option == "-F" and value.startswith(("path=", "dir=")):
                found.add(value.partition("=")[2])
    return sorted(path.rstrip("/") or "/" for path in found)


def _storage(host: Host) -> str:
    """journald.conf(5): what is set last counts; auto keeps logs over a reboot where /var/log/journal exists."""
    main = next((f"{place}/{_JOURNALD}" for place in _PLACES if host.exists(f"{place}/{_JOURNALD}")), "")
    parts: dict[str, str] = {}
    for place in reversed(_PLACES):
        directory = f"{place}/{_JOURNALD}.d"
        parts.update({name: f"{directory}/{name}" for name in host.list(directory) if name.endswith(".conf")})
    texts = [host.text_optional(path) or "" for path in (main, *(parts[name] for name in sorted(parts))) if path]
    return str(["auto", *_STORAGE_RE.findall("\n".join(texts))][-1])


def _synchronized(host: Host) -> bool | None:
    try:
        return host.clock_synchronized()
    except OSError:
        return None


def _directory(host: Host, path: str) -> dict[str, t.Any]:
    """A directory of logs. ``readable``: files in it that any user can read, some of them."""
    status = host.stat(path)
    open_to_all = _reachable(host, path)
    readable = []
    for name in host.list(path) if open_to_all else ():
        found = host.stat_optional(f"{path}/{name}", follow=False)
        if found and found.st_size and stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH:
            readable.append(name)
    return {
        "name": path,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": host.user_name(status.st_uid),
        "group": host.group_name(status.st_gid),
        "writable_by_others": bool(status.st_mode & stat.S_IWOTH),
        "readable": readable[:_SHOWN],
        "readable_count": len(readable),
    }


def _reachable(host: Host, path: str) -> bool:
    """Whether any user may go there: search permission on each directory of the path (path_resolution(7))."""
    parts = path.split("/")
    above = ("/".join(parts[:end]) for end in range(2, len(parts) + 1))
    return all(host.stat(directory).st_mode & stat.S_IXOTH for directory in above)
