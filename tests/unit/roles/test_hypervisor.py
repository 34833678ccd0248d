# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the role composes the others: in their order, each by its own switch, with one restart."""

from __future__ import annotations

import typing as t
from pathlib import Path

import yaml

ROLES = Path(__file__).parents[3] / "roles"


def read(path: str) -> t.Any:
    return yaml.safe_load((ROLES / path).read_text(encoding="utf-8"))


TASKS = read("hypervisor/tasks/harden.yml")
IMPORT = "ansible.builtin.import_role"
INCLUDE = "ansible.builtin.include_role"
RESTART = "hypervisor.hardening.daemon_restart"


def test_the_restart_comes_after_all_that_may_need_one_and_before_the_guests_are_looked_at() -> None:
    steps = [
        task.get(IMPORT, task.get(INCLUDE, {"name": "restart"}))["name"].rpartition("_")[2]
        for task in TASKS
        if "ansible.builtin.debug" not in task
    ]
    assert steps == ["mounts", "hugepages", "qemu", "restart", "taps", "launchers", "verify", "audit"]


def test_no_role_restarts_by_itself() -> None:
    for task in TASKS:
        role = task.get(IMPORT, {}).get("name", "").rpartition(".")[2]
        if role and any(RESTART in found for found in _tasks_of(role)):
            assert task["vars"] == {f"{role}_restart": False}


def test_each_role_has_its_switch() -> None:
    roles = [(task.get(IMPORT, task.get(INCLUDE)), task["when"]) for task in TASKS if IMPORT in task or INCLUDE in task]
    switches = {role["name"].rpartition("_")[2]: condition for role, condition in roles}
    assert switches == {topic: f"hypervisor_{topic}_enabled | bool" for topic in switches}


def test_the_guests_are_told_of_and_fail_nothing() -> None:
    (verify,) = (task for task in TASKS if task.get(IMPORT) == {"name": "hypervisor.hardening.hypervisor_verify"})
    assert verify["vars"] == {"hypervisor_verify_fail_on": []}


def test_each_result_that_may_ask_for_a_restart_is_one_that_a_role_registers() -> None:
    registered = {
        task["register"]
        for role in ("hypervisor_qemu", "hypervisor_hugepages")
        for task in _tasks_of(role)
        if "register" in task
    }
    units = read("hypervisor/vars/main.yml")["__hypervisor_restart_units"]
    assert len(registered) == 2
    assert all(f"{name}.restart_units | default([])" in units for name in registered)


def _tasks_of(role: str) -> list[dict[str, t.Any]]:
    return [
        task for path in sorted((ROLES / role / "tasks").glob("*.yml")) for task in read(f"{role}/tasks/{path.name}")
    ]
