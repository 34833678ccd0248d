# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The weaknesses that the role knows against those that the module documents."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/hypervisor_verify"
WEAKNESSES = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))["__hypervisor_verify_weaknesses"]


def test_the_role_knows_each_weakness_that_the_module_documents() -> None:
    module = (ROOT / "plugins/modules/guest_confinement_info.py").read_text(encoding="utf-8")
    assert re.findall(r"^ +- V\((\w+)\) - ", module, re.MULTILINE) == WEAKNESSES


def test_each_can_be_asked_for() -> None:
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
    assert specs["main"]["options"]["hypervisor_verify_fail_on"]["choices"] == WEAKNESSES


def test_what_a_level_spares_is_what_the_level_does_not_set() -> None:
    """Core files are limited by max_core, which the role hypervisor_qemu sets from level strict on."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    controls = yaml.safe_load((ROOT / "roles/hypervisor_qemu/vars/main.yml").read_text(encoding="utf-8"))
    levels = {
        key: control["level"] for control in controls["__hypervisor_qemu_controls"] for key in control["settings"]
    }
    assert levels["max_core"] == "strict"
    assert re.findall(r"'(\w+)'", defaults["hypervisor_verify_fail_on"]) == ["strict", "core_dumps"]
