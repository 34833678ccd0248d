# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls that every hypervisor must have and that a container cannot show in both states: on the facts of a real
host, captured by the command in tests/generated.yml, with what another kernel or machine would tell in its place.

Each change is named by its cause, and sets no more than the facts that the cause sets.
"""

from __future__ import annotations

import copy
import hashlib
import json
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._audit import Evaluation, Host
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import documented
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import load
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches

ROOT = Path(__file__).resolve().parents[3]
PATH = "tests/unit/rules/captured/trixie.json"
CAPTURED = json.loads((ROOT / PATH).read_text(encoding="utf-8"))
FACTS: dict[str, t.Any] = CAPTURED["facts"]
RULES = {
    rule.id: rule
    for rule in load(
        [ROOT / "roles/hypervisor_audit/files/rules"], documented(ROOT / "plugins/modules/hypervisor_info.py")
    )
}
GOOD, BAD = {"pass", "manual"}, {"fail", "pending"}

Change = dict[str, t.Any]
AS_IT_IS: Change = {}


def parameter(name: str, running: bool, configured: bool | None) -> dict[str, t.Any]:
    module = name.partition(".")[0]
    by = None if configured is None else "/etc/modprobe.d/kvm.conf"
    entry = {"name": name, "module": module, "loaded": True, "running": running}
    return {**entry, "configured": configured, "configured_by": by}


def card(**changes: t.Any) -> dict[str, t.Any]:
    """A network card that a guest has, alone in its group."""
    own = {"name": "0000:01:00.0", "driver": "vfio-pci", "class": "0x020000", "group": "7", "type": "DMA", "mates": []}
    return {**own, **changes}


APPARMOR: Change = {
    "mac.model": "apparmor",
    "mac.mode": "enabled",
    "mac.enforcing": True,
    "mac.configured.enforcing": True,
    "mac.apparmor.profiles": [{"name": "libvirtd", "mode": "enforce"}, {"name": "virt-aa-helper", "mode": "enforce"}],
}
LABEL = {"model": "apparmor", "value": "libvirt-3e3fce45-4f53-4fa7-bb32-11f34168b82b", "mode": "enforce"}
LABELLED: Change = {**APPARMOR, "guests.0.no_mac": False, "guests.0.label": LABEL}
SELINUX: Change = {
    "mac.model": "selinux",
    "mac.mode": "enforcing",
    "mac.enforcing": True,
    "mac.selinux.enforcing": True,
}
NFS = {"name": "virt_use_nfs", "running": True, "configured": "on"}
NESTED: Change = {"kernel.parameters": [parameter("kvm_amd.nested", True, None)]}
SEES_SVM: Change = {
    "definitions.guests.0.configured": [{"id": "nested_virtualization", "where": "cpu", "observed": "svm"}]
}
UNSAFE = "vfio_iommu_type1.allow_unsafe_interrupts"
NO_IOMMU = "vfio.enable_unsafe_noiommu_mode"
VULNERABLE = {"name": "mds", "text": "Vulnerable", "state": "vulnerable", "smt_vulnerable": None}
MITIGATED = {"name": "mds", "text": "Mitigation: Clear CPU buffers", "state": "mitigated", "smt_vulnerable": None}
SECURE_BOOT: Change = {
    "kernel.secure_boot": {"efi": True, "enabled": True, "setup_mode": False},
    "kernel.lockdown": "integrity",
}
NEWER: Change = {"libvirt.version": "12.1.0", "secrets.encryption_known": True, "secrets.defined": 1}
OWN_MACHINE: Change = {"cpu.virtual": False}

# rule: what it passes by, what it fails by, and why no container shows both.
NO_MAC = "the captured kernel has neither AppArmor nor SELinux"
NO_MODULE = "the modules of the captured kernel are built in, and it has none of these"
SHOWN: dict[str, tuple[Change, Change, str]] = {
    "lsm-enforcing": (APPARMOR, AS_IT_IS, NO_MAC),
    "guests-confined-effective": (LABELLED, APPARMOR, NO_MAC),
    "svirt-labels-unique": (LABELLED, {**LABELLED, "guests.0.label_shared_with": ["other"]}, NO_MAC),
    "selinux-no-permissive-virt-types": (
        {**SELINUX, "mac.selinux.types": [{"name": "svirt_t", "permissive": False}]},
        {**SELINUX, "mac.selinux.types": [{"name": "svirt_t", "permissive": True}]},
        NO_MAC,
    ),
    "selinux-virt-booleans-minimal": (
        {**SELINUX, "mac.selinux.booleans": [{**NFS, "running": False, "configured": ""}]},
        {**SELINUX, "mac.selinux.booleans": [NFS]},
        NO_MAC,
    ),
    "apparmor-guest-profiles-enforce": (
        APPARMOR,
        {**APPARMOR, "mac.apparmor.profiles": [{"name": "libvirtd", "mode": "complain"}]},
        NO_MAC,
    ),
    "apparmor-local-overrides-narrow": (
        APPARMOR,
        {
            **APPARMOR,
            "mac.apparmor.broad_grants": [
                {
                    "name": "/etc/apparmor.d/x:1",
                    "path": "/etc/apparmor.d/x",
                    "line": 1,
                    "rule": "/** rw",
                    "reason": "all",
                }
            ],
        },
        NO_MAC,
    ),
    "kvm-nested-off": ({"kernel.parameters": [parameter("kvm_amd.nested", False, False)]}, NESTED, NO_MODULE),
    "guest-nested-flag-declared": (NESTED, {**NESTED, **SEES_SVM}, NO_MODULE),
    "vfio-unsafe-interrupts-off": (
        {"kernel.parameters": [parameter(UNSAFE, False, None)]},
        {"kernel.parameters": [parameter(UNSAFE, True, True)]},
        NO_MODULE,
    ),
    "vfio-noiommu-off": (
        {"kernel.parameters": [parameter(NO_IOMMU, False, None)]},
        {"kernel.parameters": [parameter(NO_IOMMU, True, True)], "iommu.noiommu": ["noiommu-0"]},
        NO_MODULE,
    ),
    "iommu-effective": (
        {"iommu.units": ["ivhd0"], "iommu.assigned": [card()]},
        {"iommu.assigned": [card(group=None, type=None)]},
        "the captured machine has no IOMMU, and no device to pass through",
    ),
    "cpu-vulns-mitigated": (
        {"cpu.vulnerabilities": [MITIGATED]},
        {"cpu.vulnerabilities": [VULNERABLE]},
        "what the processor and its kernel are belongs to the machine",
    ),
    "mitigations-not-disabled": (
        {"kernel.cmdline.running": [], "kernel.cmdline.configured": []},
        AS_IT_IS,
        "the command line of the kernel belongs to the machine",
    ),
    "smt-policy": (
        {**OWN_MACHINE, "cpu.smt": {"control": "off", "active": False}},
        {**OWN_MACHINE, "cpu.smt": {"control": "on", "active": True}},
        "the captured machine is a virtual one, whose threads say nothing of the processor's",
    ),
    "ksm-off": (AS_IT_IS, {"ksm.run": 1, "ksm.pages_sharing": 4711}, "page merging is the whole machine's"),
    "secure-boot-lockdown": (SECURE_BOOT, AS_IT_IS, "the firmware belongs to the machine"),
    "libvirt-audit-on": (
        {"logging.audit.running": True, "logging.audit.enabled": 1},
        AS_IT_IS,
        "the kernel gives its audit records to the machine, not to a container",
    ),
    "libvirt-secrets-encrypted": (
        {**NEWER, "secrets.encrypted": 1, "secrets.key_exists": True},
        {**NEWER, "secrets.plain": 1, "secrets.key_exists": True},
        "libvirt encrypts secrets from 12.1 on",
    ),
}


def changed(change: Change) -> dict[str, t.Any]:
    """The captured facts with these values, by their paths. A path that they do not have is a mistake."""
    facts = copy.deepcopy(FACTS)
    for path, value in change.items():
        inner: t.Any = facts
        *above, last = path.split(".")
        for part in above:
            inner = inner[int(part) if isinstance(inner, list) else part]
        assert last in inner, path
        inner[last] = value
    return facts


def states(rule: str, change: Change) -> set[str]:
    facts = changed(change)
    assert [found for section, value in facts.items() for found in mismatches(section, value)] == []
    return {finding["state"] for finding in Evaluation([RULES[rule]]).of_rule(RULES[rule], Host("host", facts))}


def test_the_capture_is_as_it_was_made() -> None:
    (listed,) = [
        entry
        for entry in yaml.safe_load((ROOT / "tests/generated.yml").read_text(encoding="utf-8"))
        if entry["path"] == PATH
    ]
    assert listed["command"] == CAPTURED["command"]
    digest = hashlib.sha256(json.dumps(FACTS, sort_keys=True).encode()).hexdigest()
    assert listed["sha256"] == CAPTURED["sha256"] == digest
    assert all(CAPTURED[name] for name in ("release", "kernel", "libvirt", "qemu"))


def test_the_captured_facts_are_as_documented() -> None:
    assert [found for section, value in FACTS.items() for found in mismatches(section, value)] == []


@pytest.mark.parametrize("rule", SHOWN)
def test_it_passes_where_it_holds(rule: str) -> None:
    found = states(rule, SHOWN[rule][0])
    assert found & GOOD and not found & BAD


@pytest.mark.parametrize("rule", SHOWN)
def test_it_fails_where_it_lacks(rule: str) -> None:
    assert states(rule, SHOWN[rule][1]) & BAD


def test_each_has_its_cause() -> None:
    assert [rule for rule, (_passing, _failing, cause) in SHOWN.items() if not cause] == []
