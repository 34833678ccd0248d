# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of images the host's kernel looks into."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _imageuse, _mountinfo
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put("/srv/images/a.img")
    return host


def loop(host: TreeHost, number: int, path: str) -> None:
    """As Documentation/ABI/testing/sysfs-block-loop has it."""
    host.put(f"/sys/block/loop{number}/loop/backing_file", f"{path}\n")
    for directory in (f"/sys/block/loop{number}", f"/sys/dev/block/7:{number}"):  # one directory, by a link
        host.put(f"{directory}/dev", f"7:{number}\n")


def mounts(*devices: str) -> tuple[_mountinfo.Mount, ...]:
    return _mountinfo.parse("".join(f"30 1 {device} / /mnt rw shared:1 - ext4 /dev/x rw\n" for device in devices))


def uses(
    host: TreeHost, sources: dict[str, list[str]], pools: t.Sequence[str] = (), *devices: str
) -> list[dict[str, t.Any]]:
    return _imageuse.find(Reader(host), sources, pools, mounts(*devices))


def test_a_loop_device_on_a_guests_disk(host: TreeHost) -> None:
    loop(host, 0, "/srv/images/a.img")
    sources = {"/srv/images/a.img": ["a", "b"]}
    assert uses(host, sources) == [
        {"name": "/srv/images/a.img", "how": "loop", "by": "/dev/loop0", "guests": ["a", "b"]}
    ]
    (found,) = uses(host, sources, [], "7:0")
    assert found["how"] == "mounted"


def test_a_mounted_partition_of_one(host: TreeHost) -> None:
    loop(host, 0, "/srv/images/a.img")
    host.put("/sys/dev/block/7:0/loop0p1/partition", "1\n")
    host.put("/sys/dev/block/7:0/loop0p1/dev", "259:3\n")
    (found,) = uses(host, {"/srv/images/a.img": ["a"]}, [], "259:3")
    assert found["how"] == "mounted"


def test_another_name_of_the_same_file(host: TreeHost) -> None:
    host.link("/srv/link.img", "images/a.img")
    loop(host, 0, "/srv/images/a.img")
    (found,) = uses(host, {"/srv/link.img": ["a"]})
    assert found["name"] == "/srv/link.img"


def test_what_lies_in_a_pool(host: TreeHost) -> None:
    loop(host, 0, "/srv/images/unused.qcow2 (deleted)")
    loop(host, 1, "/srv/images/install.ISO")
    loop(host, 2, "/var/lib/snapd/snaps/core.snap")
    assert [found["name"] for found in uses(host, {}, ["/srv/images"])] == ["/srv/images/unused.qcow2"]
    assert [found["name"] for found in _imageuse.loops(Reader(host))] == ["/dev/loop0", "/dev/loop1", "/dev/loop2"]


def test_loop_devices_that_are_free(host: TreeHost) -> None:
    host.put("/sys/block/loop0/dev", "7:0\n")
    assert _imageuse.loops(Reader(host)) == []


def test_a_network_block_device(host: TreeHost) -> None:
    host.put("/sys/block/nbd0/pid", "4711\n")
    host.put("/sys/block/nbd1/size", "0\n")
    host.put("/proc/4711/cmdline", "/usr/bin/qemu-nbd\0-c\0/dev/nbd0\0/srv/images/a.img\0")
    assert uses(host, {}) == [{"name": "/dev/nbd0", "how": "nbd", "by": "qemu-nbd", "guests": []}]
