# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on storage: pools, who can read images, and what of them the host's own kernel looks into."""

from __future__ import annotations

import re
import typing as t

from . import _imagechain, _imageuse, _mountinfo, _pools, _selinux
from ._host import HardeningError
from ._infocontext import Context
from ._kernelmac import kernel_mac
from ._permissions import Allowed, Inspection, Reach, described, walk
from ._reader import Reader

# Where a server that does not answer would hold up whoever looks.
_REMOTE_RE = re.compile(r"nfs4?|cifs|smb3?|ceph|9p|afs|lustre|autofs|gfs2|ocfs2|fuse\.(?!lxcfs).*|glusterfs")
_SECONDS = 5.0
_LIMIT = 5000
# Of each a header is read.
_HEADERS = 500
_LVM = "/etc/lvm/lvm.conf"
_SETTING_RE = re.compile(r"^\s*(use_devicesfile|global_filter|filter)\s*=\s*(.*?)\s*$", re.MULTILINE)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``storage``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    mounts = _mountinfo.read(context.host, 1)
    pools = _pools.read(reader)
    sources, complete = _sources(context, reader)
    images = _imagechain.Images(reader, lambda path: _is_remote(path, mounts))
    directories = [pool.path for pool in pools if pool.is_directory]
    uses = _imageuse.find(reader, sources, [pool.path for pool in pools], mounts)
    return {
        "pools": [_pool(context, reader, pool, mounts, images) for pool in pools],
        "images": _images(context, reader, sorted(sources), pools, mounts, complete),
        "layers": _layers(images, reader, sources, directories, mounts, complete),
        "uses": uses if uses or complete else None,
        "loops": _imageuse.loops(reader),
        "nbds": _imageuse.nbds(reader),
        "lvm": _lvm(reader),
        "unread": reader.unread,
    }


def _sources(context: Context, reader: Reader) -> tuple[dict[str, list[str]], bool]:
    """The files and devices that guests write to -> their names; whether all definitions could be read (or noted)."""
    try:
        found, unread = context.definitions
    except HardeningError as error:
        reader.note("/etc/libvirt/qemu", str(error))
        return {}, False
    for entry in unread:
        reader.note(entry.path, entry.reason)
    sources: dict[str, set[str]] = {}
    for read in found:
        definition = read.definition
        for disk in definition.disks:
            if not disk.readonly and disk.device not in ("cdrom", "floppy"):
                for path in (disk.source, *(layer.source for layer in disk.backing)):
                    sources.setdefault(path, set()).add(definition.name)
        sources.setdefault(definition.os.nvram, set()).add(definition.name)
    return {path: sorted(names) for path, names in sources.items() if path.startswith("/")}, not unread


def _pool(
    context: Context,
    reader: Reader,
    pool: _pools.Pool,
    mounts: t.Sequence[_mountinfo.Mount],
    images: _imagechain.Images,
) -> dict[str, t.Any]:
    remote = _is_remote(pool.path, mounts)
    status = None if remote or not pool.path.startswith("/") else reader.host.stat_optional(pool.path)
    seen = {} if status is None else described(reader, pool.path, status, "")
    return {
        "name": pool.name,
        "type": pool.type,
        "path": pool.path,
        "active": pool.active,
        "autostart": pool.autostart,
        "remote": remote,
        "mode": seen.get("mode"),
        "owner": seen.get("owner"),
        "group": seen.get("group"),
        "mount": _mount(pool.path, mounts) if remote else None,
        "promised_percent": _promised(reader, pool, images) if pool.is_directory and status is not None else None,
        **(_label(context, reader, pool.path) if status is not None else {"label": None, "label_persistent": None}),
    }


def _mount(path: str, mounts: t.Sequence[_mountinfo.Mount]) -> dict[str, t.Any]:
    """How a network file system is mounted: nfs(5), mount(8)."""
    mount = _holding(path, mounts)
    options = mount.options.split(",") if mount else []
    security = next((option[len("sec=") :] for option in options if option.startswith("sec=")), None)
    flags = mount.flags.split(",") if mount else []
    return {
        "type": mount.fstype if mount else "",
        "security": security,
        "nosuid": "nosuid" in flags,
        "nodev": "nodev" in flags,
    }


def _promised(reader: Reader, pool: _pools.Pool, images: _imagechain.Images) -> int | None:
    """How much guests may write into a pool's images, of what its file system holds; None with too many to look at."""
    files, _within, cut = walk(reader, pool.path, depth=1, limit=_HEADERS)
    if cut:
        reader.note(pool.path, f"holds more than {_HEADERS} files, or deeper ones: their sizes are not added up")
        return None
    try:
        capacity = reader.host.capacity(pool.path)
        promised = sum(map(images.promised, files))
        return promised * 100 // capacity if capacity and not images.unknown.intersection(files) else None
    except OSError as error:
        reader.note(pool.path, error.strerror or str(error))
        return None


def _label(context: Context, reader: Reader, path: str) -> dict[str, t.Any]:
    """SELinux's type of a pool's directory, and whether the policy's files keep it when it is labelled anew."""
    model, _mode = kernel_mac(context.host)
    if model != "selinux":
        return {"label": "", "label_persistent": None}
    try:
        label = _selinux.file_type(context.host, path)
        return {"label": label, "label_persistent": _selinux.is_persistent(context.host, path, label)}
    except OSError as error:
        reader.note(path, error.strerror or str(error))
        return {"label": None, "label_persistent": None}


def _layers(
    images: _imagechain.Images,
    reader: Reader,
    sources: t.Mapping[str, t.Sequence[str]],
    directories: t.Sequence[str],
    mounts: t.Sequence[_mountinfo.Mount],
    complete: bool,
) -> list[dict[str, t.Any]] | None:
    """What images hang on; None where there may be more than was looked at, and nothing was found."""
    paths = set(sources)
    for directory in directories:
        if _is_remote(directory, mounts):
            complete = False
            continue
        files, _within, cut = walk(reader, directory, depth=1, limit=_HEADERS)
        complete = complete and not cut
        paths |= {path for path in files if not path.lower().endswith(".iso")}
    found = images.layers(sorted(paths), directories)
    return found if found or (complete and not images.unknown) else None


def _is_remote(path: str, mounts: t.Sequence[_mountinfo.Mount]) -> bool:
    deepest = _holding(path, mounts)
    return deepest is not None and _REMOTE_RE.fullmatch(deepest.fstype) is not None


def _holding(path: str, mounts: t.Sequence[_mountinfo.Mount]) -> _mountinfo.Mount | None:
    """The mount that a path lies on."""
    holding = [mount for mount in mounts if _mountinfo.is_below(path, mount.target)]
    return max(holding, key=lambda mount: len(mount.target), default=None)


def _images(
    context: Context,
    reader: Reader,
    sources: t.Sequence[str],
    pools: t.Sequence[_pools.Pool],
    mounts: t.Sequence[_mountinfo.Mount],
    complete: bool,
) -> dict[str, t.Any]:
    groups = _groups(context)
    directories = sorted({pool.path for pool in pools if pool.is_directory})
    inspection = Inspection(reader, Reach(reader))
    inspection.truncated = not complete
    near = [path for path in directories if not _is_remote(path, mounts)]
    _inspect(inspection, near, [path for path in sources if not _is_remote(path, mounts)], groups)
    far = [path for path in directories if path not in near]
    remote = [path for path in sources if _is_remote(path, mounts)]
    if far or remote:
        _inspect_remote(context, inspection, far, remote, groups)
    return inspection.facts()


def _groups(context: Context) -> frozenset[int]:
    names = ("libvirt-qemu", "qemu", "kvm", "disk", str(context.configuration("qemu.conf").settings.get("group", "")))
    numbers = (context.host.gid(name) for name in names if name)
    return frozenset({0, *(number for number in numbers if number is not None)})


def _inspect(
    inspection: Inspection, directories: t.Sequence[str], sources: t.Sequence[str], groups: frozenset[int]
) -> None:
    image, directory = Allowed(0o660, None, groups), Allowed(0o775, None, None)
    seen = set()
    for top in directories:
        inspection.look(top, directory)
        files, _within, cut = walk(inspection.reader, top, depth=1, limit=_LIMIT)
        inspection.truncated = inspection.truncated or cut
        seen |= {path for path in files if not path.lower().endswith(".iso")}  # install media hold no guest's data
    for path in sorted(seen | set(sources)):
        inspection.look(path, image)


def _inspect_remote(
    context: Context, inspection: Inspection, directories: list[str], sources: list[str], groups: frozenset[int]
) -> None:
    def look() -> t.Any:
        reader = Reader(context.host)
        there = Inspection(reader, Reach(reader))
        _inspect(there, directories, sources, groups)
        return {"checked": there.checked, "found": there.found, "truncated": there.truncated, "unread": reader.unread}

    try:
        answer = context.host.in_child(look, timeout=_SECONDS)
    except (HardeningError, OSError) as error:
        inspection.truncated = True
        inspection.reader.note(", ".join([*directories, *sources])[:200], str(error))
        return
    inspection.checked += answer["checked"]
    inspection.found += answer["found"]
    inspection.truncated = inspection.truncated or answer["truncated"]
    inspection.reader.unread += answer["unread"]


def _lvm(reader: Reader) -> dict[str, t.Any]:
    """Which devices LVM looks at (lvm.conf(5), lvmdevices(8)): without a list or filter, at every one of a guest's."""
    text = reader.text(_LVM)
    said = dict(_SETTING_RE.findall(text or ""))
    listed = reader.host.exists("/etc/lvm/devices/system.devices")
    return {
        "installed": text is not None or reader.host.has_command("lvm"),
        "devices_file": listed and said.get("use_devicesfile") != "0",
        "global_filter": said.get("global_filter"),
    }
