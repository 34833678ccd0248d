# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt's own parser makes of a file: runs in a system that has libvirt, with that system's Python.

Standard input holds files, each after its length (4 bytes, big endian). For each one, standard output gets a JSON
document in the same framing: ``{"error": text}``, or ``{"entries": [[key, kind, content], ...], "first": {key: [kind,
content]}}`` with every entry in order (virConfWalk) and with what a daemon would get for each key (virConfGetValue).
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import Any


class _Value(ctypes.Structure):
    """struct _virConfValue of src/util/virconf.h."""


_Value._fields_ = [
    ("type", ctypes.c_int),
    ("next", ctypes.POINTER(_Value)),
    ("l", ctypes.c_longlong),
    ("str", ctypes.c_char_p),
    ("list", ctypes.POINTER(_Value)),
]
_KINDS = {1: "signed", 2: "unsigned", 3: "string", 4: "list"}
_VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Value), ctypes.c_void_p)
_REPORT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libvirt.so.0")
    library.virConfReadFile.argtypes = [ctypes.c_char_p, ctypes.c_uint]
    library.virConfReadFile.restype = ctypes.c_void_p
    library.virConfFree.argtypes = [ctypes.c_void_p]
    library.virConfWalk.argtypes = [ctypes.c_void_p, _VISIT, ctypes.c_void_p]
    library.virConfGetValue.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.virConfGetValue.restype = ctypes.POINTER(_Value)
    library.virConfGetValueType.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.virGetLastErrorMessage.restype = ctypes.c_char_p
    if library.virInitialize() < 0:
        raise SystemExit("virInitialize failed")
    return library


def _read(value: Any) -> list[Any]:
    kind = _KINDS[value.type]
    if kind == "list":
        items, item = [], value.list
        while item:
            items.append(_read(item.contents))
            item = item.contents.next
        return [kind, items]
    if kind == "string":
        return [kind, value.str.decode("utf-8", "surrogateescape")]
    return [kind, value.l if kind == "signed" else value.l % 2**64]


def _answer(library: ctypes.CDLL, path: bytes) -> dict[str, Any]:
    conf = library.virConfReadFile(path, 0)
    if not conf:
        return {"error": library.virGetLastErrorMessage().decode("utf-8", "replace")}
    found: list[tuple[bytes, Any]] = []

    def visit(name: bytes, value: Any, _opaque: object) -> int:
        # reading a value may raise, and ctypes drops what is raised in here
        found.append((name, value.contents))
        return 0

    try:
        if library.virConfWalk(conf, _VISIT(visit), None) < 0:
            raise SystemExit("virConfWalk failed")
        entries = [[name.decode(), *_read(value)] for name, value in found]
        first = {}
        for key in {name for name, _value in found}:
            value = library.virConfGetValue(conf, key).contents
            if library.virConfGetValueType(conf, key) != value.type:
                raise SystemExit("virConfGetValueType does not answer with the type in struct _virConfValue")
            first[key.decode()] = _read(value)
    finally:
        library.virConfFree(conf)
    return {"entries": entries, "first": first}


def main() -> None:
    """Answer until the input ends."""
    library = _library()
    quiet = _REPORT(lambda _opaque, _error: None)
    library.virSetErrorFunc(None, quiet)
    # The daemons read files, and unlike virConfReadString that allows NUL and knows the size limit.
    file = os.memfd_create("input")
    path = f"/proc/self/fd/{file}".encode()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while header := source.read(4):
        os.ftruncate(file, 0)
        rest = memoryview(source.read(struct.unpack(">I", header)[0]))
        offset = 0
        while offset < len(rest):
            offset += os.pwrite(file, rest[offset:], offset)
        answer = json.dumps(_answer(library, path)).encode()
        sink.write(struct.pack(">I", len(answer)) + answer)
        sink.flush()


if __name__ == "__main__":
    main()
