# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks in files of AppArmor's policy, includes, and a guest's profile. That the compiler takes the outcome is shown
by tests/integration/test_mac_vm.py."""

from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _aatext
from ansible_collections.hypervisor.hardening.tests.unit.plugins.apparmors import HELPER_TEXT, TEMPLATE

A, B = ["  /a r,"], ["  /b r,", "  /c r,"]


@pytest.mark.parametrize("text", ["", "# Site\n", "# Site\n  /x r,\n\n", "no newline"])
def test_a_block_comes_changes_and_goes_and_all_else_stays(text: str) -> None:
    ended = text + ("\n" if text and not text.endswith("\n") else "")
    one = _aatext.with_block(text, "one", A)
    assert one.startswith(ended)
    assert _aatext.block(one, "one") == A
    both = _aatext.with_block(one, "two", B)
    assert (_aatext.block(both, "one"), _aatext.block(both, "two")) == (A, B)
    assert _aatext.with_block(both, "two", B) == both
    assert _aatext.block(_aatext.with_block(both, "one", B), "one") == B
    assert _aatext.with_block(_aatext.with_block(both, "two", []), "one", []) == ended
    assert _aatext.with_block(text, "one", []) == text


def test_a_block_inside_of_a_profile_is_before_its_end() -> None:
    text = _aatext.with_block("profile x {\n  /y r,\n  profile z {\n  }\n}\n", "one", A, inside=True)
    assert text.endswith("  }\n  # BEGIN hypervisor.hardening.one\n  /a r,\n  # END hypervisor.hardening.one\n}\n")


def test_the_name_of_a_module_is_no_part_of_another() -> None:
    text = _aatext.with_block("", "guest", A)
    assert _aatext.block(text, "guest_access") == _aatext.block(text, "gues.") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (HELPER_TEXT, "virt-aa-helper"),
        ("/usr/lib/libvirt/virt-aa-helper {\n}\n", "/usr/lib/libvirt/virt-aa-helper"),
        ('profile "a b" flags=(attach_disconnected) {\n}\n', "a b"),
        ("abi <abi/4.0>,\n@{A}=b\nprofile virt-aa-helper /usr/{lib,libexec}/virt-aa-helper {\n}\n", "virt-aa-helper"),
        ("# nothing\n", ""),
    ],
)
def test_the_name_of_a_profile(text: str, name: str) -> None:
    assert _aatext.profile_name(text) == name


def test_includes_in_both_spellings() -> None:
    text = (
        '#include <a/b>\n  include <c>\n include if exists <d.d>\n#include if exists <e>\n# include <f>\n include "g"\n'
    )
    assert _aatext.includes(text) == ["a/b", "c", "d.d", "e"]


def test_what_is_included_comes_in_its_place_at_any_depth() -> None:
    contents = {"a": "  /a r,\n  include <b>\n", "b": "  /b r,\n  include <a>\n  include <rest>\n"}
    assert _aatext.inlined("x {\n  #include <a>\n}\n", contents).split() == [
        "x", "{", "/a", "r,", "/b", "r,", "include", "<rest>", "}"
    ]  # fmt: skip


def test_a_guests_profile_needs_a_template_of_libvirts() -> None:
    assert _aatext.guest_profile(TEMPLATE, "u").count("libvirt-u") == 2
    for text in ("", "profile LIBVIRT_TEMPLATE {", "profile other {\n}\n"):
        with pytest.raises(ValueError):
            _aatext.guest_profile(text, "u")


def test_the_line_that_the_compiler_means() -> None:
    said = "Cache disabled\nAppArmor parser error for /dev/stdin in profile /dev/stdin at line 2: syntax error\n"
    assert _aatext.refusal(said, "a\n  b,\nc") == "AppArmor parser error at line 2: syntax error, which is 'b,'"
    said = "AppArmor parser error for /dev/stdin in profile /etc/x at line 2: syntax error"
    assert _aatext.refusal(said, "a\nb") == "AppArmor parser error in /etc/x at line 2: syntax error"
    assert _aatext.refusal("died", "a") == "died"
