# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin audit, in a real run of ansible-playbook over facts that stand in the inventory."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.tests.unit.plugins import ansibleplay

RULE = {
    "id": "own-rule",
    "code": "OWN-1",
    "title": "The host is of our release",
    "category": "host",
    "severity": "critical",
    "level": "baseline",
    "checks": [
        {
            "truth": "running",
            "query": "host.os.id",
            "expected": {"is": "debian"},
            "evidence": {"source": "/etc/os-release"},
        }
    ],
    "why": "We run one distribution.",
    "breaks": "Nothing.",
    "remediation": {"mode": "advise", "advice": "Install Debian.", "activation": "reboot"},
    "references": ["our handbook"],
}
WAIVER = {"rule": "own-rule", "reason": "bought so", "owner": "team", "expires": "2999-12-31"}


def facts(os_id: str) -> dict[str, t.Any]:
    return {"hypervisor": {"host": {"os": {"id": os_id}, "hostname": "{{ 7 * 7 }}"}}}


@pytest.fixture
def run(tmp_path: Path) -> t.Callable[..., t.Any]:
    """Run the module with options over the hosts good, bad, broken (the task failed) and unread (it never ran)."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/own.yml").write_text(yaml.safe_dump([RULE]), encoding="utf-8")
    hosts: dict[str, t.Any] = {
        "good": {"found": facts("debian")},
        "bad": {"found": facts("other")},
        "broken": {"found": {"failed": True, "msg": "no root here"}},
        "unread": {},
    }
    inventory = {
        "all": {"hosts": hosts, "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    }
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def play(**options: t.Any) -> t.Any:
        module = {
            "hosts": list(hosts),
            "facts": "found",
            "rules": [str(tmp_path / "rules")],
            "only": ["own-rule"],
            **options,
        }
        keep = {"content": "{{ judged | to_json }}", "dest": str(tmp_path / "judged.json"), "mode": "0600"}
        tasks = [
            {"hypervisor.hardening.audit": module, "register": "judged", "run_once": True, "ignore_errors": True},
            {"ansible.builtin.copy": keep, "run_once": True, "check_mode": False},
        ]
        plays = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(plays), encoding="utf-8")
        ansibleplay.play(tmp_path, "-i", "inventory.yml", "--check", "play.yml")
        return json.loads((tmp_path / "judged.json").read_text(encoding="utf-8"))

    return play


def test_judges_every_host_and_says_why_one_could_not_be(run: t.Callable[..., t.Any]) -> None:
    judged = run(fail_on=["critical"])
    assert not judged["changed"]
    assert sorted(judged["failures"]) == ["bad", "broken", "unread"]
    assert judged["failures"]["bad"][0].startswith("bad: OWN-1 own-rule (critical): fail")
    hosts = judged["summary"]["hosts"]
    assert {name: host["state"] for name, host in hosts.items()} == {
        "good": "audited",
        "bad": "audited",
        "broken": "not_audited",
        "unread": "not_audited",
    }
    assert hosts["broken"]["reason"] == "no root here"
    assert judged["files"] == []


def test_writes_reports_for_their_owner_alone_in_check_mode_too(run: t.Callable[..., t.Any], tmp_path: Path) -> None:
    reports = tmp_path / "deep/reports"
    judged = run(report_dir=str(reports), formats="json, csv")
    assert judged["files"] == [str(reports / "audit.json"), str(reports / "audit.csv")]
    assert sorted(path.name for path in reports.iterdir()) == ["audit.csv", "audit.json"]
    assert (reports / "audit.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((reports / "audit.json").read_text(encoding="utf-8"))["hosts"][0]["name"] == "bad"

    again = run(report_dir=str(reports), previous=str(reports / "audit.json"), waivers=[WAIVER], fail_on=["critical"])
    assert "bad" not in again["failures"]
    compared = json.loads((reports / "audit.json").read_text(encoding="utf-8"))["comparison"]
    assert [(one["host"], one["after"]) for one in compared["other"]] == [("bad", "waived")]


def test_waivers_of_a_file_count_too(run: t.Callable[..., t.Any], tmp_path: Path) -> None:
    (tmp_path / "waivers.yml").write_text(yaml.safe_dump([WAIVER]), encoding="utf-8")
    assert run(waivers_file=str(tmp_path / "waivers.yml"))["summary"]["counts"]["waived"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"waivers": [{"rule": "own-rule"}]}, "expires"),
        ({"only": ["no-such-rule"]}, "no-such-rule"),
        ({"formats": ["pdf"]}, "pdf is none of"),
        ({"fail_on": ["grave"]}, "grave is none of"),
        ({"previous": "/nowhere/audit.json"}, "/nowhere/audit.json"),
        ({"rules": ["/nowhere"]}, "/nowhere"),
        ({"waivers_file": "inventory.yml"}, "no list of waivers"),
        ({"report_dir": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_what_is_wrong_is_said(run: t.Callable[..., t.Any], options: dict[str, t.Any], said: str) -> None:
    judged = run(**options)
    assert judged["failed"]
    assert said in judged["msg"]


def test_without_a_host_only_what_was_given_is_checked(run: t.Callable[..., t.Any], tmp_path: Path) -> None:
    assert run(hosts=[], report_dir=str(tmp_path / "reports"))["files"] == []
    assert not (tmp_path / "reports").exists()
    assert "grave is none of" in run(hosts=[], fail_on=["grave"])["msg"]


def test_tells_which_hosts_can_take_guests_of_which(run: t.Callable[..., t.Any], tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    run(report_dir=str(reports), migration_group="rack1")
    (group,) = json.loads((reports / "audit.json").read_text(encoding="utf-8"))["migration"]["groups"]
    assert (group["name"], group["hosts"]) == ("rack1", ["bad", "broken", "good", "unread"])
    assert {one["reason"] for one in group["unknown"]} == {
        "not audited",
        "host.time is not known",
    }
    assert "Group <bdi>rack1</bdi>: 4 hosts" in (reports / "audit.html").read_text(encoding="utf-8")
    run(report_dir=str(reports), migration_group="rack1", hosts=["good", "unread"])
    assert json.loads((reports / "audit.json").read_text(encoding="utf-8"))["migration"] is None
