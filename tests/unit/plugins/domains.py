# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures with guest definitions and running guests, and the pieces that these are made of.

What the real libvirt makes of such XML is shown by tests/integration.
"""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils import _definition, _departures, _domainxml
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

QEMU = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'"
UUID = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
SECRET = "kreuz0tter"
# What libvirt 9.0 writes for a guest of the usual make.
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='/var/lib/libvirt/images/web.qcow2'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
NIC = (
    "<interface type='network'><mac address='52:54:00:01:02:03'/><source network='default'/><model type='virtio'/>"
    "<filterref filter='clean-traffic'><parameter name='IP' value='10.0.0.5'/></filterref></interface>"
)
PTY = (
    "<serial type='pty'><target type='isa-serial' port='0'/></serial><console type='pty'>"
    "<target type='serial' port='0'/></console>"
)
VNC = (
    "<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'>"
    "<listen type='address' address='127.0.0.1'/></graphics>"
)
CPU = "<cpu mode='host-passthrough'><feature policy='disable' name='vmx'/><feature policy='disable' name='svm'/></cpu>"


def domain(
    *devices: str,
    name: str = "web",
    kind: str = "kvm",
    machine: str = "pc-q35-7.2",
    arch: str = "x86_64",
    cpu: str = CPU,
    os: str = "",
    extra: str = "",
) -> str:
    """A definition; ``extra`` are children of ``<domain>``, ``os`` of ``<os>``."""
    body = "".join(devices)
    return (
        f"<domain type='{kind}' {QEMU}><name>{name}</name><uuid>{UUID}</uuid><memory unit='KiB'>65536</memory>"
        f"<os><type arch='{arch}' machine='{machine}'>hvm</type>{os}</os>{cpu}"
        f"<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{body}</devices>{extra}</domain>\n"
    )


def confined(name: str = "web") -> str:
    """A definition without a departure."""
    return domain(DISK, NIC, PTY, VNC, name=name)


def seclabel(attributes: str, *children: str) -> str:
    return f"<seclabel {attributes}>{''.join(children)}</seclabel>"


def commandline(*args: str, env: t.Mapping[str, str] | None = None) -> str:
    """``qemu:commandline``; the arguments are XML attribute text."""
    words = "".join(f'<qemu:arg value="{arg}"/>' for arg in args)
    words += "".join(f'<qemu:env name="{name}" value="{value}"/>' for name, value in (env or {}).items())
    return f"<qemu:commandline>{words}</qemu:commandline>"


def parsed(text: str) -> _definition.Definition:
    element = _domainxml.parse(text.encode())
    return _definition.of(
        _domainxml.Guest(_domainxml.name_of(element), _domainxml.uuid_of(element), "/x.xml", None, element)
    )


def found(text: str, nested: t.Sequence[str] = ("vmx",)) -> list[tuple[str, str, str]]:
    """The departures of a definition as (id, where, observed)."""
    departures = _departures.departures(
        parsed(text), is_root=lambda name: name in ("root", "toor"), nested_features=nested
    )
    assert all(departure.expected for departure in departures)
    return [(departure.id, departure.where, departure.observed) for departure in departures]


class DomainHost(Host):
    """``define`` writes a configured definition, ``start`` the files and the process of a running guest."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        root.chmod(0o755)
        self._pid = 900
        self.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
        self.put("/proc/cpuinfo", "flags\t\t: fpu vmx ssse3\n")
        self.put(
            "/proc/1/mountinfo", "21 1 0:20 / / rw shared:1 - ext4 /dev/vda1 rw\n24 21 0:5 / /dev/shm rw - tmpfs t rw\n"
        )
        self.put("/etc/passwd", "root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/sh\n")
        self.put("/etc/group", "root:x:0:\nlibvirt-qemu:x:64055:\n")

    def put(self, path: str, text: str | bytes) -> Path:
        full = Path(self.path(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(text.encode() if isinstance(text, str) else text)
        return full

    def define(self, text: str | bytes, name: str = "web") -> None:
        self.put(f"/etc/libvirt/qemu/{name}.xml", text)

    def start(self, text: str, name: str = "web", *, alive: bool = True) -> int:
        self._pid += 1
        pid = self._pid
        self.put(f"/run/libvirt/qemu/{name}.pid", f"{pid}\n")
        self.put(f"/run/libvirt/qemu/{name}.xml", f"<domstatus state='running' pid='{pid}'>\n{text}</domstatus>\n")
        if alive:
            self.put(f"/proc/{pid}/stat", f"{pid} (qemu-system-x86) S " + " ".join(["0"] * 18 + ["1000"] + ["0"] * 30))
            self.put(f"/proc/{pid}/cmdline", f"/usr/bin/qemu-system-x86_64\0-name\0guest={name},debug-threads=on\0")
        return pid
