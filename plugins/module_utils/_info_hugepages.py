# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on huge pages: the kernel's pools, the mounts that hand them out, the paths that libvirt was told to use."""

from __future__ import annotations

import stat
import typing as t

from . import _hugemounts, _hugepages, _libvirtd, _mountinfo, _proc
from ._host import Host
from ._infocontext import Context

_PID1_ROOT = "/proc/1/root"
_MOST = 40


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``hugepages``; its keys are documented in hypervisor_info."""
    host = context.host
    mounts = _mountinfo.visible(_mountinfo.read(host, 1))
    found = [mount for mount in mounts.values() if mount.fstype == "hugetlbfs"]
    told = _told(context)
    paths = [mount.target for mount in found] if told is None else told
    unread: list[dict[str, str]] = []
    return {
        "pools": [_pool(size, pool) for size, pool in sorted(_hugepages.read(host).items())],
        "mounts": [entry for mount in found for entry in _mount(host, mount, unread)],
        "configured": {"hugetlbfs_mount": told},
        "paths": [_path(host, path) for path in paths],
        "guest_directories": [entry for path in paths for entry in _guest_directories(host, path)][:_MOST],
        "guests": list(_guests(host)),
        "unread": unread,
    }


def _told(context: Context) -> list[str] | None:
    """hugetlbfs_mount of qemu.conf, a string or a list; None where it is not set, and libvirt takes every mount that
    it finds at its start (src/qemu/qemu_conf.c)."""
    value = context.configuration("qemu.conf").settings.get("hugetlbfs_mount")
    if value is None:
        return None
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def _pool(size: int, pool: _hugepages.Pool) -> dict[str, t.Any]:
    total = pool.total
    return {
        "name": _hugepages.label(size),
        "kib": size,
        "pages": total.pages,
        "free": total.free,
        "reserved": total.reserved,
        "surplus": total.surplus,
        "in_use": total.in_use,
        "nodes": [{"node": node, "pages": count.pages, "free": count.free} for node, count in pool.nodes.items()],
    }


def _mount(host: Host, mount: _mountinfo.Mount, unread: list[dict[str, str]]) -> t.Iterator[dict[str, t.Any]]:
    try:
        status = host.stat(_PID1_ROOT + mount.target)
        size = host.block_size(_PID1_ROOT + mount.target) >> 10
    except OSError as error:
        unread.append({"path": mount.target, "reason": str(error.strerror)})
        return
    yield {
        "name": mount.target,
        "size": _hugepages.label(size),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "world_writable": bool(status.st_mode & stat.S_IWOTH),
        "propagation": mount.propagation,
        "base": host.exists(f"{_PID1_ROOT}{mount.target}/{_hugemounts.BASE}"),
    }


def _path(host: Host, path: str) -> dict[str, t.Any]:
    """A path that libvirt takes huge pages from, and whether it leads to hugetlbfs: libvirt asks statfs(2) as well
    (src/util/virfile.c, virFileGetHugepageSize)."""
    full = _PID1_ROOT + path
    status = host.stat_optional(full) if path.startswith("/") else None
    return {
        "name": path,
        "exists": status is not None,
        "hugetlbfs": status is not None and host.filesystem(full) == _hugemounts.HUGETLBFS_MAGIC,
        "base": status is not None and host.exists(f"{full}/{_hugemounts.BASE}"),
    }


def _guest_directories(host: Host, path: str) -> t.Iterator[dict[str, t.Any]]:
    """libvirt's directories of single guests in a path of huge pages: what is in them is guests' memory."""
    base = f"{path}/{_hugemounts.BASE}"
    for name in host.list(_PID1_ROOT + base):
        status = host.stat_optional(f"{_PID1_ROOT}{base}/{name}", follow=False)
        if status is not None:
            mode = stat.S_IMODE(status.st_mode)
            yield {
                "name": f"{base}/{name}",
                "uid": status.st_uid,
                "mode": f"{mode:04o}",
                "private": mode & 0o077 == 0,
            }


def _guests(host: Host) -> t.Iterator[dict[str, t.Any]]:
    for guest in _libvirtd.guests(host):
        kib = int(_proc.status(host, guest.pid).get("HugetlbPages", "0 kB").split()[0])
        if kib:
            yield {"name": guest.name, "pid": guest.pid, "kib": kib}
