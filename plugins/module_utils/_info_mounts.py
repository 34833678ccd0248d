# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on mounts: whether what the host mounts later reaches its guests, and how guests' directories are mounted."""

from __future__ import annotations

import stat
import typing as t

from . import _libvirtd, _mountinfo, _mounts, _units
from ._host import HardeningError, Host
from ._infocontext import Context

_MOST = 40
_IMAGES = "/var/lib/libvirt/images"
_STATE = "/var/lib/libvirt"
# qemu.conf's default of memory_backing_dir is below the state directory (src/qemu/qemu_conf.c).
_RAM = "/var/lib/libvirt/qemu/ram"


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``mounts``; its keys are documented in hypervisor_info."""
    host = context.host
    wanted = _mounts.Wanted(persist=_units.boot(host).init == "systemd")
    state = _mounts.observe(host, wanted)
    root = state.mounts.get("/")
    plan = _mounts.plan(state, wanted) if root else None
    unread: list[dict[str, str]] = []
    return {
        "root": {"propagation": root.propagation if root else "", "shared": root.shared if root else None},
        "shared_after_boot": not state.units if wanted.persist else None,
        "private": [
            {"name": change.target, "propagation": change.before} for change in (plan.propagation if plan else ())
        ][:_MOST],
        "pinned": [
            {"name": spared.mount.target, "propagation": spared.mount.propagation, "reason": spared.reason}
            for spared in (plan.spared if plan else ())
        ][:_MOST],
        "guests": list(_guests(host, state)),
        "leftovers": _leftovers(context, unread),
        "directories": [_directory(host, state, purpose, path) for purpose, path in _directories(context)],
        "unread": unread,
    }


def _guests(host: Host, state: _mounts.State) -> t.Iterator[dict[str, t.Any]]:
    """The guests with a mount namespace of their own, and which of the host's mounts never reach them."""
    huge = [target for target, mount in state.mounts.items() if mount.fstype == "hugetlbfs"]
    for guest in _libvirtd.guests(host):
        seen = _mountinfo.of_guest(host, guest.pid)
        if seen is None:
            continue
        reached = "/" in seen and seen["/"].master
        missing = [target for target in huge if target not in seen and not (reached and target.startswith("/dev/"))]
        yield {
            "name": guest.name,
            "reached": bool(reached),
            "hugetlbfs_missing": missing,
        }


def _leftovers(context: Context, unread: list[dict[str, str]]) -> list[str] | None:
    try:
        found: list[str] = context.confinement["leftovers"][:_MOST]
    except HardeningError as error:
        unread.append({"path": _libvirtd.RUN_DIRECTORY, "reason": str(error)})
        return None
    return found


def _directories(context: Context) -> t.Iterator[tuple[str, str]]:
    settings = context.configuration("qemu.conf").settings
    backing = settings.get("memory_backing_dir")
    yield "state", _STATE
    yield "images", _IMAGES
    yield "memory_backing", backing if isinstance(backing, str) and backing.startswith("/") else _RAM


def _directory(host: Host, state: _mounts.State, purpose: str, path: str) -> dict[str, t.Any]:
    """A directory of guests' files, and the mount that holds it, where PID 1 lives."""
    plain = _mountinfo.normal(path)
    holder = next((above for above in (plain, *_mountinfo.ancestors(plain)) if above in state.mounts), "")
    mount = state.mounts.get(holder)
    flags = mount.flags.split(",") if mount else []
    status = host.stat_optional(f"/proc/1/root{plain}")
    return {
        "name": path,
        "purpose": purpose,
        "exists": status is not None,
        "uid": status.st_uid if status else None,
        "gid": status.st_gid if status else None,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}" if status else "",
        "world_writable": bool(status and status.st_mode & stat.S_IWOTH),
        "mount": holder,
        "fstype": mount.fstype if mount else "",
        "nodev": "nodev" in flags,
        "nosuid": "nosuid" in flags,
    }
