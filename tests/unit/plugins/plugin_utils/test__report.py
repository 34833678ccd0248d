# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _report
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import ReportError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters


@settings(deadline=None)
@given(st.text())
def test_visible_text_is_one_line_without_what_acts_on_a_terminal(text: str) -> None:
    seen = _report.visible(text)
    # Unicode Standard 4.5: controls, formats (directions among them), surrogates, separators of lines.
    assert not {unicodedata.category(character) for character in seen} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert seen.splitlines() in ([], [seen])


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("web", "web"),
        ("客户机 ü", "客户机 ü"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m\x00\x9b", r"\x1b[31m\x00\x9b"),
        ("\u202egpj", r"\u202egpj"),
        ("\udcff", r"\udcff"),
        ("  a b ", r"\x20\x20a b\x20"),
        ("   ", r"\x20\x20\x20"),
        ("", ""),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_escaped_and_the_rest_stays(text: str, seen: str) -> None:
    assert _report.visible(text) == seen


def test_long_text_says_how_long_it_was() -> None:
    assert _report.shortened("x" * 10_240, 5) == "xxxxx... (10240 characters)"
    assert _report.shortened("xxxxx", 5) == "xxxxx"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (0, "0"),
        (None, "null"),
        (True, "true"),
        ({"is": ["ä"]}, '{"is": ["ä"]}'),
        (["\u202e"], r'["\u202e"]'),
    ],
)
def test_a_value_in_words(value: t.Any, text: str) -> None:
    assert _report.words(value) == text


@pytest.mark.parametrize(
    ("remediation", "text"),
    [
        (
            {"mode": "auto", "variable": "hypervisor_x", "advice": "", "activation": "none"},
            "Harden the host (hypervisor_x).",
        ),
        (
            {"mode": "auto-optin", "variable": "hypervisor_x", "activation": "guest_restart"},
            "Switch it on (hypervisor_x) and harden the host. Effective after a restart of the guest.",
        ),
        (
            {"mode": "advise", "advice": "Do\n this.", "activation": "reboot"},
            "Do this. Effective after a reboot.",
        ),
        ({"mode": "auto", "activation": "daemon_restart"}, "Harden the host. Effective after a restart of the daemon."),
        ({}, ""),
    ],
)
def test_the_fix_and_when_it_takes_effect(remediation: dict[str, str], text: str) -> None:
    assert _report.fix(masters.rule("x", remediation=remediation)) == text


def test_the_evidence_is_that_of_the_checks_that_did_not_pass() -> None:
    checks = [
        masters.check("pass", evidence={"source": "/a"}),
        masters.check("fail", evidence={"source": "/b"}),
        masters.check("unknown", evidence={"source": "/b"}),
        masters.check("fail", evidence=None),
    ]
    assert _report.sources({"checks": checks}) == ("/b",)
    assert _report.sources({"checks": checks[:1]}) == ("/a",)
    assert _report.sources({}) == ()


def test_groups_have_each_finding_once_and_the_gravest_first() -> None:
    master = masters.every_combination()
    groups = _report.grouped(master, masters.STATES)
    assert [group.rule["severity"] for group in groups] == list(masters.SEVERITIES)
    found = [
        (group.id, alike.state, host, target["name"])
        for group in groups
        for alike, places in group.alike.items()
        for host, target in places
    ]
    wanted = [
        (finding["rule"], finding["state"], host["name"], finding["object"]["name"])
        for host in master["hosts"]
        for finding in host["findings"]
    ]
    assert sorted(found) == sorted(wanted)


def test_what_says_the_same_is_told_once() -> None:
    findings = [masters.finding("x", "fail", "guest", name) for name in ("a", "b")]
    hosts = [masters.host(name, findings) for name in ("kvm1", "kvm2")]
    hosts.append(masters.host("kvm3", [masters.finding("x", "fail", observed="other")]))
    (group,) = _report.grouped(masters.master(hosts), ("fail",))
    assert [_report.by_host(places) for places in group.alike.values()] == [
        {"kvm1": ["guest a", "guest b"], "kvm2": ["guest a", "guest b"]},
        {"kvm3": []},
    ]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ({"type": "host", "name": "kvm1"}, "host"),
        ({"type": "guest", "name": "a\nb"}, r"guest a\nb"),
        ({"type": "disk", "name": "vda", "guest": "web"}, "disk vda of guest web"),
    ],
)
def test_the_name_of_an_object(target: dict[str, str], name: str) -> None:
    assert _report.object_name(target) == name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"findings": 1}, "1 finding"),
        ({"findings": 2}, "2 findings"),
        ({"findings": 0, "why": "nothing that it covers falls short"}, "nothing that it covers falls short"),
        ({"findings": None}, ""),
    ],
)
def test_what_a_waiver_was_good_for(changes: dict[str, t.Any], text: str) -> None:
    assert _report.waiver_found(masters.listed_waiver("x", **changes)) == text


def test_a_waiver_in_words() -> None:
    waiver = masters.listed_waiver("x", hosts=["a*", "b"], guests=["web"], objects=["vda"], ticket="")
    assert _report.waiver_scope(waiver) == "hosts a*, b, guests web, objects vda"
    assert _report.waiver_scope({}) == "all hosts"
    text = "The vendor's appliance needs it. (platform team, expires 2027-01-31"
    assert _report.waiver_words(waiver) == f"{text})"
    assert _report.waiver_words(masters.waiver(state="unknown")) == f"{text}, SEC-17, otherwise unknown)"


def test_a_master_with_parts_missing_is_refused_with_their_names() -> None:
    master = masters.small()
    del master["hosts"], master["score"]
    with pytest.raises(ReportError, match=r"is no whole result of an audit: it lacks hosts, score\."):
        _report.require(master)


@pytest.mark.parametrize("master", [None, [], {}, "text", {"hosts": []}])
def test_what_is_no_master_is_refused(master: t.Any) -> None:
    with pytest.raises(ReportError, match="is no result of an audit"):
        _report.require(master)


def test_a_master_of_another_version_is_refused_by_name() -> None:
    with pytest.raises(ReportError, match=r"audit/9\\x1b.*reads 'hypervisor.hardening/audit/1' alone"):
        _report.require(masters.master(schema="hypervisor.hardening/audit/9\x1b"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"value": None}, "none, for nothing applies"),
        (
            {"value": 50.0, "passed": 9.25, "applicable": 1234567, "capped": True, "fixable_now": 95.5},
            (
                "50 of 100, from 9.25 of 1234567 points, capped because a critical control fails; "
                "95.5 of 100 of what can be fixed now"
            ),
        ),
        (
            {"value": 90.0, "passed": 9, "applicable": 10, "capped": False, "fixable_now": None},
            "90 of 100, from 9 of 10 points",
        ),
    ],
)
def test_the_score_has_its_fraction(changes: dict[str, t.Any], text: str) -> None:
    assert _report.score_words(changes) == text
