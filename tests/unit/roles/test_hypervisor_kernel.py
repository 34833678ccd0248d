# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measures of the role against the catalogue of controls they come from, and against what breaks hypervisors."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.hypervisor.hardening.plugins.filter.level_settings import level_settings
from ansible_collections.hypervisor.hardening.plugins.module_utils import _kvmdevice, _moduleparameters, _sysctls

ROLE = Path(__file__).parents[3] / "roles/hypervisor_kernel"

# id: (level, mode) of the catalogue. auto: a role may apply it; optin: only when the operator asks for it. The last 3
# are parts of coredump-policy, host-sysctl-kernel-hardening and l1d-flush-on-vmentry with a trade-off of their own.
CATALOGUE = {
    "kvm-vmware-backdoor-off": ("baseline", "auto"),
    "kvm-nested-off": ("baseline", "optin"),
    "kvm-ignore-msrs-off": ("baseline", "optin"),
    "vfio-unsafe-interrupts-off": ("baseline", "optin"),
    "vfio-noiommu-off": ("baseline", "optin"),
    "nx-huge-pages-on": ("baseline", "optin"),
    "l1d-flush-on-vmentry": ("baseline", "optin"),
    "coredump-policy": ("baseline", "optin"),
    "host-sysctl-kernel-hardening": ("hardened", "optin"),
    "userfaultfd-restricted": ("hardened", "optin"),
    "ksm-off": ("hardened", "optin"),
    "dev-kvm-permissions": ("hardened", "optin"),
    "coredump-none": ("baseline", "optin"),
    "kexec-off": ("hardened", "optin"),
    "l1d-flush-on-every-vmentry": ("strict", "optin"),
}
# Documentation/admin-guide/sysctl and kernel-parameters.txt.
SYSCTLS = {
    "fs.suid_dumpable": 0,
    "kernel.core_pattern": "|/bin/false",
    "dev.tty.ldisc_autoload": 0,
    "fs.protected_hardlinks": ">=1",
    "fs.protected_symlinks": ">=1",
    "kernel.dmesg_restrict": ">=1",
    "kernel.kptr_restrict": ">=1",
    "kernel.perf_event_paranoid": ">=2",
    "kernel.randomize_va_space": ">=2",
    "kernel.unprivileged_bpf_disabled": ">=1",
    "kernel.yama.ptrace_scope": ">=1",
    "net.core.bpf_jit_harden": ">=2",
    "kernel.kexec_load_disabled": 1,
    "vm.unprivileged_userfaultfd": 0,
}
PARAMETERS = {
    "kvm.enable_vmware_backdoor": False,
    "kvm.nested": False,
    "kvm_amd.nested": False,
    "kvm_intel.nested": False,
    "kvm.ignore_msrs": False,
    "iommufd.allow_unsafe_interrupts": False,
    "vfio_iommu_type1.allow_unsafe_interrupts": False,
    "vfio.enable_unsafe_noiommu_mode": False,
    "kvm.nx_huge_pages": "auto",
    "kvm_intel.vmentry_l1d_flush": "always",
}
# What general hardening sets and libvirt's networks, migrations or guests' devices do not survive.
BREAKS = re.compile(
    r"net\.ipv4\.ip_forward|net\.ipv[46]\.conf\..*(?:forwarding|rp_filter|disable_ipv6)|net\.bridge\..*"
    r"|kernel\.modules_disabled|user\.max_.*_namespaces|kernel\.unprivileged_userns_clone"
)

VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
SYSCTL_CONTROLS = VARIABLES["__hypervisor_kernel_sysctl_controls"]
PARAMETER_CONTROLS = VARIABLES["__hypervisor_kernel_parameter_controls"]
OTHER_CONTROLS = VARIABLES["__hypervisor_kernel_other_controls"]
CONTROLS = [*SYSCTL_CONTROLS, *PARAMETER_CONTROLS, *OTHER_CONTROLS]


def switch_of(control: dict[str, str]) -> str:
    return control["switch"].strip("{} ")


def chosen(controls: list[dict[str, t.Any]], level: str, *, switch: bool, **own: t.Any) -> dict[str, t.Any]:
    """What a level sets with every switch on, or off."""
    switched = [{**control, "switch": switch} if "switch" in control else control for control in controls]
    settings: dict[str, t.Any] = level_settings(switched, level, **own)["settings"]
    return settings


def test_each_measure_stands_in_the_catalogue_with_its_level_and_mode() -> None:
    assert {c["id"]: (c["level"], "optin" if "switch" in c else "auto") for c in CONTROLS} == CATALOGUE


def test_each_value_is_the_safe_one() -> None:
    assert chosen(SYSCTL_CONTROLS, "strict", switch=True) == SYSCTLS
    assert chosen(PARAMETER_CONTROLS, "strict", switch=True) == PARAMETERS
    assert chosen(PARAMETER_CONTROLS, "hardened", switch=True)["kvm_intel.vmentry_l1d_flush"] == "cond"


@pytest.mark.parametrize("level", ["baseline", "hardened", "strict"])
def test_without_a_switch_only_what_breaks_nothing_is_set(level: str) -> None:
    assert chosen(CONTROLS, level, switch=False) == {"kvm.enable_vmware_backdoor": False}


@pytest.mark.parametrize("level", ["baseline", "hardened", "strict"])
def test_no_level_sets_what_breaks_hypervisors(level: str) -> None:
    names = chosen(SYSCTL_CONTROLS, level, switch=True)
    assert names
    assert [name for name in names if BREAKS.fullmatch(name)] == []


def test_the_module_takes_them() -> None:
    assert set(_sysctls.wishes(SYSCTLS)) == set(SYSCTLS)
    assert set(_moduleparameters.wishes(PARAMETERS)) == set(PARAMETERS)
    device = chosen(OTHER_CONTROLS, "hardened", switch=True)["kvm_device"]
    assert _kvmdevice.wish({**device, "group": DEFAULTS["hypervisor_kernel_kvm_group"]}).mode == 0o660


def test_the_operators_word_wins() -> None:
    found = chosen(SYSCTL_CONTROLS, "strict", switch=True, own={"kernel.kptr_restrict": None, "vm.swappiness": 10})
    assert (found["kernel.kptr_restrict"], found["vm.swappiness"]) == (None, 10)
    assert "kernel.kptr_restrict" not in _sysctls.wishes(found)


def test_each_switch_is_off_by_default() -> None:
    assert {DEFAULTS[switch_of(c)] for c in CONTROLS if "switch" in c} == {False}


def test_every_switch_is_in_the_readme() -> None:
    readme = (ROLE / "README.md").read_text()
    assert [name for name in DEFAULTS if f"| `{name}` |" not in readme] == []
