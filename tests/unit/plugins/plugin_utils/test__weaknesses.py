# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._weaknesses import weakness_lines

GUESTS = [
    {
        "name": "web",
        "pid": 47,
        "weaknesses": [
            {"id": "no_seccomp", "observed": "mode 0", "expected": "mode 2"},
            {"id": "no_mac", "observed": "unconfined", "expected": "libvirt-UUID (enforce)"},
        ],
    },
    {"name": "db", "pid": 48, "weaknesses": []},
]


def test_a_line_for_each_weakness() -> None:
    assert weakness_lines(GUESTS) == [
        "web (pid 47): no_seccomp: observed mode 0, expected mode 2",
        "web (pid 47): no_mac: observed unconfined, expected libvirt-UUID (enforce)",
    ]


def test_only_those_asked_for() -> None:
    assert weakness_lines(GUESTS, ["no_seccomp"]) == ["web (pid 47): no_seccomp: observed mode 0, expected mode 2"]
    assert weakness_lines(GUESTS, []) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web\u202e", "web\\u202e"),  # RIGHT-TO-LEFT OVERRIDE
        ("web\u2066x", "web\\u2066x"),  # LEFT-TO-RIGHT ISOLATE
        ("web\u200f", "web\\u200f"),  # RIGHT-TO-LEFT MARK
        ("web\n", "web\\n"),
        ("web\x1b[2K", "web\\x1b[2K"),
        ("web\x9b2K", "web\\x9b2K"),  # CSI in one character
        ("web\u2028", "web\\u2028"),  # LINE SEPARATOR
        ("web\udcff", "web\\udcff"),
        ("web\U000e0041", "web\\U000e0041"),  # TAG LATIN CAPITAL LETTER A, invisible
        ("blüte 花 no. 1", "blüte 花 no. 1"),
    ],
)
def test_a_name_cannot_rearrange_its_line(name: str, shown: str) -> None:
    weak = {"id": "no_mac", "observed": name, "expected": "x"}
    lines = weakness_lines([{"name": name, "pid": 1, "weaknesses": [weak]}])
    assert lines == [f"{shown} (pid 1): no_mac: observed {shown}, expected x"]
