# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the processor."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_cpu
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

VULNERABILITIES = "/sys/devices/system/cpu/vulnerabilities"
SMT = "/sys/devices/system/cpu/smt"
INTEL = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz
microcode\t: 0x2007006
flags\t\t: fpu vme vmx ssbd ept vpid
processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz
microcode\t: 0x2006e05
flags\t\t: fpu vme vmx ssbd ept vpid
"""


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put("/proc/cpuinfo", INTEL)
    return host


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_cpu.facts(Context(host))


def test_an_intel_processor(host: TreeHost) -> None:
    host.put_all(SMT, {"control": "on\n", "active": "1\n"})
    host.put(f"{VULNERABILITIES}/meltdown", "Mitigation: PTI\n")
    assert facts(host) == {
        "vendor": "GenuineIntel",
        "model": "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz",
        "virtualization": "vmx",
        "second_level": "ept",
        "virtual": False,
        "microcode": ["0x2006e05", "0x2007006"],  # an update that reached one of them
        "smt": {"control": "on", "active": True},
        "vulnerabilities": [
            {"name": "meltdown", "text": "Mitigation: PTI", "state": "mitigated", "smt_vulnerable": None}
        ],
        "unread": [],
    }


def test_arm_says_less(host: TreeHost) -> None:
    host.put("/proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n")
    found = facts(host)
    assert (found["vendor"], found["virtualization"], found["smt"]) == ("", "", {"control": None, "active": None})


def test_a_kernel_that_knows_of_no_vulnerabilities(host: TreeHost) -> None:
    found = facts(host)
    assert found["vulnerabilities"] is None
    assert found["unread"][0]["path"] == VULNERABILITIES


# What Documentation/admin-guide/hw-vuln says that the files hold, and arch/x86/kernel/cpu/bugs.c prints.
@pytest.mark.parametrize(
    ("text", "state", "smt"),
    [
        ("Not affected", "not_affected", None),
        ("Vulnerable", "vulnerable", None),
        ("Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable", "mitigated", True),
        ("Mitigation: PTE Inversion; VMX: cache flushes, SMT disabled", "mitigated", False),
        ("Mitigation: PTE Inversion; VMX: vulnerable", "vulnerable", None),
        ("Mitigation: PTE Inversion; VMX: vulnerable, SMT vulnerable", "vulnerable", True),
        ("Mitigation: Clear CPU buffers; SMT Host state unknown", "mitigated", False),
        ("Mitigation: Clear CPU buffers; SMT mitigated", "mitigated", False),
        ("Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable", "vulnerable", True),
        ("Vulnerable: Safe RET, no microcode", "vulnerable", None),
        ("KVM: Mitigation: Split huge pages", "mitigated", None),
        ("KVM: Mitigation: VMX disabled", "mitigated", None),
        ("KVM: Vulnerable", "vulnerable", None),
        ("Processor vulnerable", "vulnerable", None),
        ("Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling; BHI: Vulnerable", "vulnerable", None),
        (
            "Mitigation: Retpolines; STIBP: disabled; RSB filling; PBRSB-eIBRS: Not affected; BHI: Not affected",
            "mitigated",
            None,
        ),
        ("Mitigation: IBPB before exit to userspace", "mitigated", None),
        ("Unknown: Dependent on hypervisor status", None, None),
        ("Unknown: No mitigations", None, None),
    ],
)
def test_what_the_kernel_says(host: TreeHost, text: str, state: str | None, smt: bool | None) -> None:
    host.put(f"{VULNERABILITIES}/some", f"{text}\n")
    assert facts(host)["vulnerabilities"] == [{"name": "some", "text": text, "state": state, "smt_vulnerable": smt}]
