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
ROLE_ACTIONS = ("ansible.builtin.import_role", "ansible.builtin.include_role")
RESTART = "hypervisor.hardening.daemon_restart"


def test_the_restart_comes_after_all_that_may_need_one_and_before_the_guests_are_looked_at() -> None:
    steps = [_role(task).rpartition("_")[2] or task["ansible.builtin.include_tasks"]["file"] for task in TASKS]
    before = ["mounts", "hugepages", "qemu", "daemon"]
    assert steps == [*before, "restart.yml", "taps", "kernel", "launchers", "mac", "verify", "audit"]
    assert RESTART in read("hypervisor/tasks/restart.yml")[0]


def test_no_role_restarts_by_itself() -> None:
    for task in TASKS:
        role = _role(task)
        if role and any(RESTART in found for found in _tasks_of(role)):
            assert task["vars"] == {f"{role}_restart": False}


def test_each_role_has_its_switch() -> None:
    switches = {role: task["when"] for task in TASKS if (role := _role(task))}
    assert len(switches) == 10
    for role, conditions in switches.items():
        assert f"{role}_enabled | bool" in ([conditions] if isinstance(conditions, str) else conditions)


def test_what_is_included_has_its_topic_as_tag_inside_and_outside() -> None:
    for task in TASKS:
        included = task.get("ansible.builtin.include_role") or task.get("ansible.builtin.include_tasks")
        if included:
            inside = [included["apply"]] if "apply" in included else _tasks_of(_role(task))
            assert {tag for one in inside for tag in one.get("tags", [])} == set(task["tags"])


def test_the_guests_are_told_of_and_fail_nothing() -> None:
    (verify,) = (task for task in TASKS if _role(task) == "hypervisor_verify")
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


def _role(task: dict[str, t.Any]) -> str:
    """The role that a task runs, without the collection's name; empty if it runs none."""
    names = [task[action]["name"] for action in ROLE_ACTIONS if action in task]
    return "".join(names).rpartition(".")[2]


def _tasks_of(role: str) -> list[dict[str, t.Any]]:
    return [
        task for path in sorted((ROLES / role / "tasks").glob("*.yml")) for task in read(f"{role}/tasks/{path.name}")
    ]
