# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which a guest definition leaves the confinement that libvirt gives a guest by itself."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass

from ._definitiondevices import text

if t.TYPE_CHECKING:
    from ._definition import Definition, Seclabel

# Of one kind no more are told than this; how many there are besides stands in the last one.
MOST = 16
# QEMU's docs/system/security.rst, "Virtualization Use Case", with libvirt's names of the versioned types.
_BOUNDARY = {
    "x86_64": r"pc|q35|pc-.+|rhel6\.\d+\.\d+|microvm|xen(?:fv(?:-.+)?|pv|pvh)",
    "aarch64": r"virt(?:-.+)?",
    "riscv32": r"virt(?:-.+)?",
    "riscv64": r"virt(?:-.+)?",
    "loongarch64": r"virt(?:-.+)?",
    "s390x": r"s390-ccw-virtio(?:-.+)?",
    "ppc64": r"pseries(?:-.+)?",
}
_BOUNDARY.update(i686=_BOUNDARY["x86_64"], ppc64le=_BOUNDARY["ppc64"])
_PROGRAMS = ("/usr/", "/nix/store/", "/run/libvirt/nix-emulators/", "/run/current-system/")
_ROOT = ("root", "0", "+0")
# The types of the SELinux policy that a guest's process may have.
_SVIRT = re.compile(r"[^:]*:[^:]*:svirt\w*_t:")
# AMD's SEV API, LAUNCH_START, and the SEV-SNP firmware ABI, guest policy; Intel's TDX, TD attributes.
_DEBUG: dict[str, t.Callable[[int], bool]] = {
    "sev": lambda policy: not policy & 1,
    "sev-snp": lambda policy: bool(policy & 1 << 19),
    "tdx": lambda policy: bool(policy & 1),
}

_WHOLE_HOST = ("host-passthrough", "host-model", "maximum")

_Finding = tuple[str, str, str, str]


@dataclass(frozen=True)
class Departure:
    """``id`` and ``where`` are stable: what an operator's allow-list names."""

    id: str
    where: str
    observed: str
    expected: str


def departures(
    definition: Definition,
    *,
    is_root: t.Callable[[str], bool],
    nested_features: t.Collection[str],
    of_model: t.Callable[[str], t.Collection[str]] = lambda _model: (),
) -> tuple[Departure, ...]:
    """All ways, by kind. Pure.

    :param is_root: whether a user or group name is that of number 0.
    :param nested_features: what this host's processors call their virtualization: ``vmx``, ``svm``, or both.
    :param of_model: the features that libvirt takes a processor model to have.
    """
    found: dict[str, list[Departure]] = {}
    for kind in (
        _labels(definition, is_root),
        _passed_through(definition),
        _platform(definition, nested_features, of_model),
        _displays(definition),
        _devices(definition),
        _storage(definition),
        _network(definition),
        (
            ("plain_password", where, "a password in plain text", "none, or a secret of libvirt's")
            for where in definition.passwords
        ),
    ):
        for name, where, observed, expected in kind:
            found.setdefault(name, []).append(Departure(name, text(where), text(observed), expected))
    return tuple(departure for entries in found.values() for departure in _bounded(entries))


def _bounded(entries: list[Departure]) -> list[Departure]:
    if len(entries) <= MOST:
        return entries
    last = entries[MOST - 1]
    more = Departure(last.id, f"{len(entries) - MOST + 1} more", "as above", last.expected)
    return [*entries[: MOST - 1], more]


def _labels(definition: Definition, is_root: t.Callable[[str], bool]) -> t.Iterator[_Finding]:
    for label in definition.seclabels:
        where = label.where
        model = label.model or "any"
        if label.type == "none":
            yield "seclabel_none", where, f"type none, model {model}", "a label of libvirt's"
            continue
        if label.model == "dac" and _root_label(label, is_root):
            yield "dac_root", where, f"label {label.label}", "the user and group of qemu.conf"
        elif label.label and (label.type == "static" or where != "domain"):
            yield "static_label", where, f"model {model}, label {label.label}", "a label of libvirt's"
        if not label.relabel and not label.label:
            yield "relabel_no", where, f"model {model}, relabel no", "relabel yes"
        if label.model == "selinux" and label.baselabel and not _SVIRT.match(label.baselabel):
            yield "base_label", where, f"baselabel {label.baselabel}", "a type svirt_t"


def _root_label(label: Seclabel, is_root: t.Callable[[str], bool]) -> bool:
    return any(part in _ROOT or is_root(part) for part in label.label.split(":") if part)


def _passed_through(definition: Definition) -> t.Iterator[_Finding]:
    through = definition.passthrough
    where = f"qemu:commandline {through.digest}"
    if through.args:
        yield "qemu_arguments", where, " ".join(argument.shown for argument in through.args), "none"
    if through.env:
        yield "qemu_environment", where, ", ".join(through.env), "none"
    if through.capabilities:
        yield "qemu_capabilities", where, ", ".join(through.capabilities), "none"
    if through.override:
        yield "qemu_override", where, ", ".join(through.override), "none"
    option = ""
    for argument in through.args:
        if argument.network:
            yield "chardev_network", f"qemu:arg {option or argument.shown}", argument.shown, "a UNIX socket"
        if argument.device:
            yield "host_device", argument.device, "passed through", "none, or one that is allowed"
        if argument.display:
            yield "graphics_listen", f"qemu:arg {option}", argument.shown, "an address of this host alone"
        option = argument.shown if argument.shown.startswith("-") else ""


def _platform(
    definition: Definition, nested_features: t.Collection[str], of_model: t.Callable[[str], t.Collection[str]]
) -> t.Iterator[_Finding]:
    if definition.type not in ("kvm", "xen"):
        yield "not_kvm", "type", definition.type or "none", "kvm"
    boundary = _BOUNDARY.get(definition.arch)
    if definition.arch and (boundary is None or not re.fullmatch(boundary, definition.machine)):
        machine = f"{definition.machine or 'none'} of {definition.arch}"
        yield "machine_type", "machine", machine, "a type inside QEMU's security boundary"
    if definition.emulator and not definition.emulator.startswith(_PROGRAMS):
        yield "emulator", "emulator", definition.emulator, "a program of the system's"
    nested = _nested(definition, nested_features, of_model)
    if nested:
        yield "nested_virtualization", "cpu", nested, "vmx and svm disabled"
    if definition.os.loader and definition.os.loader_readonly is False:
        yield "writable_firmware", "os loader", f"{definition.os.loader} without readonly", "readonly yes"
    security = definition.launch_security
    if security and security.policy is not None and security.type in _DEBUG and _DEBUG[security.type](security.policy):
        yield "debug_allowed", "launchSecurity", f"{security.type}, policy {security.policy:#x}", "no debugging"


def _nested(definition: Definition, wanted: t.Collection[str], of_model: t.Callable[[str], t.Collection[str]]) -> str:
    """Why the guest's processor may have virtualization of its own, "" if it has none.

    Under KVM QEMU takes svm out of every named model that is not told to have it (target/i386/kvm/kvm-cpu.c,
    kvm_default_props). Whatever a started guest's processor lacks of its model libvirt writes into the running
    definition (qemu_process.c, qemuProcessUpdateLiveGuestCPU): there the model counts.
    """
    cpu = definition.cpu
    if definition.type != "kvm" or definition.arch not in ("x86_64", "i686"):
        return ""
    policies = {name: cpu.features.get(name, "") for name in wanted}
    given = sorted(name for name, policy in policies.items() if policy in ("require", "force", "optional"))
    if given:
        return f"{', '.join(given)} in the features"
    left = sorted(name for name, policy in policies.items() if policy not in ("disable", "forbid"))
    if cpu.mode in _WHOLE_HOST:
        return f"{cpu.mode} without {', '.join(left)} disabled" if left else ""
    implied = sorted({*left} & {*of_model(cpu.model)}) if definition.pid is not None and cpu.model else []
    return f"{', '.join(implied)} of the model {cpu.model}" if implied else ""


def _displays(definition: Definition) -> t.Iterator[_Finding]:
    for display in definition.graphics:
        for address in display.listen:
            if not _local(address) and not display.tls:
                yield "graphics_listen", f"graphics {display.type}", address, "an address of this host alone, or TLS"


def _local(address: str) -> bool:
    if address in ("socket", "none", "localhost"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _devices(definition: Definition) -> t.Iterator[_Finding]:
    for chardev in definition.chardevs:
        if chardev.type in ("tcp", "udp") and not chardev.tls:
            action = "listens on" if chardev.listens else "connects to"
            where = f"{chardev.element} {chardev.name}".strip()
            yield "chardev_network", where, f"{chardev.type}, {action} {chardev.address}", "a UNIX socket, or TLS"
    for device in definition.host_devices:
        yield "host_device", device.id, f"{device.kind} of the host", "none, or one that is allowed"
    for region in definition.shmem:
        yield "shared_memory", region, "memory shared with others", "none, or one that is allowed"
    for share in definition.filesystems:
        access = "read-only" if share.readonly else "writable"
        yield "host_directory", share.source, f"{share.driver}, {access}", "none, or one that is allowed"


def _storage(definition: Definition) -> t.Iterator[_Finding]:
    for disk in definition.disks:
        name = f"disk {disk.target}"
        if disk.rawio:
            yield "rawio", name, "rawio yes", "rawio no"
        if disk.source and not disk.format and disk.type not in ("dir", "vhostuser", "vhostvdpa"):
            yield "disk_format", name, f"{disk.source} without a format", "a format"
        for layer in disk.backing:
            if layer.source and not layer.format:
                yield "disk_format", f"{name} backing", f"{layer.source} without a format", "a format"


def _network(definition: Definition) -> t.Iterator[_Finding]:
    for nic in definition.interfaces:
        name = f"interface {nic.mac or nic.target}"
        if nic.script:
            yield "interface_script", name, nic.script, "no script"
        if not nic.managed:
            yield "unmanaged_target", name, f"{nic.target}, managed no", "a device that libvirt makes"
        if nic.trusted_rx_filters:
            yield "trusted_rx_filters", name, "trustGuestRxFilters yes", "no"
