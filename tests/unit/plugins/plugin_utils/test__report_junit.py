# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import typing as t
from collections import Counter

import junitparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import visible
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_junit import render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters


def read(master: masters.Json) -> t.Any:
    return junitparser.JUnitXml.fromstring(render(master).encode())


def cases(master: masters.Json) -> list[junitparser.TestCase]:
    return [case for suite in read(master) for case in suite]


def outcome(case: junitparser.TestCase) -> t.Any:
    results = case.result
    assert len(results) <= 1
    return results[0] if results else None


def test_a_suite_for_each_host_and_a_case_for_each_finding() -> None:
    master = masters.small()
    suites = list(read(master))
    assert [suite.name for suite in suites] == [suite.hostname for suite in suites] == ["kvm1", "kvm2", "kvm3"]
    assert [len(list(suite)) for suite in suites] == [8, 7, 1]


@pytest.mark.parametrize(
    ("state", "element", "message"),
    [
        ("pass", None, ""),
        ("fail", junitparser.Failure, "observed 0, expected 1"),
        ("pending", junitparser.Failure, "observed 0, expected 1 (pending guest restart)"),
        ("unknown", junitparser.Error, "unknown: /proc/4711/status cannot be read."),
        ("manual", junitparser.Skipped, "manual: A person has to look at the switch."),
        ("not_applicable", junitparser.Skipped, "not applicable: No guest runs."),
        (
            "waived",
            junitparser.Skipped,
            "waived: The vendor's appliance needs it. (platform team, expires 2027-01-31, SEC-17, otherwise fail)",
        ),
    ],
)
def test_the_outcome_of_each_state(state: str, element: t.Any, message: str) -> None:
    (case,) = cases(masters.master([masters.host("kvm1", [masters.finding("x", state)])]))
    result = outcome(case)
    if element is None:
        assert result is None
    else:
        assert isinstance(result, element)
        assert (result.type, result.message) == (state, message)


def test_a_failure_tells_evidence_reason_and_fix() -> None:
    (case,) = cases(masters.master([masters.host("kvm1", [masters.finding("x", "fail", "guest", "web")])]))
    assert (case.classname, case.name) == ("kvm1.qemu", "TST-01 x: Title of x [guest web]")
    result = outcome(case)
    assert result.text.splitlines() == [
        "severity: medium",
        "observed: 0",
        "expected: 1",
        "evidence: /etc/libvirt/qemu.conf",
        "why: Why x matters.",
        "fix: Harden the host (hypervisor_qemu_settings). Advice for x. Effective after a restart of the guest.",
        "danger: What the fix of x can break.",
    ]


def test_a_host_that_was_not_audited_is_an_error() -> None:
    (case,) = cases(masters.master([masters.not_audited("kvm1", "unreachable")]))
    result = outcome(case)
    assert isinstance(result, junitparser.Error)
    assert (result.type, result.message) == ("not_audited", "unreachable")


@pytest.mark.parametrize("master", [masters.small(), masters.every_combination(), masters.nasty(), masters.empty()])
def test_the_sums_are_those_that_a_reader_makes(master: masters.Json) -> None:
    read_back = read(master)
    told = [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in [read_back, *read_back]]
    read_back.update_statistics()
    assert told == [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in [read_back, *read_back]]
    states = Counter(finding["state"] for host in master["hosts"] for finding in host["findings"])
    missing = sum(host["state"] != "audited" for host in master["hosts"])
    assert told[0] == (
        states.total() + missing,
        states["fail"] + states["pending"],
        states["unknown"] + missing,
        states["waived"] + states["manual"] + states["not_applicable"],
    )


def test_a_suite_says_what_the_host_runs_and_when_it_was_seen() -> None:
    (suite,) = read(masters.master([masters.host("kvm1", [masters.finding("x", "pass")])]))
    properties = {entry.name: entry.value for entry in suite.properties()}
    assert properties["libvirt"] == "11.3.0" and properties["score"] == "100.0" and properties["level"] == "hardened"
    assert suite.timestamp == masters.GENERATED.removesuffix("Z")


@settings(deadline=None)
@given(st.text())
def test_any_text_is_xml_and_comes_back_as_it_can_be_seen(text: str) -> None:
    finding = masters.finding("x", "fail", "guest", text, observed=text)
    (suite,) = read(masters.master([masters.host(text, [finding])]))
    (case,) = suite
    result = outcome(case)
    seen = visible(text)
    assert suite.name == suite.hostname == seen
    assert case.classname == f"{seen}.qemu"
    assert case.name == f"TST-01 x: Title of x [guest {seen}]"
    assert result.message == f"observed {seen or 'nothing'}, expected 1"
    assert f"observed: {seen or 'nothing'}" in result.text.splitlines()


def test_hostile_names_are_no_elements() -> None:
    names = {element.tag for _event, element in etree.iterparse(io.BytesIO(render(masters.nasty()).encode()))}
    assert names == {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped",
    }  # fmt: skip


def test_each_case_of_a_host_has_a_name_of_its_own() -> None:
    kinds = [("guest", "a"), ("guest", "b"), ("disk", "a"), ("host", "kvm1")]
    findings = [masters.finding(rule, "fail", *target) for rule in ("x", "y") for target in kinds]
    named = Counter((case.classname, case.name) for case in cases(masters.master([masters.host("kvm1", findings)])))
    assert set(named.values()) == {1}
