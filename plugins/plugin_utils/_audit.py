# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on facts. Nothing here reads a file, a clock or the network: the same facts give the same findings.

What holds of an answer, in this order:

* it hangs on a section or a value that could not be read: unknown, in the words of the facts;
* it holds because there was nothing to look at: not applicable, unless the check says that absence is proof;
* otherwise it holds or does not.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._expected import ExpectedError, told
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import PROJECTIONS, Answer, QueryError
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import (
    PENDING,
    Check,
    Condition,
    Expression,
    Rule,
)

SURE_IN_PART = frozenset({"empty", "none_of", "subset_of"})
"""Operators that one element of a list breaks, whatever the others are."""
UNREAD = 3
"""Entries of ``unread`` in a reason."""
DECIDING = {"pending": "fail"}
"""The state of the checks that make a finding's, where it is another."""

Facts = Mapping[str, t.Any]
Finding = dict[str, t.Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a check. ``reason`` is why it is unknown or not applicable."""

    check: Check
    state: str
    observed: t.Any = None
    reason: str = ""
    assumed: str = ""


class Host:
    """The facts of one host, as expressions see them; an expression that is not about an object is asked once."""

    def __init__(self, name: str, facts: Facts) -> None:
        self.document: dict[str, t.Any] = {**facts, "object": None, "params": {}}
        self.object = {"type": "host", "name": name}
        self.broken = {section: value["error"] for section, value in facts.items() if _is_error(value)}
        self.answers: dict[str, Answer | str] = {}
        self.objects: dict[tuple[str, ...], dict[str, str]] = {}

    def about(self, kind: str, name: str, one: t.Any) -> dict[str, str]:
        """How findings name an object; its guest, where it belongs to one, is for waivers."""
        guest = one.get("guest") if isinstance(one, dict) else None
        key = (kind, name, guest) if isinstance(guest, str) else (kind, name)
        if key not in self.objects:
            self.objects[key] = dict(zip(("type", "name", "guest"), key, strict=False))
        return self.objects[key]

    def ask(self, expression: Expression) -> Answer | str:
        """The answer, or why there is none."""
        if not expression.roots.isdisjoint(("object", "params")):
            return self._ask(expression)
        text = expression.query.text
        if text not in self.answers:
            self.answers[text] = self._ask(expression)
        return self.answers[text]

    def _ask(self, expression: Expression) -> Answer | str:
        for section in sorted(expression.roots):
            if section in self.broken:
                return f"{section}: {self.broken[section]}"
            if self.document.get(section) is None and section != "object":
                return f"the facts have no {section}"
        try:
            return expression.query(self.document)
        except QueryError as error:
            return f"{expression.query.text}: {error}"

    def why(self, expression: Expression, nulls: Iterable[str]) -> str:
        """In words, what could not be read, and the reasons that the facts give for that."""
        text = f"could not be read: {', '.join(list(nulls)[:UNREAD])}"
        read = [self.document.get(section) for section in sorted(expression.roots)]
        listed = [section["unread"] for section in read if isinstance(section, dict) and "unread" in section]
        unread = [
            f"{entry.get('path')}: {entry.get('reason')}"
            for entries in listed
            for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, dict)
        ]
        about = [entry for entry in unread if entry.split(": ")[0] in text]
        told_of = "; ".join(about or (unread if len(unread) <= UNREAD else ()))
        return f"{text} ({told_of})" if told_of else text


def _is_error(value: t.Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and "error" in value


class Evaluation:
    """Evaluates rules host by host.

    A fleet has a million findings, most of them alike: all that they say, but for whom they are about, is kept once.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = list(rules)
        self.said: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}

    def findings(self, name: str, facts: Facts) -> list[Finding]:
        """All findings of a host, rule by rule and object by object in the order of their names."""
        host = Host(name, facts)
        return [finding for rule in self.rules for finding in self.of_rule(rule, host)]

    def of_rule(self, rule: Rule, host: Host) -> list[Finding]:
        """The findings of one rule: at least one."""
        document = host.document
        document["object"], document["params"] = None, rule.params
        state, reason = self.applies([condition for condition in rule.applies if not condition.when.of_object], host)
        if state:
            return [self.without_checks(rule, host.object, state, reason)]
        if rule.objects is None:
            return [self.of_object(rule, host, host.object)]
        objects = host.ask(rule.objects)
        if isinstance(objects, str):
            return [self.without_checks(rule, host.object, "unknown", objects)]
        if not isinstance(objects.value, list) and not objects.nulls:
            reason = host.why(rule.objects, [rule.objects.query.text])
            return [self.without_checks(rule, host.object, "unknown", reason)]
        about_object = [condition for condition in rule.applies if condition.when.of_object]
        findings = []
        listed = objects.value if isinstance(objects.value, list) else []
        for name, one in sorted(((_name(one), one) for one in listed), key=lambda pair: pair[0]):
            document["object"] = one
            about = host.about(rule.object_type, name, one)
            state, reason = self.applies(about_object, host)
            if state:
                findings.append(self.without_checks(rule, about, state, reason))
            else:
                findings.append(self.of_object(rule, host, about))
        if objects.nulls:
            # There may be more of them.
            reason = host.why(rule.objects, objects.nulls)
            findings.append(self.without_checks(rule, host.object, "unknown", reason))
        return findings or [self.without_checks(rule, host.object, "not_applicable", rule.none)]

    def applies(self, conditions: Iterable[Condition], host: Host) -> tuple[str, str]:
        """State and reason where the rule does not apply, or nobody knows; two empty texts where it does."""
        for condition in conditions:
            answer = host.ask(condition.when)
            if isinstance(answer, str):
                return "unknown", answer
            if answer.nulls or answer.value is None:
                return "unknown", host.why(condition.when, answer.nulls or [condition.when.query.text])
            if not isinstance(answer.value, bool):
                return "unknown", f"{condition.when.query.text}: is neither true nor false"
            if not answer.value:
                return "not_applicable", condition.otherwise
        return "", ""

    def of_object(self, rule: Rule, host: Host, about: dict[str, str]) -> Finding:
        """What the checks say of one object, or of the host."""
        outcomes = [outcome(check, host) for check in rule.checks]
        state = verdict(outcomes)
        decisive = [one for one in outcomes if one.state == DECIDING.get(state, state)]
        if state == "not_applicable":
            return self.without_checks(rule, about, state, decisive[0].reason)
        shown = [one for one in outcomes if one.state != "not_applicable"]
        if state == "pass" and not rule.manual:
            # One line of evidence will do.
            shown = decisive = decisive[:1]
        excerpts = [excerpt(one, host) for one in shown]
        key = (
            rule.id,
            state,
            *((id(one.check), one.state, frozen(one.observed), one.reason) for one in shown),
            *excerpts,
        )
        if key not in self.said:
            reason = "; ".join(dict.fromkeys(one.reason for one in decisive if one.reason))
            manual = bool(rule.manual) and state == "pass"
            self.said[key] = {
                "state": "manual" if manual else state,
                "pending": max((str(one.check.pending) for one in decisive), key=PENDING.index)
                if state == "pending"
                else None,
                "observed": _told_of(decisive, [_observed(one) for one in decisive]),
                "expected": _told_of(decisive, [one.check.expected.words for one in decisive]),
                "reason": rule.manual if manual else reason,
                "checks": [entry(one, text) for one, text in zip(shown, excerpts, strict=True)],
                "waiver": None,
            }
        return {"rule": rule.id, "object": about, **self.said[key]}

    def without_checks(self, rule: Rule, about: dict[str, str], state: str, reason: str) -> Finding:
        """Where no check was made, or none could tell anything."""
        key = (rule.id, state, reason)
        if key not in self.said:
            said = {"state": state, "pending": None, "observed": "", "expected": "", "reason": reason}
            self.said[key] = {**said, "checks": [], "waiver": None}
        return {"rule": rule.id, "object": about, **self.said[key]}


def frozen(value: t.Any) -> t.Any:
    """A key for a value of the facts: equal keys are the same in every report."""
    if isinstance(value, list):
        return (list, *map(frozen, value))
    if isinstance(value, dict):
        return (dict, *((key, frozen(one)) for key, one in value.items()))
    return (type(value), value)


def outcome(check: Check, host: Host) -> Outcome:
    """Whether a check holds."""
    answer = host.ask(check.query)
    if isinstance(answer, str):
        return Outcome(check, "unknown", reason=answer)
    query, value, assumed = check.query.query, answer.value, ""
    if value is None and not answer.nulls and check.unset:
        parent = host.ask(check.unset.parent)
        if isinstance(parent, Answer) and isinstance(parent.value, dict):
            value, assumed = check.unset.value, f"not set: {told(check.unset.value)} by {check.unset.source}"
    sure = not answer.nulls and value is not None and not (isinstance(value, list) and None in value)
    if not sure and not (check.expected.operator in SURE_IN_PART and query.node["type"] in PROJECTIONS and value):
        return Outcome(check, "unknown", value, host.why(check.query, answer.nulls or [query.text]))
    try:
        held = check.expected.holds(value)
    except ExpectedError as error:
        return Outcome(check, "unknown", value, f"{query.text}: {error}")
    if held and not sure:
        return Outcome(check, "unknown", value, host.why(check.query, answer.nulls or [query.text]))
    if held and answer.vacuous and not check.absence_is_proof:
        return Outcome(check, "not_applicable", value, f"nothing to look at in {', '.join(sorted(_looked_at(check)))}")
    return Outcome(check, "pass" if held else "fail", value, assumed=assumed)


def _looked_at(check: Check) -> set[str]:
    return {path.split("[]")[0] for path in check.query.paths if "[]" in path} or set(check.query.paths)


def verdict(outcomes: Iterable[Outcome]) -> str:
    """One state of many.

    What fails surely falls short now. It is pending where a restart is known to be all that is missing: everything
    else holds.
    """
    states = {one.state for one in outcomes}
    if "fail" in states:
        pending = all(one.check.pending for one in outcomes if one.state == "fail") and "unknown" not in states
        return "pending" if pending else "fail"
    for state in ("unknown", "pass"):
        if state in states:
            return state
    return "not_applicable"


def _name(one: t.Any) -> str:
    name = one.get("name") if isinstance(one, dict) else one
    return name if isinstance(name, str) else told(name)


def excerpt(one: Outcome, host: Host) -> str:
    """What the evidence of a check shows."""
    answer = host.ask(one.check.excerpt) if one.check.excerpt else None
    return told(answer.value) if isinstance(answer, Answer) and answer.value is not None else one.assumed


def entry(one: Outcome, text: str) -> dict[str, t.Any]:
    """A check as the master has it."""
    return {
        "truth": one.check.truth,
        "state": one.state,
        "observed": one.observed,
        "expected": one.check.expected.plain,
        "evidence": {"source": one.check.source, "excerpt": text},
    }


def _observed(one: Outcome) -> str:
    return "not known" if one.observed is None else told(one.observed)


def _told_of(outcomes: list[Outcome], texts: list[str]) -> str:
    """With the truth that each text is about, where there are several."""
    if len(texts) < 2:
        return "".join(texts)
    return "; ".join(f"{one.check.truth}: {text}" for one, text in zip(outcomes, texts, strict=True))
