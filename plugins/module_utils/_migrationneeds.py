# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What running guests need wherever they move to: processor features, display ports, huge pages, storage."""

from __future__ import annotations

import json
import os
import re
import typing as t

from . import _cpumap, _domainxml, _libvirtd, _mountinfo, _proc
from ._host import HardeningError, Host
from ._info_capabilities import cpu_features
from ._infocontext import Context
from ._reader import Reader

# What libvirt takes for shared by its type (src/util/virfile.c, virFileIsSharedFSType), in mountinfo's words.
_SHARED_RE = re.compile(
    r"nfs4?|gfs2|ocfs2|afs|smb3?|cifs|ceph|gpfs|acfs|beegfs|fuse\.(?:glusterfs|quobyte|ceph|ceph-fuse|beegfs)"
)
_PORTS = ("port", "tlsPort", "websocket")
_AS_IT_IS = ("host-passthrough", "maximum")
_CPUS = 8
_MOST = 64
_SECONDS = 5.0


def needs(context: Context, reader: Reader) -> dict[str, t.Any]:
    """``cpus``, ``displays``, ``hugepages`` and ``filesystems`` of the section ``migration`` in hypervisor_info.

    What cannot be read is None, with a note.
    """
    host = context.host
    alive = {guest.name: guest.pid for guest in _libvirtd.guests(host)}
    mounts = _mountinfo.visible(_mountinfo.read(host, 1))
    try:
        found = [one for one in _domainxml.each(host, _domainxml.STATUS) if one.name in alive] if alive else []
    except HardeningError as error:
        reader.note(_domainxml.STATUS, str(error))
        return {"cpus": None, "displays": None, "hugepages": _huge(host, alive, mounts), "filesystems": None}
    for one in found:
        if isinstance(one, _domainxml.Unreadable):
            reader.note(one.path, one.reason)
    read = [one for one in found if isinstance(one, _domainxml.Guest)]
    whole = len(read) == len(found)
    return {
        "cpus": _cpus(context, reader, read) if whole else None,
        "displays": [entry for guest in read for entry in _displays(guest)][:_MOST] if whole else None,
        "hugepages": _huge(host, alive, mounts),
        "filesystems": _filesystems(context, reader, read, mounts) if whole else None,
    }


def _cpus(context: Context, reader: Reader, guests: t.Iterable[_domainxml.Guest]) -> list[dict[str, t.Any]] | None:
    """The processors of guests that are not emulated, each with its guests: as what sets them apart from the most that
    the host can give, which is short."""
    host, most = context.host, set(cpu_features(context) or ())
    entries: dict[tuple[str, ...], dict[str, t.Any]] = {}
    for guest in guests:
        element = guest.domain.find("cpu")
        if guest.domain.get("type") == "qemu" or element is None:
            continue
        mode = element.get("mode", "custom")
        model = (element.findtext("model") or "").strip()
        features = sorted(most) if mode in _AS_IT_IS else _cpumap.of_element(host, element)
        if features is None:
            reader.note(f"cpu {model}", f"{_cpumap.DIRECTORY} has no such model.")
            return None
        lacks, beyond = sorted(most - set(features)), sorted(set(features) - most)
        entry = {"mode": mode, "model": model, "lacks": lacks, "beyond": beyond, "guests": []}
        entries.setdefault((mode, model, *features), entry)["guests"].append(guest.name)
    if len(entries) > _CPUS:
        reader.note("cpu", f"The guests have {len(entries)} different processors, more than {_CPUS}.")
        return None
    return list(entries.values())


def _displays(guest: _domainxml.Guest) -> t.Iterator[dict[str, t.Any]]:
    """The ports that a guest's definition fixes; what libvirt chose itself (autoport) it chooses anew elsewhere."""
    for element in guest.domain.findall("devices/graphics"):
        for name in _PORTS if element.get("autoport") != "yes" else ():
            port = element.get(name, "")
            if port.isascii() and port.isdigit():
                yield {"guest": guest.name, "port": int(port)}


def _huge(host: Host, alive: t.Mapping[str, int], mounts: t.Mapping[str, _mountinfo.Mount]) -> list[dict[str, t.Any]]:
    """How many pages of which size a guest's memory takes, by the objects on QEMU's command line (qemu(1))."""
    sizes = {}
    for target, mount in mounts.items():
        if mount.fstype == "hugetlbfs":
            try:
                sizes[target] = host.block_size(f"/proc/1/root{target}") >> 10
            except OSError:
                continue
    found: dict[tuple[str, int], int] = {}
    for name, pid in alive.items():
        argv = _proc.command_line(host, pid)
        for word, value in zip(argv, argv[1:]):
            entry = _memory(value) if word in ("-object", "--object") else {}
            path, size = str(entry.get("mem-path", "")), str(entry.get("size", ""))
            holder = max((target for target in sizes if _mountinfo.is_below(path, target)), key=len, default=None)
            if holder is not None and size.isdigit():
                key = (name, sizes[holder])
                found[key] = found.get(key, 0) + -(-int(size) // (sizes[holder] << 10))
    return [{"guest": name, "kib": kib, "pages": pages} for (name, kib), pages in sorted(found.items())]


def _memory(value: str) -> dict[str, t.Any]:
    """An object's properties, as JSON or as words between commas."""
    if value.startswith("{"):
        try:
            parsed = json.loads(value)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}
    return dict(word.partition("=")[::2] for word in value.split(","))


def _filesystems(
    context: Context, reader: Reader, guests: t.Iterable[_domainxml.Guest], mounts: t.Mapping[str, _mountinfo.Mount]
) -> list[dict[str, t.Any]]:
    """The file systems that can be shared between hosts, and those that hold disks of running guests."""
    listed = context.configuration("qemu.conf").get("shared_filesystems") or ()
    users: dict[str, dict[str, bool]] = {}
    for guest in guests:
        for path in _images(guest):
            holder = _holder(path, mounts)
            told = any(_mountinfo.is_below(path, str(directory)) for directory in listed)
            kept = users.setdefault(holder, {})
            kept[guest.name] = kept.get(guest.name, True) and told
    shared = [target for target, mount in mounts.items() if _SHARED_RE.fullmatch(mount.fstype)]
    named = {_holder(str(path), mounts) for path in listed if str(path).startswith("/")}
    chosen = sorted({*shared, *users, *named})
    if len(chosen) > _MOST:
        reader.note("/proc/1/mountinfo", f"More than {_MOST} file systems can hold disks of guests.")
    return [
        {
            "name": target,
            "fstype": mounts[target].fstype if target in mounts else "",
            "id": _identity(context.host, reader, mounts[target]) if target in shared or target in named else "",
            "recognised": target in shared,
            "listed": target in named,
            "guests": sorted(users.get(target, ())),
            "unlisted": sorted(name for name, told in users.get(target, {}).items() if not told),
        }
        for target in chosen[:_MOST]
    ]


def _images(guest: _domainxml.Guest) -> t.Iterator[str]:
    """The disks in files that a guest can write to."""
    for disk in guest.domain.findall("devices/disk"):
        source = disk.find("source")
        path = "" if source is None else source.get("file", "")
        if path.startswith("/") and disk.find("readonly") is None and disk.get("device") not in ("cdrom", "floppy"):
            yield _mountinfo.normal(path)


def _holder(path: str, mounts: t.Mapping[str, _mountinfo.Mount]) -> str:
    plain = _mountinfo.normal(path)
    return next((above for above in (plain, *_mountinfo.ancestors(plain)) if above in mounts), "/")


def _identity(host: Host, reader: Reader, mount: _mountinfo.Mount) -> str | None:
    """What tells a file system from others of its type: its number (statfs(2), f_fsid), else what it is made of.

    A network file system whose server is gone lets a caller wait for ever.
    """
    try:
        number = host.in_child(lambda: host.filesystem_id(f"/proc/1/root{mount.target}"), timeout=_SECONDS)
    except (OSError, HardeningError) as error:
        reader.note(mount.target, str(error))
        return None
    root = "" if mount.root == "/" else f" {mount.root}"
    return (f"{number:x}" if number else os.path.normpath(mount.source)) + root
