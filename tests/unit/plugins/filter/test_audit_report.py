# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hypervisor.hardening.plugins.filter.audit_report import FORMATS, FilterModule
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import (
    _report_csv,
    _report_json,
    _report_junit,
    _report_markdown,
    _report_sarif,
    _report_summary,
    _report_terminal,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._compare import compare
from ansible_collections.hypervisor.hardening.tests.unit.plugins import ansibleplay
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

audit_report = FilterModule().filters()["audit_report"]
RENDERERS = {
    "terminal": _report_terminal,
    "markdown": _report_markdown,
    "junit": _report_junit,
    "sarif": _report_sarif,
    "csv": _report_csv,
    "json": _report_json,
    "summary": _report_summary,
}


@pytest.mark.parametrize("name", RENDERERS)
def test_each_format_is_that_of_its_renderer(name: str) -> None:
    renderer: t.Any = RENDERERS[name]
    assert audit_report(masters.small(), name) == renderer.render(masters.small())


def test_html_is_a_page() -> None:
    assert audit_report(masters.small(), "html").lstrip().lower().startswith("<!doctype html>")


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_no_master_is_refused_in_words(name: str) -> None:
    with pytest.raises(AnsibleFilterError, match="audit_report: The report is no result of an audit"):
        audit_report({"hosts": []}, name)
    with pytest.raises(AnsibleFilterError, match="audit_report: The report is of the kind 'other'"):
        audit_report(masters.small() | {"schema": "other"}, name)


def test_what_json_has_not_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="audit_report: A value of the type object is neither text"):
        audit_report(masters.small() | {"level": object()}, "csv")


@pytest.mark.parametrize("name", ["pdf", "", "../_levels", None])
def test_an_unknown_format_is_refused_with_the_known_ones(name: t.Any) -> None:
    with pytest.raises(
        AnsibleFilterError, match="is unknown; it is one of terminal, html, markdown, junit, sarif, csv, json, summary"
    ):
        audit_report(masters.small(), name)


PLAYBOOK = r"""
- hosts: localhost
  gather_facts: false
  vars:
    # What comes from hosts is data, and so is what comes from a file; extra variables would be templates.
    master: "{{ lookup('ansible.builtin.file', 'master.json') | ansible.builtin.from_json }}"
  tasks:
    - ansible.builtin.copy:
        content: "{{ master | hypervisor.hardening.audit_report(item) }}"
        dest: "{{ playbook_dir }}/report.{{ item }}"
        mode: "0600"
      loop: [markdown, junit, sarif, csv, json]
    - ansible.builtin.copy:
        content: "{{ master | hypervisor.hardening.audit_report('terminal') | join('\n') }}"
        dest: "{{ playbook_dir }}/report.terminal"
        mode: "0600"
"""


def test_a_playbook_writes_each_report_and_runs_nothing_that_a_guest_is_called(tmp_path: Path) -> None:
    """With Ansible's own kinds of text, which a filter is handed there."""
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    # What Ansible passes on is Unicode throughout.
    given = json.dumps(masters.nasty()).replace(r"\udcff\ud800", "")
    (tmp_path / "master.json").write_text(given)
    ansibleplay.play(tmp_path, "play.yml")
    for name in RENDERERS.keys() - {"summary"}:
        report = audit_report(json.loads(given), name)
        wanted = "\n".join(report) if name == "terminal" else report
        assert (tmp_path / f"report.{name}").read_bytes() == wanted.encode()
        assert "{{ 7 * 7 }}" in wanted


def test_json_is_the_master_to_compare_with() -> None:
    report = audit_report(masters.nasty(), "json")
    assert report.isascii()
    assert json.loads(report) == masters.nasty()
    assert compare(masters.nasty(), json.loads(report))["better"] == []


def test_a_summary_names_what_fails_the_gravest_first() -> None:
    rules = {name: masters.rule(name, severity=severity) for name, severity in (("a", "low"), ("b", "critical"))}
    findings = [masters.finding(rule, "fail", "guest", guest) for rule in rules for guest in ("web", "db")]
    master = masters.master([masters.host("kvm1", findings), masters.not_audited("kvm2", "down")], rules)
    summary = audit_report(master, "summary")
    assert summary["hosts"]["kvm1"]["failed"] == ["b", "a"]
    assert summary["hosts"]["kvm1"]["counts"]["fail"] == 4
    assert summary["hosts"]["kvm1"]["score"] == 0.0
    assert summary["hosts"]["kvm2"] == {
        "state": "not_audited",
        "reason": "down",
        "counts": dict.fromkeys(masters.STATES, 0),
        "score": None,
        "failed": [],
    }
    assert json.dumps(summary).count("web") == 0
