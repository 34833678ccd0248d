# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import visible
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_csv import render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

# What a spreadsheet takes for a formula: OWASP, "CSV Injection".
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def test_a_line_for_each_finding_and_each_host_that_was_not_audited() -> None:
    master = masters.small()
    rows = read(render(master))
    findings = [(host["name"], entry["rule"], entry["state"]) for host in master["hosts"] for entry in host["findings"]]
    assert [(row["host"], row["rule"], row["state"]) for row in rows] == [*findings, ("kvm3", "", "not_audited")]
    assert rows[-1]["reason"] == "unreachable: connection timed out"


def test_a_line_says_all_of_a_finding() -> None:
    finding = masters.finding("x", "waived", "guest", "web", reason="r")
    (row,) = read(render(masters.master([masters.host("kvm1", [finding])])))
    assert row == {
        "host": "kvm1",
        "state": "waived",
        "pending": "",
        "severity": "medium",
        "category": "qemu",
        "level": "baseline",
        "rule": "x",
        "code": "TST-01",
        "title": "Title of x",
        "object_type": "guest",
        "object": "web",
        "guest": "",
        "observed": "0",
        "expected": "1",
        "reason": "r",
        "evidence": "/etc/libvirt/qemu.conf",
        "why": "Why x matters.",
        "fix": "Harden the host (hypervisor_qemu_settings). Advice for x. Effective after a restart of the guest.",
        "breaks": "What the fix of x can break.",
        "waiver_reason": "The vendor's appliance needs it.",
        "waiver_owner": "platform team",
        "waiver_expires": "2027-01-31",
        "waiver_ticket": "SEC-17",
        "collected": masters.GENERATED,
    }


def test_what_belongs_to_a_guest_names_it() -> None:
    finding = masters.finding("x", "fail", object={"type": "disk", "name": "vda", "guest": "web"})
    (row,) = read(render(masters.master([masters.host("kvm1", [finding])])))
    assert (row["object_type"], row["object"], row["guest"]) == ("disk", "vda", "web")


def test_no_host_leaves_the_head() -> None:
    assert read(render(masters.empty())) == []
    assert render(masters.empty()).startswith('"host","state",')


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_no_cell_is_a_formula(delimiter: str) -> None:
    text = render(masters.nasty())
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    cells = [cell for row in rows for cell in row]
    assert [cell for cell in cells if cell.lstrip().startswith(FORMULA)] == []
    assert any(cell.startswith("'=cmd") for cell in cells)


def test_the_breaks_of_a_rule_are_guarded_too() -> None:
    assert {row["breaks"] for row in read(render(masters.nasty())) if row["rule"]} == {"'=breaks()"}


@settings(deadline=None)
@given(st.text())
def test_each_text_is_read_back_as_it_can_be_seen(text: str) -> None:
    finding = masters.finding("x", "fail", "guest", text, observed=text)
    (row,) = read(render(masters.master([masters.host("kvm1", [finding])])))
    seen = visible(text)
    assert row["object"] == row["observed"] == (f"'{seen}" if seen.startswith(FORMULA) else seen)


def test_lines_end_as_rfc_4180_has_it() -> None:
    text = render(masters.nasty())
    assert text.count("\n") == text.count("\r\n") == len(read(text)) + 1
