# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of the host and only its operator can change: in each case, what to do on this very host."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from . import _cpubugs, _iommu, _kernelconf
from ._host import Host
from ._reader import Reader, truth

_NESTED = ("kvm_intel", "kvm_amd", "kvm")
# Documentation/admin-guide/hw-vuln/attack_vector_controls.rst: what ends protection against guests, or between them.
_ALL_OFF = re.compile(r"mitigations=(?:.*[,;])?(?:off|no_guest_host|no_guest_guest|no_cross_thread)(?:[,;].*)?")
# Documentation/admin-guide/kernel-parameters.txt: the words that do not read NAME=off.
_OFF = {
    "itlb_multihit": ("kvm.nx_huge_pages=off", "kvm.nx_huge_pages=never"),
    "meltdown": ("nopti", "pti=off"),
    "spec_store_bypass": ("nospec_store_bypass_disable", "spec_store_bypass_disable=off"),
    "spectre_v1": ("nospectre_v1",),
    "spectre_v2": ("nospectre_v2",),
}


@dataclass(frozen=True)
class State:
    """``loader``: which of ``_LOADERS`` the host has; ``nested``: the parameter that is on, with what sysfs shows."""

    vulnerabilities: tuple[t.Mapping[str, t.Any], ...]
    smt: t.Mapping[str, t.Any]
    iommu: t.Mapping[str, t.Any]
    words: tuple[str, ...]
    loader: str
    nested: str


@dataclass(frozen=True)
class Remark:
    """What was observed of ``name``, and what ends it."""

    name: str
    observed: str
    remedy: str


# What changes the command line of the next boots; the first one that a host has counts.
_LOADERS = {
    "grubby": "Run: grubby --update-kernel=ALL {grubby}",
    "proxmox": "{edit} /etc/kernel/cmdline, and run: proxmox-boot-tool refresh",
    "update-grub": "{edit} GRUB_CMDLINE_LINUX in /etc/default/grub, and run: update-grub",
    "grub2": "{edit} GRUB_CMDLINE_LINUX in /etc/default/grub, and run: grub2-mkconfig -o /boot/grub2/grub.cfg",
    "": "{edit} the kernel's command line in the boot loader's configuration",
}


def read(host: Host) -> State:
    """What the kernel says of the processor, its threads, the IOMMU and its own command line.

    :raises OSError: /proc/cmdline cannot be read.
    """
    reader = Reader(host)
    nested = ((name, reader.text(f"/sys/module/{name}/parameters/nested")) for name in _NESTED)
    return State(
        vulnerabilities=tuple(_cpubugs.vulnerabilities(reader) or ()),
        smt=_cpubugs.smt(reader),
        iommu=_iommu.read(reader),
        words=_kernelconf.words(host.text("/proc/cmdline")),
        loader=_loader(host),
        nested=next((f"{name}.nested is {value}" for name, value in nested if value and truth(value)), ""),
    )


def _loader(host: Host) -> str:
    if host.has_command("grubby"):
        return "grubby"
    if host.exists("/etc/kernel/proxmox-boot-uuids"):
        return "proxmox"
    if host.exists("/etc/default/grub"):
        return "update-grub" if host.has_command("update-grub") else "grub2"
    return ""


def remarks(state: State, *, nested_off: bool) -> list[Remark]:
    """What is not as it should be.

    :param nested_off: the next boot has no nested virtualization, so that nothing is to be said of it.
    """
    found = [_vulnerable(state, bug) for bug in state.vulnerabilities if bug["state"] == "vulnerable"]
    across = [bug["name"] for bug in state.vulnerabilities if bug["smt_vulnerable"]]
    if state.smt["active"] and across:
        found.append(_threads(state, across))
    if state.iommu["assigned_total"] and not state.iommu["groups"]:
        found.append(_no_iommu(state))
    if state.iommu["noiommu"]:
        observed = f"/dev/vfio has {', '.join(state.iommu['noiommu'])}: whoever holds one reads and writes all memory."
        remedy = "Bind those devices to their own drivers again, and set vfio.enable_unsafe_noiommu_mode to false."
        found.append(Remark("vfio-noiommu-off", observed, remedy))
    if state.nested and not nested_off:
        remedy = "Where no guest is a hypervisor itself, set that parameter to false, and reboot."
        found.append(Remark("kvm-nested-off", f"{state.nested}: guests reach the code that escapes used.", remedy))
    return found


def _vulnerable(state: State, bug: t.Mapping[str, t.Any]) -> Remark:
    name, text = bug["name"], bug["text"]
    switches = {f"{name}=off", *_OFF.get(name, ())}
    off = [word for word in state.words if _ALL_OFF.fullmatch(word) or word in switches]
    if off:
        remedy = _command_line(state, remove=off)
    elif "microcode" in text.lower():
        remedy = (
            "Install the processor's microcode (Debian: intel-microcode or amd64-microcode; Red Hat: microcode_ctl or "
            "linux-firmware), and reboot."
        )
    else:
        remedy = "Install the newest kernel and microcode of the distribution, and reboot."
    return Remark(name, text, remedy)


def _threads(state: State, across: t.Sequence[str]) -> Remark:
    observed = f"SMT is {state.smt['control'] or 'on'}, and threads of one core see through {', '.join(across)}."
    remedy = (
        'To keep guests apart set sched_core = "full" in qemu.conf. Only without SMT is the host itself safe, too. '
        + _command_line(state, add=["nosmt"])
    )
    return Remark("smt-policy", observed, remedy)


def _no_iommu(state: State) -> Remark:
    observed = f"{state.iommu['assigned_total']} devices are bound to VFIO, and no IOMMU is at work."
    remedy = "Switch VT-d, AMD-Vi or SMMU on in the firmware. " + _command_line(state, add=["intel_iommu=on"])
    return Remark("iommu-effective", observed, f"{remedy} On AMD the firmware's switch is enough.")


def _command_line(state: State, *, add: t.Sequence[str] = (), remove: t.Sequence[str] = ()) -> str:
    words = " ".join(add or remove)
    return (
        _LOADERS[state.loader].format(
            grubby=f"{'--args' if add else '--remove-args'}='{words}'",
            edit=f"Add {words} to" if add else f"Take {words} out of",
        )
        + "; then reboot."
    )
