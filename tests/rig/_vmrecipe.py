# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has that boots a kernel of its own: the disk of a virtual machine is a release's image and this."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

from . import _guestlinux, _recipe

#: The releases that there are virtual machines of.
RELEASES = ("trixie", "bookworm")

#: Beside a kernel, what only a host with a kernel of its own can show, and what the demonstration takes from a machine.
PACKAGES = (_guestlinux.PACKAGE, "auditd", "apparmor-utils", "debootstrap", "make", "python3-venv")

#: Of what the image switches off for the outer kernel's sake, what a kernel of one's own needs.
UNMASKED_UNITS = (
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)

#: Size of the disk, which is sparse.
DISK = "8G"

#: path -> content of the files that make it boot and reach its network.
FILES: Mapping[str, str] = {
    "etc/fstab": "/dev/vda / ext4 rw 0 0\n",
    # As in the other hosts. A TAP of a guest has no such driver.
    "etc/systemd/network/10-host0.link": "[Match]\nDriver=virtio_net\n\n[Link]\nName=host0\n",
}
ENABLED_UNITS = ("systemd-networkd.service",)

#: A word on the kernel's command line for the first boot, and what the RAM disk prints when that went well.
PREPARE, PREPARED = "rig.prepare", "rig: prepared"

# Mounts the disk, puts on it what makes a host this one if it never was one, and hands over to its init.
_INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /dev /disk
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod "$module"; done
mount -t ext4 /dev/vda /disk
if grep -qw {PREPARE} /proc/cmdline; then
  mount --bind /proc /disk/proc
  mount -t sysfs sysfs /disk/sys
  mount -t securityfs securityfs /disk/sys/kernel/security
  # What this compiles depends on the kernel; to emulate it takes half a minute, which each boot is thus spared.
  chroot /disk apparmor_parser --write-cache --skip-kernel-load /etc/apparmor.d && echo "{PREPARED}"
  umount /disk/sys/kernel/security /disk/sys /disk/proc /disk
  reboot -f
fi
[ -s /disk/etc/machine-id ] || (cd /host && find . -type f -exec cp -a {{}} /disk/{{}} \\;)
umount /proc
exec switch_root /disk /sbin/init
"""


def initrd(image: pathlib.Path, kernel_tree: pathlib.Path) -> bytes:
    """The RAM disk that brings the disk up.

    :param image: the root file system that has busybox.
    :param kernel_tree: a tree that has the modules of the kernel.
    """
    return _guestlinux.cpio(
        [
            ("bin", 0o040755, b""),
            ("bin/busybox", 0o100755, (image / "bin/busybox").read_bytes()),
            ("init", 0o100755, _INIT.encode()),
            ("modules", 0o040755, b""),
            *_guestlinux.modules(kernel_tree),
        ]
    )


def personal(files: Mapping[str, tuple[int, str]]) -> bytes:
    """What is put behind the RAM disk: the files of one host, mode and text by path, and their directories."""
    directories = {"host"} | {f"host/{parent}" for path in files for parent in pathlib.PurePath(path).parents}
    entries = [(str(pathlib.PurePath(path)), 0o040755, b"") for path in sorted(directories)]
    return _guestlinux.cpio(
        [*entries, *((f"host/{path}", 0o100000 | mode, text.encode()) for path, (mode, text) in files.items())]
    )


def digest(release: str) -> str:
    """Twelve hexadecimal digits that change with the recipe, and with that of the image below."""
    text = pathlib.Path(__file__).read_bytes() + _recipe.digest(release).encode()
    return hashlib.sha256(text).hexdigest()[:12]
