# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guest definitions, as libvirt 9.0 and 11.3 write them and as an enemy would."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _domainxml
from ansible_collections.hypervisor.hardening.plugins.module_utils._domainxml import DomainXmlError, Interface
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, MissingLibrary

# The head is libvirt's own (virXMLSaveFile, src/util/virxml.c).
DEFINITION = b"""<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit web
or other application using the libvirt API.
-->

<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <uuid>3E3FCE45-4F53-4FA7-BB32-11F34168B82B</uuid>
  <devices>
    <interface type='ethernet'>
      <mac address='52:54:00:00:00:01'/>
      <target dev='web0' managed='no'/>
      <model type='virtio'/>
      <driver name='vhost' queues='4'/>
    </interface>
    <interface type='bridge'>
      <source bridge='br0'/>
      <target dev='web1'/>
      <model type='e1000'/>
      <driver queues='4'/>
    </interface>
    <interface type='network'>
      <source network='default'/>
    </interface>
  </devices>
</domain>
"""
STATUS = (
    b"<!-- WARNING -->\n<domstatus state='running' reason='booted' pid='4711'>\n <monitor path='/x'/>\n"
    b"<domain type='kvm' id='1'><name>web</name><uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid></domain>\n"
    b"</domstatus>\n"
)
ENTITIES = (
    b"<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10 if n else b"&a;" * 10) for n in range(12))
    + b"]><domain><name>&a11;</name></domain>"
)


def test_interfaces() -> None:
    assert _domainxml.interfaces(_domainxml.parse(DEFINITION)) == (
        Interface("ethernet", "web0", False, 4, "virtio", "52:54:00:00:00:01", "", ""),
        Interface("bridge", "web1", True, 1, "e1000", "", "br0", ""),
        Interface("network", "", True, 1, "", "", "", "default"),
    )


@pytest.mark.parametrize("queues", ["", "0", "-1", "4x", "9" * 5000, "٣"])
def test_queues_that_are_no_number_count_as_one(queues: str) -> None:
    interface = f"<interface><model type='virtio'/><driver queues='{queues}'/></interface>"
    domain = _domainxml.parse(f"<domain><name>x</name><devices>{interface}</devices></domain>".encode())
    assert _domainxml.interfaces(domain)[0].queues == 1


def test_status_file() -> None:
    domain = _domainxml.parse(STATUS)
    assert (domain.tag, _domainxml.name_of(domain)) == ("domain", "web")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not well-formed"),
        (b"<domain><name>x</name>", "not well-formed"),
        (b"\x00\x01\x02", "not well-formed"),
        (b"<domain><name>\xff</name></domain>", "not well-formed"),
        (b"<domain/>", "no <name>"),
        (b"<domain><name> </name></domain>", "no <name>"),
        (b"<network><name>default</name></network>", "root element is <network>"),
        (b"<domstatus/>", "root element is <domstatus>"),
        (ENTITIES, "<!DOCTYPE"),
        (b'<!DOCTYPE domain SYSTEM "file:///etc/shadow"><domain><name>x</name></domain>', "<!DOCTYPE"),
        (ENTITIES.decode().encode("utf-16"), "not well-formed"),
        (b'<?xml version="1.0" encoding="utf-16be"?>' + ENTITIES.decode().encode("utf-16-be"), "not well-formed"),
        (b"<?xml version='1.0' encoding='UTF-7'?>+ADwAIQ-DOCTYPE domain+AD4APA-domain/+AD4-", "not well-formed"),
        (b"<a>" * 100_000 + b"</a>" * 100_000, "not well-formed"),
        (b"<domain><name>" + b"x" * 5_000_000 + b"</name></domain>", "4 MiB"),
        (b"<domain>" + b"<a/>" * 1_000_000 + b"</domain>", "no <name>"),
        (b"<domain " + b"".join(b"a%d='' " % n for n in range(200_000)) + b"/>", ""),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_refused(data: bytes, said: str) -> None:
    begun = time.process_time()
    with pytest.raises(DomainXmlError) as refusal:
        _domainxml.parse(data)
    assert said in str(refusal.value)
    assert time.process_time() - begun < 5


def test_memory_is_bounded() -> None:
    """The densest tree that fits into the limit, in a process that may take 512 MiB in all."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20));"
        "from ansible_collections.hypervisor.hardening.plugins.module_utils._domainxml import parse, SIZE_LIMIT;"
        "head, tail = b'<domain><name>x</name>', b'</domain>';"
        "parse(head + b'<a/>' * ((SIZE_LIMIT - len(head + tail)) // 4) + tail)"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_directories(tmp_path: Path) -> None:
    definitions = tmp_path / "etc/libvirt/qemu"
    status = tmp_path / "run/libvirt/qemu"
    (definitions / "networks").mkdir(parents=True)
    status.mkdir(parents=True)
    (definitions / "web.xml").write_bytes(DEFINITION)
    (definitions / "web.xml.new").write_bytes(b"half")
    (definitions / "bad.xml").write_bytes(b"<domain>")
    (definitions / "huge.xml").write_bytes(b" " * (_domainxml.SIZE_LIMIT + 1))
    (definitions / "loop.xml").symlink_to("loop.xml")
    (definitions / "gone.xml").symlink_to("nowhere")
    (definitions / "dir.xml").mkdir()
    (status / "web.xml").write_bytes(STATUS)
    (status / "web.pid").write_text("4711")
    host = Host(str(tmp_path))

    found = _domainxml.definitions(host)
    assert [(guest.name, guest.uuid, guest.pid) for guest in found.guests] == [
        ("web", "3e3fce45-4f53-4fa7-bb32-11f34168b82b", None)
    ]
    assert [(bad.name, bad.reason.split(":")[0]) for bad in found.unreadable] == [
        ("bad", "is not well-formed XML"),
        ("dir", "Is a directory"),
        ("huge", "is longer than 4194304 bytes"),
        ("loop", "Too many levels of symbolic links"),
    ]
    assert [(guest.name, guest.pid) for guest in _domainxml.running(host).guests] == [("web", 4711)]


def test_no_libvirt(tmp_path: Path) -> None:
    assert _domainxml.definitions(Host(str(tmp_path))) == _domainxml.Guests((), ())


def test_without_lxml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    with pytest.raises(MissingLibrary) as missing:
        _domainxml.parse(DEFINITION)
    assert (missing.value.library, missing.value.package) == ("lxml", "python3-lxml")
