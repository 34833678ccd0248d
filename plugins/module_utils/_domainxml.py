# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guest definitions as libvirt keeps them on disk, read without trust in what they hold."""

from __future__ import annotations

import errno
import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host, MissingLibrary

if t.TYPE_CHECKING:
    from lxml.etree import _Element

DEFINITIONS = "/etc/libvirt/qemu"
STATUS = "/run/libvirt/qemu"
# No definition can reach libvirt as a longer string: REMOTE_STRING_MAX of src/remote/remote_protocol.x.
SIZE_LIMIT = 4 * 1024 * 1024


class DomainXmlError(HardeningError):
    """This is not a guest definition that can be read."""


@dataclass(frozen=True)
class Guest:
    """One guest as one file shows it. ``pid`` is QEMU's (status files only, None in a definition)."""

    name: str
    uuid: str
    path: str
    pid: int | None
    domain: _Element


@dataclass(frozen=True)
class Unreadable:
    """A file that should hold a guest and cannot be read. ``name`` is the file's name without ``.xml``."""

    name: str
    path: str
    reason: str


@dataclass(frozen=True)
class Guests:
    """What a directory of libvirt holds, in the order of the file names."""

    guests: tuple[Guest, ...]
    unreadable: tuple[Unreadable, ...]


@dataclass(frozen=True)
class Interface:
    """An ``<interface>`` of a guest (libvirt's docs/formatdomain.rst, "Network interfaces").

    ``target`` is the wanted name of the host's device, "" where libvirt makes one up; ``managed`` is False only for
    ``managed='no'``; ``queues`` is 1 where the definition asks for none or the model has none; ``bridge`` and
    ``network`` are the source, "" where it is something else.
    """

    type: str
    target: str
    managed: bool
    queues: int
    model: str
    mac: str
    bridge: str
    network: str


def parse(data: bytes) -> _Element:
    """The ``<domain>`` element of a definition or of a status file (its root is ``<domstatus>``).

    Hostile input costs neither time nor memory: a document type (and with it every entity) is refused before the parse,
    nothing is loaded from anywhere, and libxml2's own limits on depth and length hold.

    :raises DomainXmlError: not well-formed, too long, too deep, or no definition of a guest.
    :raises MissingLibrary: no lxml for this interpreter.
    """
    if len(data) > SIZE_LIMIT:
        raise DomainXmlError(f"is longer than the {SIZE_LIMIT // 1024 // 1024} MiB that libvirt takes for a definition")
    if b"<!DOCTYPE" in data:
        raise DomainXmlError("has a document type declaration (<!DOCTYPE), which no guest definition needs; remove it")
    etree = _etree()
    # The encoding is set, so that no declaration of another one hides a document type from the line above.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise DomainXmlError(f"is not well-formed XML: {error}") from None
    domain = root.find("domain") if root.tag == "domstatus" else root
    if domain is None or domain.tag != "domain":
        raise DomainXmlError(f"is not a guest definition: its root element is <{root.tag}>")
    if not (domain.findtext("name") or "").strip():
        raise DomainXmlError("is not a guest definition: <domain> has no <name>")
    return t.cast("_Element", domain)


def name_of(domain: _Element) -> str:
    """The guest's name."""
    return (domain.findtext("name") or "").strip()


def uuid_of(domain: _Element) -> str:
    """The guest's UUID in libvirt's own spelling (lower case, with hyphens), "" where the definition has none."""
    return (domain.findtext("uuid") or "").strip().lower()


def definitions(host: Host) -> Guests:
    """The persistent guests: src/qemu/qemu_conf.c keeps each as /etc/libvirt/qemu/NAME.xml."""
    return _directory(host, DEFINITIONS)


def running(host: Host) -> Guests:
    """The guests that run, transient ones too: src/qemu/qemu_conf.c keeps each as /run/libvirt/qemu/NAME.xml.

    A file outlives its guest where libvirtd was down when that ended: whoever needs a living guest looks at ``pid``.
    """
    return _directory(host, STATUS)


def each(host: Host, directory: str) -> t.Iterator[Guest | Unreadable]:
    """What ``DEFINITIONS`` or ``STATUS`` holds, one file after the other: whoever drops each needs memory for one."""
    for entry in host.list(directory):
        if not entry.endswith(".xml"):
            continue
        name, path = entry[: -len(".xml")], f"{directory}/{entry}"
        try:
            domain = parse(host.read(path, limit=SIZE_LIMIT))
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = f"is longer than {SIZE_LIMIT} bytes" if error.errno == errno.EFBIG else str(error.strerror)
            yield Unreadable(name, path, reason)
        except DomainXmlError as error:
            yield Unreadable(name, path, str(error))
        else:
            yield Guest(name_of(domain), uuid_of(domain), path, _pid(domain), domain)


def interfaces(domain: _Element) -> tuple[Interface, ...]:
    """The network interfaces of a guest, in the definition's order."""
    return tuple(_interface(element) for element in domain.findall("devices/interface"))


def _etree() -> t.Any:
    try:
        from lxml import etree
    except ImportError:
        raise MissingLibrary("lxml", package="python3-lxml") from None
    return etree


def _directory(host: Host, directory: str) -> Guests:
    entries = tuple(each(host, directory))
    return Guests(
        tuple(entry for entry in entries if isinstance(entry, Guest)),
        tuple(entry for entry in entries if isinstance(entry, Unreadable)),
    )


def _pid(domain: _Element) -> int | None:
    status = domain.getparent()
    pid = "" if status is None else status.get("pid", "")
    return int(pid) if pid.isascii() and pid.isdigit() else None


def _interface(element: _Element) -> Interface:
    model = _attribute(element, "model", "type")
    # src/conf/domain_conf.c reads <driver queues=> for the virtio models alone.
    queues = _attribute(element, "driver", "queues") if model.startswith("virtio") else ""
    return Interface(
        type=element.get("type", ""),
        target=_attribute(element, "target", "dev"),
        managed=_attribute(element, "target", "managed") != "no",
        queues=max(1, int(queues)) if queues.isascii() and queues.isdigit() and len(queues) < 6 else 1,
        model=model,
        mac=_attribute(element, "mac", "address"),
        bridge=_attribute(element, "source", "bridge"),
        network=_attribute(element, "source", "network"),
    )


def _attribute(element: _Element, child: str, attribute: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(attribute, "")
