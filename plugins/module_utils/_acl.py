# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access control lists of files (acl(5)), in the form that the kernel keeps them in (linux/posix_acl_xattr.h). Pure."""

from __future__ import annotations

import struct
import typing as t
from dataclasses import dataclass

ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_OF_GROUPS = (_USER, _OWNING_GROUP, _GROUP)
_NOBODY = 0xFFFFFFFF


class AclError(ValueError):
    """These bytes are no access control list."""


@dataclass(frozen=True, order=True)
class Entry:
    """``tag`` says whose it is, ``id`` which user or group, where one is named; ``may``: read 4, write 2, enter 1."""

    tag: int
    id: int
    may: int


@dataclass(frozen=True)
class Acl:
    """Who may do what with a file, in the kernel's order."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, mode: int, stored: bytes | None) -> Acl:
        """The list of a file, which its permission bits are where it has none.

        :raises AclError: the stored one is of another form.
        """
        if stored is None:
            bits = ((_OWNER, mode >> 6), (_OWNING_GROUP, mode >> 3), (_OTHER, mode))
            return cls(tuple(Entry(tag, _NOBODY, may & 7) for tag, may in bits))
        if len(stored) % 8 != 4 or struct.unpack_from("<I", stored)[0] != _VERSION:
            raise AclError("it is not of version 2")
        return cls(tuple(Entry(tag, number, may) for tag, may, number in struct.iter_unpack("<HHI", stored[4:])))

    def render(self) -> bytes:
        """The bytes for the kernel, which makes permission bits of a list that says no more than these."""
        parts = [struct.pack("<HHI", entry.tag, entry.may, entry.id) for entry in sorted(self.entries)]
        return struct.pack("<I", _VERSION) + b"".join(parts)

    def may(self, uid: int, gids: t.Collection[int], owner: int, group: int) -> int:
        """What a user may do: acl(5), "access check algorithm"."""
        mask = self._mask
        if uid == owner:
            return self._of(_OWNER)
        for entry in self.entries:
            if (entry.tag, entry.id) == (_USER, uid):
                return entry.may & mask
        groups = [entry.may for entry in self.entries if entry.tag == _GROUP and entry.id in gids]
        groups += [self._of(_OWNING_GROUP)] if group in gids else []
        if groups:
            # One group has to give all that is asked for; what this is for asks for one thing after the other.
            return max(groups) & mask
        return self._of(_OTHER)

    def with_user(self, uid: int, may: int) -> Acl:
        """The list that lets a user do this as well, and gives nobody else more."""
        mask = self._mask
        others = [
            Entry(entry.tag, entry.id, entry.may & mask) if entry.tag in _OF_GROUPS else entry
            for entry in self.entries
            if entry.tag != _MASK and (entry.tag, entry.id) != (_USER, uid)
        ]
        had = next((entry.may & mask for entry in self.entries if (entry.tag, entry.id) == (_USER, uid)), 0)
        return Acl(_masked([*others, Entry(_USER, uid, had | may)]))

    def without_user(self, uid: int) -> Acl:
        """The list without the entry of a user."""
        mask = self._mask
        left = [
            Entry(entry.tag, entry.id, entry.may & mask) if entry.tag in _OF_GROUPS else entry
            for entry in self.entries
            if entry.tag != _MASK and (entry.tag, entry.id) != (_USER, uid)
        ]
        return Acl(_masked(left) if any(entry.tag in (_USER, _GROUP) for entry in left) else tuple(sorted(left)))

    @property
    def text(self) -> str:
        """As getfacl(1) prints it, with numbers."""
        words = {_OWNER: "user", _USER: "user", _OWNING_GROUP: "group", _GROUP: "group", _MASK: "mask", _OTHER: "other"}
        return "".join(
            f"{words[entry.tag]}:{'' if entry.id == _NOBODY else entry.id}:"
            + "".join(letter if entry.may & bit else "-" for letter, bit in zip("rwx", (4, 2, 1)))
            + "\n"
            for entry in self.entries
        )

    def names(self, uid: int) -> bool:
        """Whether there is an entry for this user."""
        return any((entry.tag, entry.id) == (_USER, uid) for entry in self.entries)

    @property
    def _mask(self) -> int:
        return next((entry.may for entry in self.entries if entry.tag == _MASK), 7)

    def _of(self, tag: int) -> int:
        return next((entry.may for entry in self.entries if entry.tag == tag), 0)


def _masked(entries: t.Sequence[Entry]) -> tuple[Entry, ...]:
    """With the mask that lets each of them through as it is."""
    mask = 0
    for entry in entries:
        mask |= entry.may if entry.tag in _OF_GROUPS else 0
    return tuple(sorted([*entries, Entry(_MASK, _NOBODY, mask)]))
