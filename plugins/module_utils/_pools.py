# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools as libvirt keeps them on disk (libvirt's docs/formatstorage.rst)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from xml.etree import ElementTree

from ._reader import Reader

# src/storage/storage_driver.c: what is configured, and a status file of each pool that runs.
CONFIGURED = "/etc/libvirt/storage"
RUNNING = "/run/libvirt/storage"
SIZE_LIMIT = 1024 * 1024
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
    for entry in reader.list(directory):
        if not entry.endswith(".xml"):
            continue
        path = f"{directory}/{entry}"
        try:
            data = reader.host.read_optional(path)
            pool = None if data is None else _parse(data)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            reader.note(path, str(error))
            continue
        if pool is not None:
            name = (pool.findtext("name") or "").strip() or entry[: -len(".xml")]
            yield name, (pool.get("type", ""), (pool.findtext("target/path") or "").strip())


def _parse(data: bytes) -> ElementTree.Element | None:
    """The ``<pool>``, also inside a ``<poolstate>``. A document type, and with it every entity, is refused.

    :raises ValueError: too long, or with a document type.
    """
    if len(data) > SIZE_LIMIT or b"<!DOCTYPE" in data:
        raise ValueError("is no storage pool: too long, or with a document type declaration")
    root = ElementTree.fromstring(data)
    return root if root.tag == "pool" else root.find("pool")
