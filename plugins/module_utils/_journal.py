# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was there before: each change's former state, kept on the host before the change is made."""

from __future__ import annotations

import base64
import calendar
import hashlib
import json
import os
import re
import stat
import time
import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host

VERSION = "0.1.0"
DIRECTORY = "/var/lib/hypervisor-hardening/journal"
_LOADED = "loaded.json"
_NAME_RE = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{9})-\d+\.json")


class JournalError(HardeningError):
    """The journal cannot be read, or cannot be trusted."""


@dataclass(frozen=True)
class Entry:
    """One change, as it was recorded before it was made.

    Names sort in the order of the changes, also where the clock was set back; ``time`` is what the clock said.
    ``kind`` is ``file`` (before: None or mode, uid, gid, xattrs, content) or ``value`` (a running value of the kernel).
    ``after`` is the sha256 of the file's new content, or the new value: what drift is measured against.
    ``undoes`` names the entry whose former state returns with this change, "" for a change of another kind: all entries
    of the same target from that one on are taken back by this one.
    """

    name: str
    time: str
    version: str
    by: str
    kind: str
    target: str
    before: t.Any
    after: t.Any
    undoes: str = ""

    def content(self) -> bytes | None:
        """The former bytes of a file, None where there was none."""
        return None if self.before is None else base64.b64decode(self.before["content"])


@dataclass(frozen=True)
class Loaded:
    """The last meaning of a file that a daemon is proven to have loaded.

    ``since`` is the time (seconds since the epoch) from which on that very meaning is in force;
    ``entry`` the last journal entry that this proof covers ("" for none); ``process`` the daemon that had loaded it
    (``_proc.Process.identity``, "" for none); ``ctime`` the file's change time then (nanoseconds, 0 for no file).
    """

    digest: str
    since: float
    entry: str
    process: str = ""
    ctime: int = 0


class Journal:
    """The journal of one host. ``by`` names the module that makes the changes; ``undoes``: see ``Entry``."""

    def __init__(self, host: Host, by: str, undoes: str = "") -> None:
        self._host = host
        self._notes = Host(host.root)  # what is noted here is no change of the host's
        self._by = by
        self._undoes = undoes

    def taking_back(self, entry: Entry) -> Journal:
        """The same journal, for changes with which the state before ``entry`` returns."""
        return Journal(self._host, self._by, entry.name)

    def record_file(self, path: str, after: bytes | None) -> Entry:
        """Keep a file's bytes, owner, mode and extended attributes before ``after`` replaces (None: removes) it."""
        digest = None if after is None else hashlib.sha256(after).hexdigest()
        return self._record("file", path, self.file(path), digest)

    def record_value(self, target: str, before: t.Any, after: t.Any) -> Entry:
        """Keep a running value (JSON types) before it is changed."""
        return self._record("value", target, before, after)

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return [self._read(name) for name in self._names()]

    def since(self, moment: float) -> list[Entry]:
        """The entries made at or after ``moment`` (seconds since the epoch, taken by the second), oldest first."""
        first = _stamp(int(moment))
        return [self._read(name) for name in self._names() if name >= first]

    def unproven(self, path: str) -> Entry | None:
        """The first change of a file that no daemon is proven to have loaded: its former bytes are the good ones."""
        proof = self.loaded(path)
        for name in self._names():
            if proof is None or name > proof.entry:
                entry = self._read(name)
                if entry.kind == "file" and entry.target == path:
                    return entry
        return None

    def make_directory(self, path: str) -> None:
        """Make a directory (0755), and its missing parents, each recorded first; an existing one is left alone."""
        if not self._host.exists(path):
            self.make_directory(os.path.dirname(path))
            self.record_value(f"directory:{path}", None, "made")
            self._host.make_directory(path, 0o755)

    def restore(self, entry: Entry) -> Entry:
        """Put a file's former bytes, owner, mode and extended attributes back, or remove a file that did not exist.

        :returns: the record of this, which is made first.
        """
        from ._atomic import Whole

        content, before = entry.content(), entry.before
        done = self.taking_back(entry).record_file(entry.target, content)
        if content is None:
            self._host.remove(entry.target)
        else:
            xattrs = {name: base64.b64decode(value) for name, value in before["xattrs"].items()}
            whole = Whole(entry.target, content, before["uid"], before["gid"], before["mode"], xattrs)
            self._host.write_together([whole])
        return done

    def loaded(self, path: str) -> Loaded | None:
        """What a daemon is proven to have loaded of a file, None before the first proof."""
        known = self._marks().get(path)
        try:
            return Loaded(**known) if known else None
        except TypeError as error:
            raise JournalError(_unreadable(error)) from None

    def mark_loaded(
        self, path: str, digest: str, *, since: float | None = None, process: str = "", ctime: int = 0
    ) -> None:
        """Remember that a daemon runs, and answers, with this meaning of a file; see ``Loaded``.

        :param since: None: since the first proof of this meaning, which is now if the last proof was of another one.
        """
        marks = self._marks()
        former = marks.get(path)
        if since is None:
            since = former["since"] if former and former["digest"] == digest else time.time()
        covered = max(self._names(), default="")
        mark = {"digest": digest, "since": since, "entry": covered, "process": process, "ctime": ctime}
        if mark != former:
            self._write(_LOADED, {**marks, path: mark})

    def _record(self, kind: str, target: str, before: t.Any, after: t.Any) -> Entry:
        now = time.time_ns()
        stamp = _stamp(now // 10**9)
        following = max(now, _nanoseconds(max(self._names(), default="")) + 1)
        name = f"{_stamp(following // 10**9)}.{following % 10**9:09d}-{os.getpid()}.json"
        entry = Entry(name, f"{stamp}Z", VERSION, self._by, kind, target, before, after, self._undoes)
        self._write(name, {key: value for key, value in vars(entry).items() if key != "name"})
        return entry

    def file(self, path: str) -> t.Any:
        """A file as an entry keeps it (``before``), None where there is none."""
        status = self._host.stat_optional(path)
        if status is None:
            return None
        return {
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "xattrs": {name: _base64(value) for name, value in self._host.attributes(path).items()},
            "content": _base64(self._host.read(path)),
        }

    def _names(self) -> list[str]:
        self._refuse_foreign()
        return [name for name in self._host.list(DIRECTORY) if name[0].isdigit() and name.endswith(".json")]

    def _read(self, name: str) -> Entry:
        path = f"{DIRECTORY}/{name}"
        try:
            return Entry(name=name, **json.loads(self._host.read(path)))
        except (ValueError, TypeError) as error:
            raise JournalError(
                f"{path} is not an entry of this journal ({error}). Move it away and run again."
            ) from None

    def _marks(self) -> dict[str, t.Any]:
        self._refuse_foreign()
        data = self._host.read_optional(f"{DIRECTORY}/{_LOADED}")
        try:
            return dict(json.loads(data)) if data else {}
        except (ValueError, TypeError) as error:
            raise JournalError(_unreadable(error)) from None

    def _refuse_foreign(self) -> None:
        """Whoever can write here chooses what root puts back."""
        for path in (os.path.dirname(DIRECTORY), DIRECTORY):
            status = self._host.stat_optional(path)
            if status is None:
                return
            if not stat.S_ISDIR(status.st_mode):
                raise JournalError(f"{path}, where the journal is kept, is no directory. Move it away and run again.")
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                raise JournalError(
                    f"{path} is no place for the journal: it belongs to uid {status.st_uid} and has mode "
                    f"{stat.S_IMODE(status.st_mode):04o}, so others than root can forge what is put back. Nothing was "
                    f"done. If what is in it can be trusted: chown root {path}; chmod 0700 {path}"
                )

    def _write(self, name: str, content: t.Any) -> None:
        self._notes.make_directory(os.path.dirname(DIRECTORY), 0o700)
        self._notes.make_directory(DIRECTORY, 0o700)
        self._notes.write(f"{DIRECTORY}/{name}", json.dumps(content, sort_keys=True).encode())


def _unreadable(error: Exception) -> str:
    return f"{DIRECTORY}/{_LOADED} cannot be read ({error}). Move it away and run again."


def _nanoseconds(name: str) -> int:
    """The moment in the name of an entry, 0 for any other name."""
    found = _NAME_RE.fullmatch(name)
    return calendar.timegm(tuple(map(int, found.groups()[:6]))) * 10**9 + int(found[7]) if found else 0


def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
