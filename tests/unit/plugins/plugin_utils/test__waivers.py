# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._waivers import Book, WaiverError, read

TODAY = datetime.date(2026, 11, 21)
RULES = {"seccomp", "root"}


def entry(**changes: t.Any) -> dict[str, t.Any]:
    waiver = {"rule": "seccomp", "reason": "Needed.", "owner": "platform", "expires": "2027-06-30", **changes}
    return {key: value for key, value in waiver.items() if value is not None}


def finding(
    rule: str = "seccomp", state: str = "fail", name: str = "web1", type_: str = "guest", **about: str
) -> t.Any:
    return {
        "rule": rule,
        "object": {"type": type_, "name": name, **about},
        "state": state,
        "reason": "",
        "waiver": None,
    }


def applied(findings: list[t.Any], *entries: dict[str, t.Any], host: str = "kvm1") -> tuple[list[str], t.Any]:
    book = Book(read(list(entries), RULES), TODAY)
    return [one["state"] for one in book.apply(host, findings)], book.report(RULES)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "waived"),
        ({"hosts": ["kvm*"]}, "waived"),
        ({"hosts": "kvm[0-9]"}, "waived"),
        ({"hosts": ["web1"]}, "fail"),
        ({"hosts": ["x", "kvm1"], "guests": ["db", "web?"]}, "waived"),
        ({"guests": ["web"]}, "fail"),
        ({"guests": ["WEB*"]}, "fail"),
        ({"objects": ["web1"]}, "waived"),
        ({"objects": ["db*"]}, "fail"),
        ({"guests": ["web1"], "objects": ["db*"]}, "fail"),
        ({"rule": "root"}, "fail"),
    ],
)
def test_covers_what_its_patterns_say(changes: dict[str, t.Any], state: str) -> None:
    assert applied([finding()], entry(**changes))[0] == [state]


def test_a_guests_pattern_means_guests_and_what_belongs_to_one() -> None:
    findings = [
        finding(name="kvm1", type_="host"),
        finding(name="vnet0", type_="interface", guest="web1"),
        finding(name="vnet1", type_="interface", guest="db"),
        finding(name="web1", type_="interface"),
    ]
    assert applied(findings, entry(guests=["web*"]))[0] == ["fail", "waived", "fail", "fail"]


@pytest.mark.parametrize("state", ["fail", "pending", "unknown", "manual"])
def test_what_is_waived_keeps_what_it_was(state: str) -> None:
    one = finding(state=state)
    assert applied([one], entry(ticket="SEC-17"))[0] == ["waived"]
    assert one["waiver"] == {
        "reason": "Needed.", "owner": "platform", "expires": "2027-06-30", "ticket": "SEC-17", "state": state,
    }  # fmt: skip


@pytest.mark.parametrize("state", ["pass", "not_applicable"])
def test_nothing_else_is_waived(state: str) -> None:
    one = finding(state=state)
    states, report = applied([one], entry())
    assert (states, one["waiver"]) == ([state], None)
    assert [(left["rule"], left["why"]) for left in report["unused"]] == [
        ("seccomp", "nothing that it covers falls short")
    ]


def test_an_expired_one_fails_again_and_comes_first() -> None:
    findings = [finding("root"), finding(name="a", state="pass"), finding(name="b")]
    book = Book(read([entry(expires="2026-11-20")], RULES), TODAY)
    after = book.apply("kvm1", findings)
    assert [(one["rule"], one["object"]["name"], one["state"]) for one in after] == [
        ("seccomp", "b", "fail"),
        ("root", "web1", "fail"),
        ("seccomp", "a", "pass"),
    ]
    assert after[0]["reason"] == "the waiver of platform has expired on 2026-11-20"
    assert after[0]["waiver"] is None
    (expired,) = book.report(RULES)["expired"]
    assert (expired["rule"], expired["expires"], expired["findings"]) == ("seccomp", "2026-11-20", 1)
    assert book.report(RULES)["unused"] == []


def test_one_that_has_expired_is_told_once() -> None:
    report = applied([finding(state="pass")], entry(expires="2020-01-01"))[1]
    assert [name for name, entries in report.items() if entries] == ["expired"]
    assert report["expired"][0]["findings"] == 0


def test_one_that_holds_outlives_one_that_has_expired() -> None:
    assert applied([finding()], entry(expires="2020-01-01"), entry())[0] == ["waived"]


@pytest.mark.parametrize(
    ("expires", "state", "lists"),
    [
        ("2026-11-20", "fail", ["expired"]),
        ("2026-11-21", "waived", ["expiring"]),
        ("2026-12-21", "waived", ["expiring"]),
        ("2026-12-22", "waived", []),
        (datetime.date(2026, 11, 21), "waived", ["expiring"]),
    ],
)
def test_holds_through_its_last_day(expires: t.Any, state: str, lists: list[str]) -> None:
    states, report = applied([finding()], entry(expires=expires))
    assert states == [state]
    assert [name for name, entries in report.items() if entries] == lists


def test_one_that_covers_no_host_is_told_as_such_and_those_of_other_rules_not_at_all() -> None:
    book = Book(read([entry(hosts=["gone*"]), entry(rule="root")], RULES), TODAY)
    book.apply("kvm1", [finding()])
    (unused,) = book.report({"seccomp"})["unused"]
    assert unused == {
        "rule": "seccomp", "hosts": ["gone*"], "guests": [], "objects": [], "reason": "Needed.", "owner": "platform",
        "expires": "2027-06-30", "ticket": "", "findings": 0, "why": "no host of this run is covered",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rule": None}, "rule: is missing"),
        ({"rule": "secomp"}, "rule: there is no rule secomp"),
        ({"reason": " "}, "reason: is no text"),
        ({"owner": ["a"]}, "owner: is no text"),
        ({"expires": None}, "expires: is missing"),
        ({"expires": "never"}, "expires: 'never' is no date like 2026-11-21"),
        ({"expires": "2026-02-30"}, "expires: '2026-02-30' is no date like 2026-11-21"),
        ({"expires": "20261121"}, "expires: '20261121' is no date like 2026-11-21"),
        ({"expires": datetime.datetime(2026, 1, 1)}, "expires: datetime.datetime(2026, 1, 1, 0, 0) is no date"),
        ({"expires": 20261121}, "expires: 20261121 is no date"),
        ({"hosts": []}, "hosts: is no list of patterns; leave it out to cover all"),
        ({"hosts": ""}, "hosts: is no list of patterns"),
        ({"guests": [""]}, "guests: is no list of patterns"),
        ({"guests": [7]}, "guests: is no list of patterns"),
        ({"objects": {"a": 1}}, "objects: is no list of patterns"),
        ({"ticket": ["x"]}, "ticket: is no text"),
        ({"host": ["kvm1"]}, "host: is unknown; there are rule, hosts, "),
    ],
)
def test_a_malformed_one_is_refused(changes: dict[str, t.Any], error: str) -> None:
    with pytest.raises(WaiverError) as refused:
        read([entry(**changes)], RULES)
    (told,) = refused.value.errors
    assert error in told
    assert told.startswith("waiver 1")


def test_all_errors_are_told_at_once() -> None:
    with pytest.raises(WaiverError) as refused:
        read([entry(), "x", entry(rule="nothing", owner=None), {"hosts": None}], RULES)
    assert refused.value.errors == [
        "waiver 2: is no dictionary",
        "waiver 3 (nothing): owner: is missing",
        "waiver 3 (nothing): rule: there is no rule nothing",
        "waiver 4: rule: is missing",
        "waiver 4: reason: is missing",
        "waiver 4: owner: is missing",
        "waiver 4: hosts: is no list of patterns; leave it out to cover all",
        "waiver 4: expires: is missing",
    ]
    with pytest.raises(WaiverError, match="waivers: is no list"):
        read({"rule": "seccomp"}, RULES)
