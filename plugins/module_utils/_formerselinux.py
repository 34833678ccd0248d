# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local changes to SELinux's policy as kinds of targets of the journal; SELinux's own tools put them back."""

from __future__ import annotations

import typing as t

from . import _selinux
from ._former import Change, FormerError, Kind
from ._host import Host
from ._kernelmac import kernel_mac

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal

_SECONDS = 300.0  # each command compiles the policy anew


class _Policy(Kind):
    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        return self._state(host, _named(entries[0].target)) if kernel_mac(host)[0] == "selinux" else None

    def check(self, host: Host, change: Change) -> None:
        for command in self._commands(change):
            if not host.has_command(command[0]):
                raise FormerError(f"{change.target}: {command[0]} is not installed, and nothing else puts it back.")

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.changed = True
        for command in self._commands(change):
            done = host.run(command, timeout=_SECONDS)
            if done.rc != 0:
                raise FormerError(f"{' '.join(command)} failed: {done.err.strip()}")

    def _state(self, host: Host, name: str) -> t.Any:
        raise NotImplementedError

    def _commands(self, change: Change) -> t.Iterator[tuple[str, ...]]:
        raise NotImplementedError


class Boolean(_Policy):
    """A boolean: as it runs, and as it was made persistent, "" where it never was: no tool takes that back alone."""

    name = "selinux_boolean"

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        after = [entry.after, _selinux.word(entry.after)] if isinstance(entry.after, bool) else entry.after
        return then is not None and self.is_same(after, then)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        if one is None or other is None:
            return one is other
        return bool(one[0] == other[0] and one[1] in ("", other[1]))

    def _state(self, host: Host, name: str) -> t.Any:
        policy = _selinux.configured(host).get("SELINUXTYPE", "")
        found = (one for one in _selinux.booleans(host, policy) if one["name"] == name)
        return next(([one["running"], one["configured"]] for one in found), None)

    def _commands(self, change: Change) -> t.Iterator[tuple[str, ...]]:
        running, configured = change.wanted
        name = _named(change.target)
        yield "setsebool", "-P", f"{name}={configured or _selinux.word(running)}"
        if configured and configured != _selinux.word(running):
            yield "setsebool", f"{name}={_selinux.word(running)}"


class Permissive(_Policy):
    """Whether SELinux only logs what a type does against the policy."""

    name = "selinux_permissive"

    def _state(self, host: Host, name: str) -> t.Any:
        return next((one["permissive"] for one in _selinux.types(host) if one["name"] == name), None)

    def _commands(self, change: Change) -> t.Iterator[tuple[str, ...]]:
        yield "semanage", "permissive", "--add" if change.wanted else "--delete", _named(change.target)


class FileContext(_Policy):
    """The type that the local part of the policy's files gives to the paths of a pattern."""

    name = "selinux_fcontext"

    def _state(self, host: Host, name: str) -> t.Any:
        return _selinux.local_type(host, name)

    def _commands(self, change: Change) -> t.Iterator[tuple[str, ...]]:
        if change.now is not None:
            yield "semanage", "fcontext", "--delete", _named(change.target)
        if change.wanted is not None:
            yield "semanage", "fcontext", "--add", "--type", change.wanted, _named(change.target)


class Label(_Policy):
    """The type in the label of a directory."""

    name = "selinux_label"

    def path(self, target: str) -> str:
        return _named(target)

    def _state(self, host: Host, name: str) -> t.Any:
        return _selinux.file_type(host, name) if host.exists(name) else None

    def _commands(self, change: Change) -> t.Iterator[tuple[str, ...]]:
        yield "chcon", "-t", change.wanted, _named(change.target)


def _named(target: str) -> str:
    return target.split(":", 2)[2]
