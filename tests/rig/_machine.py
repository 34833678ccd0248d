# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host can change on the outer machine, as one picture to compare, and the part of it that is put back."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping

from . import _cgroups, _registry
from ._base import RigError, boot_id, cache_dir, run, say, start_time
from ._net import LINK_PREFIX

Section = dict[str, str]
Snapshot = dict[str, Section]

_HUGEPAGE_GLOBS = (
    "sys/kernel/mm/hugepages/*/nr_hugepages",
    "sys/kernel/mm/hugepages/*/nr_overcommit_hugepages",
    "sys/devices/system/node/node[0-9]*/hugepages/*/nr_hugepages",
)
_TUNING_GLOBS = ("sys/kernel/mm/ksm/*", "sys/kernel/mm/transparent_hugepage/*")
# Counters of the kernel's own that happen to be writable.
_MOVING_SYSCTLS = ("/proc/sys/kernel/ns_last_pid", "/proc/sys/kernel/random/", "/proc/sys/fs/binfmt_misc/")
# Those of a link come and go with it.
_SYSCTLS_OF_OUR_LINKS = re.compile(rf"/proc/sys/net/ipv[46]/(conf|neigh)/{LINK_PREFIX}")
# The modules that bringing a host up can load; no other one is ever unloaded.
_OUR_MODULES = (
    "overlay",
    "macvtap",
    "macvlan",
    "veth",
    "bridge",
    "stp",
    "llc",
    "vhost_net",
    "tap",
    "vhost",
    "vhost_iotlb",
    "tun",
)
_RESTORED = ("hugepages", "tuning", "sysctls")


def snapshot(scope: str) -> Snapshot:
    """The machine now, without what other sets of hosts than ``scope`` have up.

    While they have any, the values that all hosts share are left out: they are put back when the last host goes.
    """
    shared = {} if _others_are_up(scope) else {section: _section(section) for section in _RESTORED}
    return {
        **shared,
        "links": _links(scope),
        "addresses": _addresses(scope),
        "mounts": _mounts(),
        "cgroups": _groups(scope),
        "loops": _loops(),
        "modules": dict.fromkeys(_modules(), "loaded"),
        "devices": _devices(),
        "processes": _processes(scope),
        "hosts": {path.name: "present" for path in _registry.scope_dir(scope).glob("*/")},
    }


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing that is there, gone or another; an empty list for the same machine.

    A section that only one of the two pictures has is not compared.
    """
    lines = []
    for section in sorted(before.keys() & after.keys()):
        old, new = before[section], after[section]
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                lines.append(f"{section}: {name}: {old.get(name, '(absent)')} -> {new.get(name, '(absent)')}")
    return lines


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _values(globs: Iterable[str]) -> Section:
    found = {}
    for pattern in globs:
        for path in pathlib.Path("/").glob(pattern):
            if path.stat().st_mode & 0o200:
                value = _read(path)
                if value is not None:
                    found[os.fspath(path)] = value
    return found


def _sysctls() -> Section:
    found = {}
    for directory, _directories, names in os.walk("/proc/sys"):
        for name in names:
            path = pathlib.Path(directory, name)
            if os.fspath(path).startswith(_MOVING_SYSCTLS) or _SYSCTLS_OF_OUR_LINKS.match(os.fspath(path)):
                continue
            try:
                mode = path.stat().st_mode
            except OSError:
                continue
            if mode & 0o200 and mode & 0o444:
                value = _read(path)
                if value is not None:
                    found[os.fspath(path)] = value
    return found


def _others_are_up(scope: str) -> bool:
    return bool(_registry.scopes_up() - {scope})


def _foreign(name: str, scope: str) -> bool:
    """Whether the name of a link belongs to a set of hosts that somebody else has up."""
    nets = _registry.hosts_dir().glob("*/net.json")
    prefixes = [json.loads(path.read_text())["prefix"] for path in nets if path.parent.name != scope]
    return any(name.startswith(prefix) for prefix in prefixes)


def _links(scope: str) -> Section:
    links = json.loads(run(["ip", "-json", "-details", "link"]).stdout)
    return {
        link["ifname"]: f"{link.get('linkinfo', {}).get('info_kind', 'plain')} {link.get('master', '')}".strip()
        for link in links
        if not _foreign(link["ifname"], scope)
    }


def _addresses(scope: str) -> Section:
    found = {}
    for link in json.loads(run(["ip", "-json", "address"]).stdout):
        if not _foreign(link["ifname"], scope):
            for address in link.get("addr_info", []):
                found[f"{link['ifname']} {address['local']}/{address['prefixlen']}"] = address["family"]
    return found


def _mounts() -> Section:
    found: Section = {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _dash, right = line.partition(" - ")
        fields, (fstype, source, *_options) = left.split(), right.split()
        key, count = fields[4], 2
        while key in found:
            key, count = f"{fields[4]} ({count})", count + 1
        found[key] = f"{fstype} {source} {fields[3]} {fields[5]}"
    return found


def _groups(scope: str) -> Section:
    found: Section = {}
    if not _others_are_up(scope):
        found["controllers of the root's children"] = " ".join(_cgroups.shared_controllers())
    for mount, fstype in _cgroups.mounts():
        for path in mount.glob("*/"):
            if not path.name.startswith(_cgroups.PREFIX) or path.name == f"{_cgroups.PREFIX}-{scope}":
                found[os.fspath(path)] = fstype
    return found


def _loops() -> Section:
    files = pathlib.Path("/sys/block").glob("loop*/loop/backing_file")
    return {path.parent.parent.name: _read(path) or "" for path in files}


def _modules() -> list[str]:
    text = _read(pathlib.Path("/proc/modules")) or ""
    return [line.split()[0] for line in text.splitlines()]


def _devices() -> Section:
    found = {}
    for path in [*pathlib.Path("/dev").glob("*"), *pathlib.Path("/dev/net").glob("*")]:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        found[os.fspath(path)] = f"{status.st_mode:o} {status.st_uid}:{status.st_gid}"
    return found


def _processes(scope: str) -> Section:
    mine = f"{_registry.scope_dir(scope)}/"
    in_group = re.compile(rf"/{_cgroups.PREFIX}-{scope}[/-]")
    found = {}
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        if start_time(int(directory.name)) is None:
            continue
        command = (_read(directory / "cmdline") or "").replace("\0", " ").strip()
        groups = _read(directory / "cgroup") or ""
        if mine in command or in_group.search(groups):
            found[directory.name] = command
    return found


def add_hugepages(count: int) -> None:
    """Add huge pages of the default size to the machine's pool.

    :raises RigError: the kernel did not find as much memory.
    """
    pool = pathlib.Path("/proc/sys/vm/nr_hugepages")
    wanted = int(pool.read_text(encoding="ascii")) + count
    pool.write_text(str(wanted), encoding="ascii")
    given = int(pool.read_text(encoding="ascii"))
    if given < wanted:
        raise RigError(f"the kernel gave {given} of {wanted} huge pages: free some memory, or ask for fewer")


def record_baseline() -> None:
    """Write down what is put back later; to be called while no host is up."""
    baseline = {section: _section(section) for section in _RESTORED}
    path = cache_dir() / "machine.json"
    temporary = path.with_suffix(".new")
    record = {
        "boot_id": boot_id(),
        "modules": _modules(),
        "controllers": _cgroups.shared_controllers(),
        "baseline": baseline,
    }
    temporary.write_text(json.dumps(record), encoding="utf-8")
    os.replace(temporary, path)


def restore_baseline() -> None:
    """Put the values back that hosts changed, unload what they loaded; to be called when the last host is gone."""
    path = cache_dir() / "machine.json"
    if not path.exists():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["boot_id"] == boot_id():
        for section in _RESTORED:
            _put_back(record["baseline"][section], _section(section))
        # A record of an earlier checkout says nothing of controllers.
        _cgroups.restore_controllers(record.get("controllers", _cgroups.shared_controllers()))
        _unload([name for name in _OUR_MODULES if name not in record["modules"]])
    path.unlink()


def _section(name: str) -> Section:
    if name == "sysctls":
        return _sysctls()
    return _values(_HUGEPAGE_GLOBS if name == "hugepages" else _TUNING_GLOBS)


def _put_back(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for path, value in before.items():
        if path in now and now[path] != value:
            try:
                # The kernel's lists of choices mark the chosen one: "always [madvise] never".
                chosen = value.partition("[")[2].partition("]")[0] or value
                pathlib.Path(path).write_text(chosen, encoding="utf-8")
                say(f"put back: {path} = {chosen}")
            except OSError as error:
                say(f"cannot put back {path} = {value}: {error}")


def _unload(names: Iterable[str]) -> None:
    loaded = set(_modules())
    for name in names:
        if name in loaded:
            # Refused as long as somebody uses it, which is then not the rig.
            run(["rmmod", name], check=False)
