# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures."""

from __future__ import annotations

import errno
import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import kernel_settings
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KSM, KernelHost

SYSCTL_D, MODPROBE_D = "/etc/sysctl.d/zz-hypervisor-hardening.conf", "/etc/modprobe.d/zz-hypervisor-hardening.conf"
RULE = "/etc/udev/rules.d/99-hypervisor-hardening-kvm.rules"

EVERYTHING: dict[str, t.Any] = {
    "sysctls": {"kernel.kptr_restrict": ">=1", "kernel.dmesg_restrict": 1, "kernel.absent": 1},
    "module_parameters": {"kvm.ignore_msrs": False, "kvm_intel.nested": False},
    "kvm_device": {"mode": "0660"},
    "ksm_off": True,
    "optional": ["kernel.absent"],
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelHost:
    host = KernelHost(tmp_path)
    host.sysctl("kernel.kptr_restrict", "0")
    host.sysctl("kernel.dmesg_restrict", "0")
    host.parameter("kvm.ignore_msrs", "Y", mode=0o644)
    host.parameter("kvm_intel.nested", "Y")
    host.put("/dev/kvm", "", 0o666)
    host.directory("/var/lib/libvirt/qemu", 0o750, (64055, 994))
    host.put_all(KSM, {"run": "1\n", "pages_sharing": "1000\n"})
    for directory in ("sysctl.d", "modprobe.d", "udev/rules.d"):
        host.directory(f"/etc/{directory}")
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        kernel_settings.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_check_then_change_then_nothing(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.tree()
    predicted = run(capsys, _ansible_check_mode=True, **EVERYTHING)
    assert host.tree() == before
    done = run(capsys, **EVERYTHING)
    assert predicted["changed"] is done["changed"] is True
    same = (
        "diff",
        "sysctls",
        "module_parameters",
        "left_alone",
        "overridden",
        "reboot_required",
        "reboot_reasons",
        "remarks",
    )
    assert {key: predicted[key] for key in same} == {key: done[key] for key in same}
    assert done["sysctls"] == [
        {"name": f"kernel.{name}", "before": "0", "after": "1", "boot": "1", "boot_by": SYSCTL_D}
        for name in ("dmesg_restrict", "kptr_restrict")
    ]
    assert done["module_parameters"] == [
        {"name": "kvm.ignore_msrs", "before": "Y", "after": "N", "boot": "0", "boot_by": MODPROBE_D},
        {"name": "kvm_intel.nested", "before": "Y", "after": "Y", "boot": "0", "boot_by": MODPROBE_D},
    ]
    assert (done["kvm_device"], done["ksm"]["run"], done["ksm"]["merged_pages"]) == ("0660 root kvm", 0, 0)
    assert [one["name"] for one in done["left_alone"]] == ["kernel.absent"]
    assert done["reboot_required"] is True
    assert [reason.partition(":")[0] for reason in done["reboot_reasons"]] == ["kvm_intel.nested"]
    assert host.text(SYSCTL_D).splitlines()[1:] == ["kernel.dmesg_restrict = 1", "kernel.kptr_restrict = 1"]
    assert host.text(MODPROBE_D).splitlines()[1:] == ["options kvm ignore_msrs=0", "options kvm_intel nested=0"]
    after = host.tree()
    again = run(capsys, **EVERYTHING)
    assert (again["changed"], again["diff"]) == (False, [])
    assert again["reboot_required"] is True, "until it has booted"
    assert host.tree() == after


def test_the_journal_has_every_former_state(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, **EVERYTHING)
    entries = Journal(host, by="").entries()
    assert [(one.target, one.before, one.after) for one in entries if one.kind == "value"] == [
        ("/proc/sys/kernel/dmesg_restrict", "0", "1"),
        ("/proc/sys/kernel/kptr_restrict", "0", "1"),
        ("/sys/module/kvm/parameters/ignore_msrs", "Y", "N"),
        ("owner:/dev/kvm", {"uid": 0, "gid": 0, "mode": 0o666}, {"uid": 0, "gid": 994, "mode": 0o660}),
        (f"{KSM}/run", "1", "0"),
    ]
    assert [(one.target, one.before) for one in entries if one.kind == "file"] == [
        (SYSCTL_D, None),
        (MODPROBE_D, None),
        (RULE, None),
    ]


def test_each_domain_is_left_alone_unless_it_is_asked_for(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, **EVERYTHING)
    before = host.tree()
    assert run(capsys)["changed"] is False
    assert host.tree() == before
    assert run(capsys, sysctls={})["changed"] is True
    assert not host.exists(SYSCTL_D)
    assert host.exists(MODPROBE_D)
    assert host.text("/proc/sys/kernel/kptr_restrict") == "1\n", "a running value stays until the next boot"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optional": []}, "sysctls: this kernel has no kernel.absent"),
        ({"sysctls": {"dmesg_restrict": 1}}, "'dmesg_restrict' is no name of a kernel parameter"),
        ({"module_parameters": {"bonding.mode": 1}}, "'bonding.mode' is none of the modules that guests run on"),
        ({"module_parameters": {"kvm.ignore_msr": 1}}, "module_parameters: this host has no kvm.ignore_msr"),
        ({"kvm_device": {"mode": "0600"}}, "guests run as libvirt-qemu, which could not open /dev/kvm"),
    ],
)
def test_a_refusal_changes_nothing(
    host: KernelHost, capsys: pytest.CaptureFixture[str], arguments: dict[str, t.Any], message: str
) -> None:
    before = host.tree()
    failed = run(capsys, **{**EVERYTHING, **arguments})
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert message in failed["msg"]
    assert host.tree() == before


def test_without_headroom_nothing_is_done(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/proc/meminfo", "MemAvailable:    3999 kB\n")
    before = host.tree()
    for check in (True, False):
        failed = run(capsys, _ansible_check_mode=check, **EVERYTHING)
        assert (failed["failed"], failed["available_kib"]) == (True, 3999)
        assert host.tree() == before
    assert run(capsys, ksm_without_headroom="true", **EVERYTHING)["ksm"]["merged_pages"] == 0


def test_a_kernel_that_refuses_leaves_the_others_as_they_were(
    host: KernelHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.refused["/proc/sys/kernel/kptr_restrict"] = errno.EINVAL
    failed = run(capsys, **EVERYTHING)
    assert failed["failed"] is True
    assert "kernel.kptr_restrict: the kernel refused '1'" in failed["msg"]
    assert "What was changed before it is as it was." in failed["msg"]
    assert host.text("/proc/sys/kernel/dmesg_restrict") == "0\n"
    assert not any(map(host.exists, (SYSCTL_D, MODPROBE_D, RULE)))
    assert host.text(f"{KSM}/pages_sharing") == "1000\n"


@pytest.mark.parametrize("check", [True, False])
def test_in_a_container_the_kernel_is_the_machines(
    host: KernelHost, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    os.chmod(host.path("/proc/sys/kernel/kptr_restrict"), 0o444)
    failed = run(capsys, _ansible_check_mode=check, sysctls={"kernel.kptr_restrict": 1})
    assert failed["changed"] is False
    assert "In a container the kernel is the machine's" in failed["msg"]
    assert not host.exists(SYSCTL_D)


def test_what_does_not_hold_is_an_error(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.deaf.add("/proc/sys/kernel/kptr_restrict")
    failed = run(capsys, **EVERYTHING)
    assert "the host does not show it: kernel.kptr_restrict is 0 instead of 1" in failed["msg"]


def test_a_survey_sends_strings(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(
        capsys,
        sysctls='{"kernel.dmesg_restrict": "1"}',
        module_parameters='{"kvm.ignore_msrs": "false"}',
        ksm_off="false",
        optional="",
    )
    assert done["changed"] is True
    assert host.text("/sys/module/kvm/parameters/ignore_msrs") == "N\n"
    assert host.text(f"{KSM}/run") == "1\n"


def test_who_overrides_it_is_a_warning(host: KernelHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/etc/sysctl.d/zzz.conf", "kernel.dmesg_restrict = 0\n")
    done = run(capsys, sysctls={"kernel.dmesg_restrict": 1, "kernel.kptr_restrict": 1})
    assert [one["name"] for one in done["overridden"]] == ["kernel.dmesg_restrict"]
    assert ["/etc/sysctl.d/zzz.conf sets it to 0" in str(warning) for warning in done["warnings"]] == [True]
    assert run(capsys, sysctls={"kernel.dmesg_restrict": 1, "kernel.kptr_restrict": 1})["changed"] is False
