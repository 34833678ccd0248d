# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk through the doors, with a room that keeps one number in a file and a real AnsibleModule."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common import respawn
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError, Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal

FILE = "/number"


@dataclass(frozen=True)
class NumberPlan:
    changes: tuple[str, ...]
    value: int
    warnings: tuple[str, ...] = ()

    @property
    def diff(self) -> dict[str, str]:
        return {"before": "", "after": f"{self.value}\n"}


class Room:
    stuck = False
    calls: t.ClassVar[list[str]] = []

    @classmethod
    def observe(cls, host: Host, wanted: int) -> int:
        cls.calls.append("observe")
        return int(host.text(FILE))

    @classmethod
    def plan(cls, state: int, wanted: int) -> NumberPlan:
        cls.calls.append("plan")
        if wanted < 0:
            raise HardeningError("A number cannot be negative.", number=wanted)
        changes = (f"number: {state} instead of {wanted}",) if state != wanted else ()
        return NumberPlan(changes, wanted, (f"careful with {wanted}",))

    @classmethod
    def check(cls, host: Host, plan: NumberPlan) -> None:
        cls.calls.append("check")
        if plan.value == 13:
            raise HardeningError("The host refuses 13.")

    @classmethod
    def apply(cls, host: Host, plan: NumberPlan, journal: Journal) -> None:
        cls.calls.append("apply")
        journal.record_file(FILE, str(plan.value).encode())
        if plan.value == 98:
            raise HardeningError("Broke before the first change.")
        if not cls.stuck:
            host.write(FILE, str(plan.value).encode())
        if plan.value == 99:
            raise HardeningError("Broke in the middle.")

    @classmethod
    def result(cls, state: int, plan: NumberPlan) -> dict[str, t.Any]:
        return {"seen": state, "text": "caf\udce9"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "number").write_text("1")
    monkeypatch.setattr(_runner, "Host", lambda: Host(str(tmp_path)))
    monkeypatch.setattr(Room, "stuck", False)
    Room.calls.clear()
    return Host(str(tmp_path))


def walk(capsys: pytest.CaptureFixture[str], wanted: int, **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"number": wanted, "_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        module = AnsibleModule({"number": {"type": "int"}}, supports_check_mode=True)
        _runner.run(module, Room, module.params["number"])
    printed = capsys.readouterr()
    # Where the controller's code is loaded too, as in a run of all units, ansible-core shows warnings on stderr.
    return {"warnings": [printed.err], **json.loads(printed.out)}


def test_another_user_than_root_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Room.calls.clear()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "Set become: true" in walk(capsys, 2)["msg"]
    assert Room.calls == []
    with patch_module_args({}), pytest.raises(SystemExit):
        _runner.show(AnsibleModule({}), lambda host: {"seen": host.text("/etc/hostname")})
    assert "Set become: true" in json.loads(capsys.readouterr().out)["msg"]


def test_change(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = walk(capsys, 2)
    assert (result["changed"], result["seen"], result["diff"]["after"]) == (True, 2, "2\n")
    assert Room.calls == ["observe", "plan", "check", "apply", "observe", "plan"]
    assert [entry.content() for entry in Journal(host, "").entries()] == [b"1"]


def test_the_diff_is_sent_when_it_is_asked_for(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert "diff" not in walk(capsys, 2, _ansible_diff=False)


def test_nothing_to_do(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = walk(capsys, 1)
    assert (result["changed"], result["seen"]) == (False, 1)
    assert "apply" not in Room.calls


def test_check_mode_is_the_real_run_less_the_last_step(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = walk(capsys, 2, _ansible_check_mode=True)
    assert (result["changed"], result["diff"]["after"]) == (True, "2\n")
    assert Room.calls == ["observe", "plan", "check"]
    assert host.read(FILE) == b"1"
    assert host.list("/") == ["number"]


def test_check_mode_refuses_as_the_real_run_does(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert walk(capsys, 13, _ansible_check_mode=True)["msg"] == walk(capsys, 13)["msg"] == "The host refuses 13."


def test_refusal_carries_its_facts_and_changes_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = walk(capsys, -1)
    assert (result["failed"], result["changed"], result["number"]) == (True, False, -1)
    assert host.list("/") == ["number"]


@pytest.mark.parametrize(("number", "changed"), [(98, False), (99, True)])
def test_a_failure_says_whether_anything_was_changed(
    host: Host, capsys: pytest.CaptureFixture[str], number: int, changed: bool
) -> None:
    result = walk(capsys, number)
    assert (result["failed"], result["changed"]) == (True, changed)
    assert (host.read(FILE) != b"1") is changed
    assert len(Journal(host, "").entries()) == 1, "what was only noted was not changed"


def test_what_does_not_hold_is_an_error(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Room, "stuck", True)
    result = walk(capsys, 2)
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].endswith("the host does not show it: number: 1 instead of 2")


def test_error_of_the_system_names_the_file(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.remove(FILE)
    result = walk(capsys, 2)
    assert result["failed"]
    assert result["msg"].endswith("/number: No such file or directory")


def test_warnings_and_bytes_that_are_not_utf_8(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    result = walk(capsys, 5)
    assert result["text"] == "caf\ufffd"
    assert "careful with 5" in json.dumps(result["warnings"])


def test_clean_reaches_every_depth() -> None:
    assert _runner.clean({"a\udcff": ["b\udcff", ("c\udcff", 1, None)]}) == {
        "a\ufffd": ["b\ufffd", ["c\ufffd", 1, None]]
    }


@pytest.mark.parametrize(("where", "started_over"), [(None, []), ("/usr/bin/python3", ["/usr/bin/python3"])])
def test_a_preferred_library_is_looked_for_and_not_insisted_on(
    where: str | None, started_over: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    found: list[str] = []

    def probe(paths: t.Sequence[str], library: str) -> str | None:
        asked.append(library)
        return where

    monkeypatch.setattr(respawn, "has_respawned", lambda: False)
    monkeypatch.setattr(respawn, "probe_interpreters_for_module", probe)
    monkeypatch.setattr(respawn, "respawn_module", found.append)
    with patch_module_args({}):
        _runner.prefer(AnsibleModule({}), "json", "no_such_library")
    assert (asked, found) == (["no_such_library"], started_over)
