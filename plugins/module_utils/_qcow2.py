# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a qcow2 image (QEMU's docs/interop/qcow2.rst): how large the guest sees it, and what it hangs on."""

from __future__ import annotations

import json
import posixpath
import re
import struct
from dataclasses import dataclass

from ._host import Host

_MAGIC = b"QFI\xfb"
_HEAD = 4096
_NAME_LIMIT = 1023
_DATA_FILE = 0x44415441
_EXTERNAL = 1 << 2
_PROTOCOL_RE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class Header:
    """``backing`` and ``data_file`` as the image spells them, "" for none; ``size`` in bytes, as the guest sees it."""

    size: int
    backing: str
    data_file: str


def header(host: Host, path: str) -> Header | None:
    """The header of an image, None for a file of another kind.

    :raises OSError: it cannot be read.
    :raises ValueError: the header is broken.
    """
    data = host.read_part(path, _HEAD)
    if data[:4] != _MAGIC:
        return None
    try:
        version, offset, length, _bits, size = struct.unpack_from(">IQIIQ", data, 4)
        features, start = (struct.unpack_from(">Q", data, 72)[0], struct.unpack_from(">I", data, 100)[0])
    except struct.error:
        raise ValueError("is cut off within its header") from None
    if version < 3:
        features, start = 0, 72
    if length > _NAME_LIMIT:
        raise ValueError(f"has a backing file name of {length} bytes, where {_NAME_LIMIT} are allowed")
    backing = host.read_part(path, length, offset).decode("utf-8", "replace") if offset else ""
    external = _extension(data, start) or "(unnamed)" if features & _EXTERNAL else ""
    return Header(size, backing, external)


def _extension(data: bytes, at: int) -> str:
    while at + 8 <= len(data):
        kind, length = struct.unpack_from(">II", data, at)
        if kind == _DATA_FILE:
            return data[at + 8 : at + 8 + length].decode("utf-8", "replace")
        if kind == 0:
            break
        at += 8 + (length + 7) // 8 * 8
    return ""


def target(name: str, image: str) -> tuple[str, bool]:
    """What a name in the header of ``image`` leads to: the path and False, or what it says and True for no local file.

    A relative path is one from the image's directory; ``json:`` and PROTOCOL: are QEMU's (qemu(1), blockdev options).
    """
    if name.startswith("json:"):
        path = _of_json(name[len("json:") :])
        return (path, False) if path.startswith("/") else (name, True)
    if name.startswith("file:"):
        name = name[len("file:") :]
    elif _PROTOCOL_RE.match(name):
        return name, True
    return posixpath.normpath(posixpath.join(posixpath.dirname(image), name)), False


def _of_json(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    while isinstance(value, dict):
        if value.get("driver") not in (None, "file", "qcow2", "raw", "host_device"):
            return ""
        value = value.get("filename") or value.get("file.filename") or value.get("file")
    return value if isinstance(value, str) else ""
