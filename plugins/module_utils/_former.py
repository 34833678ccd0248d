# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of target of the journal is: how it is read, compared, shown and put back."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal


class FormerError(HardeningError):
    """A former state cannot return."""


@dataclass(frozen=True)
class Change:
    """A target, what it is ``now``, and what is ``wanted``: what it was before the entry ``first``."""

    target: str
    kind: Kind
    now: t.Any
    wanted: t.Any
    first: Entry

    @property
    def path(self) -> str:
        """Its path in the file system, "" for none."""
        return self.kind.path(self.target)

    @property
    def is_done(self) -> bool:
        return self.kind.is_same(self.wanted, self.now)

    @property
    def goes(self) -> bool:
        """Whether it was not there before."""
        return self.kind.is_nothing(self.wanted)

    def __str__(self) -> str:
        return f"{self.target} is not what it was before {self.first.name}"


class Kind:
    """States are those of ``Entry.before``: a value of JSON types, None for nothing."""

    # The name of the kind, in results.
    name = ""

    def path(self, target: str) -> str:
        """The path of a target in the file system, "" for none."""
        return ""

    def key(self, entry: Entry) -> str:
        """What entries of the same thing have in common."""
        return entry.target

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        """The state of the target of these entries. Reads only."""
        raise NotImplementedError

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        """Whether a state is what the entry's change makes."""
        return bool(then == entry.after)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        """Whether two states are the same to whoever goes by them."""
        return bool(one == other)

    def is_nothing(self, state: t.Any) -> bool:
        """Whether a state is that there is no such thing."""
        return state is None

    def keeps(self, target: str, now: t.Any, gone: t.Container[str]) -> str:
        """Why the target cannot go without a loss for somebody else; "" if it can.

        :param gone: the paths of the other targets that go.
        """
        return ""

    def stuck(self, target: str, now: t.Any) -> str:
        """Why the target cannot be anything else before the next boot; "" if it can."""
        return ""

    def is_news(self, change: Change) -> bool:
        """Whether a daemon that runs does not know of it before it is started again."""
        return False

    def check(self, host: Host, change: Change) -> None:
        """Make sure that the former state can return. Changes nothing.

        :raises HardeningError: it cannot, or something is in use.
        """

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        """Bring the former state back, journal first: what makes it the former one takes back ``change.first``."""
        raise NotImplementedError

    def diff(self, change: Change) -> tuple[str, str]:
        """What is now and what returns, as text without secrets."""
        return f"{change.target}: {_word(change.now)}\n", f"{change.target}: {_word(change.wanted)}\n"


def _word(state: t.Any) -> str:
    return "nothing" if state is None else str(state)
