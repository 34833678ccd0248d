# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._levels import Choice, Control, LevelError, choose

CONTROLS = (
    Control("everywhere", "baseline", {"dump_guest_core": False}),
    Control("sandbox", "baseline", {"seccomp_sandbox": 1}, switch=False),
    Control("confined", "hardened", {"security_require_confined": True}, switch=True),
    Control("core", "strict", {"max_core": 0}),
    Control("password", "baseline", {"vnc_password": None}),
)


def choice(level: str = "hardened", own: dict[str, t.Any] | None = None, **options: t.Any) -> Choice:
    arguments = {"mac": None, **options}
    return choose(CONTROLS, level, own or {}, **arguments)


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("baseline", {"dump_guest_core"}),
        ("hardened", {"dump_guest_core", "security_require_confined"}),
        ("strict", {"dump_guest_core", "security_require_confined", "max_core"}),
    ],
)
def test_a_level_includes_those_below(level: str, keys: set[str]) -> None:
    assert choice(level).settings.keys() == keys


@pytest.mark.parametrize("word", [True, "true", "True", " yes ", "1", 1, "on"])
def test_switch_on(word: t.Any) -> None:
    assert choose([Control("x", "baseline", {"a": 1}, switch=word)], "baseline", {}, None).settings == {"a": 1}


@pytest.mark.parametrize("word", [False, "false", "False", "no", "0", 0, "", None, "off"])
def test_switch_off(word: t.Any) -> None:
    assert choose([Control("x", "baseline", {"a": 1}, switch=word)], "baseline", {}, None).settings == {}


@pytest.mark.parametrize("word", ["maybe", 2, [True]])
def test_a_switch_that_is_neither_is_refused(word: t.Any) -> None:
    with pytest.raises(LevelError, match="The switch of x is"):
        choose([Control("x", "baseline", {}, switch=word)], "baseline", {}, None)


def test_unknown_level_is_refused() -> None:
    with pytest.raises(LevelError, match="'paranoid' is unknown; it is one of baseline, hardened, strict"):
        choice("paranoid")


def test_own_settings_win_and_must_be_known_to_libvirt() -> None:
    chosen = choice(own={"dump_guest_core": True, "max_files": 5})
    assert chosen.settings == {"dump_guest_core": True, "max_files": 5, "security_require_confined": True}
    assert chosen.optional == ["security_require_confined", "vnc_password"]


def test_passwords_of_a_control_are_secret_settings() -> None:
    assert choice().secret_settings == {"vnc_password": None}


def test_an_own_password_stays_in_settings_where_the_module_refuses_it() -> None:
    assert choice(own={"vnc_password": "x"}).settings["vnc_password"] == "x"


def test_an_own_password_wins_and_must_be_known_to_libvirt() -> None:
    chosen = choice(secret={"vnc_password": "x"})
    assert chosen.secret_settings == {"vnc_password": "x"}
    assert "vnc_password" not in chosen.optional


@pytest.mark.parametrize(("mac", "kept"), [(True, True), (None, True), (False, False)])
def test_keys_that_need_a_mac(mac: bool | None, kept: bool) -> None:
    chosen = choice(own={"security_driver": "apparmor"}, mac=mac)
    assert ("security_driver" in chosen.settings) is kept
    assert ("security_require_confined" in chosen.settings) is kept
    assert ("security_require_confined" in chosen.optional) is kept
    assert bool(chosen.left_alone) is not kept
