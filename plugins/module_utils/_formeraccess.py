# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may use a file or socket that is there, as kinds of targets of the journal."""

from __future__ import annotations

import stat
import typing as t

from . import _acl
from ._former import Change, FormerError
from ._formerfiles import Mode, Owner
from ._host import Host

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal


class AccessList(Mode):
    """The access control list of a file, in hexadecimal digits; its permission bits where it has none."""

    name = "acl"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        path = self.path(entries[0].target)
        status = host.stat_optional(path, follow=False)
        if status is None:
            return None
        stored = host.attributes(path).get(_acl.ATTRIBUTE)
        return _acl.Acl.of(stat.S_IMODE(status.st_mode), stored).render().hex()

    def check(self, host: Host, change: Change) -> None:
        host.check_makeable(self.path(change.target))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.set_attribute(self.path(change.target), _acl.ATTRIBUTE, bytes.fromhex(change.wanted))

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (
            f"{self.path(change.target)}\n{_acl.Acl.of(0, bytes.fromhex(state)).text}"
            for state in (change.now, change.wanted)
        )
        return before, after


class Socket(Owner):
    """Owner, group and permission bits of a socket, which cannot be opened to change them."""

    name = "socket"

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        path = self.path(change.target)
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.changed = True
        owner = f"{change.wanted['uid']}:{change.wanted['gid']}"
        for words in (["chown", owner, path], ["chmod", f"{change.wanted['mode']:04o}", path]):
            done = host.run(words)
            if done.rc != 0:
                raise FormerError(f"{' '.join(words)} failed: {done.err.strip()}")
