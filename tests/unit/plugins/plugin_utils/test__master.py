# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._master import (
    Selection,
    SelectionError,
    audit,
    failures,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._waivers import read
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils.auditrules import check, rule

NOW = datetime.datetime(2026, 11, 21, 7, 50, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
GUESTS = {"objects": "guests", "object_type": "guest", "none": "No guest runs.", "category": "guest"}
RULES = [
    rule("values", code="ZZZ-2", severity="critical"),
    rule("modes", **GUESTS, checks=[check("object.mode", {"is": 2})], severity="high", level="hardened"),
    rule("others", code="AAA-1", category="kernel", level="strict"),
    rule("daemons", code="DMN-01", category="daemon"),
]
HOSTILE = ["\x1b[31mred", "\u202egnp.exe", "x" * 10_000, "<script>alert(1)</script>", "'; DROP", "a\nb", "\ud800"]


def facts(value: t.Any = 1, **guests: t.Any) -> dict[str, t.Any]:
    return {
        "host": {"value": value, "os": {"id": "debian", "name": "Debian 13"}, "kernel": "6.12", "time": 1795243800.9},
        "libvirt": {"version": "11.3.0", "qemu_version": "10.0.2"},
        "guests": [{"name": name, "mode": mode} for name, mode in guests.items()],
    }


def judged(hosts: dict[str, t.Any], waivers: t.Any = (), **selection: t.Any) -> dict[str, t.Any]:
    accepted = read(list(waivers), {one.id for one in RULES})
    return audit(hosts, RULES, Selection(**selection), accepted, NOW, "0.1.0")


def test_the_master_is_as_its_readers_expect() -> None:
    master = judged({"kvm2": facts(web=2, db=0), "kvm1": "unreachable: no route to host"})
    assert json.loads(json.dumps(master)) == master
    assert list(master) == [
        "schema", "collection", "generated", "level", "selection", "rules", "hosts", "counts", "score", "waivers",
        "comparison",
    ]  # fmt: skip
    assert (master["schema"], master["collection"]) == ("hypervisor.hardening/audit/1", "0.1.0")
    assert (master["generated"], master["level"]) == ("2026-11-21T06:50:00Z", "hardened")
    assert master["selection"] == {"only": [], "skip": [], "disabled": []}
    # By category and code.
    assert list(master["rules"]) == ["daemons", "modes", "values"]
    assert set(master["rules"]["values"]) == {
        "code", "title", "category", "severity", "level", "why", "breaks", "remediation", "references", "mappings",
    }  # fmt: skip
    gone, host = master["hosts"]
    assert gone == {
        "name": "kvm1", "state": "not_audited", "reason": "unreachable: no route to host", "collected": None,
        "facts": {}, "findings": [], "counts": dict.fromkeys(master["counts"], 0),
        "score": {
            "value": None, "passed": 0, "applicable": 0, "capped": False,
            "fixable_now": None, "fixable_passed": 0, "fixable_applicable": 0,
        },
    }  # fmt: skip
    assert (host["state"], host["collected"]) == ("audited", "2026-11-21T06:50:00Z")
    assert host["facts"] == {
        "os": "Debian 13", "kernel": "6.12", "libvirt": "11.3.0", "qemu": "10.0.2", "guests": 2,
    }  # fmt: skip
    assert [(one["rule"], one["object"]["name"], one["state"]) for one in host["findings"]] == [
        ("daemons", "kvm2", "pass"),
        ("modes", "db", "fail"),
        ("modes", "web", "pass"),
        ("values", "kvm2", "pass"),
    ]
    assert {state: number for state, number in host["counts"].items() if number} == {"pass": 3, "fail": 1}
    assert master["counts"] == host["counts"]
    assert set(master["counts"]) == {"pass", "fail", "not_applicable", "waived", "manual", "unknown", "pending"}
    assert (host["score"]["passed"], host["score"]["applicable"]) == (19, 22)
    assert master["waivers"] == {"expired": [], "unused": [], "expiring": []}


@pytest.mark.parametrize(
    ("given_facts", "reason"),
    [
        (None, "no facts"),
        ({}, "no facts"),
        ("", "no facts"),
        ("failed: sudo wants a password", "failed: sudo wants a password"),
        ({"unreachable": True, "msg": "timed out"}, "timed out"),
        ({"failed": True, "msg": "needs root", "hypervisor": {}}, "needs root"),
        ({"reason": "left out"}, "left out"),
        ({"guests": []}, "what was given for this host are no facts of hypervisor_info"),
        ([1], "no facts"),
    ],
)
def test_a_host_without_facts_is_not_audited(given_facts: t.Any, reason: str) -> None:
    (host,) = judged({"kvm1": given_facts})["hosts"]
    assert (host["state"], host["reason"], host["findings"]) == ("not_audited", reason, [])


def test_the_whole_result_of_the_module_will_do() -> None:
    (host,) = judged({"kvm1": {"changed": False, "hypervisor": facts()}})["hosts"]
    assert host["state"] == "audited"


def test_one_hostile_host_costs_the_others_nothing() -> None:
    deep: t.Any = {}
    for _level in range(100_000):
        deep = {"value": deep}
    hosts = {"kvm1": facts(deep), "kvm2": facts()}
    accepted = audit(hosts, RULES, Selection(), [], NOW, "0.1.0", plain)["hosts"]
    assert [(host["name"], host["state"], host["reason"]) for host in accepted] == [
        ("kvm1", "not_audited", "its facts are nested too deeply"),
        ("kvm2", "audited", ""),
    ]


def test_a_host_whose_own_section_failed_is_audited_as_far_as_it_goes() -> None:
    (host,) = judged({"kvm1": {"host": {"error": "x"}, "guests": {"error": "y"}}})["hosts"]
    assert {one["state"] for one in host["findings"]} == {"unknown"}
    assert host["facts"] == {"os": None, "kernel": None, "libvirt": None, "qemu": None, "guests": None}


@pytest.mark.parametrize("time", [None, "now", True, -1, 1e300, float("nan")])
def test_a_clock_that_tells_nothing_is_no_time(time: t.Any) -> None:
    (host,) = judged({"kvm1": {"host": {"time": time}}})["hosts"]
    assert host["collected"] is None


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        ({"level": "baseline"}, ["daemons", "values"]),
        ({"level": "strict"}, ["daemons", "modes", "others", "values"]),
        ({"only": ("guest", "ZZZ-2")}, ["modes", "values"]),
        ({"only": ("others",)}, []),
        ({"skip": ("guest", "daemons")}, ["values"]),
        ({"only": ("guest",), "skip": ("modes",)}, []),
        ({"disabled": ("values",)}, ["daemons", "modes"]),
        ({"only": ("cpu",)}, []),
    ],
)
def test_rules_are_chosen(selection: dict[str, t.Any], chosen: list[str]) -> None:
    assert list(judged({}, **selection)["rules"]) == chosen


def test_what_names_no_rule_is_refused() -> None:
    with pytest.raises(SelectionError) as refused:
        judged({}, only=("valus", "guest"), skip=("X-1",), disabled=("guest",))
    assert str(refused.value).splitlines() == [
        "only: there is no rule and no category 'valus'",
        "skip: there is no rule and no category 'X-1'",
        "disabled: there is no rule 'guest'",
    ]
    with pytest.raises(SelectionError, match=r"'paranoid' is unknown; it is one of baseline, hardened, strict"):
        judged({}, level="paranoid")


def test_waivers_are_applied_and_told() -> None:
    waivers = [
        {"rule": "modes", "guests": ["db"], "reason": "r", "owner": "o", "expires": "2026-12-01", "ticket": "T-1"},
        {"rule": "values", "reason": "r", "owner": "o", "expires": "2026-11-20"},
        {"rule": "others", "reason": "r", "owner": "o", "expires": "2027-11-20"},
    ]
    master = judged({"kvm1": facts(0, db=0, web=0)}, waivers)
    (host,) = master["hosts"]
    assert [(one["rule"], one["object"]["name"], one["state"]) for one in host["findings"]] == [
        ("values", "kvm1", "fail"),
        ("daemons", "kvm1", "fail"),
        ("modes", "db", "waived"),
        ("modes", "web", "fail"),
    ]
    assert {name: [one["rule"] for one in entries] for name, entries in master["waivers"].items()} == {
        "expired": ["values"],
        # The rule of the third belongs to a higher level.
        "unused": [],
        "expiring": ["modes"],
    }
    assert host["score"]["capped"] is True


def test_hostile_names_are_data() -> None:
    named = {name: {**facts(), "guests": [{"name": guest, "mode": 0} for guest in HOSTILE]} for name in HOSTILE}
    master = judged(named)
    assert {host["name"] for host in master["hosts"]} == set(HOSTILE)
    for host in master["hosts"]:
        found = {one["object"]["name"] for one in host["findings"] if one["object"]["type"] == "guest"}
        assert found == set(HOSTILE)
    assert json.loads(json.dumps(master)) == master


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([None, 0, 1]), max_size=4),
    st.randoms(),
)
def test_the_order_of_hosts_and_rules_changes_nothing(values: dict[str, t.Any], random: t.Any) -> None:
    hosts = {name: facts(value, web=value) for name, value in values.items()}
    names = random.sample(sorted(hosts), len(hosts))
    first = audit(hosts, RULES, Selection(), [], NOW, "0.1.0")
    again = audit(
        {name: hosts[name] for name in names}, random.sample(RULES, len(RULES)), Selection(), [], NOW, "0.1.0"
    )
    assert json.dumps(first) == json.dumps(again)


UNREAD = "could not be read: object.mode"
MASTER = judged({"kvm1": facts(0, **{"web\x1b[31m": 0, "db": None}), "kvm2": facts(), "kvm3": "unreachable"})


@pytest.mark.parametrize(
    ("fail_on", "host", "lines"),
    [
        ([], "kvm1", []),
        (["critical"], "kvm2", []),
        (
            ["critical"],
            "kvm1",
            ["kvm1: ZZZ-2 values (critical): fail: observed 0, expected 1"],
        ),
        (
            ["high"],
            "kvm1",
            [
                "kvm1: DMN-01 daemons (high): fail: observed 0, expected 1",
                r"kvm1: guest web\x1b[31m: MODES modes (high): fail: observed 0, expected 2",
            ],
        ),
        (
            ["unknown"],
            "kvm1",
            [f"kvm1: guest db: MODES modes (high): unknown: observed not known, expected 2: {UNREAD}"],
        ),
        (["low"], "kvm3", ["kvm3: not audited: unreachable"]),
    ],
)
def test_failures_are_told(fail_on: list[str], host: str, lines: list[str]) -> None:
    assert failures(MASTER, fail_on).get(host, []) == lines


def test_fail_knows_all_that_fails_and_nothing_waived() -> None:
    assert len(failures(MASTER, ["fail"])["kvm1"]) == 3
    waivers = [{"rule": "values", "reason": "r", "owner": "o", "expires": "2027-12-01"}]
    assert failures(judged({"kvm1": facts(0)}, waivers), ["critical", "unknown", "pending", "manual"]) == {}


def test_a_word_that_is_neither_severity_nor_state_is_refused() -> None:
    with pytest.raises(SelectionError, match=r"fail_on: sever is none of critical, .*unknown"):
        failures(MASTER, ["sever", "high"])
