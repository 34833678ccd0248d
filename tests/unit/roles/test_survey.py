# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a survey's answer, which is always a string, in a variable that is a list or a dictionary.

ansible-core only validates the answer against a role's specification; the task then gets the string as it came.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import mapping, words

ROLES = Path(__file__).parents[3] / "roles"
REFUSED = "refused"

# What each answer means.
WORDS = {
    "": [],
    "[]": [],
    "a": ["a"],
    "a, b": ["a", "b"],
    "a\nb": ["a", "b"],
    '["a", "b c"]': ["a", "b c"],
}
DICTIONARY = {
    "": REFUSED,
    "[]": REFUSED,
    "a, b": REFUSED,
    "{}": {},
    '{"a": [1]}': {"a": [1]},
    "a=1, b=x": {"a": "1", "b": "x"},
}
WEAKNESSES = {
    "": REFUSED,
    "[]": REFUSED,
    "a, b": REFUSED,
    "no_mac": ["no_mac"],
    "no_mac,no_seccomp": ["no_mac", "no_seccomp"],
}
POOLS = {"": REFUSED, "[]": REFUSED, "a, b": REFUSED}

VARIABLES: dict[tuple[str, str], dict[str, t.Any]] = {
    ("hypervisor", "hypervisor_managed_elsewhere"): WORDS,
    ("hypervisor_daemon", "hypervisor_daemon_limits"): DICTIONARY,
    ("hypervisor_daemon", "hypervisor_daemon_operators"): WORDS,
    ("hypervisor_daemon", "hypervisor_daemon_sasl_mechanisms"): WORDS,
    ("hypervisor_daemon", "hypervisor_daemon_settings"): DICTIONARY,
    ("hypervisor_daemon", "hypervisor_daemon_tls_clients"): WORDS,
    ("hypervisor_hugepages", "hypervisor_hugepages_pools"): POOLS,
    ("hypervisor_kernel", "hypervisor_kernel_module_parameters"): DICTIONARY,
    ("hypervisor_kernel", "hypervisor_kernel_sysctls"): DICTIONARY,
    ("hypervisor_launchers", "hypervisor_launchers_absent"): WORDS,
    ("hypervisor_launchers", "hypervisor_launchers_controllers"): WORDS,
    ("hypervisor_launchers", "hypervisor_launchers_devices"): WORDS,
    ("hypervisor_launchers", "hypervisor_launchers_hugepages"): POOLS,
    ("hypervisor_launchers", "hypervisor_launchers_taps"): POOLS,
    ("hypervisor_launchers", "hypervisor_launchers_users"): WORDS,
    ("hypervisor_mounts", "hypervisor_mounts_exclude"): WORDS,
    ("hypervisor_mounts", "hypervisor_mounts_targets"): WORDS,
    ("hypervisor_qemu", "hypervisor_qemu_extend"): DICTIONARY,
    ("hypervisor_qemu", "hypervisor_qemu_managed_elsewhere"): WORDS,
    ("hypervisor_qemu", "hypervisor_qemu_secret_settings"): DICTIONARY,
    ("hypervisor_qemu", "hypervisor_qemu_settings"): DICTIONARY,
    ("hypervisor_rollback", "hypervisor_rollback_overwrite"): WORDS,
    ("hypervisor_rollback", "hypervisor_rollback_roles"): WORDS,
    ("hypervisor_taps", "hypervisor_taps_domains"): WORDS,
    ("hypervisor_taps", "hypervisor_taps_names"): WORDS,
    ("hypervisor_taps", "hypervisor_taps_remove_stale"): WORDS,
    ("hypervisor_verify", "hypervisor_verify_fail_on"): WEAKNESSES,
}
CASES = [(role, name, answer) for (role, name), answers in VARIABLES.items() for answer in answers]
HARDENING = sorted({role for role, _name in VARIABLES})


def options(role: str) -> dict[str, dict[str, t.Any]]:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, t.Any]] = specs["argument_specs"]["main"]["options"]
    return found


def test_every_list_and_dictionary_is_in_the_table() -> None:
    found = {
        (role, name)
        for role in HARDENING
        for name, option in options(role).items()
        if option["type"] not in ("str", "bool")
    }
    assert found == set(VARIABLES)


@pytest.mark.parametrize(("role", "name", "answer"), CASES)
def test_an_answer_is_taken_for_what_it_means_or_refused_by_name(role: str, name: str, answer: str) -> None:
    option = options(role)[name]
    refused = ArgumentSpecValidator({name: option}).validate({name: answer}).error_messages
    meant = VARIABLES[role, name][answer]
    if meant == REFUSED:
        assert refused
        assert [message for message in refused if name not in message] == []
        return
    assert refused == []
    assert (mapping(name, answer) if option["type"] == "dict" else words(answer)) == meant


LISTS = [key for key, answers in VARIABLES.items() if answers in (WORDS, WEAKNESSES)]


@pytest.mark.parametrize(("role", "name"), LISTS)
def test_tasks_take_a_list_for_what_it_means(role: str, name: str) -> None:
    bare = re.compile(rf"\b{name}\b(?! \| hypervisor\.hardening\.words| is defined).*")
    files = [*(ROLES / role).glob("tasks/*.yml"), *(ROLES / role).glob("vars/*.yml")]
    assert [found[0] for path in files for found in bare.finditer(path.read_text(encoding="utf-8"))] == []
