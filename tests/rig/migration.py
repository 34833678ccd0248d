# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live migration between hosts that share a directory (``rig.host(..., shared=True)``)."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator

from . import guests
from ._base import RigError
from ._boot import SHARED
from ._host import Host

__all__ = ["SHARED", "listen", "migrate", "owners", "verify_pattern"]

# The blocks that a guest with rig.write writes one after the other, over and over (_guestlinux.py).
_BLOCK, _BLOCKS = 512, 2048


def listen(host: Host) -> None:
    """Have a host's libvirtd take guests over plain TCP from the other hosts of the rig."""
    host.put("/etc/libvirt/libvirtd.conf", host.get("/etc/libvirt/libvirtd.conf") + b'\nauth_tcp = "none"\n')
    # Sockets are only added while the service is down (systemd.socket(5)).
    host.run(
        ["systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"]
    )
    host.run(["systemctl", "start", "libvirtd-tcp.socket", "libvirtd.socket", "libvirtd-ro.socket"])
    guests.virsh(host, "uri")


def migrate(
    source: Host, destination: Host, name: str, *flags: str, timeout: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Move a running guest; a failure is in what is returned, in libvirt's words.

    ``--unsafe``: libvirt knows file systems that hosts share by their types, and the rig's directory has none of those.
    """
    uri = f"qemu+tcp://{destination.name}/system"
    words = ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--unsafe", *flags, name, uri]
    return source.run(words, check=False, timeout=timeout)


@contextlib.contextmanager
def owners(host: Host, path: str) -> Iterator[list[tuple[int, int]]]:
    """The owners (uid, gid) that a file has during a ``with`` block, one after the other."""
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            status = os.stat(host.root / path.lstrip("/"))
            if seen[-1:] != [(status.st_uid, status.st_gid)]:
                seen.append((status.st_uid, status.st_gid))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def verify_pattern(host: Host, name: str, path: str, *, more: int = 20) -> int:
    """See a guest with rig.write write on without a gap or an error; return the number of its last block seen.

    What it says that it wrote has to be on the disk: a failed write shows there, whatever the guest was told.

    :param more: how many blocks it has to write from now on.
    :raises RigError: it does not, or a block on the disk is not what it should be.
    """
    first = _written(host, path)
    deadline = time.monotonic() + 120
    while (last := _written(host, path)) < first + more:
        if time.monotonic() > deadline:
            raise RigError(f"{name} wrote no more than {last - first} blocks after number {first} in two minutes")
        if guests.virsh(host, "domstate", name) != "running":
            raise RigError(f"{name} is {guests.virsh(host, 'domstate', name, '--reason')}")
        time.sleep(0.1)
    data = host.get(path)
    for number in range(max(1, last - _BLOCKS + 2), last + 1):
        at = number % _BLOCKS * _BLOCK
        if data[at : at + 16] != b"%016d" % number:
            raise RigError(f"block {number} of {name} is not on {path}: {data[at : at + 16]!r} is there")
    return last


def _written(host: Host, path: str) -> int:
    """The highest number on the disk."""
    data = host.get(path)
    starts = (data[at : at + 16] for at in range(0, _BLOCK * _BLOCKS, _BLOCK))
    return max((int(start) for start in starts if re.fullmatch(rb"[0-9]{16}", start)), default=0)
