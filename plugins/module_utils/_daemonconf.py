# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of libvirt's other files: libvirtd.conf and its like, edited without losing a byte that is not meant."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from . import _confedit, _confkeys, _daemonrules, _daemonunits, _libvirtd
from ._confedit import Change, Replacement
from ._confkeys import ConfError, Keys
from ._host import Host
from ._journal import Journal
from ._libvirtd import Layout, Loading
from ._virconf import Document

DIRECTORY = "/etc/libvirt"
# By what a daemon does, whatever the layout calls it: it drives QEMU, or it serves other hosts.
ROLES = {"qemu": ("libvirtd", "virtqemud"), "remote": ("libvirtd", "virtproxyd")}

_WITHOUT_LENS = (
    "The host has no lens of {path}, so a table of this collection told its keys. Perhaps the installed libvirt does "
    "not read such a file."
)
_DEFAULT_MODE = "0666"  # systemd.socket(5), SocketMode=


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them; either ``daemon`` or ``path``."""

    settings: t.Mapping[str, t.Any]
    daemon: str | None = None
    path: str | None = None
    optional: t.Sequence[str] = ()
    managed_elsewhere: t.Sequence[str] = ()
    allow_lockout: bool = False
    backup: bool = False
    unsafe_writes: bool = False


@dataclass(frozen=True)
class State:
    """What the host shows. ``data`` None: no file; ``reader`` None: no daemon of this host's layout reads it.

    ``activated``: systemd makes the reader's sockets; ``socket_mode``: the bits that it then gives the one for all
    calls; ``lacks_client``: the command, missing here, that it takes to prove a restart of the reader.
    """

    path: str
    data: bytes | None
    keys: Keys
    reader: Layout | None
    loading: Loading | None
    activated: bool
    socket_mode: int | None
    absent: _daemonrules.Lacking
    lacks_client: str
    now: float
    exposed: bool


@dataclass(frozen=True)
class Plan:
    """What is to become of the file. ``digest_before`` and ``digest`` are its meanings, see _libvirtd."""

    file: Replacement
    changes: tuple[Change, ...]
    diff: dict[str, str]
    warnings: tuple[str, ...]
    reader: Layout | None
    digest_before: str
    digest: str
    left_out: tuple[str, ...]
    left_alone: tuple[str, ...]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the file, libvirt's lens, what the settings name, and what the daemon has loaded.

    :raises ConfError: this host has no such file to read, or the file is not what libvirt's parser accepts.
    """
    main = _libvirtd.layout(host)
    path, name = _file(host, main, wanted)
    reader = _libvirtd.daemon(host, name) if name else Layout("none")
    own = path == f"{DIRECTORY}/{reader.daemon}.conf"
    activated = own and reader.kind != "beside" and _daemonunits.activated(host, reader.daemon)
    data = host.read_optional(path)
    loading = None
    if reader.kind != "none":
        digest = _libvirtd.meaning_digest(_document(path, data, name))
        loading = _libvirtd.loading(host, reader, Journal(host, by=""), path, digest)
    return State(
        path=path,
        data=data,
        keys=_confkeys.known(host, path.rpartition("/")[2]),
        reader=reader if reader.kind != "none" else None,
        loading=loading,
        activated=activated,
        socket_mode=_socket_mode(host, reader.daemon) if activated else None,
        absent=_daemonrules.lacking(host, wanted.settings),
        lacks_client=_lacks_client(host, reader),
        now=time.time(),
        exposed=_confedit.exposed(host, path),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What has to change, and how it looks.

    :raises ConfError: every objection to the options, each with its key.
    """
    path, who = state.path, _who(state)
    if not state.keys.types:
        raise ConfError(
            f"{path}: neither the installed libvirt nor this collection knows the keys of a file of this name, so "
            "that a misspelt one could not be told from a right one. Nothing was changed."
        )
    theirs = set(wanted.settings) & set(wanted.managed_elsewhere)
    values = _values(state, wanted, {key: value for key, value in wanted.settings.items() if key not in theirs})
    before, document = _document(path, state.data, who), _document(path, state.data, who)
    _confedit.edit(document, values)
    given = {key: value for key, value in values.items() if value is not None}
    _confedit.refuse(
        [*_daemonrules.problems(given, document, state.absent), *_refusals(state, wanted, given, document)]
    )
    changes = _confedit.changes(before, document, values)
    backup = wanted.backup and changes and state.data is not None
    return Plan(
        file=Replacement(
            path=path,
            before=state.data,
            after=document.render() if changes else state.data or b"",
            backup=_confedit.backup_name(path, state.now) if backup else None,
            unsafe_writes=wanted.unsafe_writes,
        ),
        changes=changes,
        diff=_confedit.diff(path, before, document, changes) if changes else {},
        warnings=(
            *_daemonrules.doubts(given),
            *_confedit.doubts(state.keys, document, values, path, who),
            *_without_effect(state, document, values),
            *([_confedit.open_to_others(path)] if state.exposed else []),
            *(_unprovable(state) if changes else ()),
            *([_WITHOUT_LENS.format(path=path)] if changes and state.keys.source == "fallback" else []),
        ),
        reader=state.reader,
        digest_before=_libvirtd.meaning_digest(before),
        digest=_libvirtd.meaning_digest(document),
        left_out=_confedit.left_out(state.keys, wanted.optional, wanted.settings),
        left_alone=tuple(sorted(theirs)),
    )


def check(host: Host, plan: Plan) -> None:
    """Make sure that the file can be replaced. No daemon of libvirt judges its own file without being started.

    :raises HostError: the file cannot be replaced.
    """
    if plan.changes:
        host.check_writable(plan.file.path, unsafe_writes=plan.file.unsafe_writes)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Write the file, journal first."""
    _prove(host, plan, journal, plan.digest_before)
    _confedit.write(host, plan.file, journal)
    _prove(host, plan, journal, plan.digest)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The return values; before the change is made (check mode), those of the time after it."""
    made = (state.data or b"") == plan.file.after
    loading = state.loading if made or state.loading is None else state.loading.after(plan.digest)
    return {
        "file": state.path,
        "read_by": state.reader.daemon if state.reader else "",
        "socket_activated": state.activated,
        "changes": [{"key": one.key, "before": one.before, "after": one.after} for one in plan.changes],
        "keys_from": state.keys.source,
        "restart_required": loading.restart_required if loading else False,
        "restart_units": list(loading.restart_units) if loading else [],
        "backup_file": plan.file.backup if made else None,
        "left_out": list(plan.left_out),
        "left_alone": list(plan.left_alone),
    }


def _file(host: Host, main: Layout, wanted: Wanted) -> tuple[str, str]:
    """The file, and the daemon of this host that reads it, "" for none."""
    if wanted.daemon is None:
        path = wanted.path or ""
        _confedit.require_absolute(path)
        if path == _libvirtd.QEMU_CONF:
            raise ConfError(f"path: for {path} there is hypervisor.hardening.qemu_conf, which has libvirt judge it.")
        directory, _slash, file = path.rpartition("/")
        return path, _daemonunits.reader(main.kind, file) if directory == DIRECTORY and main.kind != "none" else ""
    if main.kind == "none":
        raise ConfError(
            f"daemon: {wanted.daemon}: neither libvirtd nor virtqemud is installed on this host, so no file is read. "
            "Install libvirt, or name the file itself in path."
        )
    both = _libvirtd.rivals(host)
    if wanted.daemon in ROLES and len(both) > 1:
        raise ConfError(
            f"daemon: {wanted.daemon}: this host has {' and '.join(both)} in service at the same time, so it cannot be "
            "told which one serves a client. Disable the units of one of them (libvirt's daemons.rst), or name the "
            "daemon itself."
        )
    name = ROLES[wanted.daemon][main.kind == "modular"] if wanted.daemon in ROLES else wanted.daemon
    if wanted.daemon not in ROLES and not _daemonunits.reader(main.kind, f"{name}.conf"):
        raise ConfError(
            f"daemon: {name}.conf is not read on this host, whose layout is {main.kind}: {main.daemon} drives QEMU. "
            f"Set the keys of {main.daemon}; daemon: qemu and daemon: remote pick the file by themselves."
        )
    if not _daemonunits.installed(host, name) and not _libvirtd.running(host, name):
        raise ConfError(f"daemon: {name} is not installed on this host, so nothing reads {name}.conf.")
    return f"{DIRECTORY}/{name}.conf", name


def _lacks_client(host: Host, reader: Layout) -> str:
    client = "virt-admin" if reader.kind == "beside" else "virsh"
    return "" if reader.kind == "none" or host.has_command(client) else client


def _unprovable(state: State) -> t.Iterator[str]:
    if state.lacks_client:
        yield (
            f"{state.lacks_client} is not installed, and without it no restart over the new file can be proven. "
            "Install libvirt-clients (libvirt-client)."
        )


def _socket_mode(host: Host, daemon: str) -> int:
    unit = _daemonunits.Units(host).unit(_daemonunits.socket_units(daemon)["rw"])
    return int(unit.last("SocketMode", _DEFAULT_MODE), 8)


def _document(path: str, data: bytes | None, who: str) -> Document:
    return _confedit.document(path, data, who or "libvirt")


def _who(state: State) -> str:
    return state.reader.daemon if state.reader else "libvirt"


def _values(state: State, wanted: Wanted, settings: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Key to the value that libvirt is to read, None for a key that is to go; all objections to them at once."""
    values: dict[str, t.Any] = {}
    objections = _confedit.never_known(state.keys, wanted.managed_elsewhere)
    left_out = _confedit.left_out(state.keys, wanted.optional, settings)
    for key, value in settings.items():
        if key in left_out:
            continue
        try:
            values[key] = _confedit.converted(state.keys, key, value)
        except ConfError as error:
            objections.append(str(error))
    _confedit.refuse(objections)
    return values


def _refusals(state: State, wanted: Wanted, given: t.Mapping[str, t.Any], document: Document) -> t.Iterator[str]:
    for key in given if state.activated else ():
        units = _decided_by(state, key)
        if units:
            yield (
                f"{key}: systemd makes the sockets of {_who(state)}, which then ignores this key without a word. What "
                f"decides is {' and '.join(units)}{_instead(key, units)}. null removes the line."
            )
    if not wanted.allow_lockout:
        for what in _daemonrules.lock_outs(given):
            yield f"{what}, root from another host included. If that is meant, set allow_lockout: true."
    door = _daemonrules.open_door(document, state.socket_mode)
    if door and given.keys() & {"auth_unix_rw", "unix_sock_rw_perms"}:
        yield f"{door}, so every local user would be root. Close the socket to others first{_mode_place(state)}."


def _without_effect(state: State, document: Document, values: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """The lines of the file that systemd's units take the effect from."""
    for key in document.keys() if state.activated else ():
        units = _decided_by(state, key)
        if units and key not in values:
            yield f"{state.path} sets {key}, which has no effect: {' and '.join(units)} decides. null removes the line."


def _decided_by(state: State, key: str) -> list[str]:
    return _daemonunits.decided_by(state.reader.daemon, key) if state.reader else []


def _instead(key: str, units: t.Sequence[str]) -> str:
    """What of a unit says the same."""
    if key in ("listen_tcp", "listen_tls"):
        return f" (systemctl enable --now, or disable --now, {units[0]})"
    option = "SocketGroup" if key.endswith("group") else "SocketMode" if key.endswith("perms") else "ListenStream"
    return f" ({option}= there: systemctl edit {units[0]})"


def _mode_place(state: State) -> str:
    if state.socket_mode is None or state.reader is None:
        return " (unix_sock_rw_perms)"
    unit = _daemonunits.socket_units(state.reader.daemon)["rw"]
    return f" (SocketMode= of {unit}: systemctl edit {unit})"


def _prove(host: Host, plan: Plan, journal: Journal, digest: str) -> None:
    if plan.reader is not None:
        _libvirtd.prove(host, _libvirtd.daemon(host, plan.reader.daemon), journal, plan.file.path, digest)
