# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts as the audit wants them; what the kernel does is shown by tests/integration."""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_mounts
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins import kernel
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import QemuHost

IMAGES = "1500 1459 8:3 / /var/lib/libvirt/images rw,nosuid,nodev,relatime shared:9 - xfs /dev/sda3 rw\n"


@pytest.fixture
def host(tmp_path: Path) -> kernel.PlayedHost:
    host = kernel.PlayedHost(tmp_path)
    host.link("/proc/1/ns/user", "user:[4026531837]")
    host.link("/proc/1/exe", "/usr/lib/systemd/systemd")
    host.put("/proc/mounts", "")
    return host


def facts(host: kernel.PlayedHost | QemuHost) -> dict[str, t.Any]:
    found = _info_mounts.facts(Context(host))
    assert mismatches("mounts", found) == []
    return found


def test_a_shared_root(host: kernel.PlayedHost) -> None:
    found = facts(host)
    assert found["root"] == {"propagation": "shared", "shared": True}
    assert found["shared_after_boot"] is True
    assert (found["private"], found["pinned"], found["guests"], found["unread"]) == ([], [], [], [])


def test_a_private_root(host: kernel.PlayedHost) -> None:
    host.put("/proc/1/mountinfo", kernel.PRIVATE)
    found = facts(host)
    assert found["root"] == {"propagation": "private", "shared": False}
    assert {"name": "/", "propagation": "private"} in found["private"]
    assert found["shared_after_boot"] is True, "systemd makes it so"


def test_a_slave_is_shared_too_if_it_says_so(host: kernel.PlayedHost) -> None:
    host.put("/proc/1/mountinfo", kernel.SHARED.replace(" shared:40 ", " shared:40 master:3 "))
    assert facts(host)["root"] == {"propagation": "shared,slave", "shared": True}
    host.put("/proc/1/mountinfo", kernel.SHARED.replace(" shared:40 ", " master:3 "))
    assert facts(host)["root"] == {"propagation": "slave", "shared": False}


def test_another_init_of_which_nobody_knows_what_it_does(host: kernel.PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").rmdir()
    host.put("/proc/1/comm", "init\n")
    assert facts(host)["shared_after_boot"] is None


def test_fstab_that_makes_the_root_private(host: kernel.PlayedHost) -> None:
    host.put("/etc/fstab", "/dev/sda1 / ext4 defaults,private 0 1\n")
    assert facts(host)["shared_after_boot"] is False


def test_mounts_that_are_private_on_purpose(host: kernel.PlayedHost) -> None:
    pinned = "1600 1465 0:200 / /run/snapd/ns rw,relatime - tmpfs tmpfs rw\n"
    host.put("/proc/1/mountinfo", kernel.SHARED + pinned)
    found = facts(host)
    assert [(entry["name"], entry["propagation"]) for entry in found["pinned"]] == [("/run/snapd/ns", "private")]
    assert found["private"] == []


def test_guests_that_mounts_reach_or_not(host: kernel.PlayedHost) -> None:
    host.put("/proc/1/mountinfo", kernel.SHARED.replace("/dev/hugepages", "/hugepages2m"))
    host.guest("late", 7, kernel.SLAVE.replace("/dev/hugepages", "/hugepages2m"))
    host.guest("early", 8, kernel.PRIVATE.replace("/dev/hugepages", "/elsewhere"))
    host.guest("outside", 9, None)  # in the host's own namespace
    assert facts(host)["guests"] == [
        {"name": "early", "reached": False, "hugetlbfs_missing": ["/hugepages2m"]},
        {"name": "late", "reached": True, "hugetlbfs_missing": []},
    ]


def test_what_lies_below_dev_is_brought_in_by_libvirt(host: kernel.PlayedHost) -> None:
    host.guest("late", 7, kernel.SLAVE.replace("/dev/hugepages", "/elsewhere"))
    host.guest("early", 8, kernel.PRIVATE.replace("/dev/hugepages", "/elsewhere"))
    missing = {guest["name"]: guest["hugetlbfs_missing"] for guest in facts(host)["guests"]}
    assert missing == {"late": [], "early": ["/dev/hugepages"]}


def test_directories_of_guests_files(host: kernel.PlayedHost, tmp_path: Path) -> None:
    host.put("/proc/1/mountinfo", kernel.SHARED + IMAGES)
    host.put("/etc/libvirt/qemu.conf", 'memory_backing_dir = "/dev/shm"\n')
    for directory, mode in (("var/lib/libvirt/images", 0o711), ("dev/shm", 0o1777)):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory).chmod(mode)
    found = {entry["purpose"]: entry for entry in facts(host)["directories"]}
    assert found["images"] == {
        "name": "/var/lib/libvirt/images",
        "purpose": "images",
        "exists": True,
        "uid": 0,
        "gid": 0,
        "mode": "0711",
        "world_writable": False,
        "mount": "/var/lib/libvirt/images",
        "fstype": "xfs",
        "nodev": True,
        "nosuid": True,
    }
    assert (found["state"]["mount"], found["state"]["nodev"]) == ("/", False)
    backing = found["memory_backing"]
    assert (backing["name"], backing["world_writable"], backing["mount"]) == ("/dev/shm", True, "/dev")


def test_the_default_of_memory_backing(host: kernel.PlayedHost) -> None:
    (backing,) = [entry for entry in facts(host)["directories"] if entry["purpose"] == "memory_backing"]
    assert (backing["name"], backing["exists"], backing["mode"]) == ("/var/lib/libvirt/qemu/ram", False, "")


def test_leftovers_of_starts(tmp_path: Path) -> None:
    host = QemuHost(tmp_path)
    host.put("/proc/1/comm", "init\n")
    host.put("/run/libvirt/qemu/web.dev", "")
    old = time.time() - 3600
    os.utime(host.path("/run/libvirt/qemu/web.dev"), (old, old))
    assert facts(host)["leftovers"] == ["/run/libvirt/qemu/web.dev"]
