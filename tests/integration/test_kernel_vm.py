# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_settings and its role on a host with a kernel of its own: what runs, what a boot brings, and what is refused.

One virtual machine is weakened, hardened at level strict with every switch, booted, and hardened again.
"""

from __future__ import annotations

import dataclasses
import json
import time
import typing as t

import pytest
import rig
from integration.test_audit_controls_vm import Findings, findings
from rig import guests, modules, playbooks

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(3600)

SWITCHES: dict[str, t.Any] = {
    "hypervisor_level": "strict",
    "hypervisor_kernel_enabled": True,
    "hypervisor_verify_enabled": False,
    **{
        f"hypervisor_kernel_{name}": "true"
        for name in (
            *("no_nested", "no_ignored_msrs", "remapped_interrupts", "no_vfio_noiommu", "l1d_flush", "nx_huge_pages"),
            *("private_core_dumps", "no_core_dumps", "self_protection", "no_kexec", "no_userfaultfd"),
            *("ksm_off", "restrict_kvm"),
        )
    },
}
# The kernel's own values once that holds, as its files show them.
HARD = {
    "/proc/sys/kernel/kptr_restrict": "2",  # it was stricter than asked for
    "/proc/sys/kernel/dmesg_restrict": "1",
    "/proc/sys/kernel/perf_event_paranoid": "3",
    "/proc/sys/kernel/unprivileged_bpf_disabled": "2",
    "/proc/sys/kernel/yama/ptrace_scope": "1",
    "/proc/sys/kernel/randomize_va_space": "2",
    "/proc/sys/kernel/kexec_load_disabled": "1",
    "/proc/sys/kernel/core_pattern": "|/bin/false",
    "/proc/sys/net/core/bpf_jit_harden": "2",
    "/proc/sys/dev/tty/ldisc_autoload": "0",
    "/proc/sys/vm/unprivileged_userfaultfd": "0",
    "/proc/sys/fs/suid_dumpable": "0",
    "/proc/sys/fs/protected_hardlinks": "1",
    "/proc/sys/fs/protected_symlinks": "1",
    "/sys/module/kvm/parameters/ignore_msrs": "N",
    "/sys/module/kvm/parameters/enable_vmware_backdoor": "N",
    "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts": "N",
    "/sys/kernel/mm/ksm/run": "0",
    "/sys/kernel/mm/ksm/pages_sharing": "0",
}
DEVICE = "660 root kvm"
NESTED = "/sys/module/kvm_amd/parameters/nested"
MERGED = "/sys/kernel/mm/ksm/pages_sharing"
WEAKEN = """
echo 'KERNEL=="kvm", MODE="0666"' >/etc/udev/rules.d/60-weak.rules
chmod 0666 /dev/kvm
modprobe vfio-pci
echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
echo Y >/sys/module/kvm/parameters/ignore_msrs
for value in kernel/kptr_restrict=2 kernel/dmesg_restrict=0 kernel/perf_event_paranoid=3 kernel/yama/ptrace_scope=0 \\
    kernel/unprivileged_bpf_disabled=0 net/core/bpf_jit_harden=0 dev/tty/ldisc_autoload=1 \\
    vm/unprivileged_userfaultfd=1 fs/suid_dumpable=2 fs/protected_hardlinks=0 kernel/core_pattern=core; do
    echo "${value#*=}" >/proc/sys/${value%%=*}
done
echo 4000 >/sys/kernel/mm/ksm/pages_to_scan
echo 20 >/sys/kernel/mm/ksm/sleep_millisecs
cat >/usr/lib/systemd/system/ksm.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo 1 >/sys/kernel/mm/ksm/run'
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now --quiet ksm.service
"""
# Memory that can be merged, as that of QEMU (madvise(2)), its content looked at afterwards; and what takes the rest.
MERGEABLE_MIB = 192
MERGEABLE = f"""
import hashlib, mmap, signal, sys
pages = {MERGEABLE_MIB} << 8
memory = mmap.mmap(-1, pages << 12, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(12)
for page in range(pages):
    memory[page << 12:(page << 12) + 8] = (page // 64).to_bytes(8, "big")
before = hashlib.sha256(memory).digest()
signal.signal(signal.SIGUSR1, lambda *_: open("/run/same", "w").write(str(hashlib.sha256(memory).digest() == before)))
open("/run/ready", "w").close()
while True:
    signal.pause()
"""
HOG = """
import re, signal, sys
free = int(re.search(r"^MemAvailable: *([0-9]+)", open("/proc/meminfo").read(), re.M)[1])
held = bytearray((free - 98304) << 10)
for place in range(0, len(held), 4096):
    held[place] = 1
open("/run/hogged", "w").close()
signal.pause()
"""

FAILING = (
    *("coredump-policy", "dev-kvm-permissions", "host-sysctl-kernel-hardening", "ksm-off", "kvm-ignore-msrs-off"),
    *("kvm-nested-off", "userfaultfd-restricted", "vfio-unsafe-interrupts-off"),
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the host was like, and what each run did."""

    weak: Findings
    checked: playbooks.Run
    unchanged: bool
    short: dict[str, t.Any]
    still_merged: int
    with_guest: playbooks.Run
    same_guest: bool
    hardened: playbooks.Run
    running: dict[str, str]
    device: str
    nested: str
    memory_is_the_same: str
    rule: int
    journal: list[dict[str, t.Any]]
    booted: dict[str, str]
    booted_device: str
    booted_nested: str
    again: playbooks.Run
    good: Findings


@pytest.fixture(scope="module")
def seen() -> t.Iterator[Seen]:
    with rig.vm("trixie", "vmkernel") as host:
        # What the first guest brings up takes its time, which ksmd would double.
        host.put("/run/guest.xml", guests.Guest("bystander").xml().encode())
        guests.virsh(host, "create", "/run/guest.xml", timeout=host.patience)
        guest = guests.pid(host, "bystander")
        script(host, WEAKEN)
        background(host, "mergeable", MERGEABLE, "/run/ready")
        wait_until(lambda: number(host, MERGED) > (MERGEABLE_MIB << 8) * 3 // 4)
        script(host, "echo 100 >/sys/kernel/mm/ksm/pages_to_scan; echo 200 >/sys/kernel/mm/ksm/sleep_millisecs")
        weak = findings(host)
        before = files(host)
        checked = harden(host, "--check")
        unchanged = files(host) == before and number(host, MERGED) > 0
        background(host, "hog", HOG, "/run/hogged")
        short = modules.call(host, "kernel_settings", ksm_off=True)
        still_merged = number(host, MERGED)
        script(host, "systemctl stop hog.service")
        with_guest = harden(host)
        same_guest = guests.pid(host, "bystander") == guest
        guests.stop(host, "bystander")
        hardened = harden(host)
        running = values(host)
        device, nested = owner(host), text(host, NESTED)
        script(host, "systemctl kill --signal=USR1 mergeable.service; until [ -s /run/same ]; do sleep 1; done")
        same = text(host, "/run/same")
        rule = host.run(["udevadm", "verify", "/etc/udev/rules.d/99-hypervisor-hardening-kvm.rules"], check=False)
        journal = [
            json.loads(line)
            for line in script(
                host, "for f in /var/lib/hypervisor-hardening/journal/2*; do cat $f; echo; done"
            ).splitlines()
        ]
        host.reboot()
        script(host, "modprobe vfio-pci")
        booted, booted_device, booted_nested = values(host), owner(host), text(host, NESTED)
        again = harden(host)
        yield Seen(
            weak,
            checked,
            unchanged,
            short,
            still_merged,
            with_guest,
            same_guest,
            hardened,
            running,
            device,
            nested,
            same,
            rule.returncode,
            journal,
            booted,
            booted_device,
            booted_nested,
            again,
            findings(host),
        )


def script(host: rig.VirtualMachine, text: str) -> str:
    return host.run(["sh", "-ec", text], timeout=host.patience).stdout


def background(host: rig.VirtualMachine, name: str, program: str, sign: str) -> None:
    """Run a Python program as a service until it has made the file ``sign``."""
    host.put(f"/run/{name}.py", program.encode())
    script(host, f"systemd-run --quiet --unit={name} /usr/bin/python3 /run/{name}.py")
    wait_until(lambda: host.run(["test", "-e", sign], check=False).returncode == 0)


def wait_until(happened: t.Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not happened():
        assert time.monotonic() < end
        time.sleep(2)


def text(host: rig.VirtualMachine, path: str) -> str:
    return host.get(path).decode().strip()


def number(host: rig.VirtualMachine, path: str) -> int:
    return int(text(host, path))


def values(host: rig.VirtualMachine) -> dict[str, str]:
    found = script(host, f"cd /; for file in {' '.join(HARD)}; do cat $file; done").splitlines()
    return dict(zip(HARD, found, strict=True))


def owner(host: rig.VirtualMachine) -> str:
    return host.run(["stat", "-c", "%a %U %G", "/dev/kvm"]).stdout.strip()


def files(host: rig.VirtualMachine) -> str:
    return script(
        host, "find /etc /var/lib/hypervisor-hardening -xdev -type f -exec sha256sum {} + 2>/dev/null || true"
    )


def harden(host: rig.VirtualMachine, *flags: str) -> playbooks.Run:
    run = playbooks.play("harden", host.inventory, "--tags", "kernel", *flags, variables=SWITCHES)
    assert run.rc == 0, run.text
    return run


def result(run: playbooks.Run) -> dict[str, t.Any]:
    (found,) = run.results("kernel_settings")
    return found


@pytest.mark.parametrize("rule", FAILING)
def test_the_audit_fails_the_weak_host_and_passes_the_hardened_one(seen: Seen, rule: str) -> None:
    assert not {"fail", "pending"}.isdisjoint(seen.weak[rule].values()), seen.weak[rule]
    assert set(seen.good[rule].values()) == {"pass"}


def test_a_check_changes_nothing_and_predicts(seen: Seen) -> None:
    assert seen.unchanged
    predicted, done = result(seen.checked), result(seen.with_guest)
    for key in ("sysctls", "reboot_reasons", "left_alone", "overridden"):
        assert predicted[key] == done[key]


def test_without_memory_for_it_nothing_is_taken_apart(seen: Seen) -> None:
    assert seen.short["failed"] is True
    assert seen.short["needed_kib"] > seen.short["available_kib"]
    assert "so the kernel would kill guests. Nothing was done." in seen.short["msg"]
    assert seen.still_merged > 0


def test_what_was_merged_is_taken_apart_and_the_same(seen: Seen) -> None:
    assert seen.memory_is_the_same == "True"
    assert result(seen.with_guest)["ksm"]["merged_pages"] == 0
    assert result(seen.with_guest)["ksm"]["masked"] == ["ksm.service"]


def test_a_guest_that_runs_keeps_what_it_sees(seen: Seen) -> None:
    assert seen.same_guest
    waiting = [reason for reason in result(seen.with_guest)["reboot_reasons"] if "ignore_msrs" in reason]
    assert [": bystander." in reason for reason in waiting] == [True]
    assert result(seen.hardened)["changed"] is True
    assert not any("ignore_msrs" in reason for reason in result(seen.hardened)["reboot_reasons"])


def test_running_values_are_the_kernels_own(seen: Seen) -> None:
    assert seen.running == HARD
    assert seen.device == DEVICE


def test_nested_virtualization_waits_for_the_boot_and_says_so(seen: Seen) -> None:
    assert seen.nested == "1"
    assert result(seen.hardened)["reboot_required"] is True
    assert any(reason.startswith("kvm_amd.nested: it is 1") for reason in result(seen.hardened)["reboot_reasons"])
    assert seen.booted_nested == "0"


def test_nothing_is_lost_at_boot(seen: Seen) -> None:
    assert seen.booted == HARD
    assert seen.booted_device == DEVICE
    assert seen.rule == 0, "udevadm verify knows better"


def test_a_run_after_the_boot_changes_nothing_and_wants_none(seen: Seen) -> None:
    found = result(seen.again)
    assert seen.again.changed == []
    assert (found["reboot_required"], found["overridden"]) == (False, [])


def test_the_journal_has_what_a_rollback_needs(seen: Seen) -> None:
    before = {entry["target"]: entry["before"] for entry in reversed(seen.journal) if entry["kind"] == "value"}
    assert before["/proc/sys/kernel/dmesg_restrict"] == "0"
    assert before["/proc/sys/kernel/core_pattern"] == "core"
    assert before["/sys/module/kvm/parameters/ignore_msrs"] == "Y"
    assert before["/sys/kernel/mm/ksm/run"] == "1"
    assert before["owner:/dev/kvm"]["mode"] == 0o666
    assert "/proc/sys/kernel/kptr_restrict" not in before
