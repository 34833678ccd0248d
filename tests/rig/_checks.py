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

from . import _image
from ._base import RigError, cache_dir

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
    if "cgroup2" not in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"):
        lines.append("kernel: no cgroup2 file system is mounted: mount one on /sys/fs/cgroup/unified")
    free, needed = _image.free_megabytes(), _image.needed_megabytes()
    if free < needed:
        place = f"{cache_dir()} has {free} MB free and needs {needed}"
        lines.append(f"disk: {place}: free some, or set HYPERVISOR_RIG_CACHE to another place")
    return lines


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
