# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices of a guest definition by which the outside reaches the guest, or the guest the host.

The names are those of libvirt's docs/formatdomain.rst. Nothing here holds a password: only whether there is one.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from lxml.etree import _Element

# No text of a definition is shown longer than this, so that a hostile one costs no more than a usual one.
TEXT_LIMIT = 512
# The elements whose back end is a character device (virDomainChrDef, and what shares its <source>).
_CHARDEVS = ("serial", "parallel", "channel", "console", "smartcard", "redirdev")


@dataclass(frozen=True)
class Graphics:
    """``listen``: the addresses, ``network NAME``, ``socket`` or ``none``; empty where qemu.conf decides.

    ``tls`` tells whether nobody gets in without, None where the definition does not say (VNC: qemu.conf decides).
    """

    type: str
    listen: tuple[str, ...]
    port: int | None
    tls_port: int | None
    websocket: int | None
    tls: bool | None
    password: bool
    clipboard: bool | None
    filetransfer: bool | None
    gl: str | None


@dataclass(frozen=True)
class Chardev:
    """``address``: HOST:PORT for tcp and udp, otherwise the path. ``tls``: None where qemu.conf decides.
    ``name``: the guest's name for a channel, otherwise its port."""

    element: str
    type: str
    address: str
    listens: bool
    tls: bool | None
    name: str


@dataclass(frozen=True)
class HostDevice:
    """A device of the host that the guest has. ``id`` is what an allow-list names: ``pci 0000:01:00.0``."""

    kind: str
    id: str
    managed: bool


@dataclass(frozen=True)
class Filesystem:
    """A directory of the host. ``driver`` is ``path`` (9p), ``virtiofs``, ``mtp`` or what else the definition says."""

    type: str
    driver: str
    source: str
    target: str
    accessmode: str
    readonly: bool


@dataclass(frozen=True)
class Layer:
    """One image of a disk's chain; ``format`` is "" where nobody says it."""

    source: str
    format: str


@dataclass(frozen=True)
class Disk:
    """``source`` is the path of a file or device, or what a network or pool source is called.

    ``reservations``: persistent ones are let through. ``authenticated``: there is a secret for the server of a network
    disk; ``tls`` is None where qemu.conf or the default decides.
    """

    device: str
    type: str
    target: str
    bus: str
    source: str
    format: str
    readonly: bool
    shareable: bool
    rawio: bool
    backing: tuple[Layer, ...]
    cookies: bool
    sgio: str
    reservations: bool
    cache: str
    encrypted: bool
    authenticated: bool
    tls: bool | None


@dataclass(frozen=True)
class Nic:
    """A network interface. ``source`` is the bridge, network, device or socket; ``mode`` that of a macvtap.

    ``filter`` is the name of its network filter, ``parameters`` the names that the filter is given values for.
    """

    type: str
    target: str
    managed: bool
    model: str
    mac: str
    source: str
    mode: str
    filter: str
    parameters: tuple[str, ...]
    script: str
    trusted_rx_filters: bool
    isolated: bool
    limited: bool


def text(value: object) -> str:
    """A text of the definition, cut to what a result may hold of one."""
    word = str(value or "").strip()
    return word if len(word) <= TEXT_LIMIT else word[: TEXT_LIMIT - 1] + "…"


def attribute(element: _Element | None, name: str) -> str:
    """An attribute, "" where there is none, or no element."""
    return "" if element is None else text(element.get(name, ""))


def graphics(domain: _Element) -> tuple[Graphics, ...]:
    """The displays."""
    return tuple(_graphics(element) for element in domain.iterfind("devices/graphics"))


def chardevs(domain: _Element) -> tuple[Chardev, ...]:
    """The character devices, less the console that libvirt shows beside a serial port it is the same as."""
    serial = domain.find("devices/serial") is not None
    found = []
    for element in domain.iterfind("devices/*"):
        target = element.find("target")
        if element.tag in _CHARDEVS and not (
            element.tag == "console" and serial and attribute(target, "type") == "serial"
        ):
            found.append(_chardev(element, str(element.tag)))
    for element in domain.iterfind("devices/rng/backend[@model='egd']"):
        found.append(_chardev(element, "rng"))
    return tuple(found)


def host_devices(domain: _Element) -> tuple[HostDevice, ...]:
    """The devices of the host, whatever element gives them to the guest."""
    return tuple(_host_devices(domain))


def filesystems(domain: _Element) -> tuple[Filesystem, ...]:
    """The shared directories."""
    return tuple(
        Filesystem(
            type=attribute(element, "type") or "mount",
            driver=attribute(element.find("driver"), "type") or "path",
            source=next((text(value) for value in _values(element.find("source"))), ""),
            target=attribute(element.find("target"), "dir"),
            accessmode=attribute(element, "accessmode"),
            readonly=element.find("readonly") is not None,
        )
        for element in domain.iterfind("devices/filesystem")
    )


def disks(domain: _Element) -> tuple[Disk, ...]:
    """The disks; an empty drive has no source."""
    return tuple(_disk(element) for element in domain.iterfind("devices/disk"))


def nics(domain: _Element) -> tuple[Nic, ...]:
    """The network interfaces."""
    return tuple(_nic(element) for element in domain.iterfind("devices/interface"))


def _graphics(element: _Element) -> Graphics:
    listens = [_listen(listen) for listen in element.iterfind("listen")]
    if not listens and element.get("listen"):
        listens = [attribute(element, "listen")]
    if not listens and element.get("socket"):
        listens = ["socket"]
    kind = attribute(element, "type")
    insecure = any(channel.get("mode") == "insecure" for channel in element.iterfind("channel"))
    tls_only = (
        _port(element.get("tlsPort")) is not None and not element.get("port") and element.get("autoport") != "yes"
    )
    secure = (element.get("defaultMode") == "secure" or tls_only) and not insecure
    gl = element.find("gl")
    return Graphics(
        type=kind,
        listen=tuple(address for address in listens if address),
        port=_port(element.get("port")),
        tls_port=_port(element.get("tlsPort")),
        websocket=_port(element.get("websocket")),
        tls=secure if kind == "spice" else None,
        password=bool(element.get("passwd")),
        clipboard=_switch(element.find("clipboard"), "copypaste"),
        filetransfer=_switch(element.find("filetransfer"), "enable"),
        gl=attribute(gl, "rendernode") or "the host's own" if attribute(gl, "enable") == "yes" else None,
    )


def _listen(element: _Element) -> str:
    kind = element.get("type")
    if kind in ("socket", "none"):
        return str(kind)
    address = attribute(element, "address")
    return address or (f"network {attribute(element, 'network')}" if kind == "network" else "")


def _chardev(element: _Element, name: str) -> Chardev:
    sources = element.findall("source")
    kind = attribute(element, "type")
    # A UDP device can have two: whence it takes, and where it sends to.
    source = next((entry for entry in sources if entry.get("mode") == "bind"), sources[0] if sources else None)
    remote = kind in ("tcp", "udp")
    return Chardev(
        element=name,
        type=kind,
        address=f"{attribute(source, 'host')}:{attribute(source, 'service')}" if remote else attribute(source, "path"),
        listens=attribute(source, "mode") == "bind",
        tls=_switch(source, "tls") if kind == "tcp" else None,
        name=attribute(element.find("target"), "name") or attribute(element.find("target"), "port"),
    )


def _host_devices(domain: _Element) -> t.Iterator[HostDevice]:
    for element in domain.iterfind("devices/hostdev"):
        managed = element.get("managed") == "yes"
        kind = attribute(element, "type") or attribute(element, "mode")
        yield HostDevice(kind, f"{kind} {_address(kind, element)}".strip(), managed)
    for element in domain.iterfind("devices/interface[@type='hostdev']"):
        yield HostDevice("pci", f"pci {_address('pci', element)}", element.get("managed") == "yes")
    for element in domain.iterfind("devices/interface[@type='vdpa']"):
        yield _other("vdpa", attribute(element.find("source"), "dev"))
    for element in domain.iterfind("devices/disk[@type='nvme']"):
        yield HostDevice("nvme", f"nvme {_address('pci', element)}", _nvme_managed(element))
    for element in domain.iterfind("devices/tpm/backend[@type='passthrough']"):
        yield _other("tpm", attribute(element.find("device"), "path") or "/dev/tpm0")
    for element in domain.iterfind("devices/redirdev"):
        yield _other("redirdev", f"{attribute(element, 'bus')} {attribute(element, 'type')}")
    for element in domain.iterfind("devices/rng/backend[@model='egd']"):
        yield _other("rng", f"egd {attribute(element, 'type')}")
    for element in domain.iterfind("devices/input"):
        if element.get("type") in ("passthrough", "evdev"):
            source = element.find("source")
            yield _other("input", attribute(source, "evdev") or attribute(source, "dev"))
    for element in domain.iterfind("devices/smartcard"):
        if element.get("mode") in ("host", "host-certificates"):
            yield _other("smartcard", attribute(element, "mode"))
    for chardev in chardevs(domain):
        if chardev.type == "dev":
            yield _other(chardev.element, chardev.address)
    for display in graphics(domain):
        if display.gl is not None:
            yield _other("gl", display.gl)


def _other(kind: str, what: str) -> HostDevice:
    return HostDevice(kind, text(f"{kind} {what}".strip()), False)


def _nvme_managed(disk: _Element) -> bool:
    return attribute(disk.find("source"), "managed") == "yes"


def _address(kind: str, element: _Element) -> str:
    """What names a device of the host: formatdomain.rst, "Host device assignment"."""
    source = element.find("source")
    if source is None:
        return ""
    address = source.find("address")
    if kind == "pci" and address is not None:
        return _pci(address)
    if kind == "mdev":
        return attribute(address, "uuid")
    if kind == "usb":
        vendor, product = (attribute(source.find(name), "id") for name in ("vendor", "product"))
        if vendor:
            return f"{vendor}:{product}"
        return f"bus {attribute(address, 'bus')} device {attribute(address, 'device')}"
    if kind == "scsi":
        adapter = attribute(source.find("adapter"), "name") or attribute(source, "name")
        parts = ":".join(attribute(address, name) or "0" for name in ("bus", "target", "unit"))
        return f"{adapter} {parts}"
    return next((text(value) for value in _values(source)), "")


def _pci(address: _Element) -> str:
    try:
        domain, bus, slot, function = (
            int(address.get(name, "0"), 16) for name in ("domain", "bus", "slot", "function")
        )
    except ValueError:
        return text(" ".join(str(value) for value in address.attrib.values()))
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _disk(element: _Element) -> Disk:
    source = element.find("source")
    return Disk(
        device=attribute(element, "device") or "disk",
        type=attribute(element, "type"),
        target=attribute(element.find("target"), "dev"),
        bus=attribute(element.find("target"), "bus"),
        source=_source(source),
        format=_format(element.find("driver")),
        readonly=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        rawio=element.get("rawio") == "yes",
        backing=tuple(_backing(element)),
        cookies=element.find("source/cookies/cookie") is not None,
        sgio=attribute(element, "sgio"),
        reservations=element.find("source/reservations") is not None,
        cache=attribute(element.find("driver"), "cache"),
        encrypted=element.find("encryption") is not None or element.find("source/encryption") is not None,
        authenticated=element.find("auth") is not None or element.find("source/auth") is not None,
        tls=_switch(source, "tls"),
    )


def _backing(element: _Element) -> t.Iterator[Layer]:
    """The images below: each ``<backingStore>`` holds the next. An empty one ends the chain."""
    below = element.find("backingStore")
    while below is not None and below.find("source") is not None:
        yield Layer(_source(below.find("source")), _format(below.find("format")))
        below = below.find("backingStore")


def _format(element: _Element | None) -> str:
    kind = attribute(element, "type")
    # src/util/virstoragefile: "auto" is the format that QEMU has to probe for.
    return "" if kind == "auto" else kind


def _source(source: _Element | None) -> str:
    if source is None:
        return ""
    for name in ("file", "dev", "dir"):
        if source.get(name):
            return attribute(source, name)
    if source.get("pool"):
        return f"{attribute(source, 'pool')}/{attribute(source, 'volume')}"
    if source.get("protocol"):
        return text(f"{attribute(source, 'protocol')}:{attribute(source, 'name').partition('?')[0]}")
    return attribute(source, "path")


def _nic(element: _Element) -> Nic:
    source = element.find("source")
    target = element.find("target")
    chosen = element.find("filterref")
    bandwidth = element.find("bandwidth")
    names = ("bridge", "network", "dev", "path", "address")
    return Nic(
        type=attribute(element, "type"),
        target=attribute(target, "dev"),
        managed=attribute(target, "managed") != "no",
        model=attribute(element.find("model"), "type"),
        mac=attribute(element.find("mac"), "address"),
        source=next((attribute(source, name) for name in names if attribute(source, name)), ""),
        mode=attribute(source, "mode"),
        filter=attribute(chosen, "filter"),
        parameters=tuple(
            sorted({attribute(entry, "name") for entry in chosen.iterfind("parameter")} if chosen is not None else ())
        ),
        script=attribute(element.find("script"), "path"),
        trusted_rx_filters=element.get("trustGuestRxFilters") == "yes",
        isolated=attribute(element.find("port"), "isolated") == "yes",
        limited=bandwidth is not None and len(bandwidth) > 0,
    )


def _values(element: _Element | None) -> t.Iterator[str]:
    return iter(()) if element is None else (str(value) for value in element.attrib.values())


def _port(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 6 else None


def _switch(element: _Element | None, name: str) -> bool | None:
    return {"yes": True, "no": False}.get(attribute(element, name))
