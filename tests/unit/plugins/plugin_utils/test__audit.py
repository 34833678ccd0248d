# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._audit import Evaluation, Host, Outcome, verdict
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import PENDING, Rule
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils.auditrules import check, rule

GUESTS = {"objects": "guests", "object_type": "guest", "none": "No guest runs."}


def judged(made: Rule, facts: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    before = copy.deepcopy(facts)
    findings = Evaluation([made]).of_rule(made, Host("kvm1", facts))
    assert facts == before
    return findings


def states(made: Rule, facts: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(one["object"]["name"], one["state"]) for one in judged(made, facts)]


def test_a_finding_tells_all_that_a_report_needs() -> None:
    made = rule(
        checks=[
            check("host.value", {"is": 1}),
            check("host.on", {"one_of": ["on", 2]}, truth="running", evidence={"source": "/proc", "excerpt": "host"}),
        ]
    )
    assert judged(made, {"host": {"value": 1, "on": "off"}}) == [
        {
            "rule": "a-rule",
            "object": {"type": "host", "name": "kvm1"},
            "state": "fail",
            "pending": None,
            "observed": "off",
            "expected": "one of on, 2",
            "reason": "",
            "checks": [
                {
                    "truth": "configured",
                    "state": "pass",
                    "observed": 1,
                    "expected": {"is": 1},
                    "evidence": {"source": "/proc", "excerpt": ""},
                },
                {
                    "truth": "running",
                    "state": "fail",
                    "observed": "off",
                    "expected": {"one_of": ["on", 2]},
                    "evidence": {"source": "/proc", "excerpt": "value: 1, on: off"},
                },
            ],
            "waiver": None,
        }
    ]
    (passed,) = judged(made, {"host": {"value": 1, "on": "on"}})
    assert (passed["state"], passed["observed"], passed["expected"]) == ("pass", "1", "1")
    assert [one["truth"] for one in passed["checks"]] == ["configured"]
    (failed,) = judged(made, {"host": {"value": 0, "on": "off"}})
    assert (failed["observed"], failed["expected"]) == (
        "configured: 0; running: off",
        "configured: 1; running: one of on, 2",
    )


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({"host": {"value": 1}}, "pass", ""),
        ({"host": {"value": 0}}, "fail", ""),
        ({"host": {"value": None}}, "unknown", "could not be read: host.value"),
        ({"host": {}}, "unknown", "could not be read: host.value"),
        ({"host": {"error": "needs root"}}, "unknown", "host: needs root"),
        ({"host": {"error": "a value", "value": 1}}, "pass", ""),
        ({"host": None}, "unknown", "the facts have no host"),
        ({}, "unknown", "the facts have no host"),
        ({"host": []}, "unknown", "could not be read: host"),
        (
            {"host": {"value": None, "unread": [{"path": "/dev/kvm", "reason": "gone"}]}},
            "unknown",
            "could not be read: host.value (/dev/kvm: gone)",
        ),
    ],
)
def test_what_could_not_be_read_is_unknown(facts: dict[str, t.Any], state: str, reason: str) -> None:
    (finding,) = judged(rule(), facts)
    assert (finding["state"], finding["reason"]) == (state, reason)


@pytest.mark.parametrize(
    ("facts", "state", "excerpt"),
    [
        ({"configuration": {"settings": {}}}, "pass", "not set: 1 by qemu_conf.c"),
        ({"configuration": {"settings": {"seccomp": 1}}}, "pass", ""),
        ({"configuration": {"settings": {"seccomp": 0}}}, "fail", ""),
        # A file that could not be read sets nothing either.
        ({"configuration": {"settings": None}}, "unknown", ""),
        ({"configuration": {}}, "unknown", ""),
        ({"configuration": {"error": "denied"}}, "unknown", ""),
    ],
)
def test_a_default_of_the_source_is_only_for_what_is_not_set(facts: dict[str, t.Any], state: str, excerpt: str) -> None:
    unset = {"value": 1, "source": "qemu_conf.c"}
    (finding,) = judged(rule(checks=[check("configuration.settings.seccomp", unset=unset)]), facts)
    assert (finding["state"], finding["checks"][0]["evidence"]["excerpt"]) == (state, excerpt)


LISTENING = "listeners[?port == `16509`].name"


@pytest.mark.parametrize(
    ("facts", "proof", "state"),
    [
        ([{"name": "a", "port": 16509}], False, "fail"),
        ([{"name": "a", "port": 22}], False, "pass"),
        ([], False, "not_applicable"),
        ([], True, "pass"),
        (None, True, "unknown"),
        ([{"name": "a", "port": None}], False, "unknown"),
        ([{"name": "a", "port": None}], True, "unknown"),
        # Whatever the other is, this one is too much.
        ([{"name": "a", "port": None}, {"name": "b", "port": 16509}], False, "fail"),
    ],
)
def test_nothing_passes_because_there_was_nothing_to_look_at(facts: t.Any, proof: bool, state: str) -> None:
    made = rule(checks=[check(LISTENING, {"empty": True}, absence_is_proof=proof)])
    (finding,) = judged(made, {"listeners": facts})
    assert finding["state"] == state
    if state == "not_applicable":
        assert finding["reason"] == "nothing to look at in listeners"


@pytest.mark.parametrize("expected", [{"not_empty": True}, {"is": ["a"]}])
def test_an_unread_element_leaves_an_answer_open_that_it_could_change(expected: t.Any) -> None:
    made = rule(checks=[check(LISTENING, expected)])
    facts = [{"name": "a", "port": None}, {"name": "b", "port": 16509}]
    assert states(made, {"listeners": facts}) == [("kvm1", "unknown")]


@pytest.mark.parametrize("query", ["listeners[].[name, port]", "listeners[].port", "listeners[].{n: name, p: port}"])
def test_a_list_with_something_unread_in_it_is_unknown(query: str) -> None:
    made = rule(checks=[check(f"{query}[]" if "[name" in query else query, {"subset_of": ["a", 1]})])
    assert states(made, {"listeners": [{"name": "a", "port": None}]})[0][1] in ("unknown", "fail")
    made = rule(checks=[check("[host.a, host.b]", {"subset_of": ["a"]})])
    assert states(made, {"host": {"a": "a", "b": None}}) == [("kvm1", "unknown")]


@pytest.mark.parametrize(
    ("expected", "query"),
    [({"at_least": 1}, "host.value"), ({"is": 1}, "length(host.value)"), ({"empty": True}, "host.n")],
)
def test_a_value_that_does_not_fit_is_unknown_and_no_crash(expected: t.Any, query: str) -> None:
    (finding,) = judged(rule(checks=[check(query, expected)]), {"host": {"value": True, "n": 1}})
    assert finding["state"] == "unknown"
    assert query in finding["reason"]


def test_each_object_has_a_finding() -> None:
    made = rule(**GUESTS, checks=[check("object.mode", {"is": 2})])
    facts = {"guests": [{"name": "web", "mode": 2}, {"name": "db", "mode": 0}, {"name": "mx", "mode": None}]}
    assert states(made, facts) == [("db", "fail"), ("mx", "unknown"), ("web", "pass")]
    assert judged(made, facts)[0]["object"] == {"type": "guest", "name": "db"}


@pytest.mark.parametrize(
    ("guests", "finding"),
    [
        ([], ("kvm1", "not_applicable", "No guest runs.")),
        (None, ("kvm1", "unknown", "the facts have no guests")),
        ({"error": "no /proc"}, ("kvm1", "unknown", "guests: no /proc")),
        ({"odd": 1}, ("kvm1", "unknown", "could not be read: guests[]")),
    ],
)
def test_no_object_is_no_pass(guests: t.Any, finding: tuple[str, str, str]) -> None:
    made = rule(**{**GUESTS, "objects": "guests[]"}, checks=[check("object.mode", {"is": 2})])
    (one,) = judged(made, {"guests": guests})
    assert (one["object"]["name"], one["state"], one["reason"].replace("[][]", "[]")) == finding


@pytest.mark.parametrize("guests", [{"name": "web"}, "web", 7, True])
def test_what_is_no_list_has_no_objects(guests: t.Any) -> None:
    made = rule(**GUESTS, checks=[check("object.mode", {"is": 2})])
    assert states(made, {"guests": guests}) == [("kvm1", "unknown")]


def test_where_an_object_may_be_hidden_that_is_told() -> None:
    made = rule(**{**GUESTS, "objects": "guests[?tenant == 'x']"}, checks=[check("object.mode", {"is": 2})])
    seen, hidden = {"name": "web", "tenant": "x", "mode": 2}, {"name": "db", "tenant": None, "mode": 0}
    assert states(made, {"guests": [seen, hidden]}) == [("web", "pass"), ("kvm1", "unknown")]
    assert states(made, {"guests": [hidden]}) == [("kvm1", "unknown")]


def test_objects_may_be_texts_or_made_by_the_expression() -> None:
    texts = rule(**{**GUESTS, "objects": "guests[].name"}, checks=[check("object", {"none_of": ["bad"]})])
    assert states(texts, {"guests": [{"name": "good"}, {"name": "bad"}]}) == [("bad", "fail"), ("good", "pass")]
    nics = "guests[].nics[].{name: dev, guest: guest}"
    made = rule(**{**GUESTS, "objects": nics}, checks=[check("object.name", {"none_of": ["bad"]})])
    (finding,) = judged(made, {"guests": [{"name": "web", "nics": [{"dev": "vnet0", "guest": "web"}]}]})
    assert finding["object"] == {"type": "guest", "name": "vnet0", "guest": "web"}


def test_conditions_are_asked_in_turn() -> None:
    made = rule(
        applies=[
            {"when": "libvirt.installed", "otherwise": "libvirt is not installed."},
            {"when": "libvirt.major > `6`", "otherwise": "Too old."},
        ]
    )

    def told(libvirt: t.Any) -> tuple[str, str]:
        (finding,) = judged(made, {"libvirt": libvirt, "host": {"value": 1}})
        return finding["state"], finding["reason"]

    assert told({"installed": True, "major": 9}) == ("pass", "")
    assert told({"installed": False, "major": None}) == ("not_applicable", "libvirt is not installed.")
    assert told({"installed": True, "major": 6}) == ("not_applicable", "Too old.")
    assert told({"installed": None, "major": 6}) == ("unknown", "could not be read: libvirt.installed")
    assert told({"installed": True, "major": None}) == ("unknown", "could not be read: libvirt.major")
    assert told({"installed": "yes", "major": 9}) == ("unknown", "libvirt.installed: is neither true nor false")
    assert told({"error": "no"}) == ("unknown", "libvirt: no")


def test_a_condition_about_an_object_is_asked_of_each() -> None:
    made = rule(
        **GUESTS,
        applies=[{"when": "object.kind == 'kvm'", "otherwise": "Not accelerated."}],
        checks=[check("object.mode", {"is": 2})],
    )
    facts = {
        "guests": [{"name": "a", "kind": "tcg"}, {"name": "b", "kind": "kvm", "mode": 2}, {"name": "c", "kind": None}]
    }
    assert states(made, facts) == [("a", "not_applicable"), ("b", "pass"), ("c", "unknown")]


def test_manual_is_never_a_pass() -> None:
    made = rule(manual="A person has to look.")
    (finding,) = judged(made, {"host": {"value": 1}})
    assert (finding["state"], finding["reason"]) == ("manual", "A person has to look.")
    assert states(made, {"host": {"value": 0}}) == [("kvm1", "fail")]


def test_of_several_restarts_the_greatest_is_told() -> None:
    made = rule(checks=[check(f"host.{name}", pending=name) for name in ("daemon_restart", "reboot", "guest_restart")])
    (finding,) = judged(made, {"host": dict.fromkeys(PENDING, 0)})
    assert (finding["state"], finding["pending"]) == ("pending", "reboot")
    (finding,) = judged(made, {"host": {"daemon_restart": 0, "reboot": 1, "guest_restart": 0}})
    assert finding["pending"] == "guest_restart"


CHECKS = {
    pending: rule(checks=[check(**({"pending": pending} if pending else {}))]).checks[0] for pending in ("", *PENDING)
}
OUTCOMES = st.lists(
    st.builds(
        Outcome, st.sampled_from(list(CHECKS.values())), st.sampled_from(["pass", "fail", "unknown", "not_applicable"])
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(OUTCOMES, st.randoms())
def test_the_algebra_of_states(outcomes: list[Outcome], random: t.Any) -> None:
    state = verdict(outcomes)
    found = [one.state for one in outcomes]
    failed = [one for one in outcomes if one.state == "fail"]
    shuffled = random.sample(outcomes, len(outcomes))
    assert verdict(shuffled) == state
    assert verdict(outcomes + outcomes) == state
    assert (state in ("fail", "pending")) == bool(failed)
    assert (state == "pending") == (
        bool(failed) and "unknown" not in found and all(one.check.pending for one in failed)
    )
    assert (state == "unknown") == ("unknown" in found and not failed)
    assert (state == "pass") == ("pass" in found and set(found) <= {"pass", "not_applicable"})
    assert (state == "not_applicable") == (set(found) == {"not_applicable"})


NAMES = ["web", "db", "a\x1b[31mb", "\u202egnp.exe", "x" * 10_000, "<script>", "\ud800", ""]
FACTS = st.fixed_dictionaries(
    {
        "host": st.fixed_dictionaries({"value": st.sampled_from([0, 1, None])}) | st.just({"error": "x"}) | st.none(),
        "guests": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(NAMES), "mode": st.sampled_from([0, 2, None])}),
            max_size=4,
            unique_by=lambda guest: str(guest["name"]),
        ),
    }
)
RULES = [
    rule("host-rule"),
    rule("guest-rule", **GUESTS, checks=[check("object.mode", {"is": 2})]),
    rule(
        "mixed-rule", **GUESTS, checks=[check("object.mode", {"is": 2}, pending="guest_restart"), check("host.value")]
    ),
    rule("list-rule", checks=[check("guests[?mode != `2`].name", {"empty": True})]),
]


@settings(deadline=None)
@given(FACTS, st.randoms())
def test_the_order_of_facts_changes_no_finding(facts: dict[str, t.Any], random: t.Any) -> None:
    evaluation = Evaluation(RULES)
    first = evaluation.findings("kvm1", facts)
    shuffled = {"guests": random.sample(facts["guests"], len(facts["guests"])), "host": facts["host"]}
    again = Evaluation(RULES).findings("kvm1", shuffled)

    def comparable(findings: list[dict[str, t.Any]]) -> t.Any:
        # A list that was observed keeps the order of the facts.
        return [(one["rule"], one["object"], one["state"], one["reason"].count(",")) for one in findings]

    assert comparable(first) == comparable(again)
    # What an evaluation has seen before does not matter.
    assert evaluation.findings("kvm1", facts) == first


@settings(deadline=None)
@given(FACTS)
def test_every_rule_has_a_finding_and_none_passes_on_nothing(facts: dict[str, t.Any]) -> None:
    findings = Evaluation(RULES).findings("kvm1", facts)
    assert {one["rule"] for one in findings} == {one.id for one in RULES}
    read = isinstance(facts["host"], dict) and facts["host"].get("value") is not None
    for one in findings:
        if one["state"] == "pass":
            assert one["checks"] and one["observed"] and one["expected"]
            assert read or one["rule"] not in ("host-rule", "mixed-rule")
            assert facts["guests"] or one["rule"] == "host-rule"
        if one["state"] in ("unknown", "not_applicable"):
            assert one["reason"]
    names = {one["object"]["name"] for one in findings if one["object"]["type"] == "guest"}
    assert names == {guest["name"] for guest in facts["guests"]}


def test_what_is_about_no_object_is_asked_once_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    ask = Host._ask

    def counted(self: Host, expression: t.Any) -> t.Any:
        asked.append(expression.query.text)
        return ask(self, expression)

    monkeypatch.setattr(Host, "_ask", counted)
    made = rule(**GUESTS, checks=[check("object.mode", {"is": 2}), check("length(host.values)", {"at_least": 1})])
    Evaluation([made, made]).findings("kvm1", {"guests": [{"name": str(n), "mode": 2} for n in range(9)], "host": {}})
    assert asked.count("length(host.values)") == 1
    assert asked.count("guests") == 1
    assert asked.count("object.mode") == 18


def test_what_says_the_same_is_kept_once_and_what_differs_is_not() -> None:
    made = [rule(checks=[check("host.value", {"one_of": [1, True, "1"]})])]
    evaluation = Evaluation(made)
    found = [evaluation.findings(str(n), {"host": {"value": value}})[0] for n, value in enumerate([1, True, "1", 1])]
    assert [one["checks"][0]["observed"] for one in found] == [1, True, "1", 1]
    assert [type(one["checks"][0]["observed"]) for one in found] == [int, bool, str, int]
    assert found[0]["checks"] is found[3]["checks"]
    assert found[0]["object"] != found[3]["object"]


def test_parameters_are_those_of_the_rule() -> None:
    made = [
        rule(
            name, params={"allowed": allowed}, checks=[check("difference(host.users, params.allowed)", {"empty": True})]
        )
        for name, allowed in (("one", ["a"]), ("two", ["b"]))
    ]
    findings = Evaluation(made).findings("kvm1", {"host": {"users": ["a"]}})
    assert [(one["rule"], one["state"]) for one in findings] == [("one", "pass"), ("two", "fail")]
