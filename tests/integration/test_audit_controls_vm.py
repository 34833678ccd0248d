# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controls that only a host with a kernel of its own can show, seen to fail and to pass in one virtual machine.

It is booted with its mitigations off, weakened, looked at; mended, booted without that switch, and looked at again.
"""

from __future__ import annotations

import time
import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.filter.audit import judge

LIVE_VM = [
    "apparmor-guest-profiles-enforce",
    "apparmor-local-overrides-narrow",
    "cpu-vulns-mitigated",
    "guest-nested-flag-declared",
    "guests-confined-effective",
    "iommu-effective",
    "ksm-off",
    "kvm-nested-off",
    "libvirt-audit-on",
    "lsm-enforcing",
    "mitigations-not-disabled",
    "svirt-labels-unique",
    "vfio-unsafe-interrupts-off",
]

UUID = "7bb2a3c0-1f5e-4c6f-9d53-3a1d0e6f2a11"
LOCAL = "/etc/apparmor.d/local/abstractions/libvirt-qemu"
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
  /usr/bin/qemu-system-x86_64 -name guest=stray -nodefaults -display none -machine none
"""
WEAKEN = f"""
modprobe vfio-pci
echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
echo vfio-pci >/sys/bus/pci/devices/{GIVEN}/driver_override
echo {GIVEN} >/sys/bus/pci/devices/{GIVEN}/driver/unbind
echo {GIVEN} >/sys/bus/pci/drivers_probe
echo 1 >/sys/kernel/mm/ksm/run
systemctl disable --quiet apparmor.service
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
systemctl enable --quiet apparmor.service
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

Findings = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def seen() -> tuple[Findings, Findings]:
    """What the audit says of the host when it is weak, and when it is good."""
    with rig.vm("trixie", words=["mitigations=off", "intel_iommu=on"]) as host:
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
        host.reboot("intel_iommu=on")
        script(host, GIVE_BOTH)
        guests.start(host, guests.Guest("confined", uuid=UUID))
        return weak, findings(host)


def script(host: rig.Host, text: str) -> None:
    host.run(["sh", "-ec", text], timeout=host.patience)


def findings(host: rig.Host) -> Findings:
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
def test_it_fails_where_it_lacks(seen: tuple[Findings, Findings], rule: str) -> None:
    weak, _good = seen
    assert "fail" in weak[rule].values()


# Nested virtualization is off in the end, and then nothing has to be declared.
@pytest.mark.parametrize("rule", [rule for rule in LIVE_VM if rule != "guest-nested-flag-declared"])
def test_it_passes_where_it_holds(seen: tuple[Findings, Findings], rule: str) -> None:
    _weak, good = seen
    assert "pass" in good[rule].values()
