# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What guests' images hang on by their own headers: images below them, and files for their data.

Whoever made an image wrote its header, and QEMU opens what is named there.
"""

from __future__ import annotations

import posixpath
import stat
import typing as t

from . import _qcow2
from ._mountinfo import is_below
from ._reader import Reader

_DEPTH = 16
_LIMIT = 100


class Images:
    """Headers of images, each read once. ``remote`` tells which paths a server that is gone would make us wait for;
    ``unknown`` are those whose header was not looked at for that, or cannot be read."""

    def __init__(self, reader: Reader, remote: t.Callable[[str], bool]) -> None:
        self.reader = reader
        self.remote = remote
        self.unknown: set[str] = set()
        self._known: dict[str, _qcow2.Header | None] = {}

    def header(self, path: str) -> _qcow2.Header | None:
        """The header of a qcow2 image; None for another file, or one that cannot be read (noted)."""
        if path not in self._known:
            self._known[path] = None
            try:
                if self.remote(path):
                    self.unknown.add(path)
                elif self._is_file(path):
                    self._known[path] = _qcow2.header(self.reader.host, path)
            except (OSError, ValueError) as error:
                self.unknown.add(path)
                self.reader.note(path, str(getattr(error, "strerror", None) or error))
        return self._known[path]

    def _is_file(self, path: str) -> bool:
        status = self.reader.host.stat_optional(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def layers(self, paths: t.Iterable[str], pools: t.Sequence[str]) -> list[dict[str, t.Any]]:
        """Each step of the chains that begin with these images.

        :param pools: the directories of storage pools.
        """
        found: dict[tuple[str, str], dict[str, t.Any]] = {}
        waiting = [(path, 0) for path in paths]
        while waiting and len(found) < _LIMIT:
            path, depth = waiting.pop(0)
            header = self.header(path)
            names = (("backing", header.backing), ("data", header.data_file)) if header else ()
            for kind, name in names:
                if not name or (path, kind) in found:
                    continue
                leads_to, foreign = _qcow2.target(name, path)
                found[path, kind] = {
                    "name": path,
                    "kind": kind,
                    "source": leads_to,
                    "directory": "" if foreign else posixpath.dirname(leads_to),
                    "network": foreign,
                    "in_pool": not foreign and any(is_below(leads_to, pool) for pool in pools),
                }
                if not foreign and depth < _DEPTH:
                    waiting.append((leads_to, depth + 1))
        return list(found.values())

    def promised(self, path: str) -> int:
        """How many bytes a guest may write into an image: of a raw one its length."""
        header = self.header(path)
        return header.size if header else self.reader.host.stat(path).st_size
