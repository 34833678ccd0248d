# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCP listeners of libvirt's daemons, of QEMU and of what libvirt starts beside it."""

from __future__ import annotations

import posixpath
import typing as t

from . import _daemonunits, _proc, _qemuproc
from ._host import Host
from ._infocontext import Context
from ._tcp import Listener, listeners

# Beside those that _confinement knows: libvirt's networks (network/bridge_driver.c) and QEMU's own tools.
_HELPERS = {"swtpm", "virtiofsd", "passt", "passt.avx2", "slirp-helper", "nbdkit", "qemu-nbd", "qemu-rdp"}
_HELPERS |= {"qemu-storage-daemon", "qemu-vnc"}
_NETWORKS = "/var/lib/libvirt/dnsmasq/"
_SYSTEMD = 1


def facts(context: Context) -> list[dict[str, t.Any]]:
    """The section ``listeners``; its keys are documented in hypervisor_info."""
    host = context.host
    held = {listener.inode: listener for listener in listeners(host)}
    found = []
    for pid, kind, name in suspects(host) if held else []:
        guest = _qemuproc.guest_name(_proc.command_line(host, pid)) if kind == "qemu" else ""
        for inode in sorted(inodes(host, pid) & held.keys()):
            found.append(_entry(held[inode], kind, name, pid, guest))
    ports = _unit_ports(context)
    mine = {entry["inode"] for entry in found}
    waiting = {inode for inode, listener in held.items() if listener.port in ports} - mine
    for inode in sorted(inodes(host, _SYSTEMD) & waiting if waiting else ()):
        found.append(_entry(held[inode], "systemd", ports[held[inode].port], _SYSTEMD, ""))
    found.sort(key=lambda entry: (entry["port"], entry["address"], entry["pid"]))
    return [{key: value for key, value in entry.items() if key != "inode"} for entry in found]


def _entry(listener: Listener, kind: str, process: str, pid: int, guest: str) -> dict[str, t.Any]:
    shown = f"[{listener.address}]" if ":" in listener.address else listener.address
    return {
        "name": f"{shown}:{listener.port}",
        "address": listener.address,
        "port": listener.port,
        "loopback": listener.loopback,
        "kind": kind,
        "process": process,
        "pid": pid,
        "guest": guest,
        "inode": listener.inode,
    }


def _unit_ports(context: Context) -> dict[int, str]:
    """The ports that socket units of libvirt's daemons ask for, and the unit."""
    found = {}
    for daemon in ("libvirtd", "virtproxyd"):
        for kind in ("tcp", "tls"):
            unit = context.units.unit(_daemonunits.socket_units(daemon)[kind])
            for address in unit.values.get("ListenStream", ()):
                port = address.rpartition(":")[2]
                if port.isdigit():
                    found[int(port)] = unit.name
    return found


def suspects(host: Host) -> t.Iterator[tuple[int, str, str]]:
    """The processes to look into: pid, kind and the name of the program."""
    for pid in (int(entry) for entry in host.list("/proc") if entry.isdigit()):
        try:
            path, _deleted = _qemuproc.binary(host, pid)
        except OSError:
            continue
        name = posixpath.basename(path)
        if _qemuproc.is_qemu(path):
            yield pid, "qemu", name
        elif name in _daemonunits.DAEMONS:
            yield pid, "daemon", name
        elif name in _HELPERS or (name == "dnsmasq" and _NETWORKS in " ".join(_proc.command_line(host, pid))):
            yield pid, "helper", name


def inodes(host: Host, pid: int) -> set[int]:
    """The sockets that a process has open: proc_pid_fd(5)."""
    found = set()
    for fd in host.list(f"/proc/{pid}/fd"):
        try:
            link = host.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed by now
        if link.startswith("socket:["):
            found.add(int(link[len("socket:[") : -1]))
    return found
