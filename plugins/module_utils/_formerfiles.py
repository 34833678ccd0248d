# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, directories and links as kinds of targets of the journal."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import typing as t

from ._confkeys import is_secret
from ._former import Change, FormerError, Kind
from ._host import Host
from ._journal import Journal

if t.TYPE_CHECKING:
    from ._journal import Entry

# A directory of this name is made by this collection alone, with all that is in it.
_OURS = "hypervisor-hardening"
_NOT_SHOWN = "(not shown)\n"
_METADATA = ("uid", "gid", "mode", "xattrs")


class File(Kind):
    """A regular file; its state is what ``Journal.file`` says."""

    name = "file"

    def path(self, target: str) -> str:
        return target

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        return Journal(host, by="").file(entries[0].target)

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        digest = None if then is None else hashlib.sha256(content(then)).hexdigest()
        return bool(digest == entry.after)

    def check(self, host: Host, change: Change) -> None:
        if change.wanted is None or not host.exists(os.path.dirname(change.target)):
            host.check_makeable(change.target)
        else:
            host.check_writable(change.target)
        if change.wanted is not None and _is_libvirts(change.target):
            _judge(host, change.target, content(change.wanted))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        seen, there = (None if state is None else content(state) for state in (change.now, self._there(host, change)))
        if there != seen:
            raise FormerError(f"{change.target} was changed by someone else while this run was planning. Run again.")
        if change.wanted is not None:
            journal.make_directory(os.path.dirname(change.target))
        journal.restore(change.first)
        if self._there(host, change) != change.wanted:
            raise FormerError(
                f"{change.target} was put back, but owner, mode or extended attributes are not what they were: its "
                "file system does not take them."
            )

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = _texts(change)
        if change.now is None or change.wanted is None or _metadata(change.now) == _metadata(change.wanted):
            return before, after
        return f"{_described(change.now)}{before}", f"{_described(change.wanted)}{after}"

    def _there(self, host: Host, change: Change) -> t.Any:
        return Journal(host, by="").file(change.target)


class Directory(Kind):
    """A directory that was made, or removed when it was empty; its state are the names in it."""

    name = "directory"

    def path(self, target: str) -> str:
        return target.partition(":")[2]

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        path = self.path(entries[0].target)
        status = host.stat_optional(path, follow=False)
        return host.list(path) if status is not None and stat.S_ISDIR(status.st_mode) else None

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        return self.is_same(then, entry.after)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return (one is None) == (other is None)

    def keeps(self, target: str, now: t.Any, gone: t.Container[str]) -> str:
        path = self.path(target)
        if path in gone or _is_ours(path):  # a mount on it
            return ""
        left = [name for name in now if f"{path}/{name}" not in gone]
        return f"it holds {', '.join(left)}" if left else ""

    def check(self, host: Host, change: Change) -> None:
        host.check_makeable(self.path(change.target))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        path = self.path(change.target)
        if change.wanted is not None:
            journal.make_directory(os.path.dirname(path))
            journal.taking_back(change.first).make_directory(path)
            return
        last = journal.taking_back(change.first)
        if _is_ours(path):
            _empty(host, path, last)
        last.record_value(change.target, "made", None)
        host.remove_directory(path)

    def diff(self, change: Change) -> tuple[str, str]:
        line = f"{self.path(change.target)}/\n"
        return ("", line) if change.now is None else (line, "")


class Link(Kind):
    """A symbolic link; its state is where it leads."""

    name = "link"

    def path(self, target: str) -> str:
        return target.partition(":")[2]

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        path = self.path(entries[0].target)
        status = host.stat_optional(path, follow=False)
        if status is None:
            return None
        return host.readlink(path) if stat.S_ISLNK(status.st_mode) else "(no link)"

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        place = os.path.dirname(self.path(entry.target))
        now, after = (None if to is None else os.path.normpath(os.path.join(place, to)) for to in (then, entry.after))
        return now == after

    def check(self, host: Host, change: Change) -> None:
        host.check_makeable(self.path(change.target))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        path = self.path(change.target)
        if change.wanted is not None:
            journal.make_directory(os.path.dirname(path))
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        if change.wanted is None:
            host.remove(path)
        else:
            host.remove(f"{path}.{_OURS}")  # of a run that was killed
            host.symlink(change.wanted, f"{path}.{_OURS}")
            host.rename(f"{path}.{_OURS}", path)

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (
            "" if state is None else f"{self.path(change.target)} -> {state}\n" for state in (change.now, change.wanted)
        )
        return before, after


class Mode(Kind):
    """Owner and permission bits of a file whose content stayed; a file that is gone has nothing to return to."""

    name = "mode"

    def path(self, target: str) -> str:
        return target.partition(":")[2]

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        status = host.stat_optional(self.path(entries[0].target), follow=False)
        return None if status is None else [status.st_uid, stat.S_IMODE(status.st_mode)]

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return other is None or bool(one == other)

    def check(self, host: Host, change: Change) -> None:
        host.check_writable(self.path(change.target))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        uid, mode = change.wanted
        host.set_owner(self.path(change.target), uid, -1, mode)

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (
            f"{self.path(change.target)}: owner {state[0]}, mode {state[1]:04o}\n"
            for state in (change.now, change.wanted)
        )
        return before, after


class Owner(Mode):
    """Owner, group and permission bits of a file or device."""

    name = "owner"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        status = host.stat_optional(self.path(entries[0].target), follow=False)
        if status is None:
            return None
        return {"uid": status.st_uid, "gid": status.st_gid, "mode": stat.S_IMODE(status.st_mode)}

    def check(self, host: Host, change: Change) -> None:
        host.check_makeable(self.path(change.target))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.set_owner(self.path(change.target), **change.wanted)

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (
            f"{self.path(change.target)}: {state['uid']}:{state['gid']} {state['mode']:04o}\n"
            for state in (change.now, change.wanted)
        )
        return before, after


class Rename(Kind):
    """A file that goes by one of two names; its state is the name that it goes by.

    The longer one is that of a file whose place is taken: as long as it is there, so is the file.
    """

    name = "rename"

    def path(self, target: str) -> str:
        return target.partition(":")[2]

    def key(self, entry: Entry) -> str:
        return f"rename:{min(entry.before, entry.after)}"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        names = (entries[0].before, entries[0].after)
        return max((name for name in names if host.stat_optional(name, follow=False)), default=None)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return other is None or bool(one == other)

    def check(self, host: Host, change: Change) -> None:
        host.check_makeable(change.wanted)

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.rename(change.now, change.wanted)

    def diff(self, change: Change) -> tuple[str, str]:
        return f"{change.now}\n", f"{change.wanted}\n"


def content(state: t.Any) -> bytes:
    """The bytes of a file by its state."""
    return base64.b64decode(state["content"])


def _is_ours(path: str) -> bool:
    return _OURS in path.split("/")


def _metadata(state: t.Any) -> t.Any:
    return [state[name] for name in _METADATA]


def _described(state: t.Any) -> str:
    attributes = f", {', '.join(sorted(state['xattrs']))}" if state["xattrs"] else ""
    return f"# owner {state['uid']}:{state['gid']}, mode {state['mode']:04o}{attributes}\n"


def _texts(change: Change) -> tuple[str, str]:
    """The contents without secrets: those of libvirt's files, wherever they are, with each password covered, those that
    everybody may read and that hold no key, and no others."""
    states = (change.now, change.wanted)
    covered = _covered(*(b"" if state is None else content(state) for state in states))
    if change.target.endswith(".conf") and covered:
        return covered
    if not _is_libvirts(change.target) and all(state is None or _is_public(state) for state in states):
        old, new = ("" if state is None else content(state).decode("utf-8", "replace") for state in states)
        return old, new
    old, new = ("" if state is None else _NOT_SHOWN for state in states)
    changed = change.now is not None and change.wanted is not None and content(change.now) != content(change.wanted)
    return old, "(changed, not shown)\n" if changed else new


def _is_public(state: t.Any) -> bool:
    return bool(state["mode"] & stat.S_IROTH) and b"PRIVATE KEY" not in content(state)


def _covered(before: bytes, after: bytes) -> tuple[str, str] | None:
    """Two contents in libvirt's grammar; None if they are not."""
    from . import _confedit
    from ._virconf import Document, VirConfError

    try:
        old, new = Document.parse(before), Document.parse(after)
    except VirConfError:
        return None
    keys = {*old.keys(), *new.keys()}
    return _confedit.covered(old, new, [key for key in keys if is_secret(key) and old.get(key) != new.get(key)])


def _is_libvirts(path: str) -> bool:
    """Whether a file has the grammar of libvirt's configuration."""
    return os.path.dirname(path) == "/etc/libvirt" and path.endswith(".conf")


def _judge(host: Host, path: str, data: bytes) -> None:
    """Let libvirt's grammar judge a file, and the installed libvirt its qemu.conf.

    :raises FormerError: the daemon would not start with it.
    """
    from . import _libvirtcheck, _libvirtd
    from ._confrules import secrets
    from ._virconf import Document, VirConfError

    refusal = (
        f"What {path} held before would keep libvirt's daemon from starting. Nothing was changed. Correct the file"
    )
    try:
        document = Document.parse(data)
    except VirConfError as error:
        raise FormerError(f"{refusal} by hand: {error}") from None
    if path != _libvirtd.QEMU_CONF or not _libvirtcheck.version(host):
        return
    try:
        _libvirtcheck.check(host, path, data)
    except _libvirtcheck.CheckError as error:
        words = str(error)
        for secret in secrets(document):
            words = words.replace(secret, "(not shown)")
        raise FormerError(f"{refusal} by hand. libvirt's words: {words}") from None


def _empty(host: Host, path: str, journal: Journal) -> None:
    """Remove all that is in a directory, each recorded first, so that it can return."""
    for name in host.list(path):
        inside = f"{path}/{name}"
        mode = host.stat(inside, follow=False).st_mode
        if stat.S_ISDIR(mode):
            _empty(host, inside, journal)
            journal.record_value(f"directory:{inside}", "made", None)
            host.remove_directory(inside)
        elif stat.S_ISLNK(mode):
            journal.record_value(f"link:{inside}", host.readlink(inside), None)
            host.remove(inside)
        else:
            journal.record_file(inside, None)
            host.remove(inside)
