# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import Shape
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import (
    RuleError,
    load,
    read_rule,
    with_params,
)
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils.auditrules import check, entry, rule

TEXT = Shape("text")
SECTIONS = {
    "host": Shape("dict", "host", contains={"value": TEXT, "os": TEXT}),
    "guests": Shape(
        "list",
        "guests",
        element=Shape(
            "dict", "guests[]", contains={"name": TEXT, "mode": TEXT, "nics": Shape("list", "guests[].nics")}
        ),
    ),
    "files": Shape("list", "files", element=Shape("dict", "files[]", contains={"path": TEXT})),
}
OBJECTS = {"objects": "guests", "object_type": "guest", "none": "No guest runs."}


def test_reads_a_whole_rule() -> None:
    made, errors = read_rule(
        entry(
            **OBJECTS,
            applies=[{"when": "host.os == 'x'", "otherwise": "Not here."}, {"when": "object.mode", "otherwise": "No."}],
            params={"allowed": ["a"]},
            checks=[
                check("object.mode", {"one_of": {"param": "allowed"}}, truth="running", pending="guest_restart"),
                check("host.value", {"is": 1}, unset={"value": 1, "source": "qemu_conf.c"}),
                check("object.nics[?@ == 'x']", {"empty": True}, absence_is_proof=True),
                check("guests[?name == root().object.name].mode", {"not_empty": True}),
                check("difference(guests[].name, params.allowed)", {"empty": True}),
            ],
            manual="Look at it.",
            mappings={"bsi": ["SYS.1.5.A26"]},
            remediation={"mode": "auto", "variable": "hypervisor_x", "activation": "daemon_restart"},
        ),
        SECTIONS,
    )
    assert errors == []
    assert made is not None
    assert made.fixable_now
    assert [one.when.of_object for one in made.applies] == [False, True]
    assert [sorted(one.query.roots) for one in made.checks] == [
        ["object"], ["host"], ["object"], ["guests", "object"], ["guests", "params"],
    ]  # fmt: skip
    assert made.text == {
        "code": "A-RULE", "title": "A rule", "category": "host", "severity": "high", "level": "baseline",
        "why": "Because.", "breaks": "Nothing.", "references": ["a document"], "mappings": {"bsi": ["SYS.1.5.A26"]},
        "remediation": {"mode": "auto", "variable": "hypervisor_x", "advice": "", "activation": "daemon_restart"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"title": None}, ["title: is missing"]),
        ({"id": "An Id"}, ["id: 'An Id' is not like"]),
        ({"code": "qem-5"}, ["code: 'qem-5' is not like"]),
        ({"category": "cups"}, ["category: 'cups' is none of daemon, "]),
        ({"severity": "bad"}, ["severity: 'bad' is none of critical, "]),
        ({"level": ["strict"]}, ["level: ['strict'] is none of baseline, "]),
        ({"why": "  "}, ["why: is no text"]),
        ({"extra": 1}, ["extra: is unknown; there are applies, breaks, "]),
        ({"references": "x"}, ["references: is no list of texts"]),
        ({"mappings": {"bsi": "x"}}, ["mappings: is no dictionary of lists of texts"]),
        ({"params": {"A": 1}}, ["params: A is not like"]),
        ({"params": {"a": None}}, ["params: a has no default"]),
        ({"remediation": None}, ["remediation: is no dictionary"]),
        ({"remediation": {"mode": "auto", "activation": "none"}}, ["remediation.variable: is missing"]),
        ({"remediation": {"mode": "advise", "activation": "none"}}, ["remediation.advice: is missing"]),
        (
            {"remediation": {"mode": "magic", "activation": "never", "advice": "x", "variable": "x"}},
            ["remediation.mode: 'magic' is none of auto, ", "remediation.activation: 'never' is none of none, "],
        ),
        ({"checks": []}, ["checks: is no list with at least one entry"]),
        ({"checks": ["x"]}, ["checks[0]: is no dictionary"]),
        ({"checks": [check(), check("host.valu")]}, ["checks[1].query: host has no valu; near: value"]),
        ({"checks": [check("host.[")]}, ["checks[0].query: Invalid jmespath expression: Incomplete expression: h"]),
        ({"checks": [check("")]}, ["checks[0].query: is no JMESPath expression"]),
        ({"checks": [check(expected={"like": 1})]}, ["checks[0].expected: is not exactly one of is, "]),
        ({"checks": [check(expected={"is": {"param": "x"}})]}, ["checks[0].expected: the rule has no parameter x"]),
        ({"checks": [check(truth="hoped")]}, ["checks[0].truth: 'hoped' is none of configured, "]),
        ({"checks": [check(pending="later")]}, ["checks[0].pending: 'later' is none of daemon_restart, "]),
        ({"checks": [check(evidence={})]}, ["checks[0].evidence.source: is missing"]),
        (
            {"checks": [check(evidence={"source": "x", "excerpt": "nothing"})]},
            ["checks[0].evidence.excerpt: the document has no nothing"],
        ),
        ({"checks": [check(more=1)]}, ["checks[0].more: is unknown"]),
        ({"checks": [check("object.name")]}, ["checks[0].query: the document has no object"]),
        ({"checks": [check("params.x")]}, ["checks[0].query: params has no x"]),
        ({"checks": [check(absence_is_proof=True)]}, ["checks[0].absence_is_proof: the query goes through no list"]),
        ({"checks": [check("guests[]", absence_is_proof="yes")]}, ["checks[0].absence_is_proof: is neither true nor"]),
        ({"checks": [check(unset={"value": 1})]}, ["checks[0].unset.source: is missing"]),
        ({"checks": [check(unset={"source": "x"})]}, ["checks[0].unset.value: is missing"]),
        (
            {"checks": [check("length(guests)", unset={"value": 1, "source": "x"})]},
            ["checks[0].unset: is only for a query that is a plain path"],
        ),
        ({"applies": []}, ["applies: is no list with at least one entry"]),
        ({"applies": [{"when": "host.os"}]}, ["applies[0].otherwise: is missing"]),
        ({"applies": [{"when": "os", "otherwise": "x"}]}, ["applies[0].when: the document has no os; near: host"]),
        ({"objects": "guests"}, ["object_type: is missing", "none: is missing"]),
        ({"none": "x"}, ["none: is only with objects"]),
        ({**OBJECTS, "objects": "host"}, ["objects: is no list of objects"]),
        ({**OBJECTS, "objects": "files"}, ["objects: has no name: let the expression end in .{name: ..., ...}"]),
        ({**OBJECTS, "checks": [check("object.nme")]}, [r"checks[0].query: guests[] has no nme; near: name"]),
        (
            {**OBJECTS, "objects": "files[].{name: path}", "checks": [check("object.path")]},
            ["checks[0].query: object has no path"],
        ),
    ],
)  # fmt: skip
def test_names_the_key_that_is_wrong(changes: dict[str, t.Any], errors: list[str]) -> None:
    made, found = read_rule(entry(**changes), SECTIONS)
    assert made is None
    assert len(found) == len(errors), found
    assert [error for error, wanted in zip(found, errors, strict=True) if not error.startswith(wanted)] == []


def write(path: Path, *entries: t.Any) -> None:
    path.write_text(yaml.safe_dump(list(entries)), encoding="utf-8")


def test_loads_directories_in_their_order(tmp_path: Path) -> None:
    for name in ("own", "more"):
        (tmp_path / name).mkdir()
    write(tmp_path / "own/b.yml", entry("b"))
    write(tmp_path / "own/a.yaml", entry("z"), entry("a"))
    write(tmp_path / "more/a.yml", entry("c"))
    (tmp_path / "own/README.md").write_text("no rules", encoding="utf-8")
    assert [one.id for one in load([tmp_path / "own", tmp_path / "more"], SECTIONS)] == ["z", "a", "b", "c"]


def test_tells_all_errors_with_file_rule_and_key(tmp_path: Path) -> None:
    write(tmp_path / "a.yml", entry("one"), entry("two", title=None), "text", {"title": "x"})
    write(tmp_path / "b.yml", entry("one", code="OTHER"), entry("three", code="ONE"))
    (tmp_path / "c.yml").write_text("- id: x\n  id: y\n", encoding="utf-8")
    (tmp_path / "d.yml").write_text("- [\n", encoding="utf-8")
    (tmp_path / "e.yml").write_text("id: x\n", encoding="utf-8")
    (tmp_path / "f.yml").write_bytes(b"- \xff\n")
    (tmp_path / "g.yml").write_text("- {[]: x}\n", encoding="utf-8")
    (tmp_path / "h.yml").mkdir()
    (tmp_path / "none").mkdir()
    with pytest.raises(RuleError) as refused:
        load([tmp_path, tmp_path / "none", tmp_path / "missing"], SECTIONS)
    told = [error.replace(f"{tmp_path}/", "") for error in refused.value.errors]
    for wanted in [
        "a.yml: two: title: is missing",
        "a.yml: rule 3: is no dictionary",
        "a.yml: rule 4: id: is missing",
        f"b.yml: one: id: one is already that of a rule in {tmp_path}/a.yml".replace(f"{tmp_path}/", ""),
        "b.yml: three: code: ONE is already that of a rule in a.yml",
        "c.yml:1: the key id is there twice",
        "e.yml: is no list of rules",
        "none: has no .yml file",
        "missing: is no directory",
    ]:
        assert wanted in told
    assert {error.split(":")[0] for error in told} == {*(f"{name}.yml" for name in "abcdefgh"), "none", "missing"}
    assert str(refused.value) == "\n".join(refused.value.errors)


def test_takes_the_operators_parameters() -> None:
    changes: dict[str, t.Any] = {
        "params": {"allowed": ["a"], "most": 3, "on": True},
        "checks": [check("host.value", {"one_of": {"param": "allowed"}})],
    }
    rules = [rule("one", **changes), rule("two", **changes), rule("three")]
    own = with_params(rules, {"one": {"allowed": ["b"], "most": 2.5}})
    assert [one.params for one in own] == [
        {"allowed": ["b"], "most": 2.5, "on": True},
        {"allowed": ["a"], "most": 3, "on": True},
        {},
    ]
    assert [one.checks[0].expected.wanted for one in own] == [["b"], ["a"], 1]
    with pytest.raises(RuleError) as refused:
        with_params(rules, {"four": {}, "one": {"allowed": "b", "least": 1, "on": 1}, "two": ["x"], "three": {"x": 1}})
    assert refused.value.errors == [
        "params: there is no rule four",
        "params: one: allowed: is a text, not a list",
        "params: one: has no parameter least; it has allowed, most, on",
        "params: one: on: is a number, not a boolean",
        "params: two: is no dictionary of parameters",
        "params: three: has no parameter x; it has none",
    ]


def test_a_parameter_that_an_operator_cannot_use_is_refused() -> None:
    rules = [rule(params={"like": "a"}, checks=[check(expected={"matches": {"param": "like"}})])]
    with pytest.raises(RuleError, match=r"params: a-rule: like: matches: is no regular expression"):
        with_params(rules, {"a-rule": {"like": "["}})
