# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of QEMU's certificates and keys: one directory that is proven to work before anything in it is replaced."""

from __future__ import annotations

import os
import stat
import time
import typing as t
from dataclasses import dataclass, field

from . import _qemu, _tlsfiles, _tlsqemu, _x509
from ._atomic import Whole
from ._host import HardeningError, Host
from ._kernelmac import kernel_mac
from ._tlsfiles import AUTHORITY, CLIENT, PAIRS, SERVER

if t.TYPE_CHECKING:
    from ._journal import Journal

NOT_SHOWN = "(not shown)"
CHANGED_NOT_SHOWN = "(changed, not shown)"
RULES_ONLY = "rules only"

# Option -> file, in the order in which they are replaced.
FILES = {
    "ca_cert": AUTHORITY,
    **{f"{pair.role}_{what}": name for pair in PAIRS for what, name in (("cert", pair.certificate), ("key", pair.key))},
}
_KEYS = frozenset(pair.key for pair in PAIRS)
# QEMU, crypto/tlscredsx509.c and tlscreds.c: read as well where they are there.
_ALSO_READ = ("ca-crl.pem", "dh-params.pem")
# What lets a guest read a directory under AppArmor: the file of the distribution and those of the administrator.
_ABSTRACTIONS = "/etc/apparmor.d/abstractions"
_ALLOWS = (
    f"{_ABSTRACTIONS}/libvirt-qemu",
    "/etc/apparmor.d/local/abstractions/libvirt-qemu",
)
_DAY = 86400


class CredentialsError(HardeningError):
    """Certificates or keys with which no migration would work."""


@dataclass(frozen=True)
class Wanted:
    """The options of the module. The five of FILES are PEM texts; ``src`` has paths under the same names."""

    path: str = _tlsfiles.DEFAULT_DIRECTORY
    ca_cert: str | None = None
    server_cert: str | None = None
    server_key: str | None = field(default=None, repr=False)
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    src: t.Mapping[str, str | None] | None = None
    names: t.Sequence[str] = ()
    group: str | None = None
    renew_days: int = 30


@dataclass(frozen=True)
class Found:
    """A file that is there. ``link``: it is a symbolic one."""

    data: bytes = field(repr=False)
    uid: int
    gid: int
    mode: int
    link: bool


@dataclass(frozen=True)
class State:
    """``exposed``: others than root may write there; ``also``: files that nobody is to change; ``sources``: what
    the paths of ``src`` hold, by option; ``group``: the number of the wanted one, None where nobody knows it;
    ``used``: where libvirt has migrations look; ``name``: under which this host is reached for one; ``unconfined``: no
    AppArmor keeps guests out of the directory."""

    exposed: bool
    files: t.Mapping[str, Found]
    also: tuple[Whole, ...]
    sources: t.Mapping[str, bytes]
    user: _qemu.User | None
    group: int | None
    used: str
    name: str
    emulator: str
    unconfined: bool
    now: float


@dataclass(frozen=True)
class Change:
    """One file that is to be replaced, and why."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Plan:
    """``files``: all five as they are to be; ``replaced``: those of them that change; ``certificates`` by file name."""

    path: str
    files: tuple[Whole, ...] = field(repr=False)
    also: tuple[Whole, ...]
    replaced: tuple[Whole, ...] = field(repr=False)
    changes: tuple[Change, ...]
    diff: dict[str, str]
    warnings: tuple[str, ...]
    certificates: t.Mapping[str, tuple[_x509.Certificate, ...]]
    names: tuple[str, ...]
    user: _qemu.User | None
    emulator: str
    used: bool
    renew_days: int
    now: float


def observe(host: Host, wanted: Wanted) -> State:
    """Read the files, those that they are to be taken from, and what libvirt and QEMU go by.

    :raises CredentialsError: a path is relative, or a file of ``src`` cannot be read.
    """
    from . import _conffile

    sources = {option: path for option, path in (wanted.src or {}).items() if path is not None}
    for option, path in (("path", wanted.path), *((f"src.{option}", path) for option, path in sources.items())):
        if not path.startswith("/"):
            raise CredentialsError(f"{option}: {path!r} is not an absolute path.")
    settings = _conffile.read(host, "qemu.conf")
    uid, gid, _source = _qemu.user(host, settings)
    found = {name: _found(host, f"{wanted.path}/{name}") for name in (*FILES.values(), *_ALSO_READ)}
    status = host.stat_optional(wanted.path)
    return State(
        exposed=status is not None and (status.st_uid != 0 or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))),
        files={name: file for name, file in found.items() if file and name not in _ALSO_READ},
        also=tuple(
            Whole(f"{wanted.path}/{name}", file.data, file.uid, file.gid, file.mode)
            for name, file in found.items()
            if file and name in _ALSO_READ
        ),
        sources={option: _source_of(host, option, path) for option, path in sources.items()},
        user=None if uid is None or gid is None else _qemu.User(host.user_name(uid), uid, gid),
        group=gid if wanted.group is None else host.gid(wanted.group),
        used=_tlsfiles.directory(host, settings, "migrate"),
        name="" if wanted.names else _tlsfiles.migration_name(host, settings),
        emulator=_qemu.emulator(host),
        unconfined=kernel_mac(host)[0] != "apparmor" or _allowed(host, wanted.path),
        now=time.time(),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """Which files are to be replaced by what.

    :raises CredentialsError: every objection that needs no more than the files themselves.
    """
    if state.group is None:
        raise CredentialsError(_no_group(wanted))
    contents = _contents(state, wanted)
    certificates = _certificates(state, wanted.path, contents)
    files, replaced, changes = [], [], []
    for name, data in contents.items():
        mode = 0o640 if name in _KEYS else 0o644
        whole = Whole(f"{wanted.path}/{name}", data, 0, state.group if name in _KEYS else 0, mode)
        files.append(whole)
        what = _difference(state.files.get(name), whole)
        if what:
            replaced.append(whole)
            changes.append(Change(name, what))
    return Plan(
        path=wanted.path,
        files=tuple(files),
        also=state.also,
        replaced=tuple(replaced),
        changes=tuple(changes),
        diff=_diff(state, wanted.path, files, changes) if changes else {},
        warnings=tuple(_doubts(state, wanted, certificates)),
        certificates=certificates,
        names=tuple(wanted.names) or (state.name,),
        user=state.user,
        emulator=state.emulator if state.user else "",
        used=state.used.rstrip("/") == wanted.path.rstrip("/"),
        renew_days=wanted.renew_days,
        now=state.now,
    )


def check(host: Host, plan: Plan) -> None:
    """Prove that the files work together, and let the installed QEMU judge them, without a trace.

    :raises CredentialsError: they do not, or QEMU refuses them.
    :raises HostError: QEMU cannot be asked, or a file cannot be replaced.
    """
    found = _proof(host, plan)
    if not found and plan.emulator and plan.user:
        found = _tlsqemu.objections(host, plan.emulator, plan.path, (*plan.files, *plan.also), plan.user)
    if found:
        raise CredentialsError(_refused(plan.path, found))
    if host.exists(plan.path):
        for file in plan.replaced:
            host.check_writable(file.path)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Replace the files together, journal first."""
    journal.make_directory(plan.path)
    for file in plan.replaced:
        journal.record_file(file.path, file.data)
    host.write_together(plan.replaced)


def result(_state: State, plan: Plan) -> dict[str, t.Any]:
    """The return values: of the files as they are, in check mode as they would be."""
    ends = min(_ends(plan.certificates))
    return {
        "files": [change.file for change in plan.changes],
        "certificates": [
            {
                "file": name,
                "subject": one.subject,
                "names": list(one.names),
                "not_before": _x509.moment(one.begins),
                "not_after": _x509.moment(one.ends),
                "days_left": _days(one.ends, plan.now),
                "sha256": one.sha256,
            }
            for name, chain in plan.certificates.items()
            for one in chain
        ],
        "authorities": sorted(one.sha256 for one in plan.certificates[AUTHORITY]),
        "names": list(plan.names),
        "used_for_migration": plan.used,
        "not_after": _x509.moment(ends),
        "days_left": _days(ends, plan.now),
        "renew_soon": _days(ends, plan.now) < plan.renew_days,
        "checked_by": plan.emulator or RULES_ONLY,
    }


def _found(host: Host, path: str) -> Found | None:
    status = host.stat_optional(path)
    if status is None:
        return None
    link = stat.S_ISLNK(host.stat(path, follow=False).st_mode)
    return Found(host.read(path), status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), link)


def _source_of(host: Host, option: str, path: str) -> bytes:
    try:
        return host.read(path)
    except OSError as error:
        raise CredentialsError(f"src.{option}: {path} cannot be read: {error.strerror}. Nothing was changed.") from None


def _allowed(host: Host, directory: str) -> bool:
    """Whether libvirt's rules for guests name a directory (those of libvirt 7.0 to 11.3 name /etc/pki/qemu)."""
    more = f"{_ABSTRACTIONS}/libvirt-qemu.d"
    paths = [*_ALLOWS, *(f"{more}/{name}" for name in host.list(more))]
    texts = [host.text_optional(path) for path in paths]
    return texts[0] is None or any(f"{directory}/" in text for text in texts if text)


def _no_group(wanted: Wanted) -> str:
    if wanted.group is not None:
        return f"group: {wanted.group} is no group of this host. Nothing was changed."
    return (
        f"Nobody knows as which group QEMU runs, and so who has to read the keys: neither qemu.conf nor {_qemu.STATE} "
        "tells. Nothing was changed. Install libvirt first, or name the group."
    )


def _contents(state: State, wanted: Wanted) -> dict[str, bytes]:
    """What each file is to hold.

    :raises CredentialsError: every file that is missing, given twice, or of the wrong kind.
    """
    contents: dict[str, bytes] = {}
    objections = []
    for option, name in FILES.items():
        given, there = getattr(wanted, option), state.files.get(name)
        if there is not None and there.link:
            objections.append(
                f"{name} is a symbolic link, and what it leads to is somebody else's. Remove it, and give the path "
                f"in src.{option}."
            )
        elif given is not None and option in state.sources:
            objections.append(f"{option} is given as text and in src. Give one of them.")
        elif given is not None:
            contents[name] = given.rstrip("\n").encode() + b"\n"
        elif option in state.sources:
            contents[name] = state.sources[option]
        elif there is not None:
            contents[name] = there.data
        else:
            objections.append(f"{name} is not there. Give it in {option} or src.{option}.")
    objections += [f"{name} {text}" for name, data in contents.items() for text in _wrong_kind(name, data)]
    if objections:
        raise CredentialsError(_refused(wanted.path, objections))
    return contents


def _wrong_kind(name: str, data: bytes) -> t.Iterator[str]:
    if name not in _KEYS:
        if _x509.holds_key(data):
            yield "would hold a private key, and everybody may read this file. Leave the key out."
    elif not _x509.holds_key(data):
        yield "would hold no private key in PEM form."
    elif _x509.is_encrypted(data):
        yield "would hold a key that takes a password, which QEMU is not given. Store it without one."


def _certificates(state: State, path: str, contents: t.Mapping[str, bytes]) -> dict[str, tuple[_x509.Certificate, ...]]:
    """The certificates by file.

    :raises CredentialsError: one cannot be read, has expired, or is not valid yet.
    """
    found: dict[str, tuple[_x509.Certificate, ...]] = {}
    objections = []
    for name, data in contents.items():
        if name in _KEYS:
            continue
        try:
            found[name] = _x509.read(data)
        except _x509.CertificateError as error:
            objections.append(f"{name} cannot be used: {error}.")
            continue
        for one in found[name]:
            if one.ends <= state.now:
                objections.append(f"{name} ({one.subject}) has expired on {_x509.moment(one.ends)}. Issue it anew.")
            elif one.begins > state.now:
                objections.append(
                    f"{name} ({one.subject}) is valid from {_x509.moment(one.begins)} on only; this host has "
                    f"{_x509.moment(int(state.now))}."
                )
    if objections:
        raise CredentialsError(_refused(path, objections))
    return found


def _difference(there: Found | None, whole: Whole) -> str:
    if there is None:
        return "new"
    told = []
    if there.data != whole.data:
        told.append("other content")
    now, wanted = (f"{one.uid}:{one.gid} {one.mode:04o}" for one in (there, whole))
    if now != wanted:
        told.append(f"{now} instead of {wanted}")
    return ", ".join(told)


def _diff(state: State, path: str, files: t.Sequence[Whole], changes: t.Sequence[Change]) -> dict[str, str]:
    changed = {change.file for change in changes}
    before, after = [], []
    for whole in files:
        name = os.path.basename(whole.path)
        there = state.files.get(name)
        if name not in changed:
            continue
        if there is not None:
            before += _lines(name, there, NOT_SHOWN)
        same = there is not None and there.data == whole.data
        after += _lines(name, whole, NOT_SHOWN if same else CHANGED_NOT_SHOWN)
    return {
        "before": "".join(before),
        "after": "".join(after),
        "before_header": path,
        "after_header": path,
    }


def _lines(name: str, file: Found | Whole, key: str) -> list[str]:
    """How a file looks in a diff: what is read of its certificates, and nothing of a key."""
    owner = f"{name} {file.uid}:{file.gid} {file.mode:04o}"
    if name in _KEYS:
        return [f"{owner} {key}\n"]
    try:
        return [
            f"{owner} {one.subject} [{', '.join(one.names)}] {_x509.moment(one.begins)} to {_x509.moment(one.ends)} "
            f"sha256 {one.sha256}\n"
            for one in _x509.read(file.data)
        ]
    except _x509.CertificateError:
        return [f"{owner} (no certificate)\n"]


def _doubts(
    state: State, wanted: Wanted, certificates: t.Mapping[str, tuple[_x509.Certificate, ...]]
) -> t.Iterator[str]:
    for name, chain in certificates.items():
        for one in chain:
            days = _days(one.ends, state.now)
            if days < wanted.renew_days:
                yield (
                    f"{wanted.path}/{name} ({one.subject}) expires on {_x509.moment(one.ends)}, in {days} days. From "
                    "then on no guest is migrated over TLS. Renew it."
                )
    if state.exposed:
        yield (
            f"{wanted.path} does not belong to root, or its group or others may write there: whoever can decides whom "
            f"this host trusts. Mend it: chown root {wanted.path}; chmod go-w {wanted.path}"
        )
    if not state.unconfined:
        yield (
            f"AppArmor's rules for guests do not name {wanted.path}, so QEMU will not be able to read it. Use "
            f"{_tlsfiles.DEFAULT_DIRECTORY}, or add '{wanted.path}/** r,' to {_ALLOWS[1]}."
        )
    if not (state.emulator and state.user):
        yield (
            "The certificates were judged by the rules of this module only, because this host has no QEMU, or nobody "
            "knows as whom it runs."
        )


def _proof(host: Host, plan: Plan) -> list[str]:
    """What keeps two hosts with these files from talking to each other."""
    contents = {os.path.basename(file.path): file.data for file in plan.files}

    def prove() -> list[str]:
        from . import _tlsproof

        files = _tlsproof.in_memory(contents)
        server, client = (_tlsproof.Side(files[pair.certificate], files[pair.key]) for pair in (SERVER, CLIENT))
        return _tlsproof.objections(files[AUTHORITY], server, client, plan.names)

    found = t.cast("list[str]", host.in_child(prove))
    if any(" does not name " in text for text in found):
        own = plan.certificates[SERVER.certificate][0]
        names = ", ".join(own.names) or own.subject
        found.append(
            f"It names {names}. Sources of a migration look for the name that this host tells them, which is "
            "migration_host in qemu.conf, or else its own. Issue the certificate with that among its alternative "
            "names, or say in names what this host is reached by."
        )
    return found


def _refused(path: str, objections: t.Sequence[str]) -> str:
    return "\n".join((f"The certificates and keys for {path} are refused. Nothing was changed.", *objections))


def _ends(certificates: t.Mapping[str, tuple[_x509.Certificate, ...]]) -> list[int]:
    return [one.ends for chain in certificates.values() for one in chain]


def _days(ends: int, now: float) -> int:
    return int((ends - now) // _DAY)
