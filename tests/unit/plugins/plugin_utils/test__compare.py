# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._compare import compare
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import ReportError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

KINDS = ("better", "worse", "new", "gone", "other")


def run(*states: tuple[str, str], host: str = "kvm1", **changes: t.Any) -> masters.Json:
    """A run that found these rules in these states."""
    return masters.master([masters.host(host, [masters.finding(name, state) for name, state in states])], **changes)


def kinds(result: masters.Json) -> dict[str, list[str]]:
    return {kind: [entry["rule"] for entry in result[kind]] for kind in KINDS if result[kind]}


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        # More is proven to hold than before.
        ("fail", "pass", "better"),
        ("fail", "pending", "better"),
        ("pending", "pass", "better"),
        ("unknown", "pass", "better"),
        ("waived", "pass", "better"),
        ("manual", "pass", "better"),
        # Less is.
        ("pass", "fail", "worse"),
        ("pass", "pending", "worse"),
        ("pass", "unknown", "worse"),
        ("pass", "waived", "worse"),
        ("pass", "manual", "worse"),
        ("pending", "fail", "worse"),
        # A waiver makes nothing better, and not to know is no improvement.
        ("fail", "waived", "other"),
        ("waived", "fail", "other"),
        ("fail", "unknown", "other"),
        ("unknown", "fail", "other"),
        # What does not apply was not judged.
        ("not_applicable", "fail", "new"),
        ("fail", "not_applicable", "gone"),
    ],
)
def test_better_and_worse(before: str, after: str, kind: str) -> None:
    assert kinds(compare(run(("x", after)), run(("x", before)))) == {kind: ["x"]}


@pytest.mark.parametrize("state", masters.STATES)
def test_the_same_is_no_change(state: str) -> None:
    assert kinds(compare(run(("x", state)), run(("x", state)))) == {}


def test_an_entry_names_host_rule_object_and_both_states() -> None:
    before = masters.master([masters.host("kvm1", [masters.finding("x", "pass", "guest", "web")])])
    after = masters.master([masters.host("kvm1", [masters.finding("x", "fail", "guest", "web")])])
    result = compare(after, before | {"generated": masters.EARLIER})
    target = {"type": "guest", "name": "web"}
    assert result["worse"] == [{"host": "kvm1", "rule": "x", "object": target, "before": "pass", "after": "fail"}]
    assert result["with"] == masters.EARLIER


def test_objects_are_told_apart_by_host_rule_type_and_name() -> None:
    before = masters.master(
        [
            masters.host(
                "kvm1", [masters.finding("x", "pass", "guest", "a"), masters.finding("y", "pass", "disk", "a")]
            ),
            masters.host("kvm2", [masters.finding("x", "pass", "guest", "a")]),
        ]
    )
    after = masters.master(
        [
            masters.host(
                "kvm1", [masters.finding("x", "pass", "guest", "b"), masters.finding("y", "pass", "guest", "a")]
            ),
            masters.host("kvm2", [masters.finding("x", "fail", "guest", "a")]),
        ]
    )
    result = compare(after, before)
    assert [(entry["host"], entry["rule"]) for entry in result["worse"]] == [("kvm2", "x")]
    assert [tuple(entry["object"].values()) for entry in result["new"]] == [("guest", "b"), ("guest", "a")]
    assert [tuple(entry["object"].values()) for entry in result["gone"]] == [("guest", "a"), ("disk", "a")]
    assert {entry["before"] for entry in result["new"]} == {entry["after"] for entry in result["gone"]} == {None}


def test_disks_of_the_same_name_are_told_apart_by_their_guest() -> None:
    disks = [{"type": "disk", "name": "vda", "guest": guest} for guest in ("web", "db")]
    runs = [
        masters.master([masters.host("kvm1", [masters.finding("x", state, object=disk) for state, disk in pairs])])
        for pairs in (zip(("pass", "fail"), disks, strict=True), zip(("fail", "fail"), disks, strict=True))
    ]
    assert [entry["object"] for entry in compare(runs[1], runs[0])["worse"]] == [disks[0]]


def test_a_host_that_one_run_did_not_audit_is_told_once() -> None:
    seen, both = [masters.finding("x", "pass")], masters.host("c", [masters.finding("x", "pass")])
    now = masters.master([masters.host("a", seen), masters.not_audited("b", "down"), both])
    then = masters.master([masters.not_audited("a", "down"), masters.host("b", seen), both])
    result = compare(now, then)
    assert kinds(result) == {}
    assert result["hosts"] == {"new": ["a"], "gone": ["b"]}


states = st.dictionaries(st.text(max_size=3), st.sampled_from(masters.STATES), max_size=5)


@settings(deadline=None)
@given(states, states)
def test_back_and_forth_mirror_each_other(before: dict[str, str], after: dict[str, str]) -> None:
    earlier, later = run(*before.items()), run(*after.items())
    forth, back = compare(later, earlier), compare(earlier, later)
    for kind, mirrored in (("better", "worse"), ("new", "gone"), ("other", "other")):
        turned = [entry | {"before": entry["after"], "after": entry["before"]} for entry in back[mirrored]]
        assert forth[kind] == turned
    told = sorted(entry["rule"] for kind in KINDS for entry in forth[kind])
    judged = ({name: state for name, state in run.items() if state != "not_applicable"} for run in (before, after))
    first, second = judged
    assert told == sorted(name for name in first | second if first.get(name) != second.get(name))


@pytest.mark.parametrize(
    ("earlier", "words"),
    [
        ({"schema": "hypervisor.hardening/audit/2"}, "The earlier audit is of the kind 'hypervisor.hardening/audit/2'"),
        ({}, "The earlier audit is no result of an audit"),
        (None, "The earlier audit is no result of an audit"),
    ],
)
def test_another_version_is_refused_in_words(earlier: t.Any, words: str) -> None:
    with pytest.raises(ReportError, match=words):
        compare(masters.small(), earlier)
    with pytest.raises(ReportError, match=words.replace("earlier audit", "audit")):
        compare(earlier, masters.small())


def test_a_state_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ReportError, match="in the state 'odd'"):
        compare(run(("x", "odd")), run(("x", "pass")))


def test_the_order_does_not_depend_on_that_of_hosts() -> None:
    hosts = [masters.host(name, [masters.finding("x", "fail"), masters.finding("a", "fail")]) for name in ("b", "a")]
    result = compare(masters.master(hosts), masters.master([masters.host(name) for name in ("a", "b")]))
    assert [(entry["host"], entry["rule"]) for entry in result["new"]] == [
        ("a", "a"), ("a", "x"), ("b", "a"), ("b", "x"),
    ]  # fmt: skip
