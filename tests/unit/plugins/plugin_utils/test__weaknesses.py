# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

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
