# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pools of huge pages as they were asked for, with what makes no sense refused."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import _units
from ._host import HardeningError
from ._hugepages import PoolError, label, parse_size
from ._mountinfo import normal

# qemuStateInitialize adds S_IXGRP | S_IXOTH to the root of each hugetlbfs mount (qemu_driver.c).
FORCED_MODE = 0o011
# What the mount option mode= takes (fs/hugetlbfs/inode.c).
_MOUNT_MODE = 0o1777

_ONLY_WITH_PATH = ("owner", "group", "mode", "delegate")


@dataclass(frozen=True)
class Entry:
    """One pool: a page size in kibibytes, and what is wanted of it.

    ``reservations``: node (None: the whole machine) -> number of pages, empty: they stay as they are. ``path``: a mount
    point, "" for none. ``owner``, ``group``, ``mode``, ``delegate``: "" or None: as it is; ``delegate``: users.
    """

    size: int
    reservations: t.Mapping[int | None, int]
    path: str = ""
    owner: str = ""
    group: str = ""
    mode: int | None = None
    delegate: tuple[str, ...] | None = None
    absent: bool = False


@dataclass(frozen=True)
class Wanted:
    """The module's options; ``pools`` as they were given."""

    pools: t.Sequence[t.Mapping[str, t.Any]]
    persist: bool = True
    allow_partial: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The pools as they are meant.

        :raises PoolError: one of them, named by its place in the list, makes no sense, or two contradict each other.
        """
        entries = []
        for number, pool in enumerate(self.pools, start=1):
            try:
                entries.append(_entry({key: value for key, value in pool.items() if value is not None}))
            except HardeningError as error:
                raise PoolError(f"pools, number {number}: {error}") from None
        _refuse_contradictions(entries)
        return tuple(entries)


def _entry(pool: t.Mapping[str, t.Any]) -> Entry:
    absent = pool.get("state") == "absent"
    path = pool.get("path", "")
    if path:
        path = normal(path)
        _units.require_plain(path)
    if path == "/":
        raise PoolError("path: hugetlbfs cannot be mounted over /.")
    entry = Entry(
        size=parse_size(pool["size"]),
        reservations=_reservations(pool),
        path=path,
        owner=pool.get("owner", ""),
        group=pool.get("group", ""),
        mode=_mode(pool["mode"]) if "mode" in pool else None,
        delegate=tuple(pool["delegate"]) if "delegate" in pool else None,
        absent=absent,
    )
    idle = [name for name in _ONLY_WITH_PATH if name in pool and (absent or not path)]
    if idle:
        raise PoolError(f"{', '.join(idle)} only mean something with path, and with state present.")
    if absent and any(entry.reservations.values()):
        raise PoolError("state absent goes with pages 0, or without pages: nothing is reserved for what is absent.")
    if not path and not entry.reservations:
        raise PoolError("nothing is asked for. Give pages or pages_per_node to reserve, path to mount, or both.")
    for user in entry.delegate or ():
        if "/" in user or user in ("", "libvirt", ".", ".."):
            raise PoolError(f"delegate: {user!r} cannot be the name of a directory beside libvirt's own.")
    return entry


def _reservations(pool: t.Mapping[str, t.Any]) -> dict[int | None, int]:
    if "pages" in pool and "pages_per_node" in pool:
        raise PoolError("pages and pages_per_node exclude each other: the one is for the whole machine.")
    if "pages" in pool:
        return {None: _number("pages", pool["pages"])}
    per_node = pool.get("pages_per_node", {})
    return {_number("pages_per_node, a node", node): _number("pages_per_node", per_node[node]) for node in per_node}


def _number(name: str, value: t.Any) -> int:
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise PoolError(f"{name}: {value!r} is no number of 0 or more.")
    return int(text)


def _mode(value: t.Any) -> int:
    """Permission bits: octal digits in a string, or the number that YAML makes of 0755 without quotes."""
    try:
        mode = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value), 8)
    except ValueError:
        raise PoolError(f"mode: {value!r} is not octal. Write it as '0755', in quotes.") from None
    if mode & ~_MOUNT_MODE:
        raise PoolError(f"mode: hugetlbfs takes no bits beyond 1777, this is {mode:04o}.")
    if mode & FORCED_MODE != FORCED_MODE:
        raise PoolError(
            f"mode: {mode:04o} lacks execute (search) for group or others. libvirt's daemon adds both (0011) to the "
            "root of every hugetlbfs at its start, because guests have to get through. "
            f"Use {mode | FORCED_MODE:04o}."
        )
    return mode


def _refuse_contradictions(entries: t.Sequence[Entry]) -> None:
    reserved: dict[int, Entry] = {}
    paths: dict[tuple[str, bool], Entry] = {}
    for entry in entries:
        if entry.reservations and reserved.setdefault(entry.size, entry) is not entry:
            raise PoolError(f"pools: the pages of {label(entry.size)} are asked for twice. Say it in one pool only.")
        if entry.path and paths.setdefault((entry.path, entry.absent), entry) is not entry:
            raise PoolError(f"pools: {entry.path} is named twice. One mount has one size, owner and mode.")
    for (path, absent), entry in paths.items():
        if absent and (path, False) in paths and paths[path, False].size == entry.size:
            raise PoolError(f"pools: {path} with pages of {label(entry.size)} is to be present and absent.")
