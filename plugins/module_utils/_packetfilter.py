# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a packet filter does with a new TCP connection to a port, as far as its rules can be followed.

A rule may or may not match, depending on the sender, the interface or what is not known here; then both ways are
followed, and the answer is the set of what can happen.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

ACCEPT, DROP, GOES_ON = "accept", "drop", "goes on"
OPEN, RESTRICTED, CLOSED = "open", "restricted", "closed"
_DEPTH = 32

# Whether a condition holds for a port: yes, no, or None for it depends.
Condition = t.Callable[[int], t.Optional[bool]]


def depends(port: int) -> bool | None:
    """A condition on what is not known here."""
    return None


@dataclass(frozen=True)
class Rule:
    """``action``: accept, drop, return, jump, goto; "" for a rule that only counts or logs."""

    conditions: tuple[Condition, ...]
    action: str
    target: str = ""


@dataclass(frozen=True)
class Chain:
    """``hook`` "" for a chain that is only jumped to; ``policy``: accept or drop. ``name`` is unique in its table."""

    name: str
    hook: str = ""
    policy: str = ACCEPT
    rules: list[Rule] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """``families``: the versions of IP whose packets pass it."""

    name: str
    families: frozenset[int]
    chains: dict[str, Chain] = field(default_factory=dict)

    def base(self, hook: str) -> list[Chain]:
        """The chains that packets enter by: ``input`` for those to the host itself, ``forward`` for those passed on."""
        return [chain for chain in self.chains.values() if chain.hook == hook]


def verdict(tables: t.Iterable[Table], family: int, port: int) -> str:
    """``open``: nothing hinders a connection; ``closed``: nothing comes through; ``restricted``: it depends.

    :param family: 4 or 6.
    """
    passed = (table for table in tables if family in table.families)
    outcomes = [_outcome(table, chain, port) for table in passed for chain in table.base("input")]
    # every base chain has to accept a packet
    if any(outcome == {DROP} for outcome in outcomes):
        return CLOSED
    return RESTRICTED if any(DROP in outcome for outcome in outcomes) else OPEN


def passes_on(tables: t.Iterable[Table], family: int) -> bool:
    """Whether a new connection between two other hosts is passed on that no rule names: by sender, interface or port.

    :param family: 4 or 6.
    """
    return all(
        (chain.policy if outcome == GOES_ON else outcome) == ACCEPT
        for table in tables
        if family in table.families
        for chain in table.base("forward")
        for outcome in [_unnamed(table, chain, 0)]
    )


def _unnamed(table: Table, chain: Chain, depth: int) -> str:
    """What becomes of a packet for which no condition holds."""
    for rule in chain.rules:
        if rule.conditions or not rule.action:
            continue
        if rule.action in (ACCEPT, DROP):
            return rule.action
        if rule.action == "return":
            return GOES_ON
        target = table.chains.get(rule.target)
        outcome = GOES_ON if target is None or depth > _DEPTH else _unnamed(table, target, depth + 1)
        if outcome != GOES_ON or rule.action == "goto":
            return outcome
    return GOES_ON


def _outcome(table: Table, chain: Chain, port: int) -> set[str]:
    found = _walk(table, chain, port, 0)
    return {chain.policy if one == GOES_ON else one for one in found}


def _walk(table: Table, chain: Chain, port: int, depth: int) -> set[str]:
    """What can become of a packet in a chain; GOES_ON: it comes back to where it jumped from."""
    found: set[str] = set()
    for rule in chain.rules:
        matches = _all(rule.conditions, port)
        if matches is False or not rule.action:
            continue
        outcome = _act(table, rule, port, depth)
        found |= {one for one in outcome if one is not None}
        if matches and None not in outcome:
            return found
    return found | {GOES_ON}


def _all(conditions: t.Iterable[Condition], port: int) -> bool | None:
    answers = [condition(port) for condition in conditions]
    return False if False in answers else None if None in answers else True


def _act(table: Table, rule: Rule, port: int, depth: int) -> set[str | None]:
    """What a matching rule leads to; None: to the next rule."""
    if rule.action in (ACCEPT, DROP):
        return {rule.action}
    if rule.action == "return":
        return {GOES_ON}
    target = table.chains.get(rule.target)
    if target is None or depth > _DEPTH:
        return {ACCEPT, DROP, None}
    inner = _walk(table, target, port, depth + 1)
    if rule.action == "goto":
        return {*inner}
    return {None if one == GOES_ON else one for one in inner}
