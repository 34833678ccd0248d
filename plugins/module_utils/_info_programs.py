# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the programs that guests attack first: how they were built to withstand."""

from __future__ import annotations

import os
import typing as t

from . import _elf
from ._infocontext import Context
from ._reader import Reader

# Debian and Ubuntu; Fedora and Red Hat.
_HELPERS = (
    *("/usr/bin/swtpm", "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"),
    *("/usr/bin/passt", "/usr/libexec/qemu-pr-helper", "/usr/bin/qemu-pr-helper"),
)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``programs``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    emulators = (f"/usr/bin/qemu-system-{os.uname().machine}", "/usr/libexec/qemu-kvm", "/usr/bin/kvm")
    seen: set[tuple[int, int]] = set()
    found = [_program(reader, path, "emulator", seen) for path in emulators]
    found += [_program(reader, path, "helper", seen) for path in _HELPERS]
    return {"programs": [entry for entry in found if entry], "unread": reader.unread}


def _program(reader: Reader, path: str, kind: str, seen: set[tuple[int, int]]) -> dict[str, t.Any] | None:
    """A program; None where there is none, it is a link to one that was seen, or a script that starts another."""
    try:
        status = reader.host.stat_optional(path)
        if status is None or (status.st_dev, status.st_ino) in seen or reader.host.read_part(path, 2) == b"#!":
            return None
        seen.add((status.st_dev, status.st_ino))
        return {"name": path, "kind": kind, **vars(_elf.built(reader.host, path))}
    except (OSError, ValueError) as error:
        reader.note(path, str(getattr(error, "strerror", None) or error))
        return {"name": path, "kind": kind, "pie": None, "relro": None, "nx": None, "canary": None}
