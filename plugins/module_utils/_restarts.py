# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of several restarts: each of them by itself as _restart makes it, one after the other."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import _daemonunits, _restart
from ._host import Host
from ._libvirtd import LibvirtError

if t.TYPE_CHECKING:
    from ._journal import Journal

now = _restart.now


@dataclass(frozen=True)
class Wanted:
    """See ``_restart.Wanted``. ``units`` None: the daemon that drives QEMU.

    ``first_seen``: the processes before anything was done, by daemon; the first look fills it in.
    """

    since: int
    timeout: float
    units: t.Sequence[str] | None = None
    first_seen: dict[str, str] = field(default_factory=dict)

    @property
    def daemons(self) -> list[str]:
        """Their names, "" for the one that drives QEMU, each once.

        :raises LibvirtError: a unit is none of libvirt's daemons.
        """
        if self.units is None:
            return [""]
        names = [unit[: -len(".service")] if unit.endswith(".service") else unit for unit in self.units]
        strange = [name for name in names if name not in _daemonunits.DAEMONS]
        if strange:
            raise LibvirtError(
                f"units: {', '.join(strange)}: no such daemon of libvirt is known, and only its daemons are restarted "
                f"here. Nothing was done. Known are {', '.join(_daemonunits.DAEMONS)}."
            )
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class State:
    """That of each daemon, in the order of the units."""

    each: tuple[_restart.State, ...]


@dataclass(frozen=True)
class Plan:
    """That of each daemon, in the order of the units."""

    each: tuple[_restart.Plan, ...]

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(unit for plan in self.each for unit in plan.changes)

    @property
    def diff(self) -> t.Any:
        return self.each[0].diff if len(self.each) == 1 else [plan.diff for plan in self.each if plan.diff]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for plan in self.each for warning in plan.warnings)


def observe(host: Host, wanted: Wanted) -> State:
    """Each daemon and the guests, once no other run is restarting one."""
    found = tuple(_restart.observe(host, _one(wanted, name)) for name in wanted.daemons)
    for state in found:
        if state.layout.kind == "beside":
            wanted.first_seen.setdefault(state.layout.daemon, state.layout.process)
    return State(found)


def plan(state: State, wanted: Wanted) -> Plan:
    """What to restart; see ``_restart.plan``."""
    return Plan(tuple(_restart.plan(one, _one(wanted, name)) for one, name in zip(state.each, wanted.daemons)))


def check(host: Host, plan: Plan) -> None:
    """Make sure that no restart can do harm, before the first one."""
    for one in plan.each:
        _restart.check(host, one)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Restart one after the other; the first one that does not come up ends it, with its files put back."""
    done: list[str] = []
    for one in plan.each:
        if not one.changes:
            continue
        try:
            _restart.apply(host, one, journal)
        except LibvirtError as error:
            raise LibvirtError(str(error), **{**error.facts, "restarted": [*done, *one.changes]}) from None
        done += one.changes


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    guests = _restart.result(state.each[0], plan.each[0])["guests"] if plan.each else []
    return {"restarted": list(plan.changes), "rolled_back": False, "guests": guests}


def _one(wanted: Wanted, name: str) -> _restart.Wanted:
    return _restart.Wanted(wanted.since, wanted.timeout, name, wanted.first_seen.get(name, ""))
