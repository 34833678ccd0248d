# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only the operator can change, and how on this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _kernelreport
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelreport import Remark
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KernelHost

CPU = "/sys/devices/system/cpu"
GRUB2 = "and run: grub2-mkconfig -o /boot/grub2/grub.cfg; then reboot."


@pytest.fixture
def host(tmp_path: Path) -> KernelHost:
    return KernelHost(tmp_path)


def remarks(host: KernelHost, *, nested_off: bool = False) -> dict[str, Remark]:
    return {one.name: one for one in _kernelreport.remarks(_kernelreport.read(host), nested_off=nested_off)}


def vulnerable(host: KernelHost, name: str, text: str) -> None:
    """Texts are those of arch/x86/kernel/cpu/bugs.c."""
    host.put(f"{CPU}/vulnerabilities/{name}", f"{text}\n")


def test_a_host_of_which_nothing_is_to_be_said(host: KernelHost) -> None:
    vulnerable(host, "l1tf", "Not affected")
    vulnerable(host, "spectre_v2", "Mitigation: Enhanced / Automatic IBRS; IBPB: conditional")
    host.put_all(f"{CPU}/smt", {"control": "on\n", "active": "1\n"})
    assert remarks(host) == {}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("mitigations=off", "mitigations=off"),
        ("mitigations=auto,no_guest_host", "mitigations=auto,no_guest_host"),
        ("mds=off quiet nospectre_v2 kvm.nested=0", "nospectre_v2"),
        ("spectre_v2=off", "spectre_v2=off"),
    ],
)
def test_words_that_switch_a_mitigation_off(host: KernelHost, words: str, named: str) -> None:
    host.put("/proc/cmdline", f"ro {words}\n")
    vulnerable(host, "spectre_v2", "Vulnerable; IBPB: disabled; STIBP: disabled")
    found = remarks(host)["spectre_v2"]
    assert found.observed == "Vulnerable; IBPB: disabled; STIBP: disabled"
    assert (
        found.remedy
        == f"Take {named} out of the kernel's command line in the boot loader's configuration; then reboot."
    )


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/usr/sbin/grubby", "Run: grubby --update-kernel=ALL --remove-args='mitigations=off'; then reboot."),
        (
            "/etc/kernel/proxmox-boot-uuids",
            "Take mitigations=off out of /etc/kernel/cmdline, and run: proxmox-boot-tool refresh; then reboot.",
        ),
        ("/etc/default/grub", f"Take mitigations=off out of GRUB_CMDLINE_LINUX in /etc/default/grub, {GRUB2}"),
    ],
)
def test_how_this_host_changes_its_command_line(host: KernelHost, path: str, remedy: str) -> None:
    host.put("/proc/cmdline", "ro mitigations=off\n")
    host.put(path, "", 0o755)
    vulnerable(host, "vmscape", "Vulnerable")
    assert remarks(host)["vmscape"].remedy == remedy


def test_debian_has_a_command_for_grub(host: KernelHost) -> None:
    host.put("/proc/cmdline", "ro mitigations=off\n")
    host.put("/etc/default/grub")
    host.put("/usr/sbin/update-grub", "", 0o755)
    vulnerable(host, "vmscape", "Vulnerable")
    assert remarks(host)["vmscape"].remedy.endswith("in /etc/default/grub, and run: update-grub; then reboot.")


def test_microcode_is_missing(host: KernelHost) -> None:
    vulnerable(host, "mds", "Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable")
    assert "intel-microcode or amd64-microcode" in remarks(host)["mds"].remedy


def test_an_old_kernel(host: KernelHost) -> None:
    vulnerable(host, "tsa", "Vulnerable")
    assert remarks(host)["tsa"].remedy.startswith("Install the newest kernel and microcode")


def test_threads_see_each_other(host: KernelHost) -> None:
    vulnerable(host, "mds", "Mitigation: Clear CPU buffers; SMT vulnerable")
    host.put_all(f"{CPU}/smt", {"control": "on\n", "active": "1\n"})
    found = remarks(host)["smt-policy"]
    assert found.observed == "SMT is on, and threads of one core see through mds."
    assert "Add nosmt to" in found.remedy
    host.put(f"{CPU}/smt/active", "0\n")
    assert remarks(host) == {}


def test_devices_of_guests_and_no_iommu(host: KernelHost) -> None:
    host.link("/sys/bus/pci/devices/0000:01:00.0/driver", "../../../../bus/pci/drivers/vfio-pci")
    host.put("/dev/vfio/noiommu-0")
    found = remarks(host)
    assert found["iommu-effective"].observed == "1 devices are bound to VFIO, and no IOMMU is at work."
    assert "/dev/vfio has noiommu-0" in found["vfio-noiommu-off"].observed
    host.put("/sys/kernel/iommu_groups/1/type", "DMA\n")
    assert "iommu-effective" not in remarks(host), "what sysfs shows counts, whatever the command line asks for"


@pytest.mark.parametrize("value", ["Y", "1"])
def test_nested_virtualization_is_in_sight(host: KernelHost, value: str) -> None:
    host.parameter("kvm_amd.nested", value)
    assert remarks(host)["kvm-nested-off"].observed.startswith(f"kvm_amd.nested is {value}")
    assert remarks(host, nested_off=True) == {}
    host.parameter("kvm_amd.nested", "0")
    assert remarks(host) == {}
