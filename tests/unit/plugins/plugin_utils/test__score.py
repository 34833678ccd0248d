# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import typing as t
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import STATES
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._score import FORMULA, WEIGHTS, of_fleet, of_host

SEVERITIES = {"c": "critical", "h": "high", "m": "medium", "l": "low", "i": "info"}


def findings(*pairs: str) -> list[dict[str, str]]:
    """``c pass``: the rule c passes."""
    return [{"rule": pair.split()[0], "state": pair.split()[1]} for pair in pairs]


def scored(*pairs: str, fixable: str = "") -> dict[str, t.Any]:
    return of_host(findings(*pairs), SEVERITIES, frozenset(fixable))


@pytest.mark.parametrize(
    ("pairs", "value", "passed", "applicable"),
    [
        ([], None, 0, 0),
        (["c pass"], 100.0, 10, 10),
        (["c pass", "h fail"], 62.5, 10, 16),
        (["h pass", "m unknown"], 66.6, 6, 9),
        (["h pass", "m pending"], 66.6, 6, 9),
        (["h pass", "m manual"], 100.0, 6, 6),
        (["h pass", "m waived"], 100.0, 6, 6),
        (["h pass", "m not_applicable"], 100.0, 6, 6),
        (["i fail"], None, 0, 0),
        # A rule weighs once, however many objects it has.
        (["h pass", "h pass", "h fail", "h fail"], 50.0, 3, 6),
        (["h pass", "h fail", "m pass"], 66.6, 6, 9),
        (["h pass", "h waived", "h not_applicable"], 100.0, 6, 6),
        (["h pass", "h pass", "h fail"], 66.6, 4, 6),
    ],
)
def test_is_the_part_that_holds(pairs: list[str], value: float | None, passed: float, applicable: int) -> None:
    score = scored(*pairs)
    assert (score["value"], score["passed"], score["applicable"]) == (value, passed, applicable)


@pytest.mark.parametrize(
    ("state", "capped"),
    [("fail", True), ("pending", False), ("unknown", False), ("waived", False), ("manual", False), ("pass", False)],
)
def test_is_capped_while_a_critical_rule_fails(state: str, capped: bool) -> None:
    score = scored(f"c {state}", "c pass", *(["h pass"] * 9), "m pass", "l pass")
    assert score["capped"] is capped
    assert (score["value"] == 50.0) is capped
    assert scored("h fail", "m pass")["capped"] is False
    # The cap raises nothing.
    assert scored("c fail", "l pass")["value"] == 9.0


def test_only_a_whole_reads_as_one() -> None:
    score = scored("c pass", *(["l pass"] * 999), "l fail")
    assert score["value"] == 99.9


def test_what_can_be_fixed_now_is_counted_for_itself() -> None:
    score = scored("c fail", "h pass", "m fail", fixable="hm")
    assert (score["fixable_now"], score["fixable_passed"], score["fixable_applicable"]) == (66.6, 6, 9)
    assert scored("c fail", fixable="h")["fixable_now"] is None


def test_a_fleet_adds_its_hosts_up() -> None:
    hosts = [scored("c pass", "h fail", fixable="h"), scored("c pass", "m pass", fixable="h"), scored()]
    fleet = of_fleet(hosts)
    assert (fleet["value"], fleet["passed"], fleet["applicable"], fleet["capped"]) == (79.3, 23, 29, False)
    assert fleet["fixable_now"] == 0.0
    assert of_fleet([*hosts, scored("c fail")])["capped"] is True
    assert of_fleet([])["value"] is None


def test_the_formula_names_the_weights() -> None:
    for severity, weight in WEIGHTS.items():
        assert f"{weight} ({severity})" in FORMULA
    assert of_fleet([])["formula"] == FORMULA


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("chmli"), st.sampled_from(STATES)), max_size=30), st.randoms())
def test_anyone_can_redo_it_from_the_findings(pairs: list[tuple[str, str]], random: t.Any) -> None:
    score = scored(*map(" ".join, pairs))
    random.shuffle(pairs)
    assert scored(*map(" ".join, pairs)) == score
    weights = {"c": 10, "h": 6, "m": 3, "l": 1, "i": 0}
    passed = applicable = Fraction(0)
    for rule, of_rule in itertools.groupby(sorted(pairs), key=lambda pair: pair[0]):
        states = [state for _rule, state in of_rule if state in ("pass", "fail", "pending", "unknown")]
        if states:
            passed += Fraction(weights[rule] * states.count("pass"), len(states))
            applicable += weights[rule]
    assert score["applicable"] == applicable
    assert abs(score["passed"] - passed) <= Fraction(1, 10_000)
    if not applicable:
        assert score["value"] is None
        return
    whole = 100 * passed / applicable
    assert 0 <= score["value"] <= 100
    if ("c", "fail") in pairs:
        assert score["value"] <= 50
    else:
        assert whole - Fraction(11, 100) <= score["value"] <= whole + Fraction(1, 100)
        assert (score["value"] == 100) == (passed == applicable)
