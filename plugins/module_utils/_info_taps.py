# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on TAP devices and bridges, and on the names that guests' definitions want, as tap_guard judges them."""

from __future__ import annotations

import typing as t

from . import _netdev, _tapguard
from ._host import HardeningError, Host
from ._infocontext import Context
from ._tapverdict import CONFLICTS

_TAPS = ("tap", "macvtap", "tun")
_MOST = 200


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``taps``; its keys are documented in hypervisor_info.

    :raises HardeningError: this process sees another network namespace than the host's, or no processes.
    """
    host = context.host
    devices = [device for device in (_netdev.device(host, name) for name in _netdev.names(host)) if device]
    taps = [device for device in devices if device.kind in _TAPS]
    unread: list[dict[str, str]] = []
    state = _observed(host, taps, unread)
    judged = _tapguard.result(state, _tapguard.Plan())["interfaces"]
    wanted = [entry for entry in judged if entry["domain"]]
    return {
        "interfaces": [_interface(device, state) for device in taps][:_MOST],
        "interfaces_omitted": max(0, len(taps) - _MOST),
        "bridges": [
            {"name": device.name, "ports": [port.name for port in devices if port.bridge == device.name]}
            for device in devices
            if device.kind == "bridge"
        ],
        "wanted": None if unread else [_wanted(entry) for entry in sorted(wanted, key=_conflicts_first)[:_MOST]],
        "wanted_omitted": max(0, len(wanted) - _MOST),
        "unread": unread,
    }


def _observed(host: Host, taps: t.Sequence[_netdev.Device], unread: list[dict[str, str]]) -> _tapguard.State:
    """What tap_guard sees of all TAP devices and all guests; of the devices alone where definitions cannot be had."""
    names = tuple(device.name for device in taps)
    try:
        return _tapguard.observe(host, _tapguard.Wanted(names=names, domains=("all",)))
    except HardeningError as error:
        unread.append({"path": "/etc/libvirt/qemu", "reason": str(error)})
        return _tapguard.observe(host, _tapguard.Wanted(names=names))


def _interface(device: _netdev.Device, state: _tapguard.State) -> dict[str, t.Any]:
    scene = state.scene
    taken_as_it_is = any(claim.name == device.name and not claim.managed for claim in (*state.claims, *state.others))
    return {
        "name": device.name,
        "kind": device.kind,
        "persistent": device.persistent,
        "owner": device.owner,
        "group": device.group,
        "multi_queue": device.multi_queue,
        "bridge": device.bridge,
        "held_by": [
            {"pid": holder.pid, "comm": holder.comm, "guest": scene.guests.get(holder.pid, "")}
            for holder in scene.holding(device)
        ],
        "reserved_for_guest": taken_as_it_is,
        "stale": device.kind == "tap" and device.persistent and not scene.perhaps_held(device) and not taken_as_it_is,
    }


def _wanted(entry: dict[str, t.Any]) -> dict[str, t.Any]:
    conflict = entry["verdict"] in CONFLICTS
    return {
        "name": f"{entry['domain']}: {entry['name']}",
        "interface": entry["name"],
        "guest": entry["domain"],
        "verdict": entry["verdict"],
        "conflict": conflict,
        "reason": entry["reason"] if conflict else "",
    }


def _conflicts_first(entry: dict[str, t.Any]) -> tuple[bool, str, str]:
    return (entry["verdict"] not in CONFLICTS, entry["domain"], entry["name"])
