# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Linux that guests boot: the release's cloud kernel and an initial RAM disk of one static busybox."""

from __future__ import annotations

import lzma
import pathlib
from collections.abc import Iterator, Sequence

PACKAGE = "linux-image-cloud-amd64"
#: Where both files are on a host.
KERNEL = "usr/share/rig/vmlinuz"
INITRD = "usr/share/rig/initrd.img"

# In the order in which they need each other; what a kernel has built in is not among its files.
_MODULES = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")

# Words on the kernel's command line: rig.write writes to the first disk without end, rig.dirty=MIB to that much memory.
_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /ram
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=100% tmpfs /ram
for module in /modules/*; do insmod "$module"; done
write=false dirty=0
for word in $(cat /proc/cmdline); do
  case $word in
    rig.write) write=true ;;
    rig.dirty=*) dirty=${word#rig.dirty=} ;;
  esac
done
echo "rig: up, kernel $(uname -r)"
if $write; then
  block=0
  while :; do
    block=$((block + 1))
    printf '%016d' $block | dd of=/dev/vda bs=512 seek=$((block % 2048)) conv=notrunc,sync,fsync 2>/dev/null
    echo "rig: wrote $block"
    sleep 0.05
  done &
fi
if [ "$dirty" -gt 0 ]; then
  while :; do dd if=/dev/urandom of=/ram/dirty bs=1M count="$dirty" conv=notrunc 2>/dev/null; done &
fi
beat=0
while :; do
  for state in /sys/devices/system/memory/memory*/state; do
    [ "$(cat "$state")" = online ] || echo online >"$state"
  done
  echo "rig: beat $beat, $(grep MemTotal /proc/meminfo)"
  beat=$((beat + 1))
  sleep 1
done
"""


def install(root: pathlib.Path, kernel_package: pathlib.Path) -> None:
    """Put kernel and RAM disk into an image.

    :param kernel_package: the unpacked tree of a Debian kernel package.
    """
    kernel = next(kernel_package.glob("boot/vmlinuz-*"))
    (root / KERNEL).parent.mkdir(parents=True, exist_ok=True)
    (root / KERNEL).write_bytes(kernel.read_bytes())
    entries: list[tuple[str, int, bytes]] = [
        ("bin", 0o040755, b""),
        ("bin/busybox", 0o100755, (root / "bin/busybox").read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("modules", 0o040755, b""),
        *modules(kernel_package),
    ]
    (root / INITRD).write_bytes(cpio(entries))


def modules(tree: pathlib.Path) -> Iterator[tuple[str, int, bytes]]:
    """The modules of a kernel by which it reads its disk, each after those that it needs, as entries of ``cpio``.

    What the kernel has built in has no file.
    """
    for number, name in enumerate(_MODULES):
        for path in tree.rglob(f"{name}.ko*"):
            data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            yield f"modules/{number:02}-{name}.ko", 0o100644, data


def cpio(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """An archive in the format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).

    :param entries: name, st_mode and content of each file; a directory comes before what is in it.
    """
    archive = b""
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        # ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize check
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        archive += _padded(header) + _padded(data)
    return archive


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
