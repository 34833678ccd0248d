# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of virtual machines: an image of a release, with a kernel and what goes with it, booted once."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import IO, Any

from . import _chroot, _qemu, _recipe, _vmrecipe, _vmselinux
from ._base import RigError, remove_tree, run, run_long

#: The files of the image.
DISK, KERNEL, INITRD = "disk.raw", "vmlinuz", "initrd.img"
#: What each boot has on the kernel's command line, where there is such a file.
WORDS = "cmdline"


def make(
    release: str,
    base: pathlib.Path,
    parts: pathlib.Path,
    debs: pathlib.Path,
    log: IO[bytes],
    *,
    selinux: bool = False,
) -> dict[str, Any]:
    """Make it in ``parts``; return what image.json says of it.

    :param base: the image of the release.
    :param selinux: with SELinux in AppArmor's place.
    :raises RigError: a step failed.
    """
    packages = _vmselinux.PACKAGES if selinux else _vmrecipe.PACKAGES
    root, upper, work = (parts / name for name in ("root", "upper", "work"))
    for directory in (root, upper, work):
        directory.mkdir()
    options = f"lowerdir={base}/root,upperdir={upper},workdir={work},volatile"
    run(["mount", "-t", "overlay", "overlay", "-o", options, root])
    with _chroot.prepared(root, debs):
        # The RAM disk is the rig's own.
        apt = ["env", "INITRD=No", *_chroot.apt(root)]
        run_long([*apt, "update"], f"{release}: package lists", log)
        run_long([*apt, "install", *packages], f"{release}: kernel, audit, {'SELinux' if selinux else 'AppArmor'}", log)
        kernel = next((root / "boot").glob("vmlinuz-*"))
        shutil.copyfile(kernel, parts / KERNEL)
        (parts / INITRD).write_bytes(_vmrecipe.initrd(base / "root", root / "usr/lib/modules"))
        _finish(root)
    if selinux:
        (parts / WORDS).write_text(_vmselinux.WORDS, encoding="ascii")
        _vmselinux.label(root, f"{release}: labels", log)
    disk = parts / DISK
    run(["truncate", "--size", _vmrecipe.DISK, disk])
    run_long(["mkfs.ext4", "-q", "-F", "-d", root, disk], f"{release}: disk", log)
    run(["umount", root])
    if not selinux:
        _boot_once(release, base, parts, log)
    for directory in (root, upper, work):
        remove_tree(directory)
    return {"release": release, "base": base.name, "kernel": kernel.name, "packages": list(packages)}


def _finish(root: pathlib.Path) -> None:
    units = root / "etc/systemd/system"
    for unit in _vmrecipe.UNMASKED_UNITS:
        (units / unit).unlink()
    for unit in _vmrecipe.ENABLED_UNITS:
        (units / "multi-user.target.wants" / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    for path, text in _vmrecipe.FILES.items():
        (root / path).write_text(text, encoding="ascii")
    for stamp in _recipe.STAMPS:
        (root / stamp).touch()


def _boot_once(release: str, base: pathlib.Path, parts: pathlib.Path, log: IO[bytes]) -> None:
    place = parts / "root"
    enter = _qemu.enter(base, place, {"image": parts})
    machine = _qemu.argv(
        kernel=f"/mnt/image/{KERNEL}",
        initrd=f"/mnt/image/{INITRD}",
        disk=f"/mnt/image/{DISK}",
        disk_format="raw",
        memory_mib=1024,
        words=["quiet", _vmrecipe.PREPARE],
    )
    run_long([*enter, *machine], f"{release}: AppArmor's policy compiled for that kernel", log)
    run(["umount", "--recursive", place])
    if _vmrecipe.PREPARED not in pathlib.Path(os.fspath(log.name)).read_text(encoding="utf-8", errors="replace"):
        raise RigError(f"{release}: the virtual machine did not prepare its own disk; its console is above")
