# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How programs were built: made-up headers (elf(5)), and the interpreter that runs this test."""

from __future__ import annotations

import os
import struct
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_programs
from ansible_collections.hypervisor.hardening.plugins.module_utils._elf import Built, built
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

LOAD, DYNAMIC, INTERPRETER, STACK, RELRO = 1, 2, 3, 0x6474E551, 0x6474E552
EXECUTABLE, SHARED = 2, 3
BIND_NOW, NOW_1 = (30, 8), (0x6FFFFFFB, 1)
HARDENED: dict[str, t.Any] = {
    "kinds": (INTERPRETER, RELRO),
    "flags": (BIND_NOW,),
    "names": b"\0memcpy\0__stack_chk_fail\0",
}


def program(
    *,
    wide: bool = True,
    kind: int = SHARED,
    kinds: tuple[int, ...] = (),
    stack: int | None = 6,
    flags: tuple[tuple[int, int], ...] = (),
    names: bytes = b"\0",
) -> bytes:
    """An ELF file of little-endian words with these segments; the names lie at 4096, loaded at 0x10000."""
    entries = [*flags, (5, 0x10000 + 4096), (10, len(names)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ" if wide else "<iI", *entry) for entry in entries)
    segments = [(LOAD, 4, 0, 0x10000, 8192), (DYNAMIC, 6, 2048, 0x10800, len(dynamic))]
    segments += [(one, 4, 0, 0, 0) for one in kinds]
    segments += [] if stack is None else [(STACK, stack, 0, 0, 0)]
    table = b"".join(
        struct.pack("<IIQQQQQQ", what, rights, offset, address, address, size, size, 0)
        if wide
        else struct.pack("<IIIIIIII", what, offset, address, address, size, size, rights, 0)
        for what, rights, offset, address, size in segments
    )
    head = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9) + struct.pack("<HHI", kind, 62, 1)
    if wide:
        head += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
    else:
        head += struct.pack("<IIIIHHHHHH", 0, 64, 0, 0, 52, 32, len(segments), 0, 0, 0)
    body = head.ljust(64, b"\0") + table
    return body.ljust(2048, b"\0") + dynamic.ljust(2048, b"\0") + names


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def of(host: TreeHost, data: bytes) -> Built:
    host.put("/q")
    Path(host.path("/q")).write_bytes(data)
    return built(host, "/q")


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("now", [BIND_NOW, NOW_1, (24, 0)])
def test_one_with_all(host: TreeHost, wide: bool, now: tuple[int, int]) -> None:
    assert of(host, program(wide=wide, **{**HARDENED, "flags": (now,)})) == Built(True, "full", True, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": EXECUTABLE}, {"pie": False}),
        # a library has no interpreter
        ({"kinds": (RELRO,)}, {"pie": False}),
        ({"flags": ()}, {"relro": "partial"}),
        ({"flags": ((30, 4),)}, {"relro": "partial"}),
        ({"kinds": (INTERPRETER,)}, {"relro": "none"}),
        ({"stack": 7}, {"nx": False}),
        ({"stack": None}, {"nx": False}),
        ({"names": b"\0memcpy\0my__stack_chk_fail\0"}, {"canary": False}),
    ],
)
def test_each_can_be_missing(host: TreeHost, changes: dict[str, object], expected: dict[str, object]) -> None:
    all_ = {"pie": True, "relro": "full", "nx": True, "canary": True}
    assert vars(of(host, program(**{**HARDENED, **changes}))) == {**all_, **expected}


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(60), program()[:100]])
def test_no_program(host: TreeHost, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no ELF file|is broken"):
        of(host, data)


def test_the_programs_of_a_host(host: TreeHost) -> None:
    emulator = f"/usr/bin/qemu-system-{os.uname().machine}"
    host.put(emulator)
    Path(host.path(emulator)).write_bytes(program(**HARDENED))
    # Red Hat's is the emulator itself, Debian's a link to it
    os.link(host.path(emulator), host.path("/usr/bin/kvm"))
    host.put("/usr/bin/swtpm", "broken")
    host.put("/usr/bin/passt", "#!/bin/sh\n")
    facts = _info_programs.facts(Context(host))
    assert mismatches("programs", facts) == []
    assert facts["programs"] == [
        {"name": emulator, "kind": "emulator", "pie": True, "relro": "full", "nx": True, "canary": True},
        {"name": "/usr/bin/swtpm", "kind": "helper", "pie": None, "relro": None, "nx": None, "canary": None},
    ]
    assert facts["unread"] == [{"path": "/usr/bin/swtpm", "reason": "is no ELF file of this machine"}]
