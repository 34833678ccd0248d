# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.filter.words import FilterModule

words = FilterModule().filters()["words"]


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ("", []),
        ("  ", []),
        (None, []),
        ("[]", []),
        ([], []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a, b", ["a", "b"]),
        ("a b", ["a", "b"]),
        ("a\nb\n", ["a", "b"]),
        ('["a, b", "c"]', ["a, b", "c"]),
        (' [ "a" ]\n', ["a"]),
        (["a, b", "c"], ["a, b", "c"]),
        (("a", "b"), ["a", "b"]),
        ("[ab]*", ["[ab]*"]),  # a pattern
        ("[1]", ["[1]"]),  # a pattern too
        ("1", ["1"]),
        ("null", ["null"]),
        ('{"a": 1}', ['{"a":', "1}"]),  # no list: whatever takes it will refuse it
    ],
)
def test_takes_an_answer_for_the_list_that_it_stands_for(answer: t.Any, meant: list[str]) -> None:
    assert words(answer) == meant
