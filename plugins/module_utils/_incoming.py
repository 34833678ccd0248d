# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guest that wants to come needs on this host: read from the XML that libvirt hands to its hook.

Machine type, processor and devices are libvirt's and QEMU's own to check, and they do. The hook is started anew for
each guest, and half of what it takes is the import of its code: what only some guests need is imported for them alone.
"""

from __future__ import annotations

import os
import stat
import typing as t
from xml.etree import ElementTree

from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from lxml.etree import _Element

# No definition can reach libvirt as a longer string: REMOTE_STRING_MAX of src/remote/remote_protocol.x.
SIZE_LIMIT = 4 * 1024 * 1024
# As deep as libxml2, which libvirt reads it with, goes (parserInternals.h, xmlParserMaxDepth).
DEPTH_LIMIT = 256
_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KB": 1000 / 1024, "k": 1, "KiB": 1, "M": 1 << 10, "MiB": 1 << 10}
_KIB.update({"G": 1 << 20, "GiB": 1 << 20, "T": 1 << 30, "TiB": 1 << 30})
_ANY = ("0.0.0.0", "::")
# Names that a definition asks for, and libvirt makes sure of (src/conf/domain_conf.h); others are dropped on the way.
_NAMED = ("bridge", "direct", "ethernet", "network")
_IN_THE_WAY = ("foreign", "stale", "missing", "mismatch", "too_long", "invalid")
# Where something of the host may be given to a guest; _definitiondevices knows what.
_OF_THE_HOST = (
    *("hostdev", "filesystem", "tpm", "input/source", "graphics/gl"),
    *(f"*[@type='{kind}']" for kind in ("dev", "hostdev", "nvme", "vdpa")),
)
# Guests start without such an image (formatdomain.rst, startupPolicy).
_OPTIONAL = ("optional", "requisite")


class IncomingError(HardeningError):
    """This is no guest that can be read."""


class _Bounded(ElementTree.TreeBuilder):
    """A tree that is not deeper than libvirt's own parser takes it."""

    _depth = 0

    def start(self, tag: t.Any, attrs: t.Any, /) -> t.Any:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise IncomingError(f"the guest's XML is deeper than {DEPTH_LIMIT} elements")
        return super().start(tag, attrs)

    def end(self, tag: t.Any, /) -> t.Any:
        self._depth -= 1
        return super().end(tag)


def parse(data: bytes) -> _Element:
    """The ``<domain>`` that libvirt hands to its hook, with the standard library alone, which is all a host need have.

    Hostile input costs neither time nor memory: a document type, and with it every entity, is refused before the parse;
    so is what is too long, and during it what is too deep. UTF-16, which has a NUL in every tag and would hide a
    document type, is refused as well, and no declaration of an encoding counts.

    :raises IncomingError: too long, too deep, with a document type, not well-formed, or no guest.
    """
    if len(data) > SIZE_LIMIT:
        raise IncomingError(f"the guest's XML is longer than {SIZE_LIMIT} bytes")
    if b"<!DOCTYPE" in data or b"\0" in data:
        raise IncomingError("the guest's XML has a document type declaration, or a NUL")
    parser = ElementTree.XMLParser(target=_Bounded(), encoding="utf-8")
    try:
        parser.feed(data)
        domain = parser.close()
    except (ElementTree.ParseError, ValueError) as error:
        raise IncomingError(f"the guest's XML cannot be read: {error}") from None
    if domain.tag != "domain":
        raise IncomingError("libvirt handed over something else than a guest's XML")
    return t.cast("_Element", domain)


def needs(host: Host, domain: _Element, memfd: tuple[bool | None, str]) -> tuple[list[str], list[str]]:
    """What a guest needs and this host has not, and what the operator should know although it hinders nothing.

    :param memfd: whether memfd_create(2) works for QEMU's user, and why not.
    """
    images, notes = _images(host, domain)
    found = [*_hugepages(host, domain), *_taps(host, domain), *_ports(host, domain), *images, *_other(host, domain)]
    if domain.find("memoryBacking/source[@type='memfd']") is not None and memfd[0] is not True:
        found.append(f"its memory is of type memfd, and {memfd[1] or 'memfd_create does not work'}")
    return found, notes


def _hugepages(host: Host, domain: _Element) -> t.Iterator[str]:
    """Mounts and free pages. Which node each page has to be on is left to QEMU."""
    backing = domain.find("memoryBacking/hugepages")
    if backing is None:
        return
    from . import _hugepages, _mountinfo

    pools = _hugepages.read(host)
    mounts = _mountinfo.visible(_mountinfo.read(host, os.getpid()))
    found = [mount.target for mount in mounts.values() if mount.fstype == "hugetlbfs"]
    sizes = {host.block_size(target) >> 10 for target in found}
    pages = [_kib(page.get("size", ""), page.get("unit", "KiB")) for page in backing.iterfind("page")]
    memory = domain.find("memory")
    needed = 0 if memory is None else _kib(memory.text or "", memory.get("unit", "KiB"))
    for size in pages or [_default_size(host)]:
        label = _hugepages.label(size) if size else "?"
        if size not in sizes:
            yield f"no hugetlbfs with pages of {label} is mounted"
        elif len(pages) < 2 and size in pools:
            count = pools[size].total
            free, wanted = count.free - count.reserved, -(-needed // size)
            if free < wanted:
                yield f"it needs {wanted} huge pages of {label}, and {max(free, 0)} are free"


def _default_size(host: Host) -> int:
    for line in host.text("/proc/meminfo").splitlines():
        if line.startswith("Hugepagesize:"):
            return int(line.split()[1])
    return 0


def _kib(number: str, unit: str) -> int:
    digits = number.strip()
    return int(int(digits) * _KIB.get(unit, 0)) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0


def _taps(host: Host, domain: _Element) -> t.Iterator[str]:
    if domain.find("devices/interface/target[@dev]") is None:
        return
    from . import _netdev, _tapverdict
    from ._domainxml import interfaces, name_of

    wanted = [entry for entry in interfaces(domain) if entry.target and entry.type in _NAMED]
    found = {entry.target: _netdev.device(host, entry.target) for entry in wanted}
    devices = {name: device for name, device in found.items() if device is not None}
    holders = _netdev.holders(host, devices.values()) if devices else {}
    scene = _tapverdict.Scene(devices, holders)
    for entry in wanted:
        claim = _tapverdict.Claim(entry.target, name_of(domain), entry.type, entry.managed, entry.queues)
        verdict = _tapverdict.judge(claim, scene)
        if verdict.verdict in _IN_THE_WAY:
            yield f"network device {entry.target} ({verdict.verdict}): {verdict.reason.rstrip('.')}"


def _ports(host: Host, domain: _Element) -> t.Iterator[str]:
    """Displays whose ports are fixed: libvirt finds others for the rest."""
    wanted = [
        (entry.get("type", ""), int(port), _listens(entry))
        for entry in domain.iterfind("devices/graphics")
        for port in (entry.get(name, "") for name in ("port", "tlsPort", "websocket"))
        if entry.get("autoport") != "yes" and port.isascii() and port.isdigit() and len(port) < 6
    ]
    if not wanted:
        return
    from ._tcp import listeners

    held = listeners(host)
    for kind, port, listen in wanted:
        if any(entry.port == port and _meet(entry.address, listen) for entry in held):
            yield f"port {port} of its {kind} display is taken"


def _listens(display: _Element) -> list[str]:
    """The addresses of a display, none where qemu.conf or a network decides."""
    found = [listen.get("address", "") for listen in display.iterfind("listen")] or [display.get("listen", "")]
    return [address for address in found if address]


def _meet(held: str, wanted: t.Sequence[str]) -> bool:
    """Whether two sockets on one port would be in each other's way, as far as addresses tell (qemu.conf may decide)."""
    return held in _ANY or not wanted or any(address == held or address in _ANY for address in wanted)


def _images(host: Host, domain: _Element) -> tuple[list[str], list[str]]:
    missing, notes = [], []
    directories: set[str] | None = None
    for element in domain.iterfind("devices/disk"):
        source = element.find("source")
        kind = element.get("type", "")
        path = "" if source is None else source.get({"block": "dev", "dir": "dir"}.get(kind, "file")) or ""
        if source is None or not path.startswith("/") or source.get("startupPolicy") in _OPTIONAL:
            continue
        status = host.stat_optional(path)
        if status is not None:
            if kind == "block" and not stat.S_ISBLK(status.st_mode):
                missing.append(f"{path} is no block device")
            continue
        if kind == "file" and directories is None:
            directories = _pool_directories(host)
        if kind == "file" and os.path.dirname(path) in (directories or ()):
            # What libvirt makes itself where storage is copied along (qemu_migration.c, ...DstPrecreateDisk).
            notes.append(f"{path} is not there, which is right only if its storage is copied along")
        else:
            missing.append(f"{path} is not there")
    return missing, notes


def _pool_directories(host: Host) -> set[str]:
    from ._pools import read
    from ._reader import Reader

    return {pool.path for pool in read(Reader(host)) if pool.is_directory and pool.active}


def _other(host: Host, domain: _Element) -> t.Iterator[str]:
    """Devices and directories of the host that the guest has."""
    if all(domain.find(f"devices/{path}") is None for path in _OF_THE_HOST):
        return
    from . import _definitiondevices as _devices

    for device in _devices.host_devices(domain):
        what = device.id.partition(" ")[2]
        path = {"pci": f"/sys/bus/pci/devices/{what}", "mdev": f"/sys/bus/mdev/devices/{what}"}.get(device.kind, what)
        if path.startswith("/") and not host.exists(path):
            yield f"there is no {device.id}"
    for shared in _devices.filesystems(domain):
        if shared.source.startswith("/") and not host.exists(shared.source):
            yield f"{shared.source} is not there"
