# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disposable hypervisors: real systemd, sshd and libvirtd in seconds, and nothing left of them afterwards.

import rig
with rig.host("trixie") as host:
    host.run(["virsh", "list"])
"""

from __future__ import annotations

from ._base import RigError
from ._host import Host
from ._hosts import down, get, host, names, publish, reap, up, vm
from ._image import build
from ._machine import Snapshot, differences, snapshot
from ._vm import VirtualMachine

__all__ = [
    "Host",
    "RigError",
    "Snapshot",
    "VirtualMachine",
    "build",
    "differences",
    "down",
    "get",
    "host",
    "names",
    "publish",
    "reap",
    "snapshot",
    "up",
    "vm",
]
