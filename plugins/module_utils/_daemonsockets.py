# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of the daemons' UNIX sockets that systemd makes: who may connect, now and after the next boot.

The kernel goes by the mode of the socket's file when somebody connects (unix(7)), so that a change of it holds at once,
cuts nobody off and needs no restart; the unit's drop-in makes the next socket the same.
"""

from __future__ import annotations

import re
import stat
import typing as t
from dataclasses import dataclass

from . import _daemonunits, _libvirtd, _socketunits, _units
from ._daemonunits import Unit, Units
from ._host import HardeningError, Host, HostError
from ._journal import Journal

DROP_IN = "90-hypervisor-hardening.conf"
KINDS = ("rw", "ro", "admin")

_UNIT_RE = re.compile(r"[A-Za-z0-9:_@][A-Za-z0-9:_.@\\-]*\.socket")
_DEFAULTS = {"SocketMode": "0666", "SocketGroup": "root"}  # systemd.socket(5)


class SocketError(HardeningError):
    """A wish that no socket can be given."""


@dataclass(frozen=True)
class Access:
    """Permission bits and the group of a socket; None: as they are."""

    mode: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What each kind of socket is to have, for every daemon that systemd listens for.

    ``disabled``: socket units that are not to listen at all.
    """

    rw: Access = Access()
    ro: Access = Access()
    admin: Access = Access()
    disabled: t.Sequence[str] = ()


@dataclass(frozen=True)
class Socket:
    """A socket as the file system has it (``mode`` None: it is not there), and what its unit gives the next one.

    ``plain_mode`` and ``plain_group``: what the unit gives without our drop-in.
    """

    daemon: str
    kind: str
    path: str
    unit: str
    unit_mode: str
    unit_group: str
    plain_mode: str
    plain_group: str
    mode: int | None
    group: str


@dataclass(frozen=True)
class State:
    """The sockets, and what else tells whether the wish can be granted."""

    sockets: tuple[Socket, ...]
    not_activated: tuple[str, ...]
    unknown_groups: frozenset[str]
    files: t.Mapping[str, str]
    open: tuple[_socketunits.Open, ...]


@dataclass(frozen=True)
class Change:
    """One socket's file in /run, the drop-in of its unit, or a unit that is to be disabled."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Plan:
    """``live``: sockets to change now; ``files``: drop-ins to write or remove; ``closing``: units to disable."""

    live: tuple[tuple[Socket, Access], ...]
    files: tuple[_units.Change, ...]
    closing: tuple[_socketunits.Open, ...]
    changes: tuple[Change, ...]
    diff: list[dict[str, str]]
    warnings: tuple[str, ...]


def observe(host: Host, wanted: Wanted) -> State:
    """The sockets of the daemons of this host's layout that systemd listens for."""
    units = Units(host)
    sockets: list[Socket] = []
    others: list[str] = []
    for daemon in _daemons(host):
        if not _daemonunits.activated(host, daemon):
            others.append(daemon)
            continue
        for kind, path in _daemonunits.sockets(daemon).items():
            unit = units.unit(_daemonunits.socket_units(daemon)[kind])
            if unit.fragment and not unit.masked:
                sockets.append(_socket(host, daemon, kind, path, unit))
    groups = {access.group for access in (wanted.rw, wanted.ro, wanted.admin) if access.group is not None}
    return State(
        sockets=tuple(sockets),
        not_activated=tuple(others),
        unknown_groups=frozenset(group for group in groups if host.gid(group) is None),
        files={
            path: text for path in map(_drop_in, sockets) for text in [host.text_optional(path)] if text is not None
        },
        open=_socketunits.observe(host, wanted.disabled),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What has to change, and how it looks.

    :raises SocketError: a mode that is none, or a group that the host does not have.
    """
    _refuse(state, wanted)
    live: list[tuple[Socket, Access]] = []
    files: list[_units.Change] = []
    changes: list[Change] = []
    for socket in state.sockets:
        access: Access = getattr(wanted, socket.kind)
        mode = _octal(access.mode)
        if socket.mode is not None and (mode not in (None, socket.mode) or access.group not in (None, socket.group)):
            live.append((socket, access))
            after = _words(socket.mode if mode is None else mode, access.group or socket.group)
            changes.append(Change(socket.path, _words(socket.mode, socket.group), after))
        change = _unit_change(state, socket, access)
        if change is not None:
            files.append(change)
    # what a later drop-in of somebody else takes back shows up here again, when the host is looked at once more
    changed_files = [
        Change(one.file.path, _content(one.before), f"{_content(one.file.text)}, in force") for one in files
    ]
    closed = [Change(one.unit, str(one), "disabled") for one in state.open]
    return Plan(
        live=tuple(live),
        files=tuple(files),
        closing=state.open,
        changes=(*changes, *changed_files, *closed),
        diff=[change.diff for change in files] + [_live_diff(change) for change in (*changes, *closed)],
        warnings=tuple(
            f"{daemon} makes its sockets itself: unix_sock_rw_perms and its like of {daemon}.conf decide."
            for daemon in state.not_activated
        ),
    )


def check(host: Host, plan: Plan) -> None:
    """Make sure that the drop-ins can be written. Changes nothing."""
    _units.check(host, plan.files)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Write the drop-ins, journal first, and give the sockets that are there the same."""
    _units.apply(host, plan.files, journal)
    for unit in plan.closing:
        _socketunits.close(host, unit, journal)
    for socket, access in plan.live:
        _record(host, journal, socket, access)
        if access.group is not None and access.group != socket.group:
            _run(host, "chgrp", access.group, socket.path)
        if access.mode is not None:
            _run(host, "chmod", access.mode, socket.path)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values; before the change is made (check mode), the sockets as they will be."""
    to_come = {socket.path: access for socket, access in plan.live}
    found = []
    for socket in state.sockets:
        access = to_come.get(socket.path, Access())
        mode = _octal(access.mode) if access.mode is not None else socket.mode
        found.append(
            {
                "daemon": socket.daemon,
                "kind": socket.kind,
                "path": socket.path,
                "unit": socket.unit,
                "mode": None if socket.mode is None else f"{mode:04o}",
                "group": None if socket.mode is None else access.group or socket.group,
            }
        )
    return {
        "sockets": found,
        "changes": [vars(change) for change in plan.changes],
        "not_activated": list(state.not_activated),
    }


def _daemons(host: Host) -> t.Iterator[str]:
    """Those of this host's layout that clients connect to; virtlogd and virtlockd serve root's daemons alone."""
    kind = _libvirtd.layout(host).kind
    for daemon in _daemonunits.DAEMONS:
        own = _daemonunits.reader(kind, f"{daemon}.conf") if kind != "none" else ""
        if own and daemon not in _daemonunits.BESIDE and _daemonunits.installed(host, daemon):
            yield daemon


def _socket(host: Host, daemon: str, kind: str, path: str, unit: Unit) -> Socket:
    path = next((one for one in unit.values.get("ListenStream", ()) if one.startswith("/")), path)
    status = host.stat_optional(path)
    there = status is not None and stat.S_ISSOCK(status.st_mode)
    return Socket(
        daemon=daemon,
        kind=kind,
        path=path,
        unit=unit.name,
        unit_mode=unit.last("SocketMode", _DEFAULTS["SocketMode"]),
        unit_group=unit.last("SocketGroup", _DEFAULTS["SocketGroup"]),
        plain_mode=_units.last_value(host, unit.name, "SocketMode", without=DROP_IN) or _DEFAULTS["SocketMode"],
        plain_group=_units.last_value(host, unit.name, "SocketGroup", without=DROP_IN) or _DEFAULTS["SocketGroup"],
        mode=stat.S_IMODE(status.st_mode) if status is not None and there else None,
        group=host.group_name(status.st_gid) if status is not None and there else "",
    )


def _refuse(state: State, wanted: Wanted) -> None:
    objections = [
        f"group: this host has no group {group!r}, and systemd would not make the socket. Create it first."
        for group in sorted(state.unknown_groups)
    ]
    for kind in KINDS:
        mode = getattr(wanted, kind).mode
        if mode is not None and _octal(mode) is None:
            objections.append(f"mode: {mode!r} is no octal mode such as 0660. Quote it: YAML reads a number otherwise.")
    for unit in wanted.disabled:
        if not _UNIT_RE.fullmatch(unit):
            objections.append(f"disabled: {unit!r} is no name of a socket unit, such as libvirtd-tcp.socket.")
    if objections:
        raise SocketError("\n".join(objections))


def _octal(mode: str | None) -> int | None:
    digits = (mode or "").strip()
    plain = 0 < len(digits) <= 4 and not digits.strip("01234567")
    return int(digits, 8) if plain else None


def _unit_change(state: State, socket: Socket, access: Access) -> _units.Change | None:
    """The drop-in that gives the next socket what is wanted, none where the unit does by itself."""
    if access == Access():
        return None
    mode, group = access.mode or socket.unit_mode, access.group or socket.unit_group
    lines = []
    if _octal(mode) != _octal(socket.plain_mode):
        lines.append(f"SocketMode={mode}")
    if group != socket.plain_group:
        lines.append(f"SocketGroup={group}")
    path = _drop_in(socket)
    before = state.files.get(path)
    text = f"{_units.HEADER}[Socket]\n" + "".join(f"{line}\n" for line in lines) if lines else None
    if before == text and _octal(mode) == _octal(socket.unit_mode) and group == socket.unit_group:
        return None
    return _units.Change(_units.File(path, text), before, enabled=False)


def _drop_in(socket: Socket) -> str:
    return f"{_units.DIRECTORY}/{socket.unit}.d/{DROP_IN}"


def _content(text: str | None) -> str:
    """A drop-in in one line."""
    lines = (text or "").splitlines()
    return ", ".join(line for line in lines if "=" in line) or "none of ours"


def _words(mode: int, group: str) -> str:
    return f"mode {mode:04o}, group {group}"


def _live_diff(change: Change) -> dict[str, str]:
    return {
        "before_header": change.path,
        "after_header": change.path,
        "before": f"{change.before}\n",
        "after": f"{change.after}\n",
    }


def _record(host: Host, journal: Journal, socket: Socket, access: Access) -> None:
    status = host.stat(socket.path)
    before = {"uid": status.st_uid, "gid": status.st_gid, "mode": stat.S_IMODE(status.st_mode)}
    mode = before["mode"] if access.mode is None else int(access.mode, 8)
    gid = before["gid"] if access.group is None else host.gid(access.group)
    journal.record_value(f"socket:{socket.path}", before, {**before, "gid": gid, "mode": mode})


def _run(host: Host, *words: str) -> None:
    """chmod(1) and chgrp(1): a socket cannot be opened, as Host would to change it."""
    host.changed = True
    done = host.run([*words])
    if done.rc != 0:
        raise HostError(f"{' '.join(words)} failed: {done.err.strip()}")
