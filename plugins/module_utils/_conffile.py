# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each of libvirt's configuration files as libvirt reads it: what it sets, and what in it has no effect."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import _confkeys
from ._host import Host
from ._virconf import Document, VirConfError

DIRECTORY = "/etc/libvirt"
SET = "(set)"


@dataclass(frozen=True)
class ConfFile:
    """A file in libvirt's grammar. ``error``: why libvirt cannot read it, "" if it can; ``keys_from``: who knows its
    keys, None for nobody (then nothing is said of unknown keys and types)."""

    path: str
    exists: bool
    error: str = ""
    changed: float | None = None
    settings: dict[str, t.Any] = field(default_factory=dict)
    unknown: tuple[dict[str, str], ...] = ()
    duplicates: tuple[dict[str, t.Any], ...] = ()
    wrong_type: tuple[dict[str, str], ...] = ()
    keys_from: str | None = None
    document: Document | None = None

    def get(self, key: str, default: t.Any = None) -> t.Any:
        """What libvirt reads for ``key``."""
        return self.settings.get(key, default)

    @property
    def facts(self) -> dict[str, t.Any] | None:
        """The settings, None where nobody can tell them: a broken file does not leave libvirt at its defaults."""
        return None if self.error else self.settings


def read(host: Host, name: str) -> ConfFile:
    """A file of /etc/libvirt."""
    path = f"{DIRECTORY}/{name}"
    try:
        data = host.read_optional(path)
        status = host.stat_optional(path)
    except OSError as error:
        return ConfFile(path, True, f"{error.strerror}.")
    if data is None or status is None:
        return ConfFile(path, False)
    try:
        document = Document.parse(data)
    except VirConfError as error:
        return ConfFile(path, True, f"{error}.", status.st_ctime)
    keys = list(document.keys())
    types, source = _types(host, name)
    found = {key: value.plain() for key in keys for value in [document.get(key)] if value is not None}
    return ConfFile(
        path=path,
        exists=True,
        changed=status.st_ctime,
        settings={key: SET if _confkeys.is_secret(key) else value for key, value in found.items()},
        unknown=tuple(_nearest(key, types) for key in keys if source and key not in types),
        duplicates=tuple({"key": key, "count": document.count(key)} for key in keys if document.count(key) > 1),
        wrong_type=tuple(
            {"key": key, "expected": types[key]}
            for key, value in found.items()
            if key in types and not _confkeys.suits(types[key], value)
        ),
        keys_from=source,
        document=document,
    )


def _types(host: Host, name: str) -> tuple[t.Mapping[str, str], str | None]:
    """Of other files than qemu.conf only the installed libvirt is believed."""
    known = _confkeys.known(host, name)
    return (known.types, known.source) if known.source == "lens" or name == _confkeys.QEMU_CONF else ({}, None)


def _nearest(key: str, types: t.Mapping[str, str]) -> dict[str, str]:
    import difflib

    near = difflib.get_close_matches(key, types, n=1, cutoff=0.7)
    return {"key": key, "nearest": near[0] if near else ""}
