# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small real guests: their definitions, and starting and stopping them with virsh on a host of the rig.

A guest without a bootable disk sits in its firmware with about 40 MB and starts in a second or two under TCG,
which is all that is needed to look at its QEMU process or to hot-plug into it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from . import _guestlinux
from ._base import RigError, wait_for
from ._host import Host


@dataclasses.dataclass(frozen=True)
class Guest:
    """What a definition is made of; ``extra_devices`` and ``extra`` are XML, put in as they are."""

    name: str
    memory_mib: int = 64
    vcpus: int = 1
    #: libvirt's domain type; ``qemu`` is TCG and works everywhere.
    type: str = "qemu"
    machine: str | None = None
    uuid: str | None = None
    #: Raw images, attached as virtio disks vda, vdb and so on.
    disks: Sequence[str] = ()
    #: Back the memory with huge pages of this many KiB; 0 for the default size.
    hugepages_kib: int | None = None
    #: Room for hot-plugged memory: sets maxMemory with 16 slots and one NUMA cell, which libvirt wants for it.
    max_memory_mib: int | None = None
    interfaces: Sequence[str] = ()
    seclabels: Sequence[str] = ()
    #: Boot this kernel of the host directly.
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    extra_devices: Sequence[str] = ()
    extra: Sequence[str] = ()

    def xml(self) -> str:
        """The definition as libvirt takes it."""
        domain = ET.Element("domain", type=self.type)
        _text(domain, "name", self.name)
        if self.uuid:
            _text(domain, "uuid", self.uuid)
        if self.max_memory_mib is not None:
            _text(domain, "maxMemory", str(self.max_memory_mib), unit="MiB", slots="16")
        _text(domain, "memory", str(self.memory_mib), unit="MiB")
        if self.hugepages_kib is not None:
            pages = ET.SubElement(ET.SubElement(domain, "memoryBacking"), "hugepages")
            if self.hugepages_kib:
                ET.SubElement(pages, "page", size=str(self.hugepages_kib), unit="KiB")
        _text(domain, "vcpu", str(self.vcpus))
        system = ET.SubElement(domain, "os")
        kind = _text(system, "type", "hvm", arch="x86_64")
        if self.machine:
            kind.set("machine", self.machine)
        if self.kernel:
            _text(system, "kernel", self.kernel)
            if self.initrd:
                _text(system, "initrd", self.initrd)
            _text(system, "cmdline", self.cmdline)
        ET.SubElement(ET.SubElement(domain, "features"), "acpi")
        if self.max_memory_mib is not None:
            numa = ET.SubElement(ET.SubElement(domain, "cpu"), "numa")
            ET.SubElement(numa, "cell", id="0", cpus=f"0-{self.vcpus - 1}", memory=str(self.memory_mib), unit="MiB")
        _text(domain, "on_reboot", "restart")
        self._devices(domain)
        for label in (*self.seclabels, *self.extra):
            domain.append(ET.fromstring(label))
        ET.indent(domain)
        return ET.tostring(domain, encoding="unicode") + "\n"

    def _devices(self, domain: ET.Element) -> None:
        devices = ET.SubElement(domain, "devices")
        for index, path in enumerate(self.disks):
            disk = ET.SubElement(devices, "disk", type="file", device="disk")
            ET.SubElement(disk, "driver", name="qemu", type="raw")
            ET.SubElement(disk, "source", file=path)
            ET.SubElement(disk, "target", dev=f"vd{chr(ord('a') + index)}", bus="virtio")
        for interface in (*self.interfaces, *self.extra_devices):
            devices.append(ET.fromstring(interface))
        # Without these libvirt adds a USB controller and a balloon, which only cost time.
        ET.SubElement(devices, "controller", type="usb", model="none")
        ET.SubElement(devices, "memballoon", model="none")
        log = ET.SubElement(devices, "serial", type="file")
        ET.SubElement(log, "source", path=console_path(self.name))


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def console_path(name: str) -> str:
    """Where a guest's serial console goes on its host."""
    return f"/var/log/libvirt/qemu/{name}-console.log"


def ethernet(device: str, *, managed: bool = True) -> str:
    """An interface of type ethernet on a named TAP device."""
    answer = "yes" if managed else "no"
    return f"<interface type='ethernet'><target dev='{device}' managed='{answer}'/><model type='virtio'/></interface>"


def bridged(bridge: str, device: str | None = None) -> str:
    """An interface on a bridge of the host, on a TAP of this name if one is given."""
    target = f"<target dev='{device}'/>" if device else ""
    return f"<interface type='bridge'><source bridge='{bridge}'/>{target}<model type='virtio'/></interface>"


def linux(name: str, *words: str, memory_mib: int = 192, **others: t.Any) -> Guest:
    """A guest that boots Linux and prints a line a second on its console.

    :param words: ``rig.write`` writes to its first disk without end, ``rig.dirty=MIB`` to that much of its memory.
    """
    cmdline = " ".join(["console=ttyS0 panic=-1 quiet", *words])
    kernel, initrd = f"/{_guestlinux.KERNEL}", f"/{_guestlinux.INITRD}"
    return Guest(name, memory_mib=memory_mib, kernel=kernel, initrd=initrd, cmdline=cmdline, **others)


def console(host: Host, name: str) -> str:
    """What a guest has said on its serial console."""
    return host.get(console_path(name)).decode(errors="replace")


def wait_for_console(host: Host, name: str, text: str, *, patience: float = 120.0) -> None:
    """Wait until a guest has said this on its console.

    :raises RigError: it did not within ``patience`` seconds.
    """
    wait_for(f"{name} to say {text!r}", lambda: text in console(host, name), patience=patience)


def dimm(size_mib: int, *, hugepages_kib: int | None = None) -> str:
    """A memory device to hot-plug, on huge pages of this many KiB if given."""
    source = f"<source><pagesize unit='KiB'>{hugepages_kib}</pagesize></source>" if hugepages_kib else ""
    return f"<memory model='dimm'>{source}<target><size unit='MiB'>{size_mib}</size><node>0</node></target></memory>"


def virsh(host: Host, *words: str, check: bool = True, timeout: float = 90.0) -> str:
    """Run virsh against the system daemon; return what it printed, without blanks around it.

    :raises RigError: it failed (with ``check``); the message is libvirt's own.
    """
    return host.run(["virsh", "-q", "-c", "qemu:///system", *words], check=check, timeout=timeout).stdout.strip()


def start(host: Host, guest: Guest, *, persistent: bool = False) -> int:
    """Start a guest (transient unless ``persistent``); return the pid of its QEMU on the host.

    :raises RigError: libvirt refused it; the message is libvirt's own.
    """
    path = f"/run/rig-{guest.name}.xml"
    host.put(path, guest.xml().encode())
    if persistent:
        virsh(host, "define", path)
        virsh(host, "start", guest.name)
    else:
        virsh(host, "create", path)
    return pid(host, guest.name)


def stop(host: Host, name: str) -> None:
    """Pull a guest's plug, and forget its definition if it had one."""
    virsh(host, "destroy", name, check=False)
    virsh(host, "undefine", name, check=False)


def stop_all(host: Host) -> None:
    """``stop`` every guest that libvirt knows."""
    for name in virsh(host, "list", "--all", "--name").split():
        stop(host, name)


def restart_libvirtd(host: Host) -> None:
    """Restart the daemon, however often: systemd's limit of starts is counted from anew (systemd.unit(5))."""
    host.run(["systemctl", "reset-failed", "libvirtd.service"])
    host.run(["systemctl", "restart", "libvirtd.service"])


def running(host: Host) -> list[str]:
    """The names of the guests that run on a host."""
    return virsh(host, "list", "--name").split()


def pid(host: Host, name: str) -> int:
    """The pid of a guest's QEMU, in the host's own pid namespace.

    :raises RigError: it does not run.
    """
    return int(host.run(["cat", f"/run/libvirt/qemu/{name}.pid"]).stdout)


def status(host: Host, process: int) -> dict[str, str]:
    """The fields of /proc/PID/status of a process of the host (proc(5))."""
    text = host.get(f"/proc/{process}/status").decode("utf-8", "replace")
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in text.splitlines())}


def attach(host: Host, name: str, device: str) -> None:
    """Hot-plug a device, given as XML, into a running guest.

    :raises RigError: libvirt refused it; the message is libvirt's own.
    """
    path = f"/run/rig-{name}-device.xml"
    host.put(path, device.encode())
    virsh(host, "attach-device", name, path, "--live")


def disk(host: Host, path: str, size_mib: int = 16) -> str:
    """Make an empty raw image on the host; return its path."""
    if not pathlib.PurePosixPath(path).is_absolute():
        raise RigError(f"the path of a disk image must be absolute, this is {path!r}")
    host.run(["qemu-img", "create", "-q", "-f", "raw", path, f"{size_mib}M"])
    return path
