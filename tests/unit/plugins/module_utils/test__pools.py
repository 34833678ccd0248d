# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools as libvirt keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _pools
from ansible_collections.hypervisor.hardening.plugins.module_utils._pools import Pool
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

# As virsh pool-define-as and pool-start of libvirt 11.3 leave them.
POOL = """\
<!--
WARNING: THIS IS AN AUTO-GENERATED FILE.
-->
<pool type='{type}'>
  <name>{name}</name>
  <uuid>3d5b1f6e-1f0c-4b52-9b43-7b3f2b0b8f11</uuid>
  <source>
  </source>
  <target>
    <path>{path}</path>
  </target>
</pool>
"""


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def pools(host: TreeHost) -> list[Pool]:
    return _pools.read(Reader(host))


def test_pools(host: TreeHost) -> None:
    host.put("/etc/libvirt/storage/a.xml", POOL.format(type="dir", name="a", path="/srv/a/"))
    host.put("/etc/libvirt/storage/vg.xml", POOL.format(type="logical", name="vg", path="/dev/vg"))
    host.link("/etc/libvirt/storage/autostart/a.xml", "/etc/libvirt/storage/a.xml")
    state = "<poolstate>" + POOL.format(type="netfs", name="t", path="/srv/t") + "</poolstate>"
    host.put("/run/libvirt/storage/t.xml", state)
    assert pools(host) == [
        Pool("a", "dir", "/srv/a", active=False, autostart=True),
        Pool("t", "netfs", "/srv/t", active=True, autostart=False),
        Pool("vg", "logical", "/dev/vg", active=False, autostart=False),
    ]
    assert [pool.is_directory for pool in pools(host)] == [True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "<pool",
        "",
        "<!DOCTYPE pool [<!ENTITY a 'b'>]><pool><name>&a;</name></pool>",
        "<pool>" + "<a>" * 300_000,
        "<pool>" + " " * 1_100_000 + "</pool>",
    ],
)
def test_hostile_files_are_noted(host: TreeHost, text: str) -> None:
    host.put("/etc/libvirt/storage/a.xml", text)
    reader = Reader(host)
    assert _pools.read(reader) == []
    assert [entry["path"] for entry in reader.unread] == ["/etc/libvirt/storage/a.xml"]


def test_deep_ones_end(host: TreeHost) -> None:
    host.put("/etc/libvirt/storage/a.xml", "<pool><name>a</name>" + "<a>" * 100_000 + "</a>" * 100_000 + "</pool>")
    assert [pool.name for pool in pools(host)] == ["a"]
