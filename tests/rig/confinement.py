# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of a guest's QEMU: which process it is, and what confines it."""

from __future__ import annotations

import re

from . import guests
from ._host import Host

# Debian's postinst gives libvirt-qemu this number.
LIBVIRT_QEMU = "64055"
#: The weaknesses that a hardened guest has not, whatever the kernel of a container's machine. Only strict limits core
#: dumps.
WITHOUT_MAC = [
    "runs_as_root",
    "capabilities",
    "new_privileges",
    "no_seccomp",
    "host_mount_namespace",
    "host_dev",
    "unexpected_device",
    "no_mount_propagation",
    "no_device_cgroup",
    "deleted_binary",
    "older_than_configuration",
]


def start_ticks(host: Host, pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)): with the pid it tells one process from all others."""
    return host.get(f"/proc/{pid}/stat").decode("utf-8", "replace").rpartition(")")[2].split()[19]


def confined(host: Host, pid: int) -> dict[str, bool]:
    """The facts of a confined guest, straight from the kernel."""
    status = guests.status(host, pid)
    first = guests.status(host, 1)
    mounts = host.get(f"/proc/{pid}/mountinfo").decode("utf-8", "replace")
    root = next(line for line in mounts.splitlines() if line.split()[4] == "/")
    namespaces = host.run(["readlink", f"/proc/{pid}/ns/mnt", "/proc/1/ns/mnt"]).stdout.split()
    return {
        "user": set(status["Uid"].split()) == {LIBVIRT_QEMU},
        "capabilities": int(status["CapEff"], 16) == 0,
        "no_new_privs": status["NoNewPrivs"] == "1",
        "seccomp": status["Seccomp"] == "2" and int(status["Seccomp_filters"]) == int(first["Seccomp_filters"]) + 1,
        "namespace": namespaces[0] != namespaces[1],
        "private_dev": re.search(r" /dev .* - tmpfs devfs .*size=64k", mounts) is not None,
        "propagation": "master:" in root,
        "core": "Max core file size        0" in host.get(f"/proc/{pid}/limits").decode(),
    }
