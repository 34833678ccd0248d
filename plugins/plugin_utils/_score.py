# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The score: which part of what applies is proven to hold, by weight. Whoever has the master can redo it."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Iterable, Mapping

WEIGHTS = {"critical": 10, "high": 6, "medium": 3, "low": 1, "info": 0}
CAP = 50.0
HELD = frozenset({"pass"})
COUNTED = frozenset({"pass", "fail", "pending", "unknown"})
FORMULA = (
    "100 x passed / applicable. Each rule weighs "
    + ", ".join(f"{weight} ({severity})" for severity, weight in WEIGHTS.items())
    + "; passed has of it the part of its objects that pass, applicable all of it. fail, pending and unknown count as "
    "not held; not applicable, manual and waived count neither way. Rounded down to a tenth, and at most "
    f"{CAP:g} while a critical rule fails. fixable_now is the same, without that limit, of the rules alone that this "
    "collection sets and that need neither a reboot nor the restart of a guest: at 100 there is nothing more to do now."
)

Score = dict[str, t.Any]


def of_host(findings: Iterable[Mapping[str, t.Any]], severities: Mapping[str, str], fixable: frozenset[str]) -> Score:
    """The score of one host.

    :param severities: rule id -> severity.
    :param fixable: ids of the rules that can be fixed now.
    """
    rules: dict[str, list[int]] = {}
    capped = False
    for finding in findings:
        state, rule = finding["state"], finding["rule"]
        if state not in COUNTED:
            continue
        counted = rules.setdefault(rule, [0, 0])
        counted[0] += state in HELD
        counted[1] += 1
        capped = capped or (state == "fail" and severities[rule] == "critical")
    return _score(
        {rule: WEIGHTS[severities[rule]] * held / counted for rule, (held, counted) in rules.items()},
        {rule: WEIGHTS[severities[rule]] for rule in rules},
        capped,
        fixable,
    )


def _score(passed: Mapping[str, float], applicable: Mapping[str, int], capped: bool, fixable: frozenset[str]) -> Score:
    now = [rule for rule in passed if rule in fixable]
    return _told(
        math.fsum(passed.values()),
        sum(applicable.values()),
        math.fsum(passed[rule] for rule in now),
        sum(applicable[rule] for rule in now),
        capped,
    )


def of_fleet(scores: Iterable[Score]) -> Score:
    """All hosts' weights added up; capped while any of them is. ``formula`` says how."""
    scores = list(scores)
    total = _told(
        math.fsum(score["passed"] for score in scores),
        sum(score["applicable"] for score in scores),
        math.fsum(score["fixable_passed"] for score in scores),
        sum(score["fixable_applicable"] for score in scores),
        any(score["capped"] for score in scores),
    )
    return {**total, "formula": FORMULA}


def _told(passed: float, applicable: int, fixable_passed: float, fixable_applicable: int, capped: bool) -> Score:
    passed, fixable_passed = round(passed, 4), round(fixable_passed, 4)
    value = percent(passed, applicable)
    return {
        "value": min(value, CAP) if capped and value is not None else value,
        "passed": passed,
        "applicable": applicable,
        "capped": capped,
        "fixable_now": percent(fixable_passed, fixable_applicable),
        "fixable_passed": fixable_passed,
        "fixable_applicable": fixable_applicable,
    }


def percent(passed: float, applicable: float) -> float | None:
    """Rounded down to a tenth, so that only a whole reads as one; None of nothing."""
    return math.floor(1000 * passed / applicable + 1e-6) / 10 if applicable else None
