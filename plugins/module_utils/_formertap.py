# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TAP devices as a kind of target of the journal."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from . import _libvirtd, _netdev, _tapdevice
from ._former import Change, FormerError, Kind
from ._host import Host

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal

# What only a new device would have (_tapdevice.Entry.differences).
_FIXED = ("owner", "group", "multi_queue")


class Tap(Kind):
    """A TAP device; its state is what ``_netdev.device`` says of it."""

    name = "tap"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        found = _netdev.device(host, _name(entries[0].target))
        return asdict(found) if found else None

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        wanted = entry.after
        if then is None or wanted is None:
            return then is wanted
        return _is_fixed_alike(then, wanted) and wanted["bridge"] in ("", then["bridge"])

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        if one is None or other is None:
            return one is other
        return _is_fixed_alike(one, other) and bool(one["bridge"] == other["bridge"])

    def check(self, host: Host, change: Change) -> None:
        name = _name(change.target)
        _netdev.names(host)  # refuses to look at the devices of another network namespace
        bridge = change.wanted["bridge"] if change.wanted else ""
        if bridge and _netdev.device(host, bridge) is None:
            raise FormerError(f"{name} was a port of {bridge}, which this host does not have any more. Make it first.")
        if change.now is None:
            return
        guests = {guest.pid: f"guest {guest.name}" for guest in _libvirtd.guests(host)}
        holders = _netdev.holders(host, [_netdev.Device(**change.now)])[name]
        if holders or change.now["attached"]:
            who = ", ".join(guests.get(one.pid, f"process {one.pid} ({one.comm})") for one in holders)
            raise FormerError(
                f"{name} is held by {who or 'a process that does not show itself'} and stays as it is. Stop that first."
            )

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        now, wanted, last = change.now, change.wanted, journal.taking_back(change.first)
        anew = now is None or wanted is None or not _is_fixed_alike(now, wanted)
        if now is not None and anew:
            _netdev.remove(host, _netdev.Device(**now), last if wanted is None else journal)
        if wanted is None:
            return
        last.record_value(change.target, None if anew else now, _entry(wanted))
        if anew:
            _run(host, _tapdevice.Entry(**_entry(wanted)).make)
        port = ["master", wanted["bridge"]] if wanted["bridge"] else ["nomaster"]
        # The kernel says whether somebody holds a TAP only while its link is up.
        link = ["down"] if wanted["attached"] is None else ["up"]
        values = ["address", wanted["mac"], "mtu", str(wanted["mtu"])]
        _run(host, ["ip", "link", "set", "dev", wanted["name"], *values, *port, *link])

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (_shown(state) for state in (change.now, change.wanted))
        return before, after


def _name(target: str) -> str:
    return target.rpartition("/")[2]


def _is_fixed_alike(one: t.Any, other: t.Any) -> bool:
    return all(one[key] == other[key] for key in _FIXED)


def _entry(state: t.Any) -> dict[str, t.Any]:
    return {key: state[key] for key in ("name", *_FIXED, "vnet_hdr", "bridge")}


def _shown(state: t.Any) -> str:
    return f"{_tapdevice.Entry(**_entry(state))}\n".replace(" up\n", "\n") if state else ""


def _run(host: Host, command: t.Sequence[str]) -> None:
    done = host.run(command)
    if done.rc != 0:
        raise FormerError(f"{' '.join(command)} failed: {(done.err or done.out).strip()}")
    host.changed = True
