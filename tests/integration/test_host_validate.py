# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What virt-host-validate finds on a host is among what the audit finds there, or explained.

Its checks are those of libvirt's tools/virt-host-validate-qemu.c and -common.c. One that is not in these tables fails.
"""

from __future__ import annotations

import re
import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

LINE_RE = re.compile(r"\s*QEMU: Checking (.+?)\s*: (PASS|FAIL|WARN|NOTE)(?: \(.*\))?")
GOOD = {"pass", "manual"}
BAD = {"fail", "pending", "unknown"}

# A check of virt-host-validate -> the rule that looks at the same, and the object of it ("" for the host).
RULES = {
    "for hardware virtualization": ("host-hardware-virtualization", ""),
    "if device /dev/kvm exists": ("host-hardware-virtualization", ""),
    "if device /dev/kvm is accessible": ("host-hardware-virtualization", ""),
    "if device /dev/vhost-net exists": ("host-network-devices", "/dev/vhost-net"),
    "if device /dev/net/tun exists": ("host-network-devices", "/dev/net/tun"),
    "for cgroup 'devices' controller support": ("guests-device-cgroup-effective", "running"),
}
# What it says of one of several things that one rule looks at: the fact is held against it, and with a WARN the rule.
CONTROLLERS = {"cpu": "cpu", "cpuset": "cpuset", "memory": "memory", "blkio": "io"}
# A check -> when the audit says something else, as the facts tell, and why.
EXPLAINED: dict[str, tuple[t.Callable[[str, dict[str, t.Any]], bool], str]] = {
    "for cgroup 'cpuacct' controller support": (
        lambda said, facts: said == "PASS" and facts["host"]["cgroup"]["version"] == 2,
        "In version 2 of cgroups processor time is counted without a controller (cgroup-v2.rst, cpu.stat).",
    ),
    "for device assignment IOMMU support": (
        lambda said, facts: (said == "PASS") is bool(facts["iommu"]["units"]),
        "iommu-effective applies where a device is passed through: an IOMMU that nobody uses protects nobody.",
    ),
    "for secure guest support": (
        lambda said, facts: (said == "PASS") is (facts["capabilities"]["sev"]["state"] == "present"),
        "amd-sev-available applies to AMD's processors, which have it or have not; of others nobody says it.",
    ),
    "if IOMMU is enabled by kernel": (
        lambda said, facts: (said == "PASS") is (facts["iommu"]["groups"] > 0),
        "As above.",
    ),
}


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        guests.start(fresh, guests.Guest("running"))
        yield fresh


def validated(host: rig.Host) -> dict[str, str]:
    """Its checks; from libvirt 10 on a device stands in quotation marks."""
    output = host.run(["virt-host-validate", "qemu"], check=False).stdout
    lines = [line for line in output.splitlines() if line.strip()]
    matches = [LINE_RE.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {re.sub(r"device '(\S+)'", r"device \1", match[1]): match[2] for match in matches if match}


def test_its_findings_are_ours_or_explained(host: rig.Host) -> None:
    told = validated(host)
    # what a guest needs at least is told by every version of it
    assert {"for hardware virtualization", "if device /dev/net/tun exists", "for secure guest support"} <= set(told)
    facts = modules.call(host, "hypervisor_info")
    states = {
        (finding["rule"], "" if finding["object"]["type"] == "host" else finding["object"]["name"]): finding["state"]
        for finding in judge({host.name: facts}, level="strict")["hosts"][0]["findings"]
    }
    differing = []
    for check, said in told.items():
        controller = CONTROLLERS.get((re.findall(r"for cgroup '(\w+)'", check) or [""])[0])
        if check in EXPLAINED:
            agrees, reason = EXPLAINED[check]
            assert reason
            if not agrees(said, facts["hypervisor"]):
                differing.append((check, said, "the explanation does not hold"))
        elif controller:
            there = controller in facts["hypervisor"]["host"]["cgroup"]["controllers"]
            if there is not (said == "PASS") or (not there and states["host-cgroup-controllers", ""] not in BAD):
                differing.append((check, said, states["host-cgroup-controllers", ""]))
        elif check not in RULES:
            differing.append((check, said, "is in no table"))
        elif states[RULES[check]] not in (GOOD if said == "PASS" else BAD):
            differing.append((check, said, states[RULES[check]]))
    assert differing == []
