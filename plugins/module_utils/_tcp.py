# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on TCP, as proc_net(5) shows it."""

from __future__ import annotations

import ipaddress
import struct
import typing as t
from dataclasses import dataclass

from ._host import Host

_LISTEN = "0A"  # net/tcp_states.h, TCP_LISTEN


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket. ``inode`` names it among the open files of the processes that hold it."""

    address: str
    port: int
    inode: int

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


def listeners(host: Host) -> list[Listener]:
    """The listening sockets of the network namespace that this process is in."""
    return [found for name in ("tcp", "tcp6") for found in _parse(host.text_optional(f"/proc/net/{name}") or "")]


def _parse(text: str) -> t.Iterator[Listener]:
    for fields in (line.split() for line in text.splitlines()[1:]):
        if len(fields) > 9 and fields[3] == _LISTEN:
            address, _colon, port = fields[1].partition(":")
            yield Listener(_address(address), int(port, 16), int(fields[9]))


def _address(text: str) -> str:
    """The kernel prints an address as 32-bit words in the byte order of the machine (net/ipv4/tcp_ipv4.c)."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
