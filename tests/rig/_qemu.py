# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU out of an image, for none is installed on the machine itself; in a mount namespace of its own."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

from ._base import run

_ARGV = (
    "qemu-system-x86_64 -nodefaults -no-user-config -display none -serial stdio -no-reboot"
    # A Linux guest hangs on the KVM of some virtual machines, so it is emulated everywhere.
    " -machine q35,sata=off,smbus=off -accel tcg,thread=multi -cpu max -smp 2"
)


def enter(image: pathlib.Path, place: pathlib.Path, directories: Mapping[str, pathlib.Path]) -> list[str]:
    """Make an image's root file system, read-only, ready to run QEMU in; return what to put before its commands.

    :param place: an empty directory to mount it on.
    :param directories: those that are /mnt/NAME in there.
    :raises RigError: a mount failed.
    """
    run(["mount", "--bind", image / "root", place])
    run(["mount", "-o", "remount,bind,ro", place])
    run(["mount", "--rbind", "/dev", place / "dev"])
    run(["mount", "-t", "tmpfs", "tmpfs", place / "mnt"])
    for name, directory in directories.items():
        (place / "mnt" / name).mkdir()
        run(["mount", "--bind", directory, place / "mnt" / name])
    return ["chroot", os.fspath(place)]


def argv(
    *, kernel: str, initrd: str, disk: str, disk_format: str, memory_mib: int, words: Sequence[str] = ()
) -> list[str]:
    """A machine that boots a kernel of a file with /dev/vda as its disk, and ends instead of booting again.

    :param disk: its content may be lost with the machine on which QEMU runs.
    :param words: more of the kernel's command line.
    """
    drive = f"if=none,id=vda,file={disk},format={disk_format},cache=unsafe,discard=unmap"
    # Emulated timers are as uneven as QEMU's share of the processor: Linux would panic, or take a far slower clock.
    line = ["console=ttyS0", "root=/dev/vda", "rw", "tsc=reliable", "no_timer_check", *words]
    return [
        *_ARGV.split(),
        *("-m", str(memory_mib), "-kernel", kernel, "-initrd", initrd),
        *("-append", " ".join(line)),
        *("-drive", drive, "-device", "virtio-blk-pci,drive=vda"),
    ]
