# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of rollback: what the journal kept returns, as far as nobody else has changed it since."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import _daemonunits, _history, _hugemounts, _journalled, _libvirtd, _mountinfo, _restart
from ._former import Change, FormerError
from ._formerfiles import content
from ._history import History, SelectionError
from ._host import HardeningError, Host, HostError
from ._virconf import Document, VirConfError

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal
    from ._libvirtd import Layout, Loading

# A role -> the modules by which it changes a host.
ROLES: dict[str, tuple[str, ...]] = {
    "hypervisor_daemon": ("libvirt_conf", "libvirt_permissions", "libvirt_sockets"),
    "hypervisor_hugepages": ("hugetlbfs",),
    "hypervisor_kernel": ("kernel_settings",),
    "hypervisor_launchers": ("tap_device",),
    "hypervisor_mac": ("apparmor_local", "guest_access", "selinux_local"),
    "hypervisor_migration": ("migration_gate", "tls_credentials"),
    "hypervisor_mounts": ("mount_propagation",),
    "hypervisor_qemu": ("qemu_conf",),
    "hypervisor_taps": ("tap_guard",),
}

# Where files lie -> the command by which what reads them reads them again.
_READERS = (
    ("/etc/systemd/system/", ("systemctl", "daemon-reload")),
    ("/etc/apparmor.d/local/", ("systemctl", "reload", "apparmor.service")),
)


@dataclass(frozen=True)
class Wanted:
    """The options of the module: ``everything``, or what ``roles`` and ``since`` agree on. ``overwrite``: targets."""

    everything: bool = False
    roles: t.Sequence[str] = ()
    since: str = ""
    overwrite: t.Sequence[str] = ()

    @property
    def modules(self) -> frozenset[str] | None:
        """The modules whose changes are to be taken back, None for all."""
        return frozenset(name for role in self.roles for name in ROLES[role]) if self.roles else None


@dataclass(frozen=True)
class State:
    """``readers`` and ``loading``: by the files of libvirt's daemons that are in the journal; ``stale``: a mount was
    changed under the one that drives QEMU, which has ``layout``; ``reached``: guests that see what the host mounts."""

    histories: tuple[History, ...]
    layout: Layout
    readers: t.Mapping[str, Layout] = field(default_factory=dict)
    loading: t.Mapping[str, Loading] = field(default_factory=dict)
    stale: bool = False
    reached: tuple[str, ...] = ()


@dataclass(frozen=True)
class Left:
    """A target that stays as it is, and why."""

    target: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """``changes`` in the order in which they are to be made, the last change of the past first."""

    changes: tuple[Change, ...]
    left: tuple[Left, ...]
    reached: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        alone = tuple(f"{one.target} stays as it is: {one.reason}." for one in self.left)
        return (*alone, *self._unreached())

    @property
    def diff(self) -> list[dict[str, str]]:
        shown = []
        for change in self.changes:
            before, after = change.kind.diff(change)
            head = {"before_header": change.target, "after_header": change.target}
            shown.append({**head, "before": before, "after": after})
        return shown

    def _unreached(self) -> t.Iterator[str]:
        names = ", ".join(self.reached)
        if names and any(change.kind.name == "propagation" for change in self.changes):
            yield f"What is mounted from now on may not reach these guests, which were started to see it: {names}."


def observe(host: Host, wanted: Wanted) -> State:
    """Read the journal, what has become of each of its targets, and what the daemon has loaded."""
    histories = tuple(_journalled.histories(host))
    layout = _libvirtd.layout(host)
    entries = [entry for history in histories for entry in history.entries]
    propagates = any(history.kind.name == "propagation" for history in histories)
    readers = _readers(host, layout, [history.target for history in histories])
    return State(
        histories=histories,
        layout=layout,
        readers=readers,
        loading=dict(_loading(host, readers, {history.target: history.now for history in histories})),
        stale=any(_hugemounts.is_news(entry.target, entry.after, layout.process) for entry in entries),
        reached=tuple(_reached(host)) if propagates else (),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What returns, and what stays because somebody else has changed it.

    :raises SelectionError: nothing, or something that does not exist, is selected.
    """
    _refuse(state, wanted)
    since = _history.beginning(wanted.since) if wanted.since else ""
    returning: list[Change] = []
    left: list[tuple[Change, str]] = []
    for history in state.histories:
        first = _first(history, wanted, since)
        if first is None:
            continue
        change = Change(history.target, history.kind, history.now, first.before, first)
        reason = "" if change.is_done else _objection(history, first, wanted, since)
        if reason:
            left.append((change, reason))
        else:
            returning.append(change)
    # What is inside comes first: a directory goes if all that is in it does.
    for change in sorted(returning, key=lambda change: change.path, reverse=True):
        if change.goes and not change.is_done:
            reason = _hindrance(change, returning, left)
            if reason:
                returning.remove(change)
                left.append((change, reason))
    changes = [change for change in returning if not change.is_done]
    return Plan(
        changes=tuple(sorted(changes, key=lambda change: change.first.name, reverse=True)),
        left=tuple(Left(change.target, reason) for change, reason in left),
        reached=state.reached,
    )


def check(host: Host, plan: Plan) -> None:
    """Ask libvirt about its files, and look whether guests use what would go. Changes nothing.

    :raises HardeningError: a former state would keep the daemon down, cannot be written, or something is in use.
    """
    for change in plan.changes:
        change.kind.check(host, change)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Put everything back, the journal before each; then have what reads the files read them again.

    :raises FormerError: something could not be put back, and why.
    """
    readers = _readers(host, _libvirtd.layout(host), [change.target for change in plan.changes])
    for change in plan.changes:
        if change.target in readers:
            _prove(host, readers[change.target], journal, change.target, change.now)
    for change in plan.changes:
        try:
            change.kind.put_back(host, change, journal)
        except (HardeningError, OSError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise FormerError(
                f"{change.target} could not be put back: {words.rstrip('.')}. What is before it in the order of the "
                "changes, the latest first, is put back already; the next run goes on from here."
            ) from error
    paths = [change.path for change in plan.changes]
    for place, command in _READERS:
        if any(path.startswith(place) for path in paths):
            done = host.run(command)
            if done.rc != 0:
                raise HostError(f"{' '.join(command)} failed: {(done.err or done.out).strip()}")
    for change in plan.changes:
        if change.target in readers:
            _prove(host, readers[change.target], journal, change.target, change.wanted)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The return values; before the change is made (check mode), those of the time after it."""
    loading = dict(state.loading)
    now = {history.target: history.now for history in state.histories}
    for change in plan.changes:
        path = change.target
        if path in loading and not change.kind.is_same(change.wanted, now[path]):
            loading[path] = loading[path].after(_digest(change.wanted))
    units = {unit for one in loading.values() for unit in one.restart_units}
    news = any(change.kind.is_news(change) for change in plan.changes)
    if state.stale or (state.layout.active and news):
        units |= {*state.layout.restart_units}
    return {
        "put_back": [
            {
                "target": change.target,
                "kind": change.kind.name,
                "by": _journalled.module(change.first),
                "entry": change.first.name,
                "time": change.first.time,
            }
            for change in plan.changes
        ],
        "left_alone": [vars(one) for one in plan.left],
        "restart_required": bool(units),
        "restart_units": sorted(units),
        "guests_pending": sorted({name for one in loading.values() for name in one.guests_pending}),
    }


def _refuse(state: State, wanted: Wanted) -> None:
    if wanted.everything == bool(wanted.roles or wanted.since):
        raise SelectionError(
            "Say what to put back: roles, since, or both for what they agree on; or all. Nothing was changed."
        )
    for role in wanted.roles:
        if role not in ROLES:
            raise SelectionError(f"roles: {role} is none of {', '.join(ROLES)}. Nothing was changed.")
    known = {history.target for history in state.histories}
    for target in wanted.overwrite:
        if target not in known:
            raise SelectionError(
                f"overwrite: the journal of this host has no {target}. Name a target as left_alone does. Nothing was "
                "changed."
            )


def _first(history: History, wanted: Wanted, since: str) -> Entry | None:
    """The first entry that is to be taken back: its former state is to return."""
    standing = history.standing(since)
    return next((entry for entry in standing if _is_meant(entry, wanted)), None)


def _is_meant(entry: Entry, wanted: Wanted) -> bool:
    return wanted.modules is None or _journalled.module(entry) in wanted.modules


def _is_anothers(entry: Entry, wanted: Wanted) -> bool:
    half = _journalled.module(entry) == "rollback" and not entry.undoes  # on the way to a former state
    return not half and not _is_meant(entry, wanted)


def _objection(history: History, first: Entry, wanted: Wanted, since: str) -> str:
    """Why a former state must not return: something would be lost that nobody asked to take back. "" for nothing."""
    if history.kind.name == _journalled.UNKNOWN:
        return "this version of the collection does not know how to put it back"
    stuck = history.kind.stuck(history.target, history.now)
    if stuck:
        return stuck
    if history.target in wanted.overwrite:
        return ""
    departure = history.departure(first)
    if departure:
        entry, after = departure
        who = f"it is not what {_journalled.module(entry)} made it at {entry.time}"
        return f"{who}, somebody else has changed it {f'before {after.time}' if after else 'since'}"
    later = [entry for entry in history.standing(since) if entry.name > first.name and _is_anothers(entry, wanted)]
    return f"{_journalled.module(later[-1])} has changed it as well, at {later[-1].time}" if later else ""


def _hindrance(change: Change, returning: t.Sequence[Change], left: t.Sequence[tuple[Change, str]]) -> str:
    """Why what was not there before cannot go: something is in it that stays. "" for nothing."""
    staying = [other.path for other, _reason in left if _mountinfo.is_below(other.path, change.path)]
    if change.path and staying:
        return f"it holds {', '.join(staying)}, which stays"
    gone = {other.path for other in returning if other.goes and other is not change}
    return change.kind.keeps(change.target, change.now, gone)


def _readers(host: Host, main: Layout, targets: t.Collection[str]) -> dict[str, Layout]:
    """Which daemon reads each of the files when it starts, those that one reads."""
    if main.kind == "none":
        return {}
    found = {path: main for path in _restart.files(main) if path in targets}
    for path in targets:
        directory, _slash, file = path.rpartition("/")
        name = _daemonunits.reader(main.kind, file) if directory == _restart.DIRECTORY and path not in found else ""
        reader = _libvirtd.daemon(host, name) if name else None
        if reader and reader.kind != "none":
            found[path] = reader
    return found


def _loading(
    host: Host, readers: t.Mapping[str, Layout], now: t.Mapping[str, t.Any]
) -> t.Iterator[tuple[str, Loading]]:
    from ._journal import Journal

    for path, reader in readers.items():
        try:
            digest = _digest(now[path])
        except VirConfError:  # the daemon does not start with it, whatever is done here
            continue
        yield path, _libvirtd.loading(host, reader, Journal(host, by=""), path, digest)


def _reached(host: Host) -> t.Iterator[str]:
    for guest in _libvirtd.guests(host):
        seen = _mountinfo.of_guest(host, guest.pid)
        if seen and "/" in seen and seen["/"].master:
            yield guest.name


def _prove(host: Host, layout: Layout, journal: Journal, path: str, state: t.Any) -> None:
    try:
        _libvirtd.prove(host, layout, journal, path, _digest(state))
    except VirConfError:  # what the daemon would not start with, it has not loaded
        return


def _digest(state: t.Any) -> str:
    return _libvirtd.meaning_digest(Document.parse(b"" if state is None else content(state)))
