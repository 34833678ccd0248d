# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controls that only a host with a kernel of its own can show, seen to fail and to pass in one virtual machine.

It is booted with its mitigations off, weakened and looked at; mended, hardened at level strict, booted without that
switch, and looked at again.
"""

from __future__ import annotations

import dataclasses
import time

import pytest
import rig
import yaml
from integration.test_audit_controls import LIVE, NOT_LIVE
from rig import guests, modules, playbooks

from ansible_collections.hypervisor.hardening.plugins.filter.audit import OWN_RULES, judge

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(1800)

# How many there are; which ones is what the three lists say.
MUST_HAVE = 58

HOST = "vm"
# The object of each that fails on the weak host, and the one that passes on the good one.
LIVE_VM = {
    "apparmor-guest-profiles-enforce": (HOST, HOST),
    "apparmor-local-overrides-narrow": (HOST, HOST),
    "cpu-vulns-mitigated": ("spectre_v2", "spectre_v2"),
    "guest-nested-flag-declared": ("nested", "plain"),
    "guests-confined-effective": ("free", "free"),
    "iommu-effective": ("0000:00:05.0", "0000:00:05.0"),
    "ksm-off": (HOST, HOST),
    "kvm-nested-off": ("kvm_amd.nested", "kvm_amd.nested"),
    "libvirt-audit-on": (HOST, HOST),
    "lsm-enforcing": (HOST, HOST),
    "mitigations-not-disabled": (HOST, HOST),
    "svirt-labels-unique": ("confined", "free"),
    "vfio-unsafe-interrupts-off": ("vfio_iommu_type1.allow_unsafe_interrupts",) * 2,
}

UUID = "7bb2a3c0-1f5e-4c6f-9d53-3a1d0e6f2a11"
LOCAL = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
WANTED = "/etc/systemd/system/sysinit.target.wants/apparmor.service"
PROFILE = "/etc/apparmor.d/usr.sbin.libvirtd"
# The rig gives each virtual machine a device of two functions, which are in one group of the IOMMU.
GIVEN, MATE = "0000:00:05.0", "0000:00:05.1"
PASSTHROUGH = guests.Guest("nested", type="kvm", machine="q35", extra=["<cpu mode='host-passthrough'/>"])
WITHOUT_SVM = guests.Guest(
    "plain",
    type="kvm",
    machine="q35",
    extra=["<cpu mode='custom' match='exact'><model>qemu64</model><feature policy='disable' name='svm'/></cpu>"],
)
# A QEMU that somebody started by hand under the profile of a guest of libvirt's.
STRAY = f"""
systemd-run --quiet --unit=stray aa-exec --profile=libvirt-{UUID} -- \\
  /usr/bin/qemu-system-x86_64 -name guest=stray -nodefaults -display none -machine q35 -m 16 -S
"""
WEAKEN = f"""
modprobe vfio-pci
echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
echo vfio-pci >/sys/bus/pci/devices/{GIVEN}/driver_override
echo {GIVEN} >/sys/bus/pci/devices/{GIVEN}/driver/unbind
echo {GIVEN} >/sys/bus/pci/drivers_probe
echo 1 >/sys/kernel/mm/ksm/run
rm {WANTED}
systemctl stop auditd.service
echo 'audit_level = 0' >>/etc/libvirt/libvirtd.conf
mkdir -p /etc/apparmor.d/local/abstractions
echo '/tmp/** rw,' >{LOCAL}
ln -s {PROFILE} /etc/apparmor.d/disable/
"""
MEND = f"""
systemctl stop stray.service
sed -i '/^audit_level/d' /etc/libvirt/libvirtd.conf
rm {LOCAL} /etc/apparmor.d/disable/usr.sbin.libvirtd
ln -s /usr/lib/systemd/system/apparmor.service {WANTED}
echo 'options kvm_amd nested=0' >/etc/modprobe.d/kvm.conf
"""
# After the boot that made the rest good.
GIVE_BOTH = f"""
modprobe vfio-pci
for function in {GIVEN} {MATE}; do
    echo vfio-pci >/sys/bus/pci/devices/$function/driver_override
    echo $function >/sys/bus/pci/devices/$function/driver/unbind
    echo $function >/sys/bus/pci/drivers_probe
done
"""

# Level strict fails on every weakness, a missing or lax label of AppArmor's among them.
STRICT = {"hypervisor_level": "strict"}

Findings = dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the audit says of the host when it is weak and when it is good, and what hardening it in between did."""

    weak: Findings
    good: Findings
    hardened: playbooks.Run
    #: After the boot that followed.
    again: playbooks.Run
    verified: playbooks.Run
    label: str


@pytest.fixture(scope="module")
def seen() -> Seen:
    with rig.vm("trixie", HOST, words=["mitigations=off", "intel_iommu=on"]) as host:
        for guest in (PASSTHROUGH, WITHOUT_SVM):
            host.put("/run/guest.xml", guest.xml().encode())
            guests.virsh(host, "define", "/run/guest.xml")
        guests.start(host, guests.Guest("confined", uuid=UUID))
        guests.start(host, guests.Guest("free", seclabels=["<seclabel type='none'/>"]))
        script(host, STRAY)
        script(host, WEAKEN)
        weak = findings(host)
        script(host, MEND)
        guests.virsh(host, "undefine", PASSTHROUGH.name)
        hardened = playbooks.play("harden", host.inventory, variables=STRICT)
        host.reboot("intel_iommu=on")
        script(host, GIVE_BOTH)
        pid = guests.start(host, guests.Guest("free", uuid=UUID))
        return Seen(
            weak,
            findings(host),
            hardened,
            playbooks.play("harden", host.inventory, "--check", variables=STRICT),
            playbooks.play("verify", host.inventory, variables=STRICT),
            host.get(f"/proc/{pid}/attr/current").decode(),
        )


def script(host: rig.VirtualMachine, text: str) -> None:
    host.run(["sh", "-ec", text], timeout=host.patience)


def findings(host: rig.VirtualMachine) -> Findings:
    """The state of each rule by its objects."""
    begun = time.monotonic()
    facts = modules.call(host, "hypervisor_info")
    assert "failed" not in facts, facts
    print(f"facts in {time.monotonic() - begun:.1f} s")
    found: Findings = {}
    for finding in judge({host.name: facts}, level="strict")["hosts"][0]["findings"]:
        found.setdefault(finding["rule"], {})[finding["object"]["name"]] = finding["state"]
    return found


@pytest.mark.parametrize("rule", LIVE_VM)
def test_it_fails_where_it_lacks(seen: Seen, rule: str) -> None:
    """``pending`` where a value that was written to the running kernel alone goes with a reboot."""
    assert seen.weak[rule][LIVE_VM[rule][0]] in ("fail", "pending")


@pytest.mark.parametrize("rule", LIVE_VM)
def test_it_passes_where_it_holds(seen: Seen, rule: str) -> None:
    # Nested virtualization is off in the end, and then nothing has to be declared.
    where = seen.weak if rule == "guest-nested-flag-declared" else seen.good
    assert where[rule][LIVE_VM[rule][1]] == "pass"


def test_a_hardened_host_is_hardened_after_a_boot_and_its_guests_are_confined_by_apparmor(seen: Seen) -> None:
    assert seen.hardened.rc == 0, seen.hardened.text
    assert seen.hardened.results("qemu_conf")[0]["changes"]
    assert (seen.again.rc, seen.again.changed) == (0, []), seen.again.text
    assert seen.verified.rc == 0, seen.verified.text
    assert seen.label == f"libvirt-{UUID} (enforce)\n"


def test_all_but_a_few_of_the_controls_that_each_host_must_have_are_seen() -> None:
    rules = {entry["id"] for path in OWN_RULES.glob("*.yml") for entry in yaml.safe_load(path.read_text("utf-8"))}
    assert {*LIVE, *LIVE_VM, *NOT_LIVE} <= rules
    assert len(LIVE) + len(LIVE_VM) + len(NOT_LIVE) == len({*LIVE, *LIVE_VM, *NOT_LIVE}) == MUST_HAVE
    assert len(LIVE) + len(LIVE_VM) >= 45
