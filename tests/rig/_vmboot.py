# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor of a virtual machine: the process in whose mount and network namespaces QEMU runs."""

from __future__ import annotations

import pathlib
from typing import Any

from . import _net, _qemu, _vmimage, _vmrecipe
from ._base import run, spawn

#: Beside the host's disk: the words that a boot adds to the kernel's command line.
WORDS = "cmdline"
_MEMORY_MIB = 2048
# An IOMMU, off until intel_iommu=on, and a device of two functions in one group, to be passed through.
_DEVICES = (
    "-device intel-iommu,intremap=on -device virtio-rng-pci,addr=5.0,multifunction=on -device virtio-rng-pci,addr=5.1"
)


def boot(directory: pathlib.Path, config: dict[str, Any]) -> int:
    """Give the host a disk and boot it, again whenever it goes down by itself; return QEMU's status when it failed."""
    image = pathlib.Path(config["disk"])
    enter = _qemu.enter(pathlib.Path(config["image"]), directory / "root", {"image": image, "host": directory})
    backing = ["-b", f"/mnt/image/{_vmimage.DISK}", "-F", "raw"]
    run([*enter, "qemu-img", "create", "-q", "-f", "qcow2", *backing, "/mnt/host/disk.qcow2"])
    personal = _vmrecipe.personal(_personal(config))
    (directory / _vmimage.INITRD).write_bytes((image / _vmimage.INITRD).read_bytes() + personal)
    own = image / _vmimage.WORDS
    tap, mac = _net.open_tap()
    network = ["-netdev", f"tap,id=host0,fd={tap}", "-device", f"virtio-net-pci,netdev=host0,mac={mac}"]
    while True:
        machine = _qemu.argv(
            kernel=f"/mnt/image/{_vmimage.KERNEL}",
            initrd=f"/mnt/host/{_vmimage.INITRD}",
            disk="/mnt/host/disk.qcow2",
            disk_format="qcow2",
            memory_mib=_MEMORY_MIB,
            words=[word for path in (own, directory / WORDS) if path.exists() for word in path.read_text().split()],
        )
        # It dies with its supervisor.
        qemu = spawn([*enter, *machine, *network, *_DEVICES.split()], dies_with_parent=True, pass_fds=(tap,))
        if qemu.wait() != 0:
            return qemu.returncode


def _personal(config: dict[str, Any]) -> dict[str, tuple[int, str]]:
    network = f"[Match]\nName=host0\n\n[Network]\nAddress={config['address']}/24\nIPv6AcceptRA=no\n"
    return {
        "etc/hostname": (0o644, config["name"] + "\n"),
        "etc/hosts": (0o644, config["hosts"]),
        "etc/machine-id": (0o444, config["machine_id"] + "\n"),
        "etc/systemd/network/10-host0.network": (0o644, network),
        "root/.ssh/authorized_keys": (0o600, config["public_key"]),
    }
