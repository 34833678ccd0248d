# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may read and write files, held against who should."""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass

from ._mountinfo import ancestors
from ._reader import Reader

LISTED = 20


@dataclass(frozen=True)
class Allowed:
    """At most these permission bits. ``owners`` and ``groups`` (numbers) may have them; None: anybody."""

    mode: int
    owners: frozenset[int] | None = frozenset({0})
    groups: frozenset[int] | None = frozenset({0})

    def permitted(self, group: int) -> int:
        """The bits of group and others that a file of this group may have."""
        others = self.mode & stat.S_IRWXO
        if group == 0:  # root gets at everything anyway
            return others | stat.S_IRWXG
        if self.groups is None or group in self.groups:
            return others | self.mode & stat.S_IRWXG
        return others | others << 3  # a group that nobody foresaw gets what others get

    def mended(self, status: os.stat_result) -> tuple[int, int]:
        """The owner and the mode with which such a file is as it should be; its group stays."""
        owner = status.st_uid if self.owners is None or status.st_uid in self.owners else 0
        mode = stat.S_IMODE(status.st_mode)
        return owner, mode & (0o7700 | self.mode & self.permitted(status.st_gid))

    def words(self, reader: Reader) -> str:
        """As an operator reads it."""
        text = f"{self.mode:04o} or less"
        if self.owners is not None:
            text += ", owner " + " or ".join(map(reader.host.user_name, sorted(self.owners)))
        if self.groups is not None and self.mode & 0o070:
            text += ", group " + " or ".join(map(reader.host.group_name, sorted(self.groups)))
        return text


class Inspection:
    """One class of files: how many were looked at, and which of them others can get at who should not.

    What lies below a directory that others may not pass is out of their reach, whatever its own bits say.
    ``wrong``: the same as ``found``, for whoever mends it.
    """

    def __init__(self, reader: Reader, reach: Reach) -> None:
        self.reader = reader
        self.reach = reach
        self.checked = 0
        self.found: list[dict[str, t.Any]] = []
        self.wrong: list[tuple[str, os.stat_result, Allowed]] = []
        self.truncated = False

    def look(self, path: str, allowed: Allowed) -> None:
        """Hold one file or directory against what is allowed; a missing one is nothing, a link is what it leads to."""
        try:
            status = self.reader.host.stat_optional(path)
        except OSError as error:
            self.reader.note(path, error.strerror or str(error))
            return
        if status is None:
            return
        self.checked += 1
        if self._deviates(path, status, allowed):
            self.wrong.append((path, status, allowed))
            self.found.append(described(self.reader, path, status, allowed.words(self.reader)))

    def add(self, path: str, expected: str) -> None:
        """A file that is a deviation by being there."""
        status = self.reader.host.stat_optional(path)
        if status is not None:
            self.found.append(described(self.reader, path, status, expected))

    def _deviates(self, path: str, status: os.stat_result, allowed: Allowed) -> bool:
        if allowed.owners is not None and status.st_uid not in allowed.owners:
            return True
        too_much = status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed.permitted(status.st_gid)
        return bool(too_much) and self.reach.by_others(path)

    def facts(self) -> dict[str, t.Any]:
        """Of what was not looked at whole, an empty list of deviations would say too much: it is None."""
        return {
            "checked": self.checked,
            "truncated": self.truncated,
            "deviations": self.found[:LISTED] if self.found or not self.truncated else None,
            "deviations_total": len(self.found),
        }


class Reach:
    """Which directories users at large can pass."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._known: dict[str, bool] = {}

    def by_others(self, path: str) -> bool:
        """Whether every directory above a path lets others through."""
        return all(map(self._passable, ancestors(path)))

    def _passable(self, directory: str) -> bool:
        if directory not in self._known:
            try:
                self._known[directory] = bool(self.reader.host.stat(directory).st_mode & stat.S_IXOTH)
            except OSError:
                self._known[directory] = True
        return self._known[directory]


def described(reader: Reader, path: str, status: os.stat_result, expected: str) -> dict[str, t.Any]:
    """A file in a result."""
    return {
        "name": path,
        "path": path,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": reader.host.user_name(status.st_uid),
        "group": reader.host.group_name(status.st_gid),
        "expected": expected,
    }


def walk(reader: Reader, directory: str, *, depth: int = 3, limit: int = 1000) -> tuple[list[str], list[str], bool]:
    """The files and the directories below a directory, which is among these; symbolic links are not followed.

    :return: files, directories, and whether more than ``limit`` entries, or deeper ones, were left out.
    """
    files: list[str] = []
    directories: list[str] = []
    waiting = [(directory, 0)]
    seen = 0
    cut = False
    while waiting:
        path, level = waiting.pop()
        status = reader.host.stat_optional(path, follow=False)
        if status is None:
            continue
        seen += 1
        if seen > limit:
            return files, directories, True
        if not stat.S_ISDIR(status.st_mode):
            if stat.S_ISREG(status.st_mode):
                files.append(path)
        elif level > depth:
            cut = True
        else:
            directories.append(path)
            waiting += [(f"{path}/{name}", level + 1) for name in reversed(reader.list(path))]
    return files, directories, cut
