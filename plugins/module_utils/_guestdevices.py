# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device nodes that a guest finds in its /dev, and those that libvirt was told to put there."""

from __future__ import annotations

import os
import posixpath
import stat
import typing as t
from dataclasses import dataclass, replace

from ._host import Host

if t.TYPE_CHECKING:
    from lxml.etree import _Element

    from ._mountinfo import Mount
    from ._virconf import Document

# defaultDeviceACL of libvirt's qemu_cgroup.c from 7.0 to 12, for a host that does not tell its own list.
_NAMES = ("null", "full", "zero", "random", "urandom", "ptmx", "kvm", "userfaultfd")
BUILT_IN = tuple(f"/dev/{name}" for name in _NAMES)
MOST_NODES = 1024

_KINDS = {
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFLNK: "symlink",
    stat.S_IFREG: "file",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
# File systems whose server may never answer: a guest that was taken over could be that server.
_ANSWERED_BY_OTHERS = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs")
# MAXSYMLINKS of linux/namei.h.
_LONGEST_CHAIN = 40


@dataclass(frozen=True)
class Node:
    """What stands in a guest's /dev and is no directory. ``device`` is MAJOR:MINOR, "" for what is no device.

    ``unexpected`` says why nobody told libvirt to put it there like this, "" if somebody did.
    """

    path: str
    type: str
    device: str
    owner: int
    group: int
    mode: str
    unexpected: str = ""


def listed(host: Host, document: Document | None) -> tuple[str, ...]:
    """The device list for new guests: cgroup_device_acl of qemu.conf, else the installed libvirt's built-in one.

    :param document: qemu.conf, None where it cannot be read.
    """
    value = document.get("cgroup_device_acl") if document else None
    if value is not None and isinstance(value.content, tuple):
        return tuple(str(item.content) for item in value.content)
    from . import _confkeys

    try:
        return tuple(_confkeys.extended("cgroup_device_acl", [], _confkeys.sample(host)))
    except _confkeys.ConfError:
        return BUILT_IN


def nodes(host: Host, pid: int, mounts: t.Mapping[str, Mount]) -> tuple[list[Node], str]:
    """What a process finds in its /dev, and why that is not all, "" if it is.

    Directories that something else is mounted on (pts, shm, mqueue, hugepages) are left out.

    :param mounts: the mounts of the process, by mount point.
    """
    below = mounts.get("/dev") or mounts.get("/")
    if below and below.fstype.startswith(_ANSWERED_BY_OTHERS):
        return [], f"it is on {below.fstype}"
    root = f"/proc/{pid}/root"
    found: list[Node] = []
    waiting = ["/dev"]
    seen = 0
    while waiting:
        directory = waiting.pop()
        for name in host.list(root + directory):
            seen += 1
            if seen > MOST_NODES:
                return found, f"it has more than {MOST_NODES} entries"
            path = f"{directory}/{name}"
            status = host.stat_optional(root + path, follow=False)
            if status is None:  # unplugged just now
                continue
            if not stat.S_ISDIR(status.st_mode):
                found.append(_node(path, status))
            elif path not in mounts:
                waiting.append(path)
    return found, ""


class Judge:
    """Tells which nodes of guests nobody asked for.

    :param listed: the device list, as the function of that name tells it.
    :param mounted: the mount points of the host. libvirt moves everything that is mounted below /dev into the guest's
        (qemu_namespace.c, qemuDomainGetPreservedMounts), single nodes too.
    """

    def __init__(self, host: Host, listed: t.Iterable[str], mounted: t.Container[str]) -> None:
        self._host = host
        self._mounted = mounted
        self._listed = self._nodes(listed)

    def judged(
        self, nodes: t.Iterable[Node], uid: int, definition: t.Callable[[], _Element | None]
    ) -> tuple[Node, ...]:
        """The nodes, each with the reason why it is unexpected.

        :param uid: whom libvirt gives the guest's own devices to.
        :param definition: gives the guest's live definition, None where it cannot be read; called only if the device
            list does not explain everything.
        """
        given: dict[str, Node | None] | None = None
        found = []
        for node in nodes:
            if node.device and node.path not in self._mounted:
                if node.path not in self._listed and given is None:
                    given = self._given(definition())
                allowed = self._listed if node.path in self._listed else given or {}
                reason = _why_unexpected(node, allowed, uid)
                node = replace(node, unexpected=reason) if reason else node
            found.append(node)
        return tuple(found)

    def _given(self, domain: _Element | None) -> dict[str, Node | None]:
        return {} if domain is None else self._nodes(from_definition(self._host, domain))

    def _nodes(self, paths: t.Iterable[str]) -> dict[str, Node | None]:
        """The host's nodes that these paths lead to, and those that a device mapper builds them of."""
        found: dict[str, Node | None] = {}
        waiting = list(paths)
        while waiting:
            path = _target(self._host, waiting.pop())
            if path in found:
                continue
            status = self._host.stat_optional(path, follow=False)
            node = found[path] = None if status is None else _node(path, status)
            if node and node.type == "block":
                slaves = self._host.list(f"/sys/dev/block/{node.device}/slaves")
                waiting += [f"/dev/{name.replace('!', '/')}" for name in slaves]
        return found


def from_definition(host: Host, domain: _Element) -> set[str]:
    """The paths in /dev that libvirt gives a guest for its definition.

    Those that stand in it, and those of host devices that it names otherwise: qemu_namespace.c, qemuDomainSetupAll...,
    and qemu_domain.c, qemuDomainGetHostdevPath.
    """
    found: set[str] = set()
    for part in domain.findall("os") + domain.findall("devices"):
        for element in part.iter():
            texts = [*element.attrib.values(), (element.text or "").strip()]
            found.update(posixpath.normpath(str(text)) for text in texts if str(text).startswith("/dev/"))
    for address in domain.iterfind("devices//source/address"):
        found |= _passed_through(host, address)
    for path, devices in _BY_ELEMENT.items():
        if domain.find(path) is not None:
            found.update(devices)
    return found


# What the mere presence of an element asks for.
_BY_ELEMENT = {
    "devices/hostdev[@type='scsi_host']": ("/dev/vhost-scsi",),
    "devices/memory[@model='sgx-epc']": ("/dev/sgx_vepc", "/dev/sgx_provision"),
    "devices/disk//reservations": ("/dev/mapper/control",),
    "devices/video/model[@blob='on']": ("/dev/udmabuf",),
    "launchSecurity[@type='sev']": ("/dev/sev",),
    "launchSecurity[@type='sev-snp']": ("/dev/sev",),
}


def _passed_through(host: Host, address: _Element) -> set[str]:
    """The nodes of the host's device at an ``<address>`` inside a ``<source>`` (formatdomain.rst, "Host devices")."""
    values = {str(name): str(value) for name, value in address.items()}
    if "uuid" in values:
        return vfio_nodes(host, f"/sys/bus/mdev/devices/{values['uuid']}")
    try:
        if "slot" in values:
            domain, bus, slot, function = (int(values[name], 16) for name in ("domain", "bus", "slot", "function"))
            return vfio_nodes(host, f"/sys/bus/pci/devices/{domain:04x}:{bus:02x}:{slot:02x}.{function:x}")
        if "device" in values:
            return {f"/dev/bus/usb/{int(values['bus']):03d}/{int(values['device']):03d}"}
        source = address.getparent()
        adapter = None if source is None else source.find("adapter")
        if adapter is not None:
            scsi = ":".join(values[name] for name in ("bus", "target", "unit"))
            number = str(adapter.get("name")).replace("scsi_host", "")
            generic = host.list(f"/sys/bus/scsi/devices/{number}:{scsi}/scsi_generic")
            return {f"/dev/{name}" for name in generic}
    except (KeyError, ValueError):
        pass
    return set()


def vfio_nodes(host: Host, device: str) -> set[str]:
    """The nodes for a device that the kernel's VFIO hands out (driver-api/vfio.rst): its group's, or its own."""
    found = {"/dev/vfio/vfio", "/dev/iommu"} | {f"/dev/vfio/devices/{name}" for name in host.list(f"{device}/vfio-dev")}
    try:
        found.add(f"/dev/vfio/{posixpath.basename(host.readlink(f'{device}/iommu_group'))}")
    except OSError:
        pass
    return found


def _why_unexpected(node: Node, allowed: t.Mapping[str, Node | None], uid: int) -> str:
    if node.path not in allowed:
        return "neither in the device list nor in the guest's definition"
    host = allowed[node.path]
    if host is None:
        return ""
    if (node.type, node.device) != (host.type, host.device):
        return f"the host's is {host.type} {host.device}"
    if node.owner not in (host.owner, uid):
        return f"owned by uid {node.owner}, the host's by {host.owner}"
    if int(node.mode, 8) & ~int(host.mode, 8) & 0o007:
        return f"mode {node.mode}, the host's has {host.mode}"
    return ""


def _target(host: Host, path: str) -> str:
    """Where a chain of symlinks ends; the path itself, if it is none or never ends."""
    for _step in range(_LONGEST_CHAIN):
        try:
            link = host.readlink(path)
        except OSError:  # no symlink
            return path
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return path


def _node(path: str, status: os.stat_result) -> Node:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    number = status.st_rdev
    device = f"{os.major(number)}:{os.minor(number)}" if kind in ("char", "block") else ""
    return Node(path, kind, device, status.st_uid, status.st_gid, f"{stat.S_IMODE(status.st_mode):04o}")
