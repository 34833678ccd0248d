# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's memory: what guests may come to have, the limit of their cgroup, and where swap is."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_memory
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import COMMAND, QemuHost

SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


class SwapHost(QemuHost):
    """Block devices are played: path -> number."""

    def __init__(self, root: Path) -> None:
        self.numbers: dict[str, tuple[int, int]] = {}
        super().__init__(root)

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        if path in self.numbers:
            device = os.makedev(*self.numbers[path])
            return os.stat_result((0o60660, 0, device, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": device})
        return super().stat(path, follow=follow)


@pytest.fixture
def host(tmp_path: Path) -> SwapHost:
    host = SwapHost(tmp_path)
    host.put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    return host


def facts(host: SwapHost) -> dict[str, t.Any]:
    found = _info_memory.facts(Context(host))
    assert mismatches("memory", found) == []
    return found


def swap(
    host: SwapHost, path: str, number: tuple[int, int], kind: str = "partition", **files: str
) -> tuple[str, t.Any]:
    """What is told of one swap area, whose device has these files in sysfs."""
    host.put("/proc/swaps", f"{SWAPS}{path} {kind}\t\t1048572\t\t0\t\t-2\n")
    host.numbers[path] = number
    base = f"/sys/dev/block/{number[0]}:{number[1]}"
    host.put(f"{base}/uevent", f"MAJOR={number[0]}\nDEVNAME={path[5:]}\n")
    for name, text in files.items():
        host.put(f"{base}/{name.replace('__', '/')}", text)
    (found,) = facts(host)["swap"]
    assert found["kib"] == 1048572
    return found["kind"], found["protected"]


def test_a_host_without_swap_and_guests(host: SwapHost) -> None:
    assert facts(host) == {
        "total_kib": 16777216,
        "guests_kib": 0,
        "machine_slice": {"exists": False, "max_bytes": None, "high_bytes": None},
        "swap": [],
    }


@pytest.mark.parametrize(
    ("option", "kib"),
    [
        ("size=65536k", 65536),
        ("size=1048576k,slots=16,maxmem=4194304k", 4194304),
        ("512", 512 << 10),
        ("2G", 2 << 20),
        ("size=64M", 64 << 10),
        ("nonsense", 0),
    ],
)
def test_what_a_guest_may_come_to_have(host: SwapHost, option: str, kib: int) -> None:
    argv = COMMAND.format(name="web", id=1, uuid="u").split(" ")
    host.guest("web", 7, argv=[*argv, "-m", option])
    assert facts(host)["guests_kib"] == kib


@pytest.mark.parametrize(("text", "limit"), [("max\n", None), ("8589934592\n", 8589934592)])
def test_the_limit_of_all_guests(host: SwapHost, text: str, limit: int | None) -> None:
    host.put("/sys/fs/cgroup/machine.slice/memory.max", text)
    host.put("/sys/fs/cgroup/machine.slice/memory.high", "max\n")
    assert facts(host)["machine_slice"] == {"exists": True, "max_bytes": limit, "high_bytes": None}


def test_plain_swap(host: SwapHost) -> None:
    assert swap(host, "/dev/sda2", (8, 2)) == ("partition", False)


def test_swap_in_memory(host: SwapHost) -> None:
    assert swap(host, "/dev/zram0", (251, 0)) == ("zram", True)


def test_encrypted_swap(host: SwapHost) -> None:
    assert swap(host, "/dev/dm-1", (254, 1), dm__uuid="CRYPT-PLAIN-swap") == ("dm-crypt", True)


def test_a_volume_on_an_encrypted_disk(host: SwapHost) -> None:
    host.put("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-1234-disk")
    assert swap(host, "/dev/dm-2", (254, 2), dm__uuid="LVM-abc", slaves__dm_0="") == ("partition", False)


def test_a_volume_of_encrypted_disks_alone(host: SwapHost) -> None:
    for number in (0, 1):
        host.put(f"/sys/class/block/dm{number}/dm/uuid", "CRYPT-LUKS2-1234-disk")
    files = {"dm__uuid": "LVM-abc", "slaves__dm0": "", "slaves__dm1": ""}
    assert swap(host, "/dev/dm-2", (254, 2), **files) == ("dm-crypt", True)
    host.put("/sys/class/block/dm1/dm/uuid", "mpath-abc")
    assert swap(host, "/dev/dm-2", (254, 2), **files) == ("partition", False)


def test_a_swap_file_lies_on_the_device_of_its_file_system(host: SwapHost) -> None:
    assert swap(host, "/swap\\040file", (8, 1), kind="file") == ("file", None)
    host.numbers["/swap file"] = (8, 1)
    assert swap(host, "/swap\\040file", (8, 1), kind="file") == ("file", False)


def test_a_device_that_is_nowhere_in_sysfs(host: SwapHost) -> None:
    host.put("/proc/swaps", f"{SWAPS}/dev/sdz partition 10 0 -2\n")
    assert facts(host)["swap"] == [{"name": "/dev/sdz", "kind": "partition", "kib": 10, "protected": None}]
