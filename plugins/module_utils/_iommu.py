# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IOMMU, and the devices that user space holds through VFIO, as sysfs shows them.

The command line says only what was asked of the kernel, not what the firmware let it have.
"""

from __future__ import annotations

import collections
import typing as t

from ._reader import Reader

_GROUPS = "/sys/kernel/iommu_groups"
_DEVICES = "/sys/bus/pci/devices"
_LIMIT = 256


def read(reader: Reader) -> dict[str, t.Any]:
    """What hypervisor_info documents as its section ``iommu``, but for what could not be read."""
    groups = reader.list(_GROUPS)
    types = collections.Counter(reader.text(f"{_GROUPS}/{group}/type") or "unknown" for group in groups)
    held = [name for name in reader.list(_DEVICES) if "vfio" in _driver(reader, name)]
    return {
        "units": reader.list("/sys/class/iommu"),
        "groups": len(groups),
        "types": [{"name": name, "groups": count} for name, count in sorted(types.items())],
        "assigned": [_device(reader, name) for name in held[:_LIMIT]],
        "assigned_total": len(held),
        "noiommu": [name for name in reader.list("/dev/vfio") if name.startswith("noiommu-")],
    }


def _device(reader: Reader, name: str) -> dict[str, t.Any]:
    group = _link(reader, f"{_DEVICES}/{name}/iommu_group")
    mates = [mate for mate in reader.list(f"{_GROUPS}/{group}/devices") if mate != name] if group else []
    return {
        "name": name,
        "driver": _driver(reader, name),
        "class": reader.text(f"{_DEVICES}/{name}/class"),
        "group": group or None,
        "type": reader.text(f"{_GROUPS}/{group}/type") if group else None,
        "mates": [
            {
                "name": mate,
                "driver": _driver(reader, mate),
                "class": reader.text(f"{_DEVICES}/{mate}/class"),
            }
            for mate in mates
        ],
    }


def _driver(reader: Reader, name: str) -> str:
    """The driver that a PCI device is bound to; vfio-pci and its variants have vfio in their names."""
    return _link(reader, f"{_DEVICES}/{name}/driver")


def _link(reader: Reader, path: str) -> str:
    """The last part of what a symbolic link of sysfs points to, "" where there is none."""
    try:
        return reader.host.readlink(path).rpartition("/")[2]
    except OSError:
        return ""
