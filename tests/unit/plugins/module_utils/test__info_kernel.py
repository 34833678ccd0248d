# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the kernel."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_kernel
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

RELEASE = "6.12.48+deb13-amd64"
MODULES = "/sys/module"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz root=UUID=1 ro quiet kvm_intel.nested=1\n")
    host.put("/proc/version", f"Linux version {RELEASE} (x@y) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.12.48-1 (2025)\n")
    host.put("/proc/sys/kernel/tainted", "4609\n")
    host.put("/proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h\n")
    install(host, RELEASE)
    return host


def install(host: TreeHost, release: str) -> None:
    host.put(f"/lib/modules/{release}/modules.dep")
    host.put(f"/boot/vmlinuz-{release}")


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_kernel.facts(Context(host))


def parameter(host: TreeHost, name: str) -> dict[str, t.Any]:
    found: list[dict[str, t.Any]] = [entry for entry in facts(host)["parameters"] if entry["name"] == name]
    return found[0]


def sysctl(host: TreeHost, name: str) -> dict[str, t.Any]:
    found: list[dict[str, t.Any]] = [entry for entry in facts(host)["sysctls"] if entry["name"] == name]
    return found[0]


def test_the_running_kernel_is_the_newest(host: TreeHost) -> None:
    found = facts(host)
    assert (found["release"], found["newest"], found["installed"]) == (RELEASE, RELEASE, [RELEASE])
    assert found["reboot"] == {"required": False, "reasons": []}


@pytest.mark.parametrize(
    ("release", "later", "other"),
    [
        ("6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-10-cloud-amd64"),  # Debian
        ("5.14.0-427.9.1.el9_4.x86_64", "5.14.0-503.11.1.el9_5.x86_64", "5.14.0-503.11.1.el9_5.x86_64+debug"),  # RHEL
        ("6.8.0-9-generic", "6.8.0-31-generic", "6.8.0-31-lowlatency"),  # Ubuntu
        ("6.4.0-150600.21-default", "6.4.0-150600.23.17-default", "6.4.0-150600.23.17-rt"),  # SUSE
    ],
)
def test_a_later_kernel_waits(host: TreeHost, release: str, later: str, other: str) -> None:
    host.put("/proc/sys/kernel/osrelease", f"{release}\n")
    install(host, release)
    install(host, other)
    assert facts(host)["reboot"]["required"] is False
    install(host, later)
    found = facts(host)
    assert found["newest"] == later
    assert found["reboot"] == {"required": True, "reasons": [f"The kernel {later} is installed, {release} is running."]}


def test_what_a_removed_kernel_leaves_is_none(host: TreeHost) -> None:
    host.put("/lib/modules/6.99.0+deb13-amd64/modules.dep")
    assert facts(host)["installed"] == [RELEASE]


def test_the_running_kernel_is_gone(host: TreeHost) -> None:
    Path(host.path(f"/boot/vmlinuz-{RELEASE}")).unlink()
    install(host, "6.11.0-amd64")
    assert facts(host)["reboot"]["required"] is True


def test_an_update_without_a_new_release(host: TreeHost) -> None:
    stanza = "Package: linux-image-{}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 6.12.48-2\n\n"
    host.put("/var/lib/dpkg/status", stanza.format(RELEASE))
    assert facts(host)["reboot"]["reasons"] == [f"linux-image-{RELEASE} 6.12.48-2 is installed, 6.12.48-1 is running."]


def test_debian_asks_for_a_reboot(host: TreeHost) -> None:
    host.put("/run/reboot-required")
    host.put("/run/reboot-required.pkgs", "libc6\nlibc6\n")
    assert facts(host)["reboot"] == {"required": True, "reasons": ["/run/reboot-required is there. For: libc6"]}


def test_a_container_has_no_kernel(tmp_path: Path) -> None:
    host = TreeHost(tmp_path)
    host.put("/proc/cmdline", "quiet\n")
    found = facts(host)
    assert found["reboot"] == {"required": None, "reasons": []}
    assert "/usr/lib/modules" in [entry["path"] for entry in found["unread"]]


def test_a_switch_running_and_configured(host: TreeHost) -> None:
    host.put(f"{MODULES}/kvm_intel/parameters/nested", "N\n")
    host.put("/etc/modprobe.d/kvm.conf", "options kvm_intel nested=0\n")
    # libkmod takes the command line after the files, and the last value counts
    assert parameter(host, "kvm_intel.nested") == {
        "name": "kvm_intel.nested",
        "module": "kvm_intel",
        "loaded": True,
        "running": False,
        "configured": True,
        "configured_by": "/proc/cmdline",
    }
    host.put("/etc/kernel/cmdline", "root=UUID=1 ro\n")
    assert parameter(host, "kvm_intel.nested")["configured"] is False


@pytest.mark.parametrize(("text", "running"), [("Y\n", True), ("1\n", True), ("0\n", False)])
def test_spellings_of_a_switch(host: TreeHost, text: str, running: bool) -> None:
    # kvm_amd's nested was an integer until Linux 6.x: it reads 1, not Y
    host.put(f"{MODULES}/kvm_amd/parameters/nested", text)
    found = parameter(host, "kvm_amd.nested")
    assert (found["running"], found["configured"]) == (running, None)


def test_nx_huge_pages_is_no_switch(host: TreeHost) -> None:
    host.put(f"{MODULES}/kvm/parameters/nx_huge_pages", "never\n")
    host.put("/etc/modprobe.d/kvm.conf", "options kvm nx_huge_pages=auto\n")
    found = parameter(host, "kvm.nx_huge_pages")
    assert (found["running"], found["configured"]) == ("never", "auto")


def test_configured_for_a_module_that_is_not_loaded(host: TreeHost) -> None:
    host.put("/etc/modprobe.d/vfio.conf", "options vfio_iommu_type1 allow_unsafe_interrupts=1\n")
    found = parameter(host, "vfio_iommu_type1.allow_unsafe_interrupts")
    assert (found["loaded"], found["running"], found["configured"]) == (False, None, True)


def test_no_parameter_of_neither_module(host: TreeHost) -> None:
    host.put("/proc/cmdline", "quiet\n")
    assert facts(host)["parameters"] == []


def test_sysctls(host: TreeHost) -> None:
    host.put("/proc/sys/kernel/kptr_restrict", "0\n")
    host.put("/etc/sysctl.d/60.conf", "kernel.kptr_restrict = 2\n")
    assert sysctl(host, "kernel.kptr_restrict") == {
        "name": "kernel.kptr_restrict",
        "present": True,
        "running": 0,
        "configured": 2,
        "configured_by": "/etc/sysctl.d/60.conf",
    }
    assert sysctl(host, "kernel.yama.ptrace_scope")["present"] is False


@pytest.mark.parametrize(
    ("text", "lockdown"),
    [("[none] integrity confidentiality\n", "none"), ("none [integrity] confidentiality\n", "integrity")],
)
def test_lockdown(host: TreeHost, text: str, lockdown: str) -> None:
    host.put("/sys/kernel/security/lockdown", text)
    assert facts(host)["lockdown"] == lockdown


def test_a_kernel_without_lockdown_and_one_that_does_not_show_it(host: TreeHost) -> None:
    assert facts(host)["lockdown"] is None
    host.put("/sys/kernel/security/lsm", "capability,apparmor")
    assert facts(host)["lockdown"] == "unsupported"


def test_secure_boot(host: TreeHost) -> None:
    assert facts(host)["secure_boot"] == {"efi": False, "enabled": False, "setup_mode": None}
    host.directory("/sys/firmware/efi")
    assert facts(host)["secure_boot"] == {"efi": True, "enabled": None, "setup_mode": None}
    variable = "/sys/firmware/efi/efivars/{}-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    # four bytes of attributes, then the value (Documentation/filesystems/efivarfs.rst)
    host.put(variable.format("SecureBoot"), "\x06\0\0\0\x01")
    host.put(variable.format("SetupMode"), "\x06\0\0\0\0")
    assert facts(host)["secure_boot"] == {"efi": True, "enabled": True, "setup_mode": False}


def test_taint(host: TreeHost) -> None:
    # tainted-kernels.rst: 4609 is 1 + 512 + 4096, "P", "W" and "O"
    assert facts(host)["taint"] == {"value": 4609, "flags": ["P", "W", "O"]}


@pytest.mark.parametrize(
    ("pattern", "handler"),
    [("core\n", "file"), ("\n", "none"), ("|/usr/share/apport/apport -p%p\n", "apport"), ("|/bin/false\n", "false")],
)
def test_core_pattern(host: TreeHost, pattern: str, handler: str) -> None:
    host.put("/proc/sys/kernel/core_pattern", pattern)
    assert facts(host)["core"] == {"pattern": pattern.strip(), "handler": handler, "storage": None}


def test_systemd_coredump(host: TreeHost) -> None:
    assert facts(host)["core"]["storage"] == "external"
    host.put("/etc/systemd/coredump.conf", "[Coredump]\n#Storage=external\n")
    host.put("/etc/systemd/coredump.conf.d/none.conf", "[Coredump]\nStorage=none\n")
    assert facts(host)["core"]["storage"] == "none"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/kdump.conf", "path /var/crash\ncore_collector makedumpfile -l --message-level 7 -d 31\n"),
        ("/etc/default/kdump-tools", 'MAKEDUMP_ARGS="-F -c -d 31"\n'),
        ("/etc/sysconfig/kdump", 'KDUMP_DUMPLEVEL="31"\n'),
    ],
)
def test_kdump(host: TreeHost, path: str, text: str) -> None:
    host.put("/sys/kernel/kexec_crash_loaded", "1\n")
    host.put(path, text)
    assert facts(host)["kdump"] == {"loaded": True, "dump_level": 31, "configured_by": path}
