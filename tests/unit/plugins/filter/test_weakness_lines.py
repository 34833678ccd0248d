# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.hypervisor.hardening.plugins.filter.weakness_lines import FilterModule


def test_is_the_function_of_plugin_utils() -> None:
    guests = [{"name": "web", "pid": 47, "weaknesses": [{"id": "no_mac", "observed": "a", "expected": "b"}]}]
    assert FilterModule().filters()["weakness_lines"](guests) == ["web (pid 47): no_mac: observed a, expected b"]
