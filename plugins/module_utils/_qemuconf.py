# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of qemu.conf: the QEMU driver's configuration file, edited without losing a byte that is not meant."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, replace

from . import _confedit, _confkeys, _confrules, _libvirtd
from ._confedit import NOT_SHOWN, Change, Replacement
from ._confkeys import ConfError, Keys, is_secret
from ._host import Host, HostError
from ._journal import Journal
from ._virconf import Document

_READER = "libvirt's QEMU driver"
RULES_ONLY = "rules only"


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them."""

    settings: t.Mapping[str, t.Any]
    extend: t.Mapping[str, t.Any]
    secret_settings: t.Mapping[str, t.Any]
    path: str = _libvirtd.QEMU_CONF
    libvirt_check: bool = True
    backup: bool = False
    unsafe_writes: bool = False
    optional: t.Sequence[str] = ()
    managed_elsewhere: t.Sequence[str] = ()


@dataclass(frozen=True)
class State:
    """What the host shows. ``data`` None: no file; ``judge``: the libvirt that can be asked, None for none;
    ``loading`` None: not the file that the daemon reads; ``without_virsh``: its daemon is here, but virsh is not."""

    data: bytes | None
    keys: Keys
    default: Document | None
    absent: _confrules.Lacking
    judge: str | None
    loading: _libvirtd.Loading | None
    now: float
    exposed: bool
    without_virsh: bool


@dataclass(frozen=True)
class Plan:
    """What is to become of the file. ``digest_before`` and ``digest`` are its meanings, see _libvirtd."""

    path: str
    before: bytes | None
    after: bytes
    changes: tuple[Change, ...]
    diff: dict[str, str]
    warnings: tuple[str, ...]
    checked_by: str
    secrets: tuple[str, ...]
    digest_before: str
    digest: str
    backup_file: str | None
    unsafe_writes: bool
    left_out: tuple[str, ...]
    left_alone: tuple[str, ...]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the file, libvirt's lens, what the settings name, and what the daemon has loaded.

    :raises ConfError: the path is relative, or the file is not what libvirt's parser accepts.
    """
    _confedit.require_absolute(wanted.path)
    data = host.read_optional(wanted.path)
    loading = None
    if wanted.path == _libvirtd.QEMU_CONF:
        digest = _libvirtd.meaning_digest(_document(wanted.path, data))
        loading = _libvirtd.loading(host, _libvirtd.layout(host), Journal(host, by=""), wanted.path, digest)
    return State(
        data=data,
        keys=_confkeys.known(host),
        default=_confkeys.sample(host) if wanted.extend else None,
        absent=_confrules.lacking(host, wanted.settings),
        judge=_judge(host) if wanted.libvirt_check else None,
        loading=loading,
        now=time.time(),
        exposed=_confedit.exposed(host, wanted.path),
        without_virsh=loading is not None and loading.layout.kind != "none" and not host.has_command("virsh"),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What has to change, and how it looks.

    :raises ConfError: every objection to the options, each with its key.
    """
    given_elsewhere = _given(wanted) & set(wanted.managed_elsewhere)
    wanted = _without(wanted, given_elsewhere)
    values = _values(state, wanted)
    before = _document(wanted.path, state.data)
    document = _document(wanted.path, state.data)
    _confedit.edit(document, values)
    given = {key: value for key, value in values.items() if value is not None}
    _confedit.refuse(_confrules.problems(given, document, state.absent))
    changes = _confedit.changes(before, document, values)
    if changes and wanted.libvirt_check and state.without_virsh:
        raise ConfError(
            "virsh is not installed: without it libvirt cannot judge the new file, and no restart over it can be "
            "proven. Nothing was changed. Install libvirt-clients (libvirt-client), or go by the rules of this module "
            "alone with libvirt_check: false."
        )
    after = document.render() if changes else state.data or b""
    backup = wanted.backup and changes and state.data is not None
    return Plan(
        path=wanted.path,
        before=state.data,
        after=after,
        changes=changes,
        diff=_confedit.diff(wanted.path, before, document, changes) if changes else {},
        warnings=(
            *_confrules.doubts(given),
            *_confedit.doubts(state.keys, document, values, wanted.path, _READER),
            *_unasked(state, wanted, changes),
            *([_confedit.open_to_others(wanted.path)] if state.exposed else []),
        ),
        checked_by=f"libvirt {state.judge}" if state.judge and changes else RULES_ONLY,
        secrets=_confrules.secrets(before, document),
        digest_before=_libvirtd.meaning_digest(before),
        digest=_libvirtd.meaning_digest(document),
        backup_file=_confedit.backup_name(wanted.path, state.now) if backup else None,
        unsafe_writes=wanted.unsafe_writes,
        left_out=_left_out(state.keys, wanted),
        left_alone=tuple(sorted(given_elsewhere)),
    )


def check(host: Host, plan: Plan) -> None:
    """Let the installed libvirt judge the new file, without a trace.

    :raises ConfError: libvirt refuses it, or cannot be asked.
    :raises HostError: the file cannot be replaced.
    """
    if not plan.changes:
        return
    host.check_writable(plan.path, unsafe_writes=plan.unsafe_writes)
    if plan.checked_by == RULES_ONLY:
        return
    from . import _libvirtcheck

    try:
        _libvirtcheck.check(host, plan.path, plan.after)
    except _libvirtcheck.CheckError as error:
        message = str(error)
        for secret in plan.secrets:
            message = message.replace(secret, NOT_SHOWN)
        raise ConfError(
            f"{plan.checked_by} refuses what {plan.path} would hold. Nothing was changed. libvirt's words: {message}"
        ) from None
    except HostError as error:
        raise ConfError(f"{error} libvirt_check: false goes by the rules of this module alone.") from None


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Write the file, journal first."""
    _prove(host, plan, journal, plan.digest_before)
    file = Replacement(plan.path, plan.before, plan.after, plan.backup_file, plan.unsafe_writes)
    _confedit.write(host, file, journal)
    _prove(host, plan, journal, plan.digest)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The return values; before the change is made (check mode), those of the time after it."""
    made = (state.data or b"") == plan.after
    loading = state.loading if made or state.loading is None else state.loading.after(plan.digest)
    return {
        "changes": [{"key": one.key, "before": one.before, "after": one.after} for one in plan.changes],
        "keys_from": state.keys.source,
        "checked_by": plan.checked_by,
        "restart_required": loading.restart_required if loading else False,
        "restart_units": list(loading.restart_units) if loading else [],
        "guests_pending": list(loading.guests_pending) if loading else [],
        "backup_file": plan.backup_file if made else None,
        "left_out": list(plan.left_out),
        "left_alone": list(plan.left_alone),
    }


def _judge(host: Host) -> str | None:
    from . import _libvirtcheck

    return _libvirtcheck.version(host)


def _prove(host: Host, plan: Plan, journal: Journal, digest: str) -> None:
    if plan.path == _libvirtd.QEMU_CONF:
        _libvirtd.prove(host, _libvirtd.layout(host), journal, plan.path, digest)


def _document(path: str, data: bytes | None) -> Document:
    return _confedit.document(path, data, _READER)


def _given(wanted: Wanted) -> set[str]:
    return {*wanted.settings, *wanted.extend, *wanted.secret_settings}


def _without(wanted: Wanted, theirs: t.Collection[str]) -> Wanted:
    def ours(values: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        return {key: value for key, value in values.items() if key not in theirs}

    return replace(
        wanted,
        settings=ours(wanted.settings),
        extend=ours(wanted.extend),
        secret_settings=ours(wanted.secret_settings),
    )


def _values(state: State, wanted: Wanted) -> dict[str, t.Any]:
    """Key to the value that libvirt is to read, None for a key that is to go; all objections to them at once."""
    values: dict[str, t.Any] = {}
    objections = _confedit.never_known(state.keys, wanted.managed_elsewhere)
    left_out = _left_out(state.keys, wanted)
    for source, mapping in (("settings", wanted.settings), ("secret_settings", wanted.secret_settings)):
        for key, value in mapping.items():
            if key in left_out:
                continue
            try:
                values[key] = _value(state.keys, source, key, value)
            except ConfError as error:
                objections.append(str(error))
    for key, more in wanted.extend.items():
        try:
            if key in wanted.settings or key in wanted.secret_settings:
                raise ConfError(
                    f"{key} is in settings and in extend. Give the whole list, or what is to be added to it."
                )
            if key not in state.keys.types:
                raise ConfError(_confkeys.unknown(key, state.keys))
            values[key] = _confkeys.extended(key, more, state.default)
        except ConfError as error:
            objections.append(str(error))
    _confedit.refuse(objections)
    return values


def _left_out(keys: Keys, wanted: Wanted) -> tuple[str, ...]:
    return _confedit.left_out(keys, wanted.optional, {**wanted.settings, **wanted.secret_settings})


def _value(keys: Keys, source: str, key: str, value: t.Any) -> t.Any:
    if is_secret(key) and source == "settings":
        raise ConfError(f"{key} is a password and belongs in secret_settings, which is neither logged nor shown.")
    if not is_secret(key) and source == "secret_settings":
        raise ConfError(f"{key} is no password and belongs in settings, where its change is shown.")
    return _confedit.converted(keys, key, value)


def _unasked(state: State, wanted: Wanted, changes: t.Sequence[Change]) -> t.Iterator[str]:
    if changes and not wanted.libvirt_check:
        yield "The change was judged by the rules of this module only: libvirt_check is off."
    elif changes and state.judge is None:
        yield (
            "The change was judged by the rules of this module only: libvirt's own check needs virsh and libvirt's "
            "QEMU driver, which this host does not have."
        )
