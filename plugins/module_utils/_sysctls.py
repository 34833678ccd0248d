# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters below /proc/sys: running, and as sysctl.d(5) sets them at the next boot."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from . import _kernelconf, _units
from ._host import Host
from ._kernelvalues import Departure, Entry, KernelError, Planned, Value, text
from ._reader import Reader, integer

# The last one wins (sysctl.d(5)); a distribution's 99-sysctl.conf would have its way over a lower name.
FILE = "/etc/sysctl.d/zz-hypervisor-hardening.conf"

_LEAST = ">="
_NAME_RE = re.compile(r"\w+(?:[./][\w@:-]+)+")
# Documentation/admin-guide/sysctl/kernel.rst and LSM/Yama.rst: values that stay until the next boot.
_FINAL = {
    "kernel.kexec_load_disabled": "1",
    "kernel.modules_disabled": "1",
    "kernel.unprivileged_bpf_disabled": "1",
    "kernel.yama.ptrace_scope": "3",
}
# Where the least value is a final one, and another that is as good is not: a rollback can return to what was.
_INSTEAD = {("kernel.unprivileged_bpf_disabled", 1): 2}

# What hardening of general hosts sets, and what that does to a hypervisor.
_HAZARDS = (
    (
        r"net\.ipv4\.(?:ip_forward|conf\.all\.forwarding)|net\.ipv6\.conf\.all\.forwarding",
        "0",
        "takes guests of NAT and routed networks off the net, until libvirt sets it back when it next starts a network",
    ),
    (
        r"net\.ipv4\.conf\.[^.]+\.rp_filter",
        "1",
        "drops packets of guests that come by another interface than the answer would take",
    ),
    (
        r"net\.bridge\.bridge-nf-call-\w+",
        "0|1",
        "sends bridged guests through the host's rules (1), or past the filters of OpenStack and Kubernetes (0)",
    ),
    (r"net\.ipv6\.conf\.(?:all|default)\.disable_ipv6", "1", "ends libvirt's networks that have IPv6"),
    (
        r"kernel\.modules_disabled",
        "1",
        "keeps kvm, vfio, tun and vhost from being loaded when a guest first needs them",
    ),
    (r"user\.max_user_namespaces", "0", "keeps virtiofsd, passt and guests of ordinary users from starting"),
)


@dataclass(frozen=True)
class Wish:
    """A value; ``least``: a greater number is as good, and stays."""

    value: str
    least: bool = False

    def granted_by(self, value: str) -> bool:
        """Whether another value does as well."""
        if not self.least:
            return _plain(value) == _plain(self.value)
        number = integer(value.strip())
        return number is not None and number >= int(self.value)


@dataclass(frozen=True)
class Sysctl:
    """A parameter: its running value (None: there is none), what the next boot would set without our file, and what a
    file sets that is read after ours."""

    name: str
    running: str | None
    elsewhere: _kernelconf.Setting | None
    later: _kernelconf.Setting | None


def wishes(options: t.Mapping[str, t.Any]) -> dict[str, Wish]:
    """The option ``sysctls``; what is null there is left out.

    :raises KernelError: a name or a value that can be none.
    """
    found = {}
    for name, raw in options.items():
        if raw is None:
            continue
        if not _NAME_RE.fullmatch(name):
            raise KernelError(f"sysctls: {name!r} is no name of a kernel parameter, as kernel.kptr_restrict is one.")
        value = text(raw)
        least = value.startswith(_LEAST)
        value = value[len(_LEAST) :].strip() if least else value
        if least and integer(value) is None:
            raise KernelError(f"sysctls: {name}: {raw!r} asks for at least {value!r}, which is no number.")
        found[_kernelconf.dotted(name)] = Wish(value, least)
    return found


def path(name: str) -> str:
    """The file of a parameter (sysctl.d(5): where the file has a dot, as an interface can, the name has a slash)."""
    return "/proc/sys/" + name.translate({ord("."): "/", ord("/"): "."})


def read(host: Host, names: t.Collection[str]) -> dict[str, Sysctl]:
    """The parameters of these names.

    :raises OSError: one cannot be read.
    """
    reader = Reader(host)
    elsewhere = _kernelconf.sysctls(reader, names, without=FILE)
    later = _kernelconf.later_sysctls(reader, names, FILE)
    return {name: Sysctl(name, _running(host, name), elsewhere.get(name), later.get(name)) for name in names}


def _running(host: Host, name: str) -> str | None:
    found = host.text_optional(path(name))
    return None if found is None else _plain(found)


def _plain(value: str) -> str:
    """Several numbers have tabs between them when the kernel shows them."""
    return " ".join(value.split())


def plan(found: t.Mapping[str, Sysctl], wanted: t.Mapping[str, Wish], optional: t.Container[str]) -> Planned:
    """What is to be written, now and for the next boot.

    :param optional: names that this kernel need not know.
    :raises KernelError: it does not know another one.
    """
    missing = [name for name in wanted if found[name].running is None and name not in optional]
    if missing:
        raise KernelError(
            f"sysctls: this kernel has no {', '.join(sorted(missing))}, or not before a module is loaded. Nothing was "
            "done. Look for the name in 'sysctl -a', or name it in optional."
        )
    entries, values, lines, left, overridden, waiting = [], [], [], [], [], []
    warnings: list[str] = []
    for name, wish in sorted(wanted.items()):
        sysctl, running = found[name], found[name].running
        if running is None:
            left.append(Departure(name, "this kernel has no such parameter"))
            continue
        after = running
        if not wish.granted_by(running):
            if running == _FINAL.get(name):
                waiting.append(Departure(name, f"it is {running}, which the kernel changes no more before a boot"))
            else:
                after = _now(name, wish)
                values.append(Value(name, path(name), running, after, final=after == _FINAL.get(name)))
        boot = _kernelconf.Setting(_for_boot(sysctl, wish, after), FILE)
        lines.append(f"{name} = {boot.value}\n")
        if sysctl.later:
            boot = sysctl.later
            if not wish.granted_by(boot.value):
                overridden.append(_overridden(boot, name))
        entries.append(Entry(name, running, after, boot.value, boot.path))
        warnings += _hazards(name, wish)
    warnings += [f"{one.name} = {one.after} cannot be taken back before the next boot." for one in values if one.final]
    return Planned(
        tuple(entries),
        tuple(values),
        _units.HEADER + "".join(lines) if lines else None,
        tuple(left),
        tuple(overridden),
        tuple(waiting),
        tuple(warnings),
    )


def _now(name: str, wish: Wish) -> str:
    return str(_INSTEAD.get((name, int(wish.value)), wish.value)) if wish.least else wish.value


def _for_boot(sysctl: Sysctl, wish: Wish, running: str) -> str:
    """A host that is stricter than at least asked for stays so."""
    if not wish.least:
        return wish.value
    known = (running, sysctl.elsewhere.value if sysctl.elsewhere else "")
    stricter = [value for value in known if wish.granted_by(value)]
    return str(max(map(int, stricter))) if stricter else _now(sysctl.name, wish)


def _overridden(by: _kernelconf.Setting, name: str) -> Departure:
    return Departure(
        name, f"{by.path} sets it to {by.value} at the next boot, after {FILE}. Take the line out of {by.path}."
    )


def _hazards(name: str, wish: Wish) -> t.Iterator[str]:
    for pattern, value, effect in _HAZARDS:
        if re.fullmatch(pattern, name) and re.fullmatch(value, wish.value) and not wish.least:
            yield f"{name} = {wish.value} {effect}."
