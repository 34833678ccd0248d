# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of modules, running and at boot."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _moduleparameters
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelvalues import KernelError, Planned
from ansible_collections.hypervisor.hardening.plugins.module_utils._moduleparameters import FILE
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KernelHost

MSRS, NESTED, NX, FLUSH = "kvm.ignore_msrs", "kvm_intel.nested", "kvm.nx_huge_pages", "kvm_intel.vmentry_l1d_flush"
MULTIHIT = "/sys/devices/system/cpu/vulnerabilities/itlb_multihit"


@pytest.fixture
def host(tmp_path: Path) -> KernelHost:
    return KernelHost(tmp_path)


def plan(host: KernelHost, options: dict[str, t.Any], optional: t.Container[str] = ()) -> Planned:
    wanted = _moduleparameters.wishes(options)
    return _moduleparameters.plan(_moduleparameters.read(host, tuple(wanted)), wanted, optional)


def lines(planned: Planned) -> list[str]:
    return (planned.content or "").splitlines()[1:]


def test_one_that_can_be_written_while_the_module_is_loaded(host: KernelHost) -> None:
    host.parameter(MSRS, "Y", mode=0o644)
    found = plan(host, {MSRS: False})
    assert [(one.path, one.before, one.after) for one in found.values] == [
        ("/sys/module/kvm/parameters/ignore_msrs", "Y", "N")
    ]
    assert lines(found) == ["options kvm ignore_msrs=0"]
    assert [vars(one) for one in found.entries] == [
        {"name": MSRS, "before": "Y", "after": "N", "boot": "0", "boot_by": FILE}
    ]


def test_while_guests_run_what_they_see_stays(host: KernelHost) -> None:
    host.parameter(MSRS, "Y", mode=0o644)
    host.guest("mac", 77)
    found = plan(host, {MSRS: False})
    assert found.values == ()
    assert "a fault where they have got none so far: mac. The next run that finds no guest writes it" in str(
        found.waiting[0]
    )
    assert lines(found) == ["options kvm ignore_msrs=0"], "the next boot has no guest yet"


@pytest.mark.parametrize("shown", ["N", "0"])
@pytest.mark.parametrize("wanted", [False, 0, "0", "N", "off", "no"])
def test_a_switch_is_spelled_in_several_ways(host: KernelHost, shown: str, wanted: t.Any) -> None:
    # kvm_intel has it as a bool, which sysfs shows as N, and kvm_amd as an int
    host.parameter(NESTED, shown)
    found = plan(host, {NESTED: wanted})
    assert (found.values, found.waiting) == ((), ())


def test_one_that_is_settled_when_the_module_is_loaded(host: KernelHost) -> None:
    host.parameter(NESTED, "Y")
    found = plan(host, {NESTED: False})
    assert found.values == ()
    assert str(found.waiting[0]) == (
        "kvm_intel.nested: it is Y, and can be made 0 only when kvm_intel is loaded: reboot; or, where no guest runs: "
        "modprobe --remove kvm_intel && modprobe kvm_intel."
    )
    assert (found.entries[0].after, found.entries[0].boot) == ("Y", "0")


def test_the_command_line_has_the_last_word(host: KernelHost) -> None:
    host.put("/proc/cmdline", "ro kvm-intel.nested=1 kvm.ignore_msrs=0\n")
    host.parameter(NESTED, "Y")
    host.parameter(MSRS, "N", mode=0o644)
    found = plan(host, {NESTED: False, MSRS: False})
    assert [one.name for one in found.overridden] == [NESTED]
    assert found.overridden[0].reason.startswith("/proc/cmdline has kvm_intel.nested=1 on the kernel's command line")
    assert {one.name: (one.boot, one.boot_by) for one in found.entries} == {
        NESTED: ("1", "/proc/cmdline"),
        MSRS: ("0", "/proc/cmdline"),
    }


def test_a_later_file_is_named(host: KernelHost) -> None:
    host.parameter(NESTED, "N")
    host.put("/etc/modprobe.d/kvm.conf", "options kvm_intel nested=1\n")
    assert plan(host, {NESTED: False}).overridden == (), "ours comes later, and the last value counts"
    host.put("/etc/modprobe.d/zzz.conf", "options kvm-intel nested=1\n")
    found = plan(host, {NESTED: False})
    assert found.overridden[0].reason.startswith("/etc/modprobe.d/zzz.conf sets it to 1, after")
    assert (found.entries[0].boot, found.entries[0].boot_by) == ("1", "/etc/modprobe.d/zzz.conf")


def test_a_module_in_the_image_of_the_kernel(host: KernelHost) -> None:
    host.parameter(NESTED, "Y", builtin=True)
    host.parameter("kvm_intel.ept", "Y", builtin=True)
    found = plan(host, {NESTED: False, "kvm_intel.ept": True})
    assert found.content is None, "modprobe does not load it"
    assert [one.name for one in found.overridden] == [NESTED], "the other is so without a word"
    assert "Put kvm_intel.nested=0 there." in found.overridden[0].reason
    assert "modprobe" not in str(found.waiting[0])
    assert found.entries[0].boot is None


@pytest.mark.parametrize(
    ("multihit", "words", "shown", "written"),
    [
        ("Not affected", "", "N", []),
        ("KVM: Mitigation: Split huge pages", "", "Y", []),
        ("KVM: Vulnerable", "", "N", ["Y"]),
        ("KVM: Vulnerable", "mitigations=off", "N", []),
    ],
)
def test_auto_is_what_the_kernel_makes_of_it(
    host: KernelHost, multihit: str, words: str, shown: str, written: list[str]
) -> None:
    # arch/x86/kvm/mmu/mmu.c, get_nx_auto_mode
    host.put(MULTIHIT, f"{multihit}\n")
    host.put("/proc/cmdline", f"ro {words}\n")
    host.parameter(NX, shown, mode=0o644)
    assert [one.after for one in plan(host, {NX: "auto"}).values] == written


def test_huge_pages_that_were_never_to_be_split_wait_for_a_boot(host: KernelHost) -> None:
    host.put(MULTIHIT, "KVM: Vulnerable\n")
    host.parameter(NX, "never", mode=0o644)
    found = plan(host, {NX: "auto"})
    assert found.values == ()
    assert str(found.waiting[0]).startswith(
        "kvm.nx_huge_pages: it is never, and can be made auto only when kvm is loaded"
    )


@pytest.mark.parametrize(("shown", "written"), [("not required", []), ("EPT disabled", []), ("never", ["cond"])])
def test_a_flush_that_is_of_no_use(host: KernelHost, shown: str, written: list[str]) -> None:
    host.parameter(FLUSH, shown, mode=0o644)
    assert [one.after for one in plan(host, {FLUSH: "cond"}).values] == written


def test_a_module_that_is_not_loaded(host: KernelHost) -> None:
    host.put("/usr/sbin/modinfo", "", 0o755)
    host.answers["modinfo --field parm kvm_amd"] = "avic:bool\nnested:Nested Virtualization (int)\n"
    host.answers["modinfo --field parm vfio"] = 1
    with pytest.raises(KernelError, match=r"this host has no vfio\.nonsense\. Nothing was done"):
        plan(host, {"kvm_amd.nested": False, "vfio.nonsense": False})
    found = plan(host, {"kvm_amd.nested": False, "vfio.nonsense": False}, {"vfio.nonsense"})
    assert lines(found) == ["options kvm_amd nested=0"]
    assert [one.name for one in found.left_alone] == ["vfio.nonsense"]
    assert [vars(one) for one in found.entries] == [
        {"name": "kvm_amd.nested", "before": None, "after": None, "boot": "0", "boot_by": FILE}
    ]


@pytest.mark.parametrize("name", ["nested", "kvm_intel", "bonding.mode", "kvm.a.b", "kvm.a b", "nf_kvm.x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(KernelError, match="is none of the modules that guests run on"):
        _moduleparameters.wishes({name: 1})


@pytest.mark.parametrize("value", ["a b", 'a"b', "a\nb", "a#b", "", [1]])
def test_values_that_are_none(value: t.Any) -> None:
    with pytest.raises(KernelError):
        _moduleparameters.wishes({MSRS: value})


def test_both_spellings_of_a_module() -> None:
    assert _moduleparameters.wishes({"kvm-intel.nested": False, "kvm.ignore_msrs": None}) == {NESTED: "0"}
