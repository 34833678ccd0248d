# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools of huge pages with their hugetlbfs mounts: the room of the module hugetlbfs."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from . import _hugemounts, _hugepages, _hugeunits, _libvirtd, _mountinfo, _units
from ._host import HardeningError, Host
from ._hugepages import PoolError, Reservation, label
from ._hugewanted import Entry, Wanted
from ._journal import Journal

__all__ = ["Wanted", "apply", "check", "observe", "plan", "result"]

_AT_BOOT = (
    "Memory is in one piece only early at boot: with allow_partial and persist, what is there now is kept and the next "
    "boot asks for all."
)


@dataclass(frozen=True)
class State:
    """``ids``: user or group name -> its number, None for an unknown one, as ("user", NAME) and ("group", NAME).

    ``places``: by mount point, and whether it is to be absent. ``asked``: file of sysfs -> the number of pages that it
    was last asked for since boot, where that is of interest. ``stale``: the daemon that runs was started before a mount
    changed. ``holders``: the guests with huge pages.
    """

    pools: t.Mapping[int, _hugepages.Pool]
    places: t.Mapping[tuple[str, bool], _hugemounts.Place]
    ids: t.Mapping[tuple[str, str], int | None]
    available: int
    asked: t.Mapping[str, int]
    boot: _units.Boot
    units: tuple[_units.Change, ...]
    layout: _libvirtd.Layout
    stale: bool
    holders: tuple[str, ...]
    guests_pending: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """``short``: what the kernel could not give, in words; ``daemon``: the one that runs, by ``Layout.process``."""

    entries: tuple[Entry, ...]
    reservations: tuple[Reservation, ...]
    steps: tuple[_hugemounts.Step, ...]
    units: tuple[_units.Change, ...]
    short: tuple[str, ...]
    wanted: Wanted
    daemon: str

    @property
    def changes(self) -> tuple[Reservation | _hugemounts.Step | _units.Change, ...]:
        return (*self.reservations, *self.steps, *self.units)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.short

    @property
    def diff(self) -> list[dict[str, str]]:
        pools = [(f"{change.before} {change.where}", f"{change.wanted} {change.where}") for change in self.reservations]
        tables = [("huge pages", pools), ("hugetlbfs", [step.lines for step in self.steps])]
        return [_diff(title, lines) for title, lines in tables if lines] + [change.diff for change in self.units]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the pools, the mounts, what the next boot makes of them, and what the daemon and the guests know.

    :raises PoolError: the pools that are wanted make no sense by themselves, or a unit is in the way.
    """
    entries = wanted.entries
    mounts = _mountinfo.visible(_mountinfo.read(host, 1))
    places = {(entry.path, entry.absent): _hugemounts.place(host, mounts, entry) for entry in entries if entry.path}
    ids = _ids(host, entries)
    boot = _units.boot(host)
    files = _files(host, wanted, places, ids) if wanted.persist and boot.init == "systemd" else ()
    layout = _libvirtd.layout(host)
    guests = _libvirtd.guests(host)
    return State(
        pools=_hugepages.read(host),
        places=places,
        ids=ids,
        available=_hugepages.available(host),
        asked=_asked(host) if wanted.allow_partial else {},
        boot=boot,
        units=_units.changes(host, files),
        layout=layout,
        stale=_is_stale(host, layout),
        holders=tuple(guest.name for guest in guests if _hugepages.has_pages(host, guest.pid)),
        guests_pending=tuple(guest.name for guest in guests if _is_outside(host, guest.pid, mounts, entries)),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What to change.

    :raises PoolError: what is wanted cannot be, or would take something away from guests.
    :raises NoMechanism: ``persist`` with an init other than systemd.
    """
    entries = wanted.entries
    if wanted.persist:
        state.boot.require_systemd(
            "reserve the pages on the kernel's command line (hugepagesz=, hugepages=) and mount them by fstab(5)"
        )
    for entry in entries:
        _refuse_unknown(state, entry)
    reservations, short = _reservations(state, wanted)
    steps = [
        step for entry in entries if entry.absent for step in _hugemounts.absent(entry, state.places[entry.path, True])
    ]
    replaced = {step.path for step in steps}
    for entry in entries:
        if entry.path and not entry.absent:
            found = state.places[entry.path, False]
            root = _effective(entry, found, state.ids)
            users = {user: state.ids["user", user] for user in entry.delegate or ()}
            steps += _hugemounts.present(entry, found, root, users, replaced=entry.path in replaced)
    return Plan(entries, reservations, tuple(steps), state.units, short, wanted, state.layout.process)


def check(host: Host, plan: Plan) -> None:
    """See whether the units could be written. Changes nothing."""
    _units.check(host, plan.units)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Reserve, mount, write the units; on an error put back what was reserved and mounted.

    :raises PoolError: the kernel gave fewer pages than wanted, or refused a mount.
    """
    undo: list[t.Callable[[], None]] = []
    try:
        for change in plan.reservations:
            undo.append(_put_back(host, change, journal))
            got = _hugepages.reserve(host, change, journal)
            if got != change.wanted and not plan.wanted.allow_partial:
                _refuse_partial(change, got)
        for step in plan.steps:
            back = _hugemounts.take(host, step, journal, plan.daemon)
            undo += [back] if back else []
        _units.apply(host, plan.units, journal)
    except BaseException:
        for function in reversed(undo):
            try:
                function()
            except (HardeningError, OSError):  # the first error is the one to tell
                continue
        raise


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    restart = state.stale or (state.layout.active and any(step.news_to_libvirt for step in plan.steps))
    # What was asked for in this very run is seen as short only now.
    short = _reservations(state, plan.wanted)[1] or plan.short
    reboot = bool(short) and plan.wanted.persist
    return {
        "pools": [_shown(state, entry) for entry in plan.entries],
        "shortages": list(short),
        "reboot_required": reboot,
        "reboot_reason": " ".join(short) if reboot else "",
        "restart_required": restart,
        "restart_units": sorted(state.layout.restart_units) if restart else [],
        "guests_pending": list(state.guests_pending),
    }


def _ids(host: Host, entries: t.Iterable[Entry]) -> dict[tuple[str, str], int | None]:
    users = {name for entry in entries for name in (entry.owner, *(entry.delegate or ())) if name}
    groups = {entry.group for entry in entries if entry.group}
    found = {("user", name): int(name) if name.isdigit() else host.uid(name) for name in users}
    return {**found, **{("group", name): int(name) if name.isdigit() else host.gid(name) for name in groups}}


def _effective(entry: Entry, found: _hugemounts.Place, ids: t.Mapping[tuple[str, str], int | None]) -> _hugemounts.Root:
    return _hugemounts.effective(entry, found, ids.get(("user", entry.owner)), ids.get(("group", entry.group)))


def _files(
    host: Host,
    wanted: Wanted,
    places: t.Mapping[tuple[str, bool], _hugemounts.Place],
    ids: t.Mapping[tuple[str, str], int | None],
) -> t.Iterator[_units.File]:
    """What has to be on the disk for the next boot."""
    for entry in wanted.entries:
        if entry.reservations:
            pages = {} if entry.absent else entry.reservations
            yield from _hugeunits.reservations(host, entry.size, pages, all_or_fail=not wanted.allow_partial)
        if not entry.path:
            continue
        found = places[entry.path, entry.absent]
        if not entry.absent:
            yield _hugeunits.mount(host, entry.path, _effective(entry, found, ids).options)
            if entry.delegate is not None:
                yield _hugeunits.delegate(entry.path, entry.delegate)
        elif (entry.path, False) not in places and (found.root is None or found.root.size == entry.size):
            yield from _hugeunits.no_mount(host, entry.path)
            yield _hugeunits.delegate(entry.path, ())


def _refuse_unknown(state: State, entry: Entry) -> None:
    """Refuse a size, node, user or group that this host does not have."""
    if entry.size not in state.pools:
        known = ", ".join(map(label, sorted(state.pools))) or "none at all"
        raise PoolError(f"size: this kernel has no huge pages of {label(entry.size)} here; it has {known}.")
    nodes = state.pools[entry.size].nodes
    for node in entry.reservations:
        if node is not None and node not in nodes:
            raise PoolError(f"pages_per_node: no node {node} has memory here; of those, there is {sorted(nodes)}.")
    users = [("user", name) for name in (entry.owner, *(entry.delegate or ()))]
    for kind, name in (*users, ("group", entry.group)):
        if name and state.ids[kind, name] is None:
            raise PoolError(f"{entry.path}: this host has no {kind} {name!r}. Create it first, or give its number.")


def _reservations(state: State, wanted: Wanted) -> tuple[tuple[Reservation, ...], tuple[str, ...]]:
    """What to ask the kernel for, and what is short and not asked for now, in words."""
    changes: list[Reservation] = []
    short: list[str] = []
    left = state.available
    for entry in wanted.entries:
        pool = state.pools[entry.size]
        for node, pages in entry.reservations.items():
            now = pool.total if node is None else pool.nodes[node]
            change = Reservation(entry.size, node, now.pages, pages)
            if pages == now.pages:
                continue
            _hugepages.refuse_in_use(pool, change, state.holders)
            more = max(0, pages - now.pages) * entry.size
            if more > left:
                reason = f"{change}: that takes {more >> 10} MiB more, and MemAvailable is {left >> 10} MiB."
                if not wanted.allow_partial:
                    raise PoolError(f"{reason} Free memory, or ask for less. {_AT_BOOT}", got=now.pages, wanted=pages)
                short.append(reason)
            elif state.asked.get(change.path) == pages:
                short.append(f"{change}: the kernel could not give more when it was asked since this boot.")
            else:
                left -= more
                changes.append(change)
    return tuple(changes), tuple(short)


def _refuse_partial(change: Reservation, got: int) -> None:
    raise PoolError(
        f"The kernel gave {got} of {change.wanted} {change.where}, so the pool is put back to {change.before}. Memory "
        "is too full or too scattered. Stop guests, or write 1 to /proc/sys/vm/compact_memory, and try again. "
        f"{_AT_BOOT}",
        got=got,
        wanted=change.wanted,
        size=label(change.size),
    )


def _put_back(host: Host, change: Reservation, journal: Journal) -> t.Callable[[], None]:
    return lambda: _hugepages.put_back(host, change, journal)


def _asked(host: Host) -> dict[str, int]:
    """File of sysfs -> what it was last asked for since boot, by the journal."""
    match = re.search(r"^btime ([0-9]+)$", host.text("/proc/stat"), re.MULTILINE)
    entries = Journal(host, by="").since(int(match[1]) if match else 0)
    return {entry.target: entry.after for entry in entries if entry.target.startswith(("/sys/kernel", "/sys/devices"))}


def _is_stale(host: Host, layout: _libvirtd.Layout) -> bool:
    """Whether a mount was changed under the daemon that runs: it looks for them once, at its start (virfile.c).

    The journal tells, for the mount itself does not: nothing in it is older than its last change by libvirt.
    """
    if layout.started is None:
        return False
    entries = Journal(host, by="").since(layout.started - 1)
    return any(_hugemounts.is_news(entry.target, entry.after, layout.process) for entry in entries)


def _is_outside(host: Host, pid: int, mounts: t.Mapping[str, _mountinfo.Mount], entries: t.Iterable[Entry]) -> bool:
    """Whether a guest cannot get at one of the mounts, now or when it is made.

    What is mounted below /dev reaches no guest by itself, for each has a /dev of its own; libvirt passes that on when
    it is needed, to guests that mounts reach (qemu_domain_namespace.c, qemuDomainNamespaceSetupPath).
    """
    paths = [entry.path for entry in entries if entry.path and not entry.absent]
    seen = _mountinfo.of_guest(host, pid) if paths else None
    if seen is None:
        return False
    reached = "/" in seen and seen["/"].master
    for path in paths:
        here, there = mounts.get(path), seen.get(path)
        if here and there and here.device == there.device:
            continue
        if not reached or (here and not _mountinfo.is_below(path, "/dev")):
            return True
    return False


def _shown(state: State, entry: Entry) -> dict[str, t.Any]:
    pool = state.pools[entry.size]
    shown: dict[str, t.Any] = {
        "size": label(entry.size),
        "pages": pool.total.pages,
        "free": pool.total.free,
        "in_use": pool.total.in_use,
        "pages_per_node": {str(node): count.pages for node, count in pool.nodes.items()},
    }
    if entry.path:
        root = state.places[entry.path, entry.absent].root
        shown.update(path=entry.path, mounted=bool(root and root.size == entry.size))
        if root and shown["mounted"]:
            shown.update(uid=root.uid, gid=root.gid, mode=f"{root.mode:04o}", base=f"{entry.path}/{_hugemounts.BASE}")
            if entry.delegate:
                shown["delegated"] = [f"{entry.path}/{user}" for user in entry.delegate]
    return shown


def _diff(title: str, lines: t.Sequence[tuple[str, str]]) -> dict[str, str]:
    before, after = ("".join(f"{line[side]}\n" for line in lines) for side in (0, 1))
    return {"before_header": title, "after_header": title, "before": before, "after": after}
