# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The targets of the journal, each with its kind, its entries and its state now."""

from __future__ import annotations

import typing as t

from . import _history
from ._former import Kind
from ._formeraccess import AccessList, Socket
from ._formerfiles import Directory, File, Link, Mode, Owner, Rename
from ._formerselinux import Boolean, FileContext, Label, Permissive
from ._formertap import Tap
from ._formervalues import HugePages, Hugetlbfs, KernelFile, Propagation, Unit
from ._history import History
from ._host import Host
from ._journal import Journal

if t.TYPE_CHECKING:
    from ._journal import Entry

UNKNOWN = "unknown"


class Unknown(Kind):
    """What this version of the collection does not know."""

    name = UNKNOWN

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        return None

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        return True

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return False


_FILE, _UNKNOWN = File(), Unknown()
# By how the targets of values begin; the first one counts.
_VALUES: tuple[tuple[str, Kind], ...] = (
    ("directory:", Directory()),
    ("link:", Link()),
    ("mode:", Mode()),
    ("owner:", Owner()),
    ("acl:", AccessList()),
    ("socket:", Socket()),
    ("rename:", Rename()),
    ("unit:", Unit()),
    ("propagation:", Propagation()),
    ("hugetlbfs:", Hugetlbfs()),
    ("selinux:boolean:", Boolean()),
    ("selinux:permissive:", Permissive()),
    ("selinux:fcontext:", FileContext()),
    ("selinux:label:", Label()),
    ("/sys/class/net/", Tap()),
    ("/sys/kernel/mm/hugepages/", HugePages()),
    ("/sys/devices/system/node/", HugePages()),
    ("/proc/sys/", KernelFile()),
    ("/sys/module/", KernelFile()),
    ("/sys/kernel/", KernelFile()),
)


def kind(entry: Entry) -> Kind:
    """The kind of an entry's target."""
    if entry.kind == "file":
        return _FILE
    return next((known for begin, known in _VALUES if entry.target.startswith(begin)), _UNKNOWN)


def histories(host: Host) -> list[History]:
    """What the journal has of each target, in the order of their first entries. Reads only."""
    found: dict[str, list[Entry]] = {}
    for entry in Journal(host, by="").entries():
        found.setdefault(kind(entry).key(entry), []).append(entry)
    return [_history_of(host, target, entries) for target, entries in found.items()]


def module(entry: Entry) -> str:
    """The plain name of the module that made an entry."""
    return entry.by.rpartition(".")[2]


def gather(host: Host, since: str) -> dict[str, t.Any]:
    """The entries of the journal without what they hold, oldest first: the return values of journal_info.

    :raises SelectionError: ``since`` is no moment and no entry.
    """
    first = _history.beginning(since) if since else ""
    shown = []
    for history in histories(host):
        states = history.states()
        for entry in history.entries:
            known = history.kind.name != UNKNOWN
            if entry.name >= first:
                shown.append(
                    {
                        "name": entry.name,
                        "time": entry.time,
                        "by": module(entry),
                        "version": entry.version,
                        "kind": history.kind.name,
                        "target": entry.target,
                        "state": states[entry.name] if known else UNKNOWN,
                        "undoes": entry.undoes,
                    }
                )
    return {"entries": sorted(shown, key=lambda entry: entry["name"])}


def _history_of(host: Host, target: str, entries: t.Sequence[Entry]) -> History:
    known = kind(entries[0])
    return History(target, known, tuple(entries), known.now(host, entries))
