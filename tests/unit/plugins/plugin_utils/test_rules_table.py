# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the audit on the facts of tests/unit/rules/<category>.yml.

Each entry names a ``rule`` and gives it facts, or a list of facts, for each verdict: ``passes`` and ``fails``, where
they are told apart ``unknown`` and ``not_applicable``, and what is all that is missing: ``pending_daemon_restart``,
``pending_guest_restart``, ``pending_reboot``. ``params`` are the operator's values, if any.
"""

from __future__ import annotations

import collections
import copy
import tempfile
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._audit import Evaluation, Host
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import Shape, documented
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import STATES
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import (
    PENDING,
    Rule,
    RuleError,
    load,
    with_params,
)

ROOT = Path(__file__).resolve().parents[4]
RULES = ROOT / "roles/hypervisor_audit/files/rules"
TABLES = ROOT / "tests/unit/rules"
SECTIONS = documented(ROOT / "plugins/modules/hypervisor_info.py")
KINDS = {f"pending_{kind}": kind for kind in PENDING}
VERDICTS = ("passes", "fails", "unknown", "not_applicable", *KINDS)


def rules_of(path: Path) -> list[Rule]:
    """Those of one file: a mistake in one category does not hide the others'."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / path.name).write_bytes(path.read_bytes())
        return load([Path(directory)], SECTIONS)


def entries() -> list[t.Any]:
    return [
        pytest.param(path, entry, id=f"{path.stem}-{entry.get('rule')}-{number}")
        for path in sorted(TABLES.glob("*.yml"))
        for number, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")))
    ]


FILES = sorted(RULES.glob("*.yml"))
BY_FILE: dict[str, list[Rule] | RuleError] = {}
for _path in FILES:
    try:
        BY_FILE[_path.stem] = rules_of(_path)
    except RuleError as _error:
        BY_FILE[_path.stem] = _error
ALL = {rule.id: rule for rules in BY_FILE.values() if isinstance(rules, list) for rule in rules}


def undocumented(value: t.Any, shape: Shape, path: str) -> list[str]:
    """Facts of a table that ``hypervisor_info`` does not return."""
    if shape.kind == "list" and isinstance(value, list) and shape.element:
        return [found for one in value for found in undocumented(one, shape.element, f"{path}[]")]
    if shape.kind == "list" and not isinstance(value, (list, type(None))) and path.count("."):
        return [f"{path} is no list"]
    if shape.contains is None or not isinstance(value, dict) or set(value) == {"error"}:
        return []
    return [
        found
        for key, below in value.items()
        for found in (
            undocumented(below, shape.contains[key], f"{path}.{key}") if key in shape.contains else [f"{path}.{key}"]
        )
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_rules_is_as_it_should_be(path: Path) -> None:
    rules = BY_FILE[path.stem]
    assert isinstance(rules, list), f"\n{rules}"
    # a trap may stand with the rules of what it is about
    # daemon.yml, daemon_files.yml: where a category has many.
    assert [rule.id for rule in rules if rule.category not in (path.stem.split("_")[0], "trap")] == []


def test_all_files_go_together() -> None:
    loaded = load([RULES], SECTIONS)
    assert {rule.id for rule in loaded} == set(ALL)
    # The files are there, and are read.
    assert len(loaded) > 100


def test_each_rule_tells_its_danger_and_its_sources() -> None:
    assert [rule.id for rule in ALL.values() if not rule.text["breaks"] or not rule.text["references"]] == []


def test_each_rule_is_seen_passing_and_failing() -> None:
    seen: dict[str, set[str]] = collections.defaultdict(set)
    for parameters in entries():
        _path, entry = parameters.values
        seen[entry.get("rule")] |= {verdict for verdict in VERDICTS if entry.get(verdict)}
    assert sorted(set(ALL) - {id_ for id_, verdicts in seen.items() if {"passes", "fails"} <= verdicts}) == []


def test_each_rule_is_seen_pending_for_each_thing_that_it_can_wait_for() -> None:
    seen: dict[str, set[str]] = collections.defaultdict(set)
    for parameters in entries():
        _path, entry = parameters.values
        seen[entry.get("rule")] |= {kind for verdict, kind in KINDS.items() if entry.get(verdict)}
    kinds = {rule.id: {check.pending for check in rule.checks if check.pending} for rule in ALL.values()}
    assert {id_: wanted for id_, wanted in kinds.items() if wanted != seen[id_]} == {}


@pytest.mark.parametrize(("path", "entry"), entries())
def test_verdict(path: Path, entry: dict[str, t.Any]) -> None:
    assert entry.get("rule") in ALL, f"{path.name}: there is no rule {entry.get('rule')}"
    assert set(entry) <= {"rule", "params", *VERDICTS}, f"{path.name}: {sorted(set(entry) - {'rule', *VERDICTS})}"
    rule = ALL[entry["rule"]]
    (rule,) = with_params([rule], {rule.id: entry.get("params", {})})
    for verdict in VERDICTS:
        if verdict not in entry:
            continue
        given = entry[verdict]
        for facts in given if isinstance(given, list) else [given]:
            where = f"{path.name}: {rule.id}: {verdict}"
            unknown = [
                found
                for section, value in facts.items()
                for found in (
                    undocumented(value, SECTIONS[section], section) if section in SECTIONS else [f"section {section}"]
                )
            ]
            assert unknown == [], f"{where}: facts that hypervisor_info does not document"
            before = copy.deepcopy(facts)
            findings = Evaluation([rule]).of_rule(rule, Host("host", facts))
            told = [(one["object"]["name"], one["state"], one["observed"], one["reason"]) for one in findings]
            states = {one["state"] for one in findings}
            if verdict in ("passes", "not_applicable"):
                wanted = "not_applicable" if verdict == "not_applicable" else "manual" if rule.manual else "pass"
                assert states == {wanted}, f"{where}: {told}"
            elif verdict in KINDS:
                waiting_for = {one["pending"] for one in findings if one["state"] == "pending"}
                assert waiting_for == {KINDS[verdict]}, f"{where}: {waiting_for} {told}"
            else:
                assert {"fails": "fail"}.get(verdict, verdict) in states, f"{where}: {told}"
            assert facts == before, f"{where}: the facts were changed"


# Where no boot loader is known, the running kernel's line counts as configured, and the evidence says so.
TOLD_OTHERWISE = {("kernel", "cmdline", "configured")}


def containers(value: t.Any, shape: Shape, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    """The paths of all dictionaries and lists with a documented key. Behind a free key a null is what is not set."""
    if isinstance(value, dict) and shape.contains is not None:
        for key, below in value.items():
            if isinstance(below, (dict, list)):
                yield (*path, key)
                yield from containers(below, shape.contains[key], (*path, key))
    elif isinstance(value, list) and shape.element is not None:
        for number, below in enumerate(value):
            yield from containers(below, shape.element, (*path, number))


def changed(facts: dict[str, t.Any], path: tuple[t.Any, ...], value: t.Any) -> dict[str, t.Any]:
    """The facts, with another value there. With a null they say that it could not be read."""
    copied = copy.deepcopy(facts)
    inner: t.Any = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def test_what_cannot_be_read_hides_no_failure() -> None:
    hidden = []
    for parameters in entries():
        _path, entry = parameters.values
        rule = ALL[entry["rule"]]
        (rule,) = with_params([rule], {rule.id: entry.get("params", {})})
        failing = entry.get("fails", [])
        for facts in failing if isinstance(failing, list) else [failing]:
            for path in set(containers(facts, Shape("dict", contains=SECTIONS))) - TOLD_OTHERWISE:
                findings = Evaluation([rule]).of_rule(rule, Host("host", changed(facts, path, None)))
                if {one["state"] for one in findings} <= {"pass", "manual", "not_applicable"}:
                    hidden.append((rule.id, ".".join(map(str, path))))
    assert hidden == []


def places(value: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


@pytest.mark.parametrize("odd", ["x", 7, [None], {"error": "x"}])
def test_facts_of_another_kind_break_no_rule(odd: t.Any) -> None:
    for parameters in entries():
        _path, entry = parameters.values
        rule, given = ALL[entry["rule"]], entry.get("passes", [])
        for facts in given if isinstance(given, list) else [given]:
            for path in places(facts):
                findings = Evaluation([rule]).of_rule(rule, Host("host", changed(facts, path, odd)))
                assert {one["state"] for one in findings} <= set(STATES)
