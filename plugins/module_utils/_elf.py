# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a program was built to withstand, from its ELF headers (elf(5))."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ._host import Host

_DYNAMIC, _INTERPRETER, _LOAD, _STACK, _RELRO = 2, 3, 1, 0x6474E551, 0x6474E552
_DT_STRTAB, _DT_STRSZ, _DT_BIND_NOW, _DT_FLAGS, _DT_FLAGS_1 = 5, 10, 24, 30, 0x6FFFFFFB
_ET_DYN, _PF_X, _DF_BIND_NOW, _DF_1_NOW = 3, 1, 8, 1
_MOST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Built:
    """``relro`` is ``full``, ``partial`` or ``none``; ``canary``: some function guards its stack."""

    pie: bool
    relro: str
    nx: bool
    canary: bool


@dataclass(frozen=True)
class _Segment:
    kind: int
    flags: int
    offset: int
    address: int
    size: int


def built(host: Host, path: str) -> Built:
    """Read the headers and the names of dynamic symbols of a program.

    :raises OSError: it cannot be read.
    :raises ValueError: it is no ELF file of the machine's word order, or a broken one.
    """
    head = host.read_part(path, 64)
    if head[:4] != b"\x7fELF" or len(head) < 64 or head[5] != (1 if struct.pack("=H", 1)[0] else 2):
        raise ValueError("is no ELF file of this machine")
    try:
        kind, segments = _segments(host, path, head)
        dynamic = _dynamic(host, path, segments, wide=head[4] == 2)
    except struct.error as error:
        raise ValueError(f"is broken: {error}") from None
    now = bool(
        _DT_BIND_NOW in dynamic or dynamic.get(_DT_FLAGS, 0) & _DF_BIND_NOW or dynamic.get(_DT_FLAGS_1, 0) & _DF_1_NOW
    )
    kinds = {segment.kind: segment for segment in segments}
    return Built(
        pie=kind == _ET_DYN and _INTERPRETER in kinds,
        relro="none" if _RELRO not in kinds else "full" if now else "partial",
        # without the segment the kernel makes the stack executable (fs/binfmt_elf.c)
        nx=_STACK in kinds and not kinds[_STACK].flags & _PF_X,
        canary=b"\0__stack_chk_fail" in _names(host, path, segments, dynamic),
    )


def _segments(host: Host, path: str, head: bytes) -> tuple[int, list[_Segment]]:
    wide = head[4] == 2
    (kind,) = struct.unpack_from("=H", head, 16)
    (table,) = struct.unpack_from("=Q" if wide else "=I", head, 32 if wide else 28)
    size, count = struct.unpack_from("=HH", head, 54 if wide else 42)
    data = host.read_part(path, size * count, table)
    found = []
    for number in range(count):
        if wide:
            kind_of, flags, offset, address, _physical, length = struct.unpack_from("=IIQQQQ", data, number * size)
        else:
            kind_of, offset, address, _physical, length, _memory, flags = struct.unpack_from(
                "=IIIIIII", data, number * size
            )
        found.append(_Segment(kind_of, flags, offset, address, length))
    return kind, found


def _dynamic(host: Host, path: str, segments: list[_Segment], *, wide: bool) -> dict[int, int]:
    """The entries of the dynamic section by their tag; none in a static program."""
    form = "=qQ" if wide else "=iI"
    step = struct.calcsize(form)
    for segment in segments:
        if segment.kind == _DYNAMIC:
            data = host.read_part(path, min(segment.size, _MOST), segment.offset)
            return dict(struct.iter_unpack(form, data[: len(data) // step * step]))
    return {}


def _names(host: Host, path: str, segments: list[_Segment], dynamic: dict[int, int]) -> bytes:
    address = dynamic.get(_DT_STRTAB)
    for segment in segments:
        if address is not None and segment.kind == _LOAD and 0 <= address - segment.address < segment.size:
            size = min(dynamic.get(_DT_STRSZ, 0), _MOST)
            return host.read_part(path, size, segment.offset + address - segment.address)
    return b""
