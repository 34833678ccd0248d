# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role at every level on a host with a kernel of its own: a boot loses nothing, and all can be taken back."""

from __future__ import annotations

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
    "baseline": {**ROLES, "hypervisor_level": "baseline"},
    "hardened": {**SWITCHES, **ROLES, "hypervisor_level": "hardened"},
    "strict": {**KERNEL, **SWITCHES, **ROLES, "hypervisor_verify_enabled": True, "hypervisor_kernel_no_kexec": False},
}
# So that each boot of the host as it was brings the same values.
WEAK_BOOT = {
    "/etc/sysctl.d/50-weak.conf": "kernel.dmesg_restrict = 0\nkernel.yama.ptrace_scope = 0\nfs.suid_dumpable = 2\n",
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
cat /sys/kernel/mm/ksm/run /sys/kernel/mm/hugepages/*/nr_hugepages
stat -c '%n %a %U %G' /dev/kvm /run/libvirt/libvirt-sock /run/libvirt/libvirt-sock-ro /run/libvirt/libvirt-admin-sock
ss -Hltn | awk '{print $4}' | sort
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


def files(host: rig.VirtualMachine) -> list[str]:
    return host.run(["python3", "-"], stdin=TREE, timeout=host.patience).stdout.splitlines()


def running(host: rig.VirtualMachine) -> list[str]:
    # libvirt's sockets are systemd's until a connection has started the daemon.
    guests.virsh(host, "uri", timeout=host.patience)
    return host.run(["sh", "-c", RUNNING + VALUES], timeout=host.patience).stdout.splitlines()


def play(host: rig.VirtualMachine, name: str, **variables: t.Any) -> playbooks.Run:
    run = playbooks.play(name, host.inventory, variables=variables)
    assert run.rc == 0, run.text
    return run


def start(host: rig.VirtualMachine) -> int:
    """A guest of the host's, which has come back from a boot without it."""
    host.put("/run/guest.xml", guests.Guest("throughout").xml().encode())
    guests.virsh(host, "create", "/run/guest.xml", timeout=host.patience)
    return guests.pid(host, "throughout")


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_lost_at_boot_and_all_of_it_can_be_taken_back(host: rig.VirtualMachine, level: str) -> None:
    former, former_running = files(host), running(host)
    assert any(line.endswith(":16509") for line in former_running)
    guest = start(host)
    hardened = play(host, "harden", **LEVELS[level])
    assert guests.pid(host, "throughout") == guest
    in_force, in_force_running = files(host), running(host)
    assert not any(line.endswith(":16509") for line in in_force_running)
    assert hardened.results("qemu_conf")[0]["changes"]

    host.reboot()
    assert files(host) == in_force
    assert running(host) == in_force_running
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
    assert files(host) == former
    assert running(host) == former_running
    guests.stop(host, "throughout")


def test_and_a_boot_finds_the_former_host(host: rig.VirtualMachine) -> None:
    former, former_running = files(host), running(host)
    host.reboot()
    assert (files(host), running(host)) == (former, former_running)
