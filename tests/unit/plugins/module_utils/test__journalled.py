# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever a module records can be put back, and each role's modules are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Entry
from ansible_collections.hypervisor.hardening.plugins.module_utils._journalled import UNKNOWN, kind
from ansible_collections.hypervisor.hardening.plugins.module_utils._netdev import SYSFS
from ansible_collections.hypervisor.hardening.plugins.module_utils._rollback import ROLES

ROOT = Path(__file__).parents[4]
RECORDED = re.compile(r'record_value\(\s*f?"([a-z]+:)')
# What these roles do to a host, they do by another role, or they do nothing.
WITHOUT = {"hypervisor", "hypervisor_audit", "hypervisor_rollback", "hypervisor_verify"}
WITHOUT_JOURNAL = {"audit", "daemon_restart", "parity"}


def recorded() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "plugins/module_utils").glob("*.py")]
    return {found[1] for text in texts for found in RECORDED.finditer(text)}


def test_what_modules_record_is_found() -> None:
    assert {"directory:", "hugetlbfs:", "propagation:"} <= recorded()


@pytest.mark.parametrize(
    "target",
    [
        *sorted(recorded()),
        f"{SYSFS}/web0",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "/sys/kernel/mm/ksm/run",
        "/sys/module/kvm_intel/parameters/nested",
        "/proc/sys/kernel/kptr_restrict",
    ],
)
def test_every_target_has_a_kind(target: str) -> None:
    assert kind(Entry("", "", "", "", "value", target, None, None)).name != UNKNOWN


def test_every_role_has_its_modules() -> None:
    roles = {path.name for path in (ROOT / "roles").iterdir() if path.is_dir()}
    assert set(ROLES) == roles - WITHOUT
    known = {module for modules in ROLES.values() for module in modules}
    used = {
        module
        for role in ROLES
        for path in (ROOT / "roles" / role / "tasks").glob("*.yml")
        for module in re.findall(r"^\s+hypervisor\.hardening\.(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)
        if not module.endswith("_info")
    }
    assert used - WITHOUT_JOURNAL == known
