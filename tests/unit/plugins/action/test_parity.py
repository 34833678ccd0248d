# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action plugin parity, in a real run of ansible-playbook over facts that stand in the inventory."""

from __future__ import annotations

import json
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.tests.unit.plugins import ansibleplay
from ansible_collections.hypervisor.hardening.tests.unit.plugins.fleets import host

TEMPLATE = "{{ 7 * 7 }}"


@pytest.fixture
def run(tmp_path: Path) -> t.Callable[..., t.Any]:
    """Run the module over good, fine, calm, odd (another user), gone (no facts) and the hosts of another group."""
    moment = {"host__time": time.time()}
    given = {
        "good": host("good", **moment),
        "fine": host("fine", **moment, guests=[{"name": TEMPLATE, "machine": "pc-q35-9.0"}]),
        "calm": host("calm", **moment),
        "odd": host("odd", **moment, capabilities__dac={"uid": 0, "gid": 0, "source": "capabilities"}),
    }
    hosts: dict[str, t.Any] = {name: {"hypervisor_hardening_facts": facts} for name, facts in given.items()}
    hosts["gone"] = {}
    hosts["told"] = {"hypervisor_migration_group": "rack2"}
    hosts["apart"] = {
        "hypervisor_hardening_facts": host("apart", **moment, memfd__works=False),
        "hypervisor_hardening_migration_group": "rack2",
    }
    inventory = {
        "all": {"hosts": hosts, "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    }
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")

    def play(**options: t.Any) -> t.Any:
        module = {"hosts": list(hosts), "group": "rack1", **options}
        keep = {"content": "{{ compared | to_json }}", "dest": str(tmp_path / "compared.json"), "mode": "0600"}
        tasks = [
            {"hypervisor.hardening.parity": module, "register": "compared", "run_once": True, "ignore_errors": True},
            {"ansible.builtin.copy": keep, "run_once": True, "check_mode": False},
        ]
        plays = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        (tmp_path / "play.yml").write_text(yaml.safe_dump(plays), encoding="utf-8")
        ansibleplay.play(tmp_path, "-i", "inventory.yml", "--check", "play.yml")
        return json.loads((tmp_path / "compared.json").read_text(encoding="utf-8"))

    return play


def test_compares_each_group_for_itself(run: t.Callable[..., t.Any]) -> None:
    compared = run(fail_on="critical, unknown")
    assert not compared["changed"]
    assert compared["summary"]["groups"] == {
        "rack1": {"hosts": 5, "unknown_hosts": 1, "findings": {"critical": 1}, "ids": ["qemu-user"]},
        "rack2": {"hosts": 2, "unknown_hosts": 1, "findings": {}, "ids": []},
    }
    assert sorted(compared["failures"]) == ["gone", "odd", "told"]
    assert "not reached in this run" in compared["failures"]["gone"][0]
    assert compared["agreements"]["good"] == compared["agreements"]["gone"]
    assert compared["agreements"]["good"]["agreement"]["values"]["qemu_uid"] == 64055
    assert compared["agreements"]["apart"]["errors"] == ["1 of 2 hosts are not known, and can have other values."]
    # A template in a name is a name.
    assert any(TEMPLATE in line for line in compared["lines"])


def test_writes_reports_for_their_owner_alone(run: t.Callable[..., t.Any], tmp_path: Path) -> None:
    reports = tmp_path / "deep/reports"
    assert run(report_dir=str(reports))["files"] == [str(reports / "parity.json"), str(reports / "parity.html")]
    assert sorted(path.name for path in reports.iterdir()) == ["parity.html", "parity.json"]
    assert (reports / "parity.json").stat().st_mode & 0o777 == 0o600
    whole = json.loads((reports / "parity.json").read_text(encoding="utf-8"))
    assert whole["schema"] == "hypervisor.hardening/parity/1"


def test_a_part_agrees_on_nothing(run: t.Callable[..., t.Any]) -> None:
    compared = run(partial=True)
    assert compared["summary"]["partial"] is True
    assert compared["agreements"]["good"]["agreement"] is None


def test_the_answers_of_a_survey(run: t.Callable[..., t.Any]) -> None:
    compared = run(hosts="good, odd", agreement='{"qemu_uid": 0, "qemu_gid": 0}', max_age="600", formats="json")
    assert compared["agreements"]["good"]["agreement"]["values"]["qemu_uid"] == 0
    assert run(hosts="good, odd", max_age=0)["summary"]["groups"]["rack1"]["unknown_hosts"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": ["pdf"]}, "pdf is none of json, html"),
        ({"fail_on": ["grave"]}, "grave is none of"),
        ({"agreement": "no dictionary"}, "agreement is no dictionary"),
        ({"report_dir": "/proc/nowhere"}, "/proc/nowhere"),
    ],
)
def test_what_is_wrong_is_said(run: t.Callable[..., t.Any], options: dict[str, t.Any], said: str) -> None:
    compared = run(**options)
    assert compared["failed"]
    assert said in compared["msg"]
