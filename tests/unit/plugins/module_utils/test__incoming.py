# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _incoming
from ansible_collections.hypervisor.hardening.plugins.module_utils._incoming import IncomingError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

WORKS: tuple[bool | None, str] = (True, "")
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Destination(TreeHost):
    """A host whose hugetlbfs mounts have pages of 2 MiB."""

    def block_size(self, path: str) -> int:
        return 2 << 20


@pytest.fixture
def host(tmp_path: Path) -> Destination:
    host = Destination(tmp_path)
    host.put("/proc/meminfo", "MemTotal: 1 kB\nHugepagesize:       2048 kB\n")
    pages = {"nr_hugepages": "10\n", "free_hugepages": "8\n", "resv_hugepages": "2\n", "surplus_hugepages": "0\n"}
    host.put_all("/sys/kernel/mm/hugepages/hugepages-2048kB", pages)
    host.put_all("/sys/kernel/mm/hugepages/hugepages-1048576kB", {**pages, "free_hugepages": "0\n"})
    host.put(f"/proc/{os.getpid()}/mountinfo", "20 1 0:2 / /dev/hugepages rw - hugetlbfs hugetlbfs rw\n")
    host.put("/proc/net/tcp", TCP)
    host.put("/images/there.img")
    return host


def domain(devices: str = "", backing: str = "", memory: str = "<memory unit='KiB'>8192</memory>") -> bytes:
    return f"<domain><name>web</name>{memory}{backing}<devices>{devices}</devices></domain>".encode()


def needs(host: TreeHost, data: bytes, memfd: tuple[bool | None, str] = WORKS) -> list[str]:
    return _incoming.needs(host, _incoming.parse(data), memfd)[0]


def huge(inside: str = "") -> str:
    return f"<memoryBacking><hugepages>{inside}</hugepages></memoryBacking>"


def test_a_guest_that_needs_nothing(host: Destination) -> None:
    assert _incoming.needs(host, _incoming.parse(domain()), WORKS) == ([], [])


@pytest.mark.parametrize(
    ("backing", "memory", "missing"),
    [
        (huge(), "<memory unit='KiB'>12288</memory>", []),
        (huge(), "<memory>12288</memory>", []),
        (huge(), "<memory unit='MiB'>12</memory>", []),
        (huge(), "<memory unit='KiB'>12289</memory>", ["it needs 7 huge pages of 2M, and 6 are free"]),
        (huge("<page size='2048' unit='KiB'/>"), "<memory unit='GiB'>1</memory>", ["it needs 512 huge pages of 2M"]),
        (huge("<page size='2' unit='M'/>"), "<memory unit='GiB'>1</memory>", ["it needs 512 huge pages of 2M"]),
        (huge("<page size='1' unit='G'/>"), "<memory>1</memory>", ["no hugetlbfs with pages of 1G is mounted"]),
        (huge("<page size='x'/>"), "<memory>1</memory>", ["no hugetlbfs with pages of ? is mounted"]),
        ("<memoryBacking><nosharepages/></memoryBacking>", "<memory unit='GiB'>9</memory>", []),
    ],
)
def test_huge_pages(host: Destination, backing: str, memory: str, missing: list[str]) -> None:
    found = needs(host, domain(backing=backing, memory=memory))
    assert len(found) == len(missing)
    assert all(one.startswith(words) for one, words in zip(found, missing))


def test_huge_pages_without_a_mount(host: Destination) -> None:
    host.put(f"/proc/{os.getpid()}/mountinfo", "20 1 0:2 / / rw - ext4 /dev/vda rw\n")
    assert needs(host, domain(backing=huge())) == ["no hugetlbfs with pages of 2M is mounted"]


def tap(host: TreeHost, name: str) -> None:
    host.put_all(
        f"/sys/class/net/{name}", {"ifindex": "5\n", "iflink": "5\n", "tun_flags": "0x1802\n", "mtu": "1500\n"}
    )


def interface(kind: str, target: str) -> str:
    return f"<interface type='{kind}'>{target}<model type='virtio'/></interface>"


@pytest.mark.parametrize("kind", ["bridge", "direct", "ethernet", "network"])
def test_a_name_that_is_taken(host: Destination, kind: str) -> None:
    wanted = domain(interface(kind, "<target dev='web0'/>"))
    assert needs(host, wanted) == []
    tap(host, "web0")
    (found,) = needs(host, wanted)
    assert found.startswith("network device web0 (stale): It is a persistent TAP")


def test_a_device_that_is_brought_along(host: Destination) -> None:
    wanted = domain(interface("ethernet", "<target dev='web0' managed='no'/>"))
    (found,) = needs(host, wanted)
    assert found.startswith("network device web0 (missing)")
    tap(host, "web0")
    assert needs(host, wanted) == []


def test_names_that_libvirt_makes_up(host: Destination) -> None:
    tap(host, "vnet0")
    assert needs(host, domain(interface("bridge", "") + interface("user", "<target dev='vnet0'/>"))) == []


def listening(address: str, port: int) -> str:
    return f"   0: {address}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"


ANY, LOOPBACK, OTHER = "00000000", "0100007F", "0200000A"


@pytest.mark.parametrize(
    ("held", "display", "taken"),
    [
        (ANY, "<graphics type='vnc' port='5999' autoport='no' listen='127.0.0.1'/>", "port 5999 of its vnc display"),
        (LOOPBACK, "<graphics type='vnc' port='5999' autoport='no' listen='127.0.0.1'/>", "port 5999 of its vnc"),
        (LOOPBACK, "<graphics type='vnc' port='5999' autoport='no' listen='0.0.0.0'/>", "port 5999 of its vnc"),
        (LOOPBACK, "<graphics type='vnc' port='5999'/>", "port 5999 of its vnc"),
        (OTHER, "<graphics type='vnc' port='5999' autoport='no' listen='127.0.0.1'/>", ""),
        (ANY, "<graphics type='vnc' port='5999' autoport='yes' listen='127.0.0.1'/>", ""),
        (ANY, "<graphics type='vnc' port='-1' autoport='yes'/>", ""),
        (ANY, "<graphics type='vnc' port='5998' websocket='5999'/>", "port 5999 of its vnc"),
        (ANY, "<graphics type='spice' tlsPort='5999'/>", "port 5999 of its spice"),
        (ANY, "<graphics type='vnc' port='5998'/>", ""),
        (ANY, "<graphics type='vnc' port='5999' autoport='yes'/><graphics type='vnc' port='5999'/>", "port 5999"),
    ],
)
def test_ports_of_displays(host: Destination, held: str, display: str, taken: str) -> None:
    host.put("/proc/net/tcp", TCP + listening(held, 5999))
    found = needs(host, domain(display))
    assert len(found) == bool(taken)
    assert all(one.startswith(taken) for one in found)


POOL = "<pool type='dir'><name>default</name><target><path>/pool</path></target></pool>"


@pytest.mark.parametrize(
    ("disk", "missing", "notes"),
    [
        ("<disk type='file'><source file='/images/there.img'/></disk>", [], []),
        ("<disk type='file'><source file='/images/gone.img'/></disk>", ["/images/gone.img is not there"], []),
        ("<disk type='file'><source file='/images/gone.img' startupPolicy='optional'/></disk>", [], []),
        ("<disk type='file'><source file='/pool/new.img'/></disk>", [], ["/pool/new.img is not there, which is right"]),
        ("<disk type='file' device='cdrom'/>", [], []),
        ("<disk type='block'><source dev='/dev/vg/gone'/></disk>", ["/dev/vg/gone is not there"], []),
        ("<disk type='block'><source dev='/images/there.img'/></disk>", ["/images/there.img is no block device"], []),
        ("<disk type='dir'><source dir='/images'/></disk>", [], []),
        ("<disk type='network'><source protocol='rbd' name='a/b'/></disk>", [], []),
        ("<disk type='volume'><source pool='p' volume='v'/></disk>", [], []),
    ],
)
def test_images(host: Destination, disk: str, missing: list[str], notes: list[str]) -> None:
    host.put("/run/libvirt/storage/default.xml", f"<poolstate>{POOL}</poolstate>")
    host.put("/etc/libvirt/storage/default.xml", POOL)
    found, told = _incoming.needs(host, _incoming.parse(domain(disk)), WORKS)
    assert found == missing
    assert [note.startswith(words) for note, words in zip(told, notes)] == [True] * len(notes) == [True] * len(told)


def test_an_image_of_a_pool_that_does_not_run(host: Destination) -> None:
    host.put("/etc/libvirt/storage/default.xml", POOL)
    disk = "<disk type='file'><source file='/pool/new.img'/></disk>"
    assert needs(host, domain(disk)) == ["/pool/new.img is not there"]


@pytest.mark.parametrize(
    ("device", "path", "missing"),
    [
        (
            "<hostdev type='pci'><source><address domain='0' bus='3' slot='0' function='1'/></source></hostdev>",
            "/sys/bus/pci/devices/0000:03:00.1",
            "there is no pci 0000:03:00.1",
        ),
        (
            "<hostdev mode='subsystem' type='mdev'><source><address uuid='u-1'/></source></hostdev>",
            "/sys/bus/mdev/devices/u-1",
            "there is no mdev u-1",
        ),
        ("<serial type='dev'><source path='/dev/ttyS9'/></serial>", "/dev/ttyS9", "there is no serial /dev/ttyS9"),
        ("<filesystem><source dir='/srv/x'/></filesystem>", "/srv/x", "/srv/x is not there"),
    ],
)
def test_devices_and_directories(host: Destination, device: str, path: str, missing: str) -> None:
    assert needs(host, domain(device)) == [missing]
    host.put(path)
    assert needs(host, domain(device)) == []


def test_memfd(host: Destination) -> None:
    backing = "<memoryBacking><source type='memfd'/></memoryBacking>"
    assert needs(host, domain(backing=backing)) == []
    assert needs(host, domain(backing=backing), (False, "memfd_create: No")) == [
        "its memory is of type memfd, and memfd_create: No"
    ]
    assert needs(host, domain(backing=backing), (None, "")) == [
        "its memory is of type memfd, and memfd_create does not work"
    ]
    assert needs(host, domain(), (False, "memfd_create: No")) == []


ENTITIES = "<!DOCTYPE d [<!ENTITY a 'aaaa'>" + "".join(f"<!ENTITY b{i} '&a;&a;'>" for i in range(9)) + "]>"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"<domain>", "cannot be read"),
        (b"<domain></domain><domain/>", "cannot be read"),
        (b"<domstatus><domain/></domstatus>", "something else"),
        (f"{ENTITIES}<domain>&b8;</domain>".encode(), "document type"),
        (f"<?xml version='1.0' encoding='utf-16'?>{ENTITIES}<domain/>".encode("utf-16"), "a NUL"),
        (b"<domain>&undefined;</domain>", "cannot be read"),
        (b"<domain>\xff</domain>", "cannot be read"),
        (b"<domain>\0</domain>", "a NUL"),
        (b"<domain>" + b"<a>" * 256 + b"</a>" * 256 + b"</domain>", "deeper than 256"),
        (b"<domain>" + b"<a>" * 1_000_000, "deeper than 256"),
        (b"<domain>" + b" " * (4 << 20) + b"</domain>", "longer than"),
    ],
)
def test_hostile_input(data: bytes, words: str) -> None:
    begun = time.process_time()
    with pytest.raises(IncomingError) as refused:
        _incoming.parse(data)
    assert words in str(refused.value)
    assert time.process_time() - begun < 2


def test_as_deep_as_libvirt_takes_it() -> None:
    assert _incoming.parse(b"<domain>" + b"<a>" * 255 + b"</a>" * 255 + b"</domain>").tag == "domain"


@settings(deadline=None)
@given(st.binary())
def test_anything_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(IncomingError):
        _incoming.parse(data)


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_any_value_is_looked_at(port: str, size: str, path: str) -> None:
    """What an operator, or a guest's owner, may write into a definition hinders no judgement."""
    from xml.sax.saxutils import quoteattr

    try:
        found = _incoming.parse(
            f"<domain><memory unit={quoteattr(path)}>{size.replace('<', '').replace('&', '')}</memory><memoryBacking>"
            f"<hugepages><page size={quoteattr(size)} unit={quoteattr(port)}/></hugepages></memoryBacking><devices>"
            f"<graphics port={quoteattr(port)} listen={quoteattr(path)}/><disk type={quoteattr(size)}>"
            f"<source file={quoteattr('/nonexistent/' + path)}/></disk></devices></domain>".encode()
        )
    except (IncomingError, UnicodeEncodeError):
        return
    _incoming.needs(_anywhere(), found, WORKS)


def _anywhere() -> t.Any:
    class Anywhere(TreeHost):
        def __init__(self) -> None:
            self.root = "/nonexistent"

        def text(self, path: str) -> str:
            return "Hugepagesize: 2048 kB\n"

    return Anywhere()
