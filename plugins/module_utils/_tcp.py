# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens on TCP and UDP, as proc_net(5) shows it."""

from __future__ import annotations

import ipaddress
import struct
import typing as t
from dataclasses import dataclass

from ._host import Host

_LISTEN = "0A"  # net/tcp_states.h, TCP_LISTEN
_UNCONNECTED = "07"  # and TCP_CLOSE, which a UDP socket is in that takes packets of anybody


@dataclass(frozen=True)
class Listener:
    """A listening socket. ``inode`` names it among the open files of the processes that hold it."""

    address: str
    port: int
    inode: int

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


def listeners(host: Host) -> list[Listener]:
    """The listening sockets of the network namespace that this process is in."""
    return _of(host, ("tcp", "tcp6"), _LISTEN)


def unconnected(host: Host) -> list[Listener]:
    """The UDP sockets that take packets of anybody."""
    return _of(host, ("udp", "udp6"), _UNCONNECTED)


def _of(host: Host, tables: t.Iterable[str], state: str) -> list[Listener]:
    return [found for name in tables for found in _parse(host.text_optional(f"/proc/net/{name}") or "", state)]


def _parse(text: str, state: str) -> t.Iterator[Listener]:
    for fields in (line.split() for line in text.splitlines()[1:]):
        if len(fields) > 9 and fields[3] == state:
            address, _colon, port = fields[1].partition(":")
            yield Listener(_address(address), int(port, 16), int(fields[9]))


def _address(text: str) -> str:
    """The kernel prints an address as 32-bit words in the byte order of the machine (net/ipv4/tcp_ipv4.c)."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
