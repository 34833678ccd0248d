# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the journal's entries of one target amount to, held against what is there now. Pure."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ._host import HardeningError

if t.TYPE_CHECKING:
    from ._former import Kind
    from ._journal import Entry

IN_FORCE, DRIFTED, PUT_BACK, NOT_MADE = "in_force", "drifted", "put_back", "not_made"

_MOMENT = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[T ]?(\d\d):?(\d\d)(?::?(\d\d))?(?:Z|\+00:00)?")
_ENTRY = re.compile(r"\d{8}T\d{6}\.\d{9}-\d+(?:\.json)?")


class SelectionError(HardeningError):
    """What is asked for is not what the journal can be asked for."""


@dataclass(frozen=True)
class History:
    """The entries of one target, oldest first, and its state now (as ``kind`` reads it)."""

    target: str
    kind: Kind
    entries: tuple[Entry, ...]
    now: t.Any

    @property
    def made(self) -> list[tuple[Entry, t.Any]]:
        """The entries whose change was made, each with the state that was found after it.

        A run that was killed between the two leaves an entry without its change: the next state is the former one.
        """
        found: list[tuple[Entry, t.Any]] = []
        then = self.now
        for entry in reversed(self.entries):
            if self.kind.is_made(entry, then) or not self.kind.is_same(entry.before, then):
                found.insert(0, (entry, then))
                then = entry.before
        return found

    def standing(self, since: str = "") -> list[Entry]:
        """The entries from ``since`` (the name of one, or the beginning of names) on that no later one took back.

        An entry that takes back others, all of them from there on, stands for nothing by itself.
        """
        found: list[Entry] = []
        limit = ""
        for entry, _then in reversed(self.made):
            if entry.name < since or (limit and entry.name >= limit):
                continue
            limit = entry.undoes if entry.undoes >= since else ""
            if not limit:
                found.insert(0, entry)
        return found

    def departure(self, since: Entry) -> tuple[Entry, Entry | None] | None:
        """Where somebody else has changed the target: after an entry, from ``since`` on, and before another one (None:
        by now)."""
        made = [pair for pair in self.made if pair[0].name >= since.name]
        following = [*(entry for entry, _then in made[1:]), None]
        for (entry, then), after in reversed(list(zip(made, following))):
            if not self.kind.is_made(entry, then):
                return entry, after
        return None

    def states(self) -> dict[str, str]:
        """Name of an entry -> one of the four words."""
        made = {entry.name: then for entry, then in self.made}
        found = {entry.name: NOT_MADE for entry in self.entries}
        limit = ""
        for entry in reversed(self.entries):
            if entry.name not in made:
                continue
            if limit and entry.name >= limit:
                found[entry.name] = PUT_BACK
                continue
            limit = entry.undoes
            found[entry.name] = IN_FORCE if self.kind.is_made(entry, made[entry.name]) else DRIFTED
        return found


def beginning(since: str) -> str:
    """A moment (UTC), or the name of an entry, as the beginning of the names of entries from then on.

    :raises SelectionError: it is neither.
    """
    moment = _MOMENT.fullmatch(since.strip())
    if moment:
        year, month, day, hour, minute, second = moment.groups(default="00")
        return f"{year}{month}{day}T{hour}{minute}{second}"
    if _ENTRY.fullmatch(since.strip()):
        return since.strip()
    raise SelectionError(
        f"since: {since!r} is no moment, such as 2026-01-31T23:59:00Z (UTC), and not the name of an entry of the "
        "journal. The module journal_info shows both."
    )
