# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux as the kernel and its files show it: the mode, the booleans for guests, the types that are not enforced."""

from __future__ import annotations

import errno
import re
import typing as t

from ._host import Host

FILESYSTEM = "/sys/fs/selinux"
CONFIG = "/etc/selinux/config"

# The domains of guests, of libvirt's daemons and of what they start: refpolicy's and Fedora's virt.te, dnsmasq.te.
TYPES = (
    "svirt_t svirt_tcg_t virtd_t virtqemud_t virtproxyd_t virtnetworkd_t virtstoraged_t virtnodedevd_t virtsecretd_t"
    " virtinterfaced_t virtnwfilterd_t virtlogd_t virtlockd_t dnsmasq_t swtpm_t passt_t"
)
_BOOLEANS_RE = re.compile(r"virt_|sanlock_use_|(?:staff|unprivuser)_use_svirt\Z")
_SETTING_RE = re.compile(r"^[ \t]*([A-Z]+)[ \t]*=[ \t]*(\S*)", re.MULTILINE)
# AVD_FLAGS_PERMISSIVE of the kernel's security/selinux/include/security.h
_PERMISSIVE = 1


def configured(host: Host) -> dict[str, str]:
    """The settings of /etc/selinux/config: SELINUX (the mode after a boot) and SELINUXTYPE (the policy's name)."""
    return {key: value.lower() for key, value in _SETTING_RE.findall(host.text_optional(CONFIG) or "")}


def booleans(host: Host, policy: str) -> list[dict[str, t.Any]]:
    """The booleans that widen what guests may do: as they are now, and as they were made persistent.

    :param policy: SELINUXTYPE, whose store keeps what ``setsebool -P`` sets (booleans.local).
    """
    kept = host.text_optional(f"/var/lib/selinux/{policy}/active/booleans.local") or ""
    lines = (line.partition("=") for line in kept.splitlines() if not line.startswith("#"))
    persistent = {name.strip(): value.strip() for name, _equals, value in lines}
    words = {"1": "on", "0": "off", "true": "on", "false": "off", "on": "on", "off": "off"}
    return [
        {
            "name": name,
            "running": host.text(f"{FILESYSTEM}/booleans/{name}").split()[0] == "1",
            "configured": words.get(persistent.get(name, ""), ""),
        }
        for name in host.list(f"{FILESYSTEM}/booleans")
        if _BOOLEANS_RE.match(name)
    ]


def word(value: bool) -> str:
    """A value of a boolean as setsebool(8) and getsebool(8) have it."""
    return "on" if value else "off"


def file_type(host: Host, path: str) -> str:
    """The type in a file's label, "" for a file without one.

    :raises OSError: it cannot be read.
    """
    label = host.attributes(path).get("security.selinux", b"").rstrip(b"\0").decode("utf-8", "replace")
    return label.split(":")[2] if label.count(":") > 1 else ""


def is_persistent(host: Host, path: str, label: str) -> bool:
    """Whether the policy's files give this type to a path: file_contexts(5), semanage-fcontext(8)."""
    policy = configured(host).get("SELINUXTYPE", "")
    directory = f"/etc/selinux/{policy}/contexts/files"
    for name in ("file_contexts.local", "file_contexts"):
        for line in (host.text_optional(f"{directory}/{name}") or "").splitlines():
            if f":{label}:" in line and re.fullmatch(line.split()[0], path):
                return True
    return False


def local_type(host: Host, pattern: str) -> str | None:
    """The type that file_contexts.local gives to the paths of this very pattern; None for none."""
    policy = configured(host).get("SELINUXTYPE", "")
    kept = host.text_optional(f"/etc/selinux/{policy}/contexts/files/file_contexts.local") or ""
    fields = (line.split() for line in kept.splitlines())
    return next((words[-1].split(":")[2] for words in fields if words[:1] == [pattern]), None)


def types(host: Host) -> list[dict[str, t.Any]]:
    """Those of ``TYPES`` that the loaded policy has, and whether it only logs what they do against it.

    The kernel tells it for a domain along with any decision about it: libselinux's security_compute_av_flags(3).

    :raises OSError: the kernel does not answer this process.
    """
    number = host.text(f"{FILESYSTEM}/class/process/index").strip()
    level = ":s0" if (host.text_optional(f"{FILESYSTEM}/mls") or "").strip() == "1" else ""
    found = []
    for name in TYPES.split():
        context = f"system_u:system_r:{name}{level}"
        try:
            answer = host.ask_kernel(f"{FILESYSTEM}/access", f"{context} {context} {number}").split()
        except OSError as error:
            if error.errno == errno.EINVAL:  # there is no such type
                continue
            raise
        found.append({"name": name, "permissive": bool(int(answer[5], 16) & _PERMISSIVE)})
    return found
