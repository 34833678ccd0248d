# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Huge pages as the audit wants them; what the kernel does is shown by tests/integration."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_hugepages
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins import kernel
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches


@pytest.fixture
def host(tmp_path: Path) -> kernel.PlayedHost:
    host = kernel.PlayedHost(tmp_path)
    host.put("/proc/net/unix", "")
    return host


def facts(host: kernel.PlayedHost) -> dict[str, t.Any]:
    found = _info_hugepages.facts(Context(host))
    assert mismatches("hugepages", found) == []
    return found


def test_pools_and_nodes(host: kernel.PlayedHost) -> None:
    host.pool("2048kB", 100, free=40, reserved=10, nodes=[60, 40])
    host.pool("1048576kB", 0)
    small, large = facts(host)["pools"]
    assert small == {
        "name": "2M",
        "kib": 2048,
        "pages": 100,
        "free": 40,
        "reserved": 10,
        "surplus": 0,
        "in_use": 70,
        "nodes": [{"node": 0, "pages": 60, "free": 40}, {"node": 1, "pages": 40, "free": 40}],
    }
    assert (large["name"], large["pages"], large["nodes"]) == ("1G", 0, [])


def test_a_mount_with_its_owner_and_mode(host: kernel.PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "dev/hugepages/libvirt/qemu/1-web").mkdir(parents=True)
    (tmp_path / "dev/hugepages/libvirt/qemu/1-web").chmod(0o700)
    (tmp_path / "dev/hugepages/libvirt/qemu/2-api").mkdir(mode=0o755)
    (tmp_path / "dev/hugepages").chmod(0o1777)
    found = facts(host)
    assert found["mounts"] == [
        {
            "name": "/dev/hugepages",
            "size": "2M",
            "uid": 0,
            "gid": 0,
            "mode": "1777",
            "world_writable": True,
            "propagation": "shared",
            "base": True,
        }
    ]
    assert found["paths"] == [{"name": "/dev/hugepages", "exists": True, "hugetlbfs": True, "base": True}]
    assert [(entry["name"], entry["private"]) for entry in found["guest_directories"]] == [
        ("/dev/hugepages/libvirt/qemu/1-web", True),
        ("/dev/hugepages/libvirt/qemu/2-api", False),
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('"/dev/hugepages"', ["/dev/hugepages"]),
        ('[ "/dev/hugepages", "/srv/pages" ]', ["/dev/hugepages", "/srv/pages"]),
        ("[]", []),
    ],
)
def test_paths_of_the_configuration(host: kernel.PlayedHost, tmp_path: Path, value: str, told: list[str]) -> None:
    (tmp_path / "srv/pages").mkdir(parents=True)
    host.put("/etc/libvirt/qemu.conf", f"hugetlbfs_mount = {value}\n")
    found = facts(host)
    assert found["configured"] == {"hugetlbfs_mount": told}
    assert {entry["name"]: entry["hugetlbfs"] for entry in found["paths"]} == {
        path: path == "/dev/hugepages" for path in told
    }


def test_a_path_that_is_not_there(host: kernel.PlayedHost) -> None:
    host.put("/etc/libvirt/qemu.conf", 'hugetlbfs_mount = [ "/no/such", "relative" ]\n')
    assert facts(host)["paths"] == [
        {"name": "/no/such", "exists": False, "hugetlbfs": False, "base": False},
        {"name": "relative", "exists": False, "hugetlbfs": False, "base": False},
    ]


def test_no_hugetlbfs_at_all(host: kernel.PlayedHost) -> None:
    host.put("/proc/1/mountinfo", "".join(kernel.SHARED.splitlines(keepends=True)[:-1]))
    found = facts(host)
    assert found["mounts"] == found["paths"] == found["guest_directories"] == []
    assert found["configured"] == {"hugetlbfs_mount": None}


def test_guests_with_huge_pages(host: kernel.PlayedHost) -> None:
    for name, pid, pages in (("web", 7, "131072 kB"), ("api", 8, "0 kB")):
        host.guest(name, pid, None)
        host.put(f"/proc/{pid}/status", f"Name:\tqemu\nHugetlbPages:\t  {pages}\n")
    assert facts(host)["guests"] == [{"name": "web", "pid": 7, "kib": 131072}]
