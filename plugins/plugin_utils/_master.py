# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The master: all findings of a fleet in one document, from which every report is made."""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _score, _waivers
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._audit import Evaluation
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import SCHEMA, SEVERITIES, STATES, visible
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import CATEGORIES, LEVELS, Rule

NO_FACTS = "no facts"
FAILING_STATES = ("fail", "pending", "unknown", "manual")
"""What ``fail_on`` may name beside severities."""

Json = dict[str, t.Any]


class SelectionError(ValueError):
    """A level, rule or category that there is not."""


@dataclass(frozen=True)
class Selection:
    """Which rules are judged. ``only`` and ``skip`` name them by id, code or category, ``disabled`` by id."""

    level: str = "hardened"
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()

    def rules(self, rules: Iterable[Rule]) -> list[Rule]:
        """The chosen ones in the order of their categories and codes.

        :raises SelectionError: what is named nowhere; all of it is told.
        """
        rules = list(rules)
        if self.level not in LEVELS:
            raise SelectionError(f"The level {self.level!r} is unknown; it is one of {', '.join(LEVELS)}.")
        known = {name for rule in rules for name in _names(rule)} | set(CATEGORIES)
        unknown = [
            f"{option}: there is no rule and no category {name!r}"
            for option, names in (("only", self.only), ("skip", self.skip))
            for name in names
            if name not in known
        ]
        ids = {rule.id for rule in rules}
        unknown += [f"disabled: there is no rule {id_!r}" for id_ in self.disabled if id_ not in ids]
        if unknown:
            raise SelectionError("\n".join(unknown))
        reached = LEVELS[: LEVELS.index(self.level) + 1]
        chosen = [
            rule
            for rule in rules
            if rule.level in reached
            and (not self.only or not _names(rule).isdisjoint(self.only))
            and _names(rule).isdisjoint(self.skip)
            and rule.id not in self.disabled
        ]
        return sorted(chosen, key=lambda rule: (CATEGORIES.index(rule.category), rule.code))

    def plain(self) -> Json:
        return {"only": list(self.only), "skip": list(self.skip), "disabled": list(self.disabled)}


def _names(rule: Rule) -> set[str]:
    return {rule.id, rule.code, rule.category}


def audit(
    hosts: Mapping[str, t.Any],
    rules: Iterable[Rule],
    selection: Selection,
    waivers: Iterable[_waivers.Waiver],
    now: datetime.datetime,
    collection: str,
    plain: Callable[[t.Any], t.Any] = lambda facts: facts,
) -> Json:
    """Judge each host by the rules.

    Hosts are taken one by one, so that a mapping may read them when asked. Equal parts of the result may be one and the
    same object: copy what you want to change.

    :param hosts: name -> facts; a text is the reason why there are none, as is None.
    :param now: with a time zone.
    :param plain: makes facts what JSON has: dictionaries, lists, text, numbers, booleans and None.
    :raises SelectionError: see :meth:`Selection.rules`.
    """
    chosen = selection.rules(rules)
    now = now.astimezone(datetime.UTC)
    book = _waivers.Book(waivers, now.date())
    evaluation = Evaluation(chosen)
    severities = {rule.id: rule.severity for rule in chosen}
    fixable = frozenset(rule.id for rule in chosen if rule.fixable_now)
    told = []
    for name in sorted(hosts):
        findings: list[Json] = []
        try:
            facts, reason = _facts(plain(hosts[name]))
            if facts is not None:
                findings = book.apply(name, evaluation.findings(name, facts))
        except RecursionError:
            # One hostile host costs the others nothing.
            facts, reason = None, "its facts are nested too deeply"
        if facts is None:
            told.append(_host(name, [], reason=reason, severities=severities, fixable=fixable))
            continue
        told.append(_host(name, findings, facts=facts, severities=severities, fixable=fixable))
    return {
        "schema": SCHEMA,
        "collection": collection,
        "generated": _iso(now),
        "level": selection.level,
        "selection": selection.plain(),
        "rules": {rule.id: dict(rule.text) for rule in chosen},
        "hosts": told,
        "counts": {state: sum(host["counts"][state] for host in told) for state in STATES},
        "score": _score.of_fleet(host["score"] for host in told),
        "waivers": book.report(severities.keys()),
        "comparison": None,
    }


def _facts(given: t.Any) -> tuple[Json | None, str]:
    """The facts, or why there are none. The module's whole result will do, too."""
    if isinstance(given, str):
        return None, given or NO_FACTS
    if not isinstance(given, dict) or not given:
        return None, NO_FACTS
    inner = given.get("hypervisor", given)
    if isinstance(inner, dict) and inner.get("host"):
        return inner, ""
    for key in ("msg", "reason"):
        if isinstance(given.get(key), str) and given[key]:
            return None, given[key]
    return None, "what was given for this host are no facts of hypervisor_info"


def _host(
    name: str,
    findings: list[Json],
    *,
    severities: Mapping[str, str],
    fixable: frozenset[str],
    facts: Json | None = None,
    reason: str = "",
) -> Json:
    counts = dict.fromkeys(STATES, 0)
    for finding in findings:
        counts[finding["state"]] += 1
    return {
        "name": name,
        "state": "not_audited" if facts is None else "audited",
        "reason": reason,
        "collected": facts and _collected(facts),
        "facts": {} if facts is None else _summary(facts),
        "findings": findings,
        "counts": counts,
        "score": _score.of_host(findings, severities, fixable),
    }


def _at(facts: t.Any, *path: str) -> t.Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts


def _collected(facts: Json) -> str | None:
    seconds = _at(facts, "host", "time")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 2**33:
        return None
    return _iso(datetime.datetime.fromtimestamp(int(seconds), datetime.UTC))


def _iso(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(facts: Json) -> Json:
    """What a report says of a host in a line; None where nobody knows."""
    guests = facts.get("guests")
    return {
        "os": _at(facts, "host", "os", "name") or _at(facts, "host", "os", "id"),
        "kernel": _at(facts, "host", "kernel"),
        "libvirt": _at(facts, "libvirt", "version"),
        "qemu": _at(facts, "libvirt", "qemu_version"),
        "guests": len(guests) if isinstance(guests, list) else None,
    }


def failures(master: Mapping[str, t.Any], fail_on: Iterable[str]) -> dict[str, list[str]]:
    """A line for each finding that falls short, by the name of its host; only hosts that fall short are in it.

    :param fail_on: severities, each for itself, whose rules must not fail; states in which no rule may be.
    :raises SelectionError: a word that is neither.
    """
    wanted = list(dict.fromkeys(fail_on))
    known = (*SEVERITIES, *FAILING_STATES)
    unknown = [word for word in wanted if word not in known]
    if unknown:
        raise SelectionError(f"fail_on: {', '.join(unknown)} is none of {', '.join(known)}.")
    if not wanted:
        return {}
    lines = {host["name"]: list(_failures(host, master["rules"], wanted)) for host in master["hosts"]}
    return {name: found for name, found in lines.items() if found}


def _failures(host: Json, rules: Mapping[str, Json], wanted: list[str]) -> t.Iterator[str]:
    if host["state"] != "audited":
        yield visible(f"{host['name']}: not audited: {host['reason']}")
    for finding in host["findings"]:
        rule = rules[finding["rule"]]
        if finding["state"] in wanted or (finding["state"] == "fail" and rule["severity"] in wanted):
            yield _line(host["name"], finding, rule)


def _line(host: str, finding: Mapping[str, t.Any], rule: Mapping[str, t.Any]) -> str:
    about = finding["object"]
    where = host if about["type"] == "host" else f"{host}: {about['type']} {about['name']}"
    text = f"{where}: {rule['code']} {finding['rule']} ({rule['severity']}): {finding['state']}"
    if finding["observed"] or finding["expected"]:
        text += f": observed {finding['observed'] or 'nothing'}, expected {finding['expected']}"
    return visible(f"{text}: {finding['reason']}" if finding["reason"] else text)
