# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel as guests meet it: the room of the module kernel_settings."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import _hugepages, _kernelreport, _kernelvalues, _ksm, _kvmdevice, _moduleparameters, _sysctls, _units
from ._host import Host
from ._kernelvalues import Entry, Planned
from ._reader import Reader

if t.TYPE_CHECKING:
    from ._journal import Journal

_FILES = (_sysctls.FILE, _moduleparameters.FILE, _kvmdevice.RULE)
_NESTED = ("kvm_intel.nested", "kvm_amd.nested", "kvm.nested")


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them. None: that domain is left as it is."""

    sysctls: t.Mapping[str, _sysctls.Wish] | None = None
    module_parameters: t.Mapping[str, str] | None = None
    ksm_off: bool = False
    ksm_without_headroom: bool = False
    kvm_device: _kvmdevice.Wish | None = None
    optional: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class State:
    """``available``: MemAvailable in kibibytes; ``files``: path -> text of our files, None where there is none."""

    sysctls: t.Mapping[str, _sysctls.Sysctl]
    parameters: _moduleparameters.State
    ksm: _ksm.Ksm
    available: int
    kvm_device: _kvmdevice.State | None
    files: t.Mapping[str, str | None]
    report: _kernelreport.State


@dataclass(frozen=True)
class Plan:
    """What each domain becomes; ``files`` are written after the running values, and merging ends last."""

    sysctls: Planned
    parameters: Planned
    ksm: _ksm.Step | None
    device: _kvmdevice.Change | None
    files: tuple[_units.Change, ...]
    wanted: Wanted

    @property
    def values(self) -> tuple[_kernelvalues.Value, ...]:
        return (*self.sysctls.values, *self.parameters.values)

    @property
    def changes(self) -> tuple[object, ...]:
        rest = (one for one in (self.device, self.ksm) if one)
        return (*self.values, *self.files, *rest)

    @property
    def warnings(self) -> tuple[str, ...]:
        overridden = (str(one) for one in (*self.sysctls.overridden, *self.parameters.overridden))
        return (*overridden, *self.sysctls.warnings)

    @property
    def diff(self) -> list[dict[str, str]]:
        pairs = [(f"{one.name} = {one.before}", f"{one.name} = {one.after}") for one in self.values]
        if self.device:
            wish = self.device.wish
            after = f"{wish.mode:04o} {wish.owner} {wish.group}"
            pairs.append((f"{_kvmdevice.PATH} {self.device.before}", f"{_kvmdevice.PATH} {after}"))
        if self.ksm and self.ksm.unmerge:
            pairs.append((f"KSM = {self.ksm.unmerge.before}", f"KSM = {self.ksm.unmerge.after}, nothing merged"))
        pairs += [("", f"{service.mask} -> /dev/null") for service in (self.ksm.services if self.ksm else ())]
        shown = [one.diff for one in self.files]
        if pairs:
            before, after = ("".join(f"{line}\n" for line in lines if line) for lines in zip(*pairs))
            header = "the running kernel"
            shown.append({"before_header": header, "after_header": header, "before": before, "after": after})
        return shown


def observe(host: Host, wanted: Wanted) -> State:
    """Read what runs, what the next boot makes of it, and what the kernel says of the host.

    :raises OSError: one of the kernel's files cannot be read.
    """
    return State(
        sysctls=_sysctls.read(host, tuple(wanted.sysctls or ())),
        parameters=_moduleparameters.read(host, tuple(wanted.module_parameters or ())),
        ksm=_ksm.read(Reader(host)),
        available=_hugepages.available(host),
        kvm_device=_kvmdevice.read(host, wanted.kvm_device) if wanted.kvm_device else None,
        files={path: host.text_optional(path) for path in _FILES},
        report=_kernelreport.read(host),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What is to be changed.

    :raises KernelError: a parameter that this kernel does not know, a device that guests could not open, or memory that
        is not there.
    """
    nothing = Planned()
    files: dict[str, str | None] = {}
    sysctls = parameters = nothing
    if wanted.sysctls is not None:
        sysctls = _sysctls.plan(state.sysctls, wanted.sysctls, wanted.optional)
        files[_sysctls.FILE] = sysctls.content
    if wanted.module_parameters is not None:
        parameters = _moduleparameters.plan(state.parameters, wanted.module_parameters, wanted.optional)
        files[_moduleparameters.FILE] = parameters.content
    device = None
    if wanted.kvm_device and state.kvm_device:
        device = _kvmdevice.plan(state.kvm_device, wanted.kvm_device)
        files[_kvmdevice.RULE] = wanted.kvm_device.rule()
    ksm = None
    if wanted.ksm_off:
        ksm = _ksm.plan(state.ksm, state.available, without_headroom=wanted.ksm_without_headroom)
    changes = (
        _units.Change(_units.File(path, text), state.files[path], enabled=False)
        for path, text in files.items()
        if text != state.files[path]
    )
    return Plan(sysctls, parameters, ksm, device, tuple(changes), wanted)


def check(host: Host, plan: Plan) -> None:
    """Have the kernel open what is to be written, and see whether our files could be made.

    :raises HardeningError: one could not.
    """
    _kernelvalues.check(host, plan.values)
    _units.check(host, plan.files)
    if plan.ksm:
        _kernelvalues.check(host, [plan.ksm.unmerge] if plan.ksm.unmerge else [])
        for service in plan.ksm.services:
            host.check_makeable(service.mask)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Change what runs, then what the next boot reads; merging ends last, since it alone can take a while and fail.

    :raises KernelError: the kernel refused; the message names what, and what became of the rest.
    """
    _kernelvalues.write(host, plan.values, journal)
    if plan.device:
        _kvmdevice.apply(host, plan.device, journal)
    _units.write(host, plan.files, journal)
    if plan.ksm:
        _ksm.apply(host, plan.ksm, journal)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    running = {name: one.running for name, one in state.sysctls.items()}
    running |= {name: one.running for name, one in state.parameters.parameters.items()}
    waiting = (*plan.sysctls.waiting, *plan.parameters.waiting)
    overridden = (*plan.sysctls.overridden, *plan.parameters.overridden)
    left_alone = (*plan.sysctls.left_alone, *plan.parameters.left_alone)
    wanted = plan.wanted.module_parameters or {}
    nested_off = any(wanted.get(name) == "0" for name in _NESTED)
    return {
        "sysctls": [_shown(one, running) for one in plan.sysctls.entries],
        "module_parameters": [_shown(one, running) for one in plan.parameters.entries],
        "ksm": {
            "run": state.ksm.run,
            "merged_pages": state.ksm.merged,
            "needed_kib": _ksm.needed_kib(state.ksm),
            "available_kib": state.available,
            "masked": [service.unit for service in state.ksm.services if service.masked],
        },
        "kvm_device": str(state.kvm_device.device or "") if state.kvm_device else "",
        "overridden": [vars(one) for one in overridden],
        "left_alone": [vars(one) for one in left_alone],
        "reboot_required": bool(waiting),
        "reboot_reasons": [str(one) for one in waiting],
        "vulnerabilities": list(state.report.vulnerabilities),
        "smt": dict(state.report.smt),
        "iommu": {key: state.report.iommu[key] for key in ("units", "groups", "types", "assigned_total", "noiommu")},
        "remarks": [vars(one) for one in _kernelreport.remarks(state.report, nested_off=nested_off)],
    }


def _shown(entry: Entry, running: t.Mapping[str, str | None]) -> dict[str, t.Any]:
    """``after`` is what was observed; in check mode, where nothing changed, what would be."""
    now = running[entry.name]
    return {**vars(entry), "after": entry.after if now == entry.before else now}
