# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a group can take each other's guests. Nothing here reads a file, a clock or the network.

Hosts are put together by the value that they have; only values are compared with each other, never hosts, so that the
work grows with the number of hosts and not with its square. What is not known is unknown, and never equal.
"""

from __future__ import annotations

import itertools
import typing as t
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityfact import (
    Fact,
    Facts,
    Need,
    Needs,
    Unknown,
    at,
    guests,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityneeds import NEEDS, about
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritynetwork import NETWORK
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityvalues import VALUES
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import SEVERITIES

FACTS: tuple[Fact, ...] = (*VALUES, *NETWORK)
AHEAD_S = 300
"""How far a host's clock may be ahead of the controller's."""
MOST_VALUES = 30
"""Of so many different values each is compared with each, of more only with the one that most hosts have."""
MOST_NEEDS = 200
"""As many different needs of guests are compared, those of most hosts first; the others are unknown."""
MOST_GUESTS = 20
"""As many guests are named in a finding; all are counted."""

Json = dict[str, t.Any]
Label = t.Any


@dataclass
class Member:
    """What of a host's facts is compared. A value that is not known is the reason, as Unknown."""

    name: str
    guests: list[str]
    values: list[t.Any] = field(default_factory=list)
    needs: list[t.Any] = field(default_factory=list)
    offers: list[t.Any] = field(default_factory=list)


@dataclass
class Finding:
    """What was found of a fact, and for the matrix the labels of hosts as source and as destination."""

    told: Json
    sources: dict[str, Label] = field(default_factory=dict)
    destinations: dict[str, Label] = field(default_factory=dict)
    breaks: Callable[[Label, Label], bool] = lambda _source, _destination: False
    unknown_sources: frozenset[str] = frozenset()
    unknown_destinations: frozenset[str] = frozenset()


class Reader:
    """Reads hosts one by one and keeps equal values as one object."""

    def __init__(self, now: float, max_age: float) -> None:
        self.now, self.max_age = now, max_age
        self.same: dict[t.Any, t.Any] = {}

    def member(self, name: str, facts: Facts) -> Member:
        """:raises Unknown: the facts are not fresh, or libvirt is not there."""
        self._fresh(facts)
        if at(facts, "libvirt", "installed") is not True:
            raise Unknown("libvirt is not installed")
        found = Member(name, guests(facts))
        found.values = [self._kept(fact.read, facts, self.now) for fact in FACTS]
        found.needs = [self._kept(need.needs, facts) for need in NEEDS]
        found.offers = [self._kept(need.offers, facts) for need in NEEDS]
        return found

    def _kept(self, read: Callable[..., t.Any], *given: t.Any) -> t.Any:
        try:
            found = read(*given)
            if isinstance(found, dict):
                return {self.same.setdefault(key, key): names for key, names in found.items()}
            return self.same.setdefault(found, found)
        except Unknown as error:
            return error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return Unknown(f"the facts are not what hypervisor_info returns ({error})")

    def _fresh(self, facts: Facts) -> None:
        moment = at(facts, "host", "time")
        if isinstance(moment, bool) or not isinstance(moment, (int, float)):
            raise Unknown("the facts do not tell when they were collected")
        age = self.now - moment
        if age > self.max_age:
            raise Unknown(f"the facts are {_span(age)} old, and may be {_span(self.max_age)}")
        if age < -AHEAD_S:
            raise Unknown(f"the facts are {_span(-age)} from the future: the clocks of host and controller differ")


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.0f} h"
    )


def members(
    hosts: Mapping[str, t.Any], now: float, max_age: float, plain: Callable[[t.Any], t.Any] = lambda facts: facts
) -> tuple[list[Member], dict[str, str]]:
    """What is compared of each host, and why there is nothing of others.

    :param hosts: name -> facts; a text is the reason why there are none. They are taken one by one.
    :param plain: makes facts what JSON has.
    """
    reader = Reader(now, max_age)
    found, unknown = [], {}
    for name in sorted(hosts):
        facts = hosts[name]
        try:
            if not isinstance(facts, dict):
                raise Unknown(facts if isinstance(facts, str) and facts else "no facts")
            found.append(reader.member(name, plain(about(facts))))
        except Unknown as error:
            unknown[name] = str(error)
        except (RecursionError, TypeError) as error:
            # One hostile host costs the others nothing.
            unknown[name] = f"the facts are not what hypervisor_info returns ({error})"
    return found, unknown


def findings(found: list[Member]) -> list[Finding]:
    """All that is different and matters, or is not known; the gravest first."""
    results: list[Finding] = []
    for number, fact in enumerate(FACTS):
        results += _of_values(fact, {one.name: one.values[number] for one in found}, found)
    for number, need in enumerate(NEEDS):
        results += _of_needs(need, number, found)
    return sorted(results, key=lambda one: (one.told["state"] == "unknown", SEVERITIES.index(one.told["severity"])))


def _told(fact: Fact | Need, state: str, **more: t.Any) -> Json:
    same = {"id": fact.id, "fact": fact.title, "severity": fact.severity, "libvirt": fact.libvirt, "state": state}
    return {**same, "remedy": fact.remedy, **more}


def _unknown(fact: Fact | Need, sources: Mapping[str, Unknown], destinations: Mapping[str, Unknown]) -> list[Finding]:
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for name, error in sorted({**destinations, **sources}.items()):
        reasons[str(error)].append(name)
    if not reasons:
        return []
    told = _told(fact, "unknown", reasons=[{"reason": reason, "hosts": names} for reason, names in reasons.items()])
    told["odd"] = sorted({*sources, *destinations})
    return [Finding(told, unknown_sources=frozenset(sources), unknown_destinations=frozenset(destinations))]


def _of_values(fact: Fact, values: dict[str, t.Any], found: list[Member]) -> list[Finding]:
    not_known = {name: value for name, value in values.items() if isinstance(value, Unknown)}
    known: dict[str, Hashable] = {name: value for name, value in values.items() if name not in not_known}
    results = _unknown(fact, not_known, not_known)
    if fact.relabel:
        known = fact.relabel(known)
    classes: defaultdict[Hashable, list[str]] = defaultdict(list)
    for name, value in known.items():
        classes[value].append(name)
    order = sorted(classes, key=lambda value: -len(classes[value]))
    effects: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for a, b in _pairs(order, classes):
        text = fact.breaks(order[a], order[b])
        if text:
            effects[text].append((a, b))
    if not effects:
        return results
    labels = {name: number for number, value in enumerate(order) for name in classes[value]}
    involved = {number for pairs in effects.values() for pair in pairs for number in pair}
    first = len(classes[order[0]]) > max((len(classes[value]) for value in order[1:]), default=0)
    breaks_itself = any((0, 0) in pairs for pairs in effects.values())
    odd = [number for number in sorted(involved) if number or not first or breaks_itself]
    moving = {number for pairs in effects.values() for number, _to in pairs}
    told = _told(
        fact,
        "differs",
        known=len(known),
        odd=sorted(name for number in odd for name in classes[order[number]]),
        values=[{"value": fact.shown(value), "hosts": classes[value]} for value in order],
        directions=[_direction(text, pairs) for text, pairs in effects.items()],
        guests=_named((one.name, one.guests) for one in found if labels.get(one.name) in moving),
    )
    memo: dict[tuple[int, int], bool] = {}

    def breaks(source: Label, destination: Label) -> bool:
        pair = (source, destination)
        if pair not in memo:
            memo[pair] = bool(fact.breaks(order[source], order[destination]))
        return memo[pair]

    return [Finding(told, labels, labels, breaks), *results]


def _pairs(order: list[Hashable], classes: Mapping[Hashable, list[str]]) -> Iterable[tuple[int, int]]:
    """The pairs of values to look at, a value with itself where several hosts have it."""
    numbers = range(len(order))
    for number in numbers:
        if len(classes[order[number]]) > 1:
            yield number, number
    if len(order) <= MOST_VALUES:
        yield from itertools.permutations(numbers, 2)
        return
    for number in numbers[1:]:
        yield 0, number
        yield number, 0


def _direction(text: str, pairs: list[tuple[int, int]]) -> Json:
    sources, destinations = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    return {"from": sources, "to": destinations, "happens": text}


def _named(hosts: Iterable[tuple[str, list[str]]]) -> Json:
    """Guests with their hosts: how many, and the first of them."""
    total = 0
    first: list[dict[str, str]] = []
    for host, names in hosts:
        total += len(names)
        first += [{"host": host, "guest": name} for name in names[: MOST_GUESTS - len(first)]]
    return {"total": total, "first": first}


def _of_needs(need: Need, number: int, found: list[Member]) -> list[Finding]:
    needs: dict[str, Needs] = {one.name: one.needs[number] for one in found if isinstance(one.needs[number], dict)}
    without = {one.name: one.needs[number] for one in found if isinstance(one.needs[number], Unknown)}
    users: defaultdict[Hashable, dict[str, list[str]]] = defaultdict(dict)
    for name, wanted in needs.items():
        for key, names in wanted.items():
            users[key][name] = names
    if not users:
        return _unknown(need, without, {})
    silent = {one.name: one.offers[number] for one in found if isinstance(one.offers[number], Unknown)}
    keys = sorted(users, key=lambda key: -len(users[key]))
    left_out = {
        name: Unknown(f"more than {MOST_NEEDS} different needs") for key in keys[MOST_NEEDS:] for name in users[key]
    }
    offers: defaultdict[Hashable, list[str]] = defaultdict(list)
    for one in found:
        if one.name not in silent:
            offers[one.offers[number]].append(one.name)
    failing = _failing(need, keys[:MOST_NEEDS], users, offers)
    results = _unknown(need, {**without, **left_out}, silent)
    if not failing:
        return results
    wants: defaultdict[str, set[int]] = defaultdict(set)
    lacks: defaultdict[str, list[int]] = defaultdict(list)
    for index, (key, texts) in enumerate(failing.items()):
        for name in users[key]:
            wants[name].add(index)
        for name in itertools.chain(*texts.values()):
            lacks[name].append(index)
    destinations = {name: tuple(lacks.get(name, ())) for names in offers.values() for name in names}
    told = _told(need, "differs", **_told_of_needs(need, failing, users, destinations))
    sources = {one.name: frozenset(wants.get(one.name, ())) for one in found}
    return [Finding(told, sources, destinations, lambda a, b: not a.isdisjoint(b)), *results]


def _failing(
    need: Need,
    keys: list[Hashable],
    users: Mapping[Hashable, dict[str, list[str]]],
    offers: Mapping[Hashable, list[str]],
) -> dict[Hashable, dict[str, list[str]]]:
    """Need -> what happens -> the hosts on which it does; a host by itself has nowhere to send a guest to."""
    failing: dict[Hashable, dict[str, list[str]]] = {}
    for key in keys:
        texts: defaultdict[str, list[str]] = defaultdict(list)
        for offer, names in offers.items():
            text = need.lacks(key, offer)
            if text:
                texts[text] += names
        there = {name for names in texts.values() for name in names}
        if len(there | set(users[key])) > 1 and there:
            failing[key] = dict(texts)
    return failing


def _told_of_needs(
    need: Need,
    failing: Mapping[Hashable, dict[str, list[str]]],
    users: Mapping[Hashable, dict[str, list[str]]],
    destinations: Mapping[str, tuple[int, ...]],
) -> Json:
    keys = list(failing)
    classes: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, label in sorted(destinations.items()):
        classes[label].append(name)
    order = sorted(classes, key=lambda label: -len(classes[label]))
    place = {label: number for number, label in enumerate(order)}
    concerned: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        for name, names in users[key].items():
            concerned[name] += [guest for guest in names if guest not in concerned[name]]
    directions = [
        {
            "need": need.shown(key),
            "from": sorted(users[key]),
            "to": sorted({place[destinations[name]] for name in names}),
            "happens": text,
        }
        for key in keys
        for text, names in failing[key].items()
    ]
    return {
        "known": len(destinations),
        "odd": sorted(name for name, label in destinations.items() if label),
        "values": [
            {"value": ", ".join(need.shown(keys[one]) for one in label) if label else "", "hosts": classes[label]}
            for label in order
        ],
        "directions": directions,
        "guests": _named(sorted(concerned.items())),
    }
