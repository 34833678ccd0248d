# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine must have before anything starts."""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import subprocess
import sys

from . import _cgroups, _image
from ._base import RigError, cache_dir, existing_parent, run

#: command or file -> the Debian and Ubuntu package that has it.
_NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "losetup": "mount",
    "chattr": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}


def missing_packages() -> list[str]:
    """The packages to install."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted(
        {
            package
            for what, package in _NEEDED.items()
            if not (pathlib.Path(what).exists() if what.startswith("/") else shutil.which(what, path=path))
        }
    )


def missing() -> list[str]:
    """One line for each thing that is missing, with what to do; an empty list when all is there."""
    lines = []
    if sys.platform != "linux" or platform.machine() != "x86_64":
        here = f"{sys.platform} on {platform.machine()}"
        lines.append(f"machine: Linux on x86_64 is needed, this is {here}: use another machine")
    if os.geteuid() != 0:
        # Without it the rest cannot even be looked at.
        return [*lines, "user: root is needed for namespaces and mounts: run it with sudo"]
    packages = missing_packages()
    if packages:
        lines.append(f"packages: {' '.join(packages)} missing: run 'rig install' or apt-get install them")
    filesystems = pathlib.Path("/proc/filesystems").read_text(encoding="ascii")
    if "\toverlay\n" not in filesystems and not _loadable("overlay"):
        lines.append("kernel: no overlay file system: load the module 'overlay' or use another kernel")
    try:
        if not (_cgroups.unified() / "cgroup.controllers").read_text(encoding="ascii").split():
            lines.append(
                "kernel: cgroup v1 holds every controller and leaves none for the hosts: boot without cgroup v1"
            )
    except RigError as error:
        lines.append(f"kernel: {error}")
    if set(",:\\") & set(str(cache_dir())):
        place = f"the path {cache_dir()} has a comma, a colon or a backslash, which an overlay cannot carry"
        lines.append(f"disk: {place}: set HYPERVISOR_RIG_CACHE to another place")
    if _filesystem() == "overlayfs":
        place = f"{cache_dir()} is on an overlay, which cannot carry another"
        lines.append(f"disk: {place}: set HYPERVISOR_RIG_CACHE to a place on ext4, xfs, btrfs or tmpfs")
    free, needed = _image.free_megabytes(), _image.needed_megabytes()
    if free < needed:
        place = f"{cache_dir()} has {free} MB free and needs {needed}"
        lines.append(f"disk: {place}: free some, or set HYPERVISOR_RIG_CACHE to another place")
    return lines


def _filesystem() -> str:
    return run(["stat", "--file-system", "--format=%T", existing_parent(cache_dir())]).stdout.strip()


def _loadable(module: str) -> bool:
    modprobe = shutil.which("modprobe", path="/usr/sbin:/sbin")
    if not modprobe:
        return False
    return subprocess.run([modprobe, "--dry-run", module], check=False, capture_output=True).returncode == 0


def install() -> None:
    """Install the missing packages of this machine with apt-get.

    :raises RigError: there is no apt-get, or it failed.
    """
    packages = missing_packages()
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise RigError(f"this machine has no apt-get: get {', '.join(sorted(_NEEDED))} by its own means")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        if subprocess.run(["apt-get", "-q", *arguments], env=environment, check=False).returncode != 0:
            raise RigError(f"apt-get {arguments[0]} failed; its message is above")
