# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edit of one of libvirt's configuration files, without losing a byte that is not meant: what the rooms share."""

from __future__ import annotations

import stat
import time
import typing as t
from dataclasses import dataclass

from . import _confkeys
from ._confkeys import ConfError, Keys, is_secret
from ._host import Host
from ._virconf import Document, VirConfError

if t.TYPE_CHECKING:
    from ._journal import Journal

NOT_SHOWN = "(not shown)"
CHANGED_NOT_SHOWN = "(changed, not shown)"


@dataclass(frozen=True)
class Change:
    """One key's change; the value of a secret one is not in it. None: not set. ``folded``: that many more lines go."""

    key: str
    before: t.Any
    after: t.Any
    folded: int = 0

    def __str__(self) -> str:
        lines = f" ({self.folded} later lines of the same key removed)" if self.folded else ""
        return f"{self.key}: {self.before!r} -> {self.after!r}{lines}"


@dataclass(frozen=True)
class Replacement:
    """A file and what it is to hold. ``before`` None: there is no such file; ``backup`` None: no copy beside it."""

    path: str
    before: bytes | None
    after: bytes
    backup: str | None
    unsafe_writes: bool


def document(path: str, data: bytes | None, reader: str) -> Document:
    """What a file says, nothing where there is none.

    :param reader: who reads it, for the message.
    :raises ConfError: it is not what libvirt's parser accepts.
    """
    try:
        return Document.parse(data or b"")
    except VirConfError as error:
        where = path if error.line is None else f"{path}, line {error.line}"
        raise ConfError(
            f"{where}: {error.message}. {reader} does not start with this file. Correct it by hand; nothing was "
            "changed."
        ) from None


def require_absolute(path: str) -> None:
    """Refuse a relative path."""
    if not path.startswith("/"):
        raise ConfError(f"path: {path!r} is not an absolute path.")


def converted(keys: Keys, key: str, value: t.Any) -> t.Any:
    """The value as libvirt reads it; None, which takes the line away, also of a key that libvirt does not know.

    :raises ConfError: libvirt has no such key, or reads another type there.
    """
    if value is None:
        return None
    kind = keys.types.get(key)
    if kind is None:
        raise ConfError(_confkeys.unknown(key, keys))
    return _confkeys.convert(key, kind, value, secret=is_secret(key))


def left_out(keys: Keys, optional: t.Sequence[str], values: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """The optional keys that would be set, but the installed libvirt does not know them."""
    return tuple(key for key in optional if key not in keys.types and values.get(key) is not None)


def never_known(keys: Keys, managed_elsewhere: t.Sequence[str]) -> list[str]:
    """An objection to each key of ``managed_elsewhere`` that no libvirt has had in this file."""
    return [
        f"managed_elsewhere: {key} is no key of {keys.file} to any libvirt, so the key that was meant would not be "
        f"left alone.{_confkeys.nearest(key, keys)}"
        for key in managed_elsewhere
        if not _confkeys.exists(key, keys)
    ]


def edit(document: Document, values: t.Mapping[str, t.Any]) -> None:
    """Set each key, or unset it (None).

    :raises ConfError: libvirt's grammar cannot hold a value.
    """
    objections = []
    for key, value in values.items():
        try:
            if value is None:
                document.unset(key)
            else:
                document.set(key, value)
        except VirConfError as error:
            objections.append(f"{key}: {error.message}.")
    refuse(objections)


def changes(before: Document, after: Document, values: t.Mapping[str, t.Any]) -> tuple[Change, ...]:
    """What an edit has changed."""
    found = []
    for key in values:
        old, new = before.get(key), after.get(key)
        folded = max(before.count(key) - 1, 0)
        if old == new and not folded:
            continue
        former, latter = (value.plain() if value is not None else None for value in (old, new))
        if is_secret(key):
            former = None if old is None else NOT_SHOWN
            latter = None if new is None else NOT_SHOWN if old == new else CHANGED_NOT_SHOWN
        found.append(Change(key, former, latter, folded))
    return tuple(found)


def diff(path: str, before: Document, after: Document, changes: t.Sequence[Change]) -> dict[str, str]:
    """The whole texts, which ansible-core makes a unified diff of, every password covered in both."""
    old, new = covered(before, after, [change.key for change in changes if change.after == CHANGED_NOT_SHOWN])
    return {"before": old, "after": new, "before_header": path, "after_header": path}


def covered(before: Document, after: Document, changed: t.Iterable[str]) -> tuple[str, str]:
    """Two texts with every password covered.

    :param changed: the keys of those that the second text has another value for.
    """
    hidden = {key: NOT_SHOWN for key in (*before.keys(), *after.keys(), *_KNOWN_SECRETS) if is_secret(key)}
    texts = before.render(hidden), after.render({**hidden, **dict.fromkeys(changed, CHANGED_NOT_SHOWN)})
    old, new = (text.decode("utf-8", "surrogateescape") for text in texts)
    return old, new


# In comments, too, a password may stand.
_KNOWN_SECRETS = ("vnc_password", "spice_password", "rdp_password")


def doubts(keys: Keys, document: Document, values: t.Mapping[str, t.Any], path: str, reader: str) -> t.Iterator[str]:
    """What is odd about the keys of the file that nobody asked to change."""
    for key in document.keys():  # noqa: SIM118 - a Document is no dict
        value = document.get(key)
        if key in values or value is None:
            continue
        kind = keys.types.get(key)
        if kind is None:
            yield f"{path} holds a line that is left alone: {_confkeys.unknown(key, keys)}"
        elif not _confkeys.suits(kind, value.plain()):
            yield f"{path}: {key} does not hold {kind}, and {reader} does not start with that."
        if document.count(key) > 1:
            yield f"{path} sets {key} {document.count(key)} times; libvirt takes the first one."


def exposed(host: Host, path: str) -> bool:
    """Whether somebody else than root may write the file, and so decide what root's daemon does."""
    status = host.stat_optional(path)
    return status is not None and (status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) != 0)


def open_to_others(path: str) -> str:
    """What to say of a file that is ``exposed``."""
    return (
        f"{path} does not belong to root, or its group or others may write it: whoever can decides what libvirt's "
        f"daemon, which is root, does. Owner and mode are kept; mend them: chown root {path}; chmod go-w {path}"
    )


def backup_name(path: str, now: float) -> str:
    """What a copy beside the file is called at a time (seconds since the epoch)."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}"
    return f"{path}.{stamp}~"


def write(host: Host, file: Replacement, journal: Journal) -> None:
    """Write the file, journal first, and the copy of the former one if it is wanted."""
    journal.record_file(file.path, file.after)
    if file.backup and file.before is not None:
        status = host.stat(file.path)
        host.write(file.backup, file.before)
        host.set_owner(file.backup, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    host.write(file.path, file.after, expected=file.before or b"", unsafe_writes=file.unsafe_writes)


def refuse(objections: t.Sequence[str]) -> None:
    """Raise all objections at once, if there are any."""
    if objections:
        raise ConfError("\n".join(objections))
