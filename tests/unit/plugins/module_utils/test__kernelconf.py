# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next boot gives the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _kernelconf
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelconf import Setting
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

# As grub-mkconfig of Debian 13 writes it, cut down: the kernel's usual entry and the one for rescue.
GRUB = """\
menuentry 'Debian GNU/Linux' --class debian {
\tlinux\t/boot/vmlinuz-6.12.48+deb13-amd64 root=UUID=1 ro  quiet mitigations=auto,nosmt
\tinitrd\t/boot/initrd.img-6.12.48+deb13-amd64
}
submenu 'Advanced options' {
\tmenuentry 'recovery mode' {
\t\tlinux\t/boot/vmlinuz-6.12.48+deb13-amd64 root=UUID=1 ro single
\t}
}
"""


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def test_words_of_a_command_line() -> None:
    # Documentation/admin-guide/kernel-parameters.rst: double quotes protect spaces in values
    assert _kernelconf.words('ro  param="spaces in here" "odd one=1"') == ("ro", "param=spaces in here", "odd one=1")


def test_hyphens_and_underscores_are_one_in_modules() -> None:
    # the same document: "log_buf_len=1M" and "log-buf-len=1M" are equivalent
    found = _kernelconf.module_options(["kvm-intel.nested=0", "kvm.ignore_msrs", "quiet"], "/proc/cmdline")
    assert found == {
        ("kvm_intel", "nested"): Setting("0", "/proc/cmdline"),
        ("kvm", "ignore_msrs"): Setting("1", "/proc/cmdline"),
    }


def test_modprobe_d(host: TreeHost) -> None:
    host.put("/usr/lib/modprobe.d/kvm.conf", "options kvm_intel nested=1\n")
    host.put("/etc/modprobe.d/kvm.conf", "# options kvm nested=9\noptions kvm-intel \\\n nested=0 ept=1\n")
    host.put("/etc/modprobe.d/z.conf", "options kvm_intel ept=0\nblacklist nouveau\ninstall vhost-net /bin/true\n")
    host.put("/etc/modprobe.d/y.conf", "install usb-storage /sbin/modprobe --ignore-install usb-storage\n")
    host.put("/etc/modprobe.d/not-read.txt", "options kvm_intel nested=1\n")
    found = _kernelconf.modprobe(Reader(host))
    assert found.options == {
        ("kvm_intel", "nested"): Setting("0", "/etc/modprobe.d/kvm.conf"),  # shadows that of /usr/lib
        ("kvm_intel", "ept"): Setting("0", "/etc/modprobe.d/z.conf"),
    }
    assert found.blacklisted == {"nouveau": "/etc/modprobe.d/z.conf"}
    assert found.disabled == {"vhost_net": "/etc/modprobe.d/z.conf"}


def test_sysctl_d(host: TreeHost) -> None:
    # the examples of sysctl.d(5), "Configuration Format"
    host.put("/usr/lib/sysctl.d/10.conf", "kernel.domainname=example.com\nnet.ipv4.conf.*.rp_filter = 2\n")
    host.put("/etc/sysctl.d/20.conf", "-kernel/domainname = other\n; kernel.x = 1\nnet.ipv4.conf.all.rp_filter = 1\n")
    host.put("/etc/sysctl.d/30.conf", "net/ipv4/conf/eth0.200/forwarding = 1\n")
    names = ["kernel.domainname", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter", "kernel.x"]
    assert _kernelconf.sysctls(Reader(host), [*names, "net.ipv4.conf.eth0/200.forwarding"]) == {
        "kernel.domainname": Setting("other", "/etc/sysctl.d/20.conf"),
        "net.ipv4.conf.all.rp_filter": Setting("1", "/etc/sysctl.d/20.conf"),
        "net.ipv4.conf.default.rp_filter": Setting("2", "/usr/lib/sysctl.d/10.conf"),
        "net.ipv4.conf.eth0/200.forwarding": Setting("1", "/etc/sysctl.d/30.conf"),
    }


def test_grub(host: TreeHost) -> None:
    host.put("/boot/grub/grub.cfg", GRUB)
    found = _kernelconf.boot(Reader(host))
    assert (found.words, found.path) == (("mitigations=auto,nosmt",), "/boot/grub/grub.cfg")


def test_grub_with_entries_that_differ(host: TreeHost) -> None:
    host.put("/boot/grub/grub.cfg", GRUB + "\tlinux /boot/vmlinuz-6.1 root=UUID=1 ro mitigations=off\n")
    found = _kernelconf.boot(Reader(host))
    assert found.words is None
    assert "differ" in found.reason


def test_entries_of_the_boot_loader_specification(host: TreeHost) -> None:
    # as Rocky 9 has them: variables come from GRUB's environment
    host.put("/boot/grub2/grub.cfg", "blscfg\n")
    host.put("/boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=/dev/sda1 ro nosmt\n####")
    host.put("/boot/loader/entries/a-5.14.0.conf", "linux /vmlinuz-5.14.0\noptions $kernelopts $tuned_params\n")
    host.put("/boot/loader/entries/a-0-rescue.conf", "options root=/dev/sda1 mitigations=off\n")
    found = _kernelconf.boot(Reader(host))
    assert (found.words, found.path) == (("nosmt",), "/boot/loader/entries")


def test_kernel_cmdline_of_systemd_boot(host: TreeHost) -> None:
    host.put("/etc/kernel/cmdline", "root=ZFS=rpool/ROOT boot=zfs intel_iommu=on\n")
    assert _kernelconf.boot(Reader(host)).words == ("intel_iommu=on",)


def test_no_known_boot_loader(host: TreeHost) -> None:
    assert _kernelconf.boot(Reader(host)).words is None


def test_passwords_are_not_told() -> None:
    line = "rd.iscsi.password=hunter2 rd.luks.key=/k root=UUID=1 kvm.nx_huge_pages=off spec_rstack_overflow=off audit=0"
    assert _kernelconf.telling(line.split()) == ("kvm.nx_huge_pages=off", "spec_rstack_overflow=off", "audit=0")
