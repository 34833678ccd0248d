# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role at every level on a host with a kernel of its own: a boot loses nothing, and all can be taken back."""

from __future__ import annotations

import re
import typing as t

import pytest
import rig
from integration.test_kernel_vm import SWITCHES as KERNEL
from integration.test_rollback import CONF, RUNNING, SWITCHES, TREE, WEAK
from rig import guests, playbooks

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(3600)

ROLES = {f"hypervisor_{name}_enabled": True for name in ("daemon", "kernel", "mac")}
# What the kernel takes once and keeps until it boots cannot be taken back before that.
LEVELS: dict[str, dict[str, t.Any]] = {
    "baseline": {**SWITCHES, **ROLES, "hypervisor_level": "baseline"},
    "hardened": {**SWITCHES, **ROLES, "hypervisor_level": "hardened"},
    "strict": {
        **KERNEL,
        **SWITCHES,
        **ROLES,
        "hypervisor_verify_enabled": True,
        "hypervisor_kernel_no_kexec": False,
        "hypervisor_kernel_no_nested": False,
    },
}
# So that each boot of the host as it was brings the same values.
WEAK_BOOT = {
    "/etc/sysctl.d/50-weak.conf": "kernel.dmesg_restrict = 0\nkernel.yama.ptrace_scope = 0\nfs.suid_dumpable = 2\n"
    # What guests' networks need.
    "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\nnet.ipv4.conf.all.rp_filter = 0\n"
    "net.bridge.bridge-nf-call-iptables = 0\n",
    "/etc/modules-load.d/weak.conf": "br_netfilter\n",
    "/etc/modprobe.d/weak.conf": "options kvm ignore_msrs=1\noptions kvm_amd nested=1\n",
    "/etc/udev/rules.d/60-weak.rules": 'KERNEL=="kvm", MODE="0666"\n',
}
# The kernel's values, who may open what, and who listens.
VALUES = r"""
cd /proc/sys; for value in kernel/dmesg_restrict kernel/yama/ptrace_scope kernel/kptr_restrict kernel/core_pattern \
    kernel/perf_event_paranoid net/core/bpf_jit_harden dev/tty/ldisc_autoload vm/unprivileged_userfaultfd \
    fs/suid_dumpable; do echo "$value $(cat $value)"; done
cd /sys/module; for value in kvm/parameters/ignore_msrs kvm/parameters/enable_vmware_backdoor; do
    echo "$value $(cat $value)"; done
grep -H . /sys/kernel/mm/ksm/run /sys/kernel/mm/hugepages/*/nr_hugepages
stat -c '%n %a %U %G' /dev/kvm /run/libvirt/libvirt-sock /run/libvirt/libvirt-sock-ro /run/libvirt/libvirt-admin-sock
ss -Hltn | awk '{print $4}' | sort
"""
# What generic hardening changes, and guests or their operator need as it is.
NOT_OURS = r"""
cd /proc/sys/net; for value in ipv4/ip_forward ipv4/conf/*/rp_filter ipv6/conf/*/disable_ipv6 ipv6/conf/*/forwarding \
    bridge/bridge-nf-call-*; do echo "$value $(cat $value)"; done
findmnt -no TARGET,OPTIONS /run
systemctl show -p Id -p DropInPaths libvirtd.service virtlogd.service virtlockd.service ssh.service
grep -H . /sys/module/kvm_amd/parameters/nested
grep -rhE '^ *(blacklist|install) ' /etc/modprobe.d || true
grep -E '^ *migrate_tls_force' /etc/libvirt/qemu.conf || true
grep -E '^ *(tls_allowed_dn_list|sasl_allowed_username_list)' /etc/libvirt/libvirtd.conf || true
find /etc/ssh /etc/pam.d /etc/security -type f -exec sha256sum {} +
dpkg-query -W
"""


@pytest.fixture(scope="module")
def host() -> t.Iterator[rig.VirtualMachine]:
    with rig.vm("trixie", "levels") as fresh:
        fresh.put(CONF, fresh.get(CONF) + WEAK, mode=0o600)
        for path, text in WEAK_BOOT.items():
            fresh.put(path, text.encode())
        script(fresh, "systemctl enable --quiet libvirtd-tcp.socket")
        fresh.reboot()
        yield fresh


def script(host: rig.VirtualMachine, text: str) -> str:
    return host.run(["sh", "-ec", text], timeout=host.patience).stdout


def files(host: rig.VirtualMachine) -> set[str]:
    """All but the profile that libvirt writes for a guest, in any order."""
    found = host.run(["python3", "-"], stdin=TREE, timeout=host.patience).stdout.splitlines()
    return {line for line in found if not line.startswith("/etc/apparmor.d/libvirt/libvirt-")}


def running(host: rig.VirtualMachine) -> set[str]:
    # libvirt's sockets are systemd's until a connection has started the daemon.
    guests.virsh(host, "uri", timeout=host.patience)
    found = host.run(["sh", "-c", RUNNING + VALUES], timeout=host.patience).stdout
    # Numbers and sizes that each boot has its own of, and how a directory came by its mode, which stat has shown.
    return set(re.sub(r",(fd|pipe_ino|mode|size)=\d+k?", "", found).splitlines())


def not_ours(host: rig.VirtualMachine) -> set[str]:
    return set(script(host, NOT_OURS).splitlines())


def play(host: rig.VirtualMachine, name: str, **variables: t.Any) -> playbooks.Run:
    run = playbooks.play(name, host.inventory, variables=variables)
    assert run.rc == 0, run.text
    return run


def start(host: rig.VirtualMachine) -> int:
    """A guest of the host's, which has come back from a boot without it."""
    host.put("/run/guest.xml", guests.Guest("throughout").xml().encode())
    guests.virsh(host, "create", "/run/guest.xml", timeout=host.patience)
    return guests.pid(host, "throughout")


def unexpected(one: set[str], other: set[str]) -> set[str]:
    """What differs but for what waits for a boot.

    A daemon that runs takes no port from systemd, and while guests run what ignored accesses give them stays.
    """
    waiting = re.compile(r".*:16509|kvm/parameters/ignore_msrs .")
    return {line for line in one ^ other if not waiting.fullmatch(line)}


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_lost_at_boot_and_all_of_it_can_be_taken_back(host: rig.VirtualMachine, level: str) -> None:
    former, former_running, kept = files(host), running(host), not_ours(host)
    assert any(line.endswith(":16509") for line in former_running)
    assert {"ipv4/ip_forward 1", "bridge/bridge-nf-call-iptables 0"} <= kept
    guest = start(host)
    hardened = play(host, "harden", **LEVELS[level])
    assert guests.pid(host, "throughout") == guest
    in_force, in_force_running = files(host), running(host)
    assert not any(line.endswith(":16509") for line in in_force_running)
    assert hardened.results("qemu_conf")[0]["changes"]
    assert not_ours(host) ^ kept == set()

    host.reboot()
    assert files(host) ^ in_force == set()
    booted = running(host)
    assert unexpected(booted, in_force_running) == set()
    assert not any(line.endswith(":16509") for line in booted)
    assert ("kvm/parameters/ignore_msrs N" in booted) is (level == "strict")
    assert not_ours(host) ^ kept == set()
    label = host.get(f"/proc/{start(host)}/attr/current").decode()
    assert label.startswith("libvirt-")
    assert label.endswith(" (enforce)\n")
    play(host, "verify", hypervisor_level=level)
    again = play(host, "harden", **LEVELS[level])
    assert again.changed == []

    guest = guests.pid(host, "throughout")
    taken_back = play(host, "rollback", hypervisor_rollback_all=True)
    (result,) = taken_back.results("rollback")
    assert result["left_alone"] == []
    assert guests.pid(host, "throughout") == guest
    assert files(host) ^ former == set()
    assert unexpected(running(host), former_running) == set()
    host.reboot()
    assert (files(host) ^ former, running(host) ^ former_running) == (set(), set())
