# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on what else of this host the network can reach: other programs than libvirt's and guests."""

from __future__ import annotations

import posixpath
import typing as t

from . import _qemuproc
from ._info_listeners import inodes, suspects
from ._infocontext import Context
from ._reader import Reader
from ._tcp import Listener, listeners, unconnected

_MOST = 40


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``services``; its keys are documented in hypervisor_info."""
    host = context.host
    reader = Reader(host)
    open_to_all = {
        listener.inode: (protocol, listener)
        for protocol, found in (("tcp", listeners(host)), ("udp", unconnected(host)))
        for listener in found
        if not listener.loopback
    }
    found: set[tuple[str, str, int]] = set()
    known = {pid for pid, _kind, _name in suspects(host)} if open_to_all else set()
    held: set[int] = set()
    for pid in (int(entry) for entry in host.list("/proc") if open_to_all and entry.isdigit()):
        try:
            mine = inodes(host, pid) & open_to_all.keys()
            held |= mine
            if mine and pid not in known:
                path, _deleted = _qemuproc.binary(host, pid)
                found |= {_key(posixpath.basename(path), *open_to_all[inode]) for inode in mine}
        except OSError:
            continue  # it has ended, or is the kernel's
    # sockets of the kernel itself, such as those of its NFS server and of WireGuard, no process has open
    found |= {_key("kernel", *open_to_all[inode]) for inode in open_to_all.keys() - held}
    entries = [
        {"name": f"{process} {protocol} {port}", "process": process, "protocol": protocol, "port": port}
        for process, protocol, port in sorted(found)
    ]
    return {"open": entries[:_MOST] if len(entries) <= _MOST else None, "total": len(entries), "unread": reader.unread}


def _key(process: str, protocol: str, listener: Listener) -> tuple[str, str, int]:
    return process, protocol, listener.port
