# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the IOMMU."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_iommu
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

PCI = "/sys/bus/pci/devices"
GROUPS = "/sys/kernel/iommu_groups"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def device(host: TreeHost, address: str, *, driver: str = "", group: str = "", kind: str = "0x020000") -> None:
    """As Documentation/ABI/testing/sysfs-bus-pci and sysfs-kernel-iommu_groups have it."""
    host.put(f"{PCI}/{address}/class", f"{kind}\n")
    if driver:
        host.link(f"{PCI}/{address}/driver", f"../../../../bus/pci/drivers/{driver}")
    if group:
        host.link(f"{PCI}/{address}/iommu_group", f"../../../../kernel/iommu_groups/{group}")
        host.put(f"{GROUPS}/{group}/type", "DMA-FQ\n")
        host.link(f"{GROUPS}/{group}/devices/{address}", f"../../../../devices/{address}")


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_iommu.facts(Context(host))


def test_no_iommu_whatever_the_command_line_asks_for(host: TreeHost) -> None:
    host.put("/proc/cmdline", "amd_iommu=on iommu=pt\n")
    assert facts(host) == {
        "units": [],
        "groups": 0,
        "types": [],
        "assigned": [],
        "assigned_total": 0,
        "noiommu": [],
        "unread": [],
    }


def test_a_device_of_a_guest(host: TreeHost) -> None:
    host.directory("/sys/class/iommu/dmar0")
    device(host, "0000:01:00.0", driver="vfio-pci", group="12")
    device(host, "0000:01:00.1", driver="nvme", group="12", kind="0x010802")
    device(host, "0000:02:00.0", driver="ixgbe", group="13")
    found = facts(host)
    assert found["units"] == ["dmar0"]
    assert (found["groups"], found["types"]) == (2, [{"name": "DMA-FQ", "groups": 2}])
    assert found["assigned"] == [
        {
            "name": "0000:01:00.0",
            "driver": "vfio-pci",
            "class": "0x020000",
            "group": "12",
            "type": "DMA-FQ",
            "mates": [{"name": "0000:01:00.1", "driver": "nvme", "class": "0x010802"}],
        }
    ]


def test_a_device_without_an_iommu(host: TreeHost) -> None:
    device(host, "0000:01:00.0", driver="mlx5_vfio_pci")
    host.put("/dev/vfio/noiommu-0")
    found = facts(host)
    assert (found["assigned"][0]["group"], found["noiommu"]) == (None, ["noiommu-0"])
