# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools as libvirt keeps them on disk (libvirt's docs/formatstorage.rst)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import _statefile
from ._reader import Reader

# src/storage/storage_driver.c: what is configured, and a status file of each pool that runs.
CONFIGURED = "/etc/libvirt/storage"
RUNNING = "/run/libvirt/storage"
_DIRECTORIES = {"dir", "fs", "netfs"}


@dataclass(frozen=True)
class Pool:
    """``path`` is the target, "" for a pool that has none on the host."""

    name: str
    type: str
    path: str
    active: bool
    autostart: bool

    @property
    def is_directory(self) -> bool:
        """Whether its volumes are files in a directory."""
        return self.type in _DIRECTORIES and self.path.startswith("/")


def read(reader: Reader) -> list[Pool]:
    """The pools by name; of one that runs the status file counts."""
    configured = dict(_pools(reader, CONFIGURED))
    running = dict(_pools(reader, RUNNING))
    autostart = set(reader.list(f"{CONFIGURED}/autostart"))
    return [
        Pool(name, kind, path.rstrip("/") or path, name in running, f"{name}.xml" in autostart)
        for name, (kind, path) in sorted({**configured, **running}.items())
    ]


def _pools(reader: Reader, directory: str) -> t.Iterator[tuple[str, tuple[str, str]]]:
    for name, pool in _statefile.elements(reader, directory, "pool"):
        yield name, (pool.get("type", ""), (pool.findtext("target/path") or "").strip())
