# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hypervisor.hardening.plugins.filter.level_settings import FilterModule

level_settings = FilterModule().filters()["level_settings"]


def test_returns_what_the_module_takes() -> None:
    control = {"id": "x", "level": "baseline", "switch": "true", "settings": {"seccomp_sandbox": 1}}
    assert level_settings([control], "strict", own={"max_core": 0}) == {
        "settings": {"max_core": 0, "seccomp_sandbox": 1},
        "secret_settings": {},
        "extend": {},
        "optional": ["seccomp_sandbox"],
        "left_alone": [],
    }


@pytest.mark.parametrize(
    ("controls", "level", "message"),
    [
        ([], "paranoid", "'paranoid' is unknown"),
        ([{"id": "x", "level": "baseline", "settings": {}, "switch": "maybe"}], "baseline", "either true or false"),
        ([{"id": "x", "level": "baseline"}], "baseline", "settings"),
    ],
)
def test_refuses_in_words(controls: list[dict[str, str]], level: str, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        level_settings(controls, level)


@pytest.mark.parametrize(
    ("own", "settings"),
    [
        ('{"max_files": 7}', {"max_files": 7}),
        ("max_files=7 user=qemu", {"max_files": "7", "user": "qemu"}),
        ("", {}),
        (None, {}),
    ],
)
def test_takes_the_strings_of_a_survey_that_the_argument_spec_takes(
    own: str | None, settings: dict[str, t.Any]
) -> None:
    chosen = level_settings([], "strict", own=own, secret=own, extend=own)
    assert chosen["settings"] == chosen["secret_settings"] == chosen["extend"] == settings


def test_what_is_no_dictionary_is_refused_without_its_value() -> None:
    with pytest.raises(AnsibleFilterError, match="secret is no dictionary") as refused:
        level_settings([], "baseline", secret="{hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("mac", "left"), [(False, ["security_driver"]), (True, []), (None, [])])
def test_knows_whether_there_is_a_mac(mac: bool | None, left: list[str]) -> None:
    chosen = level_settings([], "baseline", own={"security_driver": "apparmor"}, mac=mac)
    assert [entry["key"] for entry in chosen["left_alone"]] == left
