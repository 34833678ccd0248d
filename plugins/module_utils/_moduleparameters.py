# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of the modules that guests run on: running, and as modprobe.d(5) and the command line set them at boot."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from . import _kernelconf, _proc, _qemuproc, _units
from ._host import Host
from ._kernelvalues import Departure, Entry, KernelError, Planned, Value, text
from ._reader import Reader, truth

# Of several values of a parameter the kernel takes the last one, and modprobe reads files in the order of their names.
FILE = "/etc/modprobe.d/zz-hypervisor-hardening.conf"

_NAME_RE = re.compile(r"((?:kvm|vfio)\w*|iommufd)\.(\w+)")
_VALUE_RE = re.compile(r"[\w.,:+-]+")
_MULTIHIT = "/sys/devices/system/cpu/vulnerabilities/itlb_multihit"
# What vmentry_l1d_flush shows where a flush is of no use, whatever was asked for (arch/x86/kvm/vmx/vmx.c).
_NO_USE = ("not required", "EPT disabled")
# It ends the kernel's thread for it for good (arch/x86/kvm/mmu/mmu.c, set_nx_huge_pages).
_STAYS = ("kvm.nx_huge_pages", "never")
# A register that KVM did not know has been read as 0 so far; from now on a guest that reads it gets a fault.
_CHANGES_GUESTS = ("kvm.ignore_msrs",)


@dataclass(frozen=True)
class Parameter:
    """``running``: None where sysfs does not show it; ``writable``: it can be changed while the module is loaded;
    ``known``: there is such a parameter; ``by_command_line`` and ``by_modprobe``: what they say of it at the next boot.
    A module that is ``builtin`` is in the kernel's own image, and modprobe does not load it."""

    name: str
    builtin: bool
    running: str | None
    writable: bool
    known: bool
    by_command_line: _kernelconf.Setting | None
    by_modprobe: _kernelconf.Setting | None

    @property
    def module(self) -> str:
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class State:
    """``multihit``: whether the kernel keeps guests from huge pages when asked to decide (auto); ``guests``: the names
    of those that run, looked up where a parameter would change what they see."""

    parameters: t.Mapping[str, Parameter]
    multihit: bool
    guests: tuple[str, ...]


def wishes(options: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The option ``module_parameters``; what is null there is left out.

    :raises KernelError: a name or a value that can be none.
    """
    found = {}
    for name, raw in options.items():
        name = name.replace("-", "_")
        if raw is None:
            continue
        if not _NAME_RE.fullmatch(name):
            raise KernelError(
                f"module_parameters: {name!r} is none of the modules that guests run on. It takes MODULE.PARAMETER, as "
                "kvm.ignore_msrs, of kvm, kvm_intel, kvm_amd, iommufd and those that begin with vfio."
            )
        value = text(raw)
        if not _VALUE_RE.fullmatch(value):
            raise KernelError(f"module_parameters: {name}: {raw!r} can be no value in modprobe.d.")
        switch = truth(value)
        found[name] = value if switch is None else text(switch)  # an int takes no word, a bool takes 1 and 0, too
    return found


def read(host: Host, names: t.Collection[str]) -> State:
    """The parameters of these names.

    :raises OSError: one cannot be read.
    """
    reader = Reader(host)
    words = _kernelconf.words(host.text("/proc/cmdline"))
    at_boot = _kernelconf.by_command_line(_kernelconf.boot(reader), words)
    modprobe = _kernelconf.modprobe(reader).options
    affected = (reader.text(_MULTIHIT) or "Not affected") != "Not affected"
    hidden = {name.partition(".")[0] for name in names if not host.exists(_path(name))}
    offered = {module: _offered(host, module) for module in sorted(hidden)}
    return State(
        {name: _parameter(host, name, at_boot, modprobe, offered) for name in names},
        affected and "mitigations=off" not in words,
        tuple(_guests(host)) if set(_CHANGES_GUESTS) & set(names) else (),
    )


def _parameter(
    host: Host,
    name: str,
    at_boot: t.Mapping[tuple[str, str], _kernelconf.Setting],
    modprobe: t.Mapping[tuple[str, str], _kernelconf.Setting],
    offered: t.Mapping[str, t.Sequence[str]],
) -> Parameter:
    module, parameter = name.split(".")
    status = host.stat_optional(_path(name))
    running = host.text_optional(_path(name)) if status and status.st_mode & 0o444 else None
    loaded = host.exists(f"/sys/module/{module}")
    return Parameter(
        name=name,
        # a module that was loaded has this file, one in the kernel's image has not (kernel/module/sysfs.c)
        builtin=loaded and not host.exists(f"/sys/module/{module}/initstate"),
        running=None if running is None else running.strip(),
        writable=bool(status and status.st_mode & 0o222),
        known=status is not None or parameter in offered[module],
        by_command_line=at_boot.get((module, parameter)),
        by_modprobe=modprobe.get((module, parameter)),
    )


def _path(name: str) -> str:
    module, parameter = name.split(".")
    return f"/sys/module/{module}/parameters/{parameter}"


def _offered(host: Host, module: str) -> list[str]:
    """The parameters that a module has, as modinfo(8) reads them from its file; none where there is no such module."""
    if not host.has_command("modinfo"):
        return []
    done = host.run(["modinfo", "--field", "parm", module], timeout=20.0)
    return [line.partition(":")[0].strip() for line in done.out.splitlines()] if done.rc == 0 else []


def _guests(host: Host) -> t.Iterator[str]:
    for pid in filter(str.isdigit, host.list("/proc")):
        try:
            path, _deleted = _qemuproc.binary(host, int(pid))
            argv = _proc.command_line(host, int(pid)) if _qemuproc.is_qemu(path) else []
        except OSError:  # a thread of the kernel's, or gone meanwhile
            continue
        if argv and _qemuproc.is_guest(argv):
            yield _qemuproc.guest_name(argv) or f"process {pid}"


def plan(state: State, wanted: t.Mapping[str, str], optional: t.Container[str]) -> Planned:
    """What is to be written, now and for the next boot.

    :param optional: names that this kernel need not know.
    :raises KernelError: it does not know another one.
    """
    missing = sorted(name for name in wanted if not state.parameters[name].known and name not in optional)
    if missing:
        raise KernelError(
            f"module_parameters: this host has no {', '.join(missing)}. Nothing was done. See the parameters of a "
            "module with 'modinfo --parameters MODULE', or name it in optional."
        )
    entries, values, lines, left, waiting = [], [], [], [], []
    overridden: list[Departure] = []
    for name, value in sorted(wanted.items()):
        parameter = state.parameters[name]
        if not parameter.known:
            left.append(Departure(name, "this host has no such module, or the module has no such parameter"))
            continue
        if not parameter.builtin:
            lines.append(f"options {parameter.module} {name.partition('.')[2]}={value}\n")
        overridden += _at_boot(parameter, value)
        running = after = parameter.running
        if running is not None and not _granted(name, shown := _shown(state, name, value, running), running):
            if not parameter.writable or (name, running) == _STAYS:
                waiting.append(_at_load(parameter, value))
            elif name in _CHANGES_GUESTS and state.guests:
                waiting.append(_with_guests(state, parameter, value))
            else:
                after = shown
                values.append(Value(name, _path(name), running, after))
        boot = _boot(parameter, value)
        entries.append(Entry(name, running, after, boot.value if boot else None, boot.path if boot else None))
    return Planned(
        tuple(entries),
        tuple(values),
        _units.HEADER + "".join(lines) if lines else None,
        tuple(left),
        tuple(overridden),
        tuple(waiting),
    )


def _boot(parameter: Parameter, value: str) -> _kernelconf.Setting | None:
    """What the next boot makes a parameter once our file is there; None for the kernel's own default."""
    if parameter.by_command_line or parameter.builtin:
        return parameter.by_command_line
    return _later(parameter) or _kernelconf.Setting(value, FILE)


def _later(parameter: Parameter) -> _kernelconf.Setting | None:
    """What a file of modprobe.d says that is read after ours."""
    found = parameter.by_modprobe
    return found if found and found.path.rpartition("/")[2] > FILE.rpartition("/")[2] else None


def _shown(state: State, name: str, wanted: str, running: str) -> str:
    """What is asked for as sysfs will show it, which the kernel takes as well, and which the journal can compare."""
    if name == "kvm.nx_huge_pages":  # arch/x86/kvm/mmu/mmu.c, set_nx_huge_pages
        wanted = {"auto": "1" if state.multihit else "0", "force": "1"}.get(wanted, wanted)
    return {"1": "Y", "0": "N"}.get(wanted, wanted) if running in ("Y", "N") else wanted


def _granted(name: str, wanted: str, running: str) -> bool:
    return _same(wanted, running) or (name == "kvm_intel.vmentry_l1d_flush" and running in _NO_USE)


def _same(wanted: str, value: str) -> bool:
    return wanted == value or (truth(wanted) is not None and truth(wanted) == truth(value))


def _at_boot(parameter: Parameter, value: str) -> t.Iterator[Departure]:
    """Where the next boot will not, or may not, make it so although our file says it."""
    name, by = parameter.name, parameter.by_command_line
    if by is not None:
        if not _same(value, by.value):
            reason = (
                f"{by.path} has {name}={by.value} on the kernel's command line, which counts more than modprobe.d. "
                "Take it out there."
            )
            yield Departure(name, reason)
        return
    known = not parameter.writable and parameter.running is not None
    if parameter.builtin and not (known and _same(value, parameter.running or "")):
        yield Departure(
            name,
            f"{parameter.module} is part of this kernel's image, so that only the command line reaches it at boot. Put "
            f"{name}={value} there.",
        )
    later = None if parameter.builtin else _later(parameter)
    if later and not _same(value, later.value):
        reason = f"{later.path} sets it to {later.value}, after {FILE}. Take the line out of {later.path}."
        yield Departure(name, reason)


def _at_load(parameter: Parameter, value: str) -> Departure:
    """Nobody unloads a module here: that would need every guest to be stopped."""
    module = parameter.module
    reason = f"it is {parameter.running}, and can be made {value} only when {module} is loaded: reboot"
    if not parameter.builtin:
        reason += f"; or, where no guest runs: modprobe --remove {module} && modprobe {module}"
    return Departure(parameter.name, f"{reason}.")


def _with_guests(state: State, parameter: Parameter, value: str) -> Departure:
    names = ", ".join(state.guests)
    return Departure(
        parameter.name,
        f"it is {parameter.running}, and {value} would give guests that run a fault where they have got none so far: "
        f"{names}. The next run that finds no guest writes it, and so does a boot.",
    )
