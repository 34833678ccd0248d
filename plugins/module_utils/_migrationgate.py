# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of the migration gate: an agreement, and a hook that compares the host with it before a guest comes."""

from __future__ import annotations

import os
import stat
import sys
import typing as t
from dataclasses import dataclass, field

from . import _agreement, _gatehook, _gatevalues, _libvirtcheck, _libvirtd
from ._gate import AGREEMENT, DIRECTORY, OFF
from ._gatehook import File
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._agreement import Agreement
    from ._journal import Journal

HOOKS = "/etc/libvirt/hooks"
HOOK = f"{HOOKS}/qemu"
HOOK_DIRECTORY = f"{HOOKS}/qemu.d"
# The last one: it is to judge what the hooks before it made of the guest's XML.
HOOK_IN_DIRECTORY = f"{HOOK_DIRECTORY}/zz-hypervisor-hardening"
# The operator's own hook, where ours has to take its place. Beside it, for it may look around itself.
CHAINED = f"{HOOKS}/qemu.chained"

# The first release that runs what is in qemu.d (libvirt's docs/hooks.rst); seen on 9.0 and 11.3.
_DIRECTORY_SINCE = (6, 5, 0)
# What the hook needs of an interpreter.
_NEEDED = "import hashlib, json, sys, syslog, xml.etree.ElementTree; sys.exit(sys.version_info < (3, 9))"
_INTERPRETERS = ("/usr/bin/python3", "/usr/libexec/platform-python")
_EXECUTABLE = 0o111


class GateError(HardeningError):
    """The gate cannot be put up, or taken away."""


@dataclass(frozen=True)
class Wanted:
    """The options of the module, as its documentation describes them."""

    agreement: t.Mapping[str, t.Any] | None = None
    mode: str = "warn"
    present: bool = True


@dataclass(frozen=True)
class Found:
    """A file that is there: its bytes (of a symbolic link, where it leads), permission bits and owner."""

    content: bytes
    mode: int
    uid: int
    link: bool = False


@dataclass(frozen=True)
class State:
    """``there``: every file of ours and of the operator's hooks; ``directories``: of ours and of hooks, with permission
    bits and owner; ``scripts``: what libvirt runs, with the time (seconds since the epoch) since when it is there."""

    layout: _libvirtd.Layout
    version: str
    python: str
    there: t.Mapping[str, Found]
    directories: t.Mapping[str, tuple[int, int]]
    scripts: t.Mapping[str, float]
    live: t.Mapping[str, t.Any]
    unknown: t.Mapping[str, str]
    made_directory: bool = False

    @property
    def armed(self) -> bool:
        """Whether the daemon runs the hook: it looks for hooks once, when it starts (virhook.c, virHookInitialize), and
        from then on for each call if it found any. One that does not run will look."""
        if not self.scripts or self.layout.kind == "none":
            return False
        return self.layout.started is None or min(self.scripts.values()) < self.layout.started


@dataclass(frozen=True)
class Plan:
    """What is to be done, in this order. ``compilation``: a command that has Python compile new code, so that no guest
    waits for that; ``moves`` and ``links``: pairs of path and new path, or path and target."""

    present: bool
    agreement: Agreement | None
    mode: str
    hook: str
    chained: tuple[str, ...]
    directories: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    former: t.Mapping[str, Found] = field(default_factory=dict)
    compilation: tuple[str, ...] = ()
    moves: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    removals: tuple[str, ...] = ()
    emptied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[str, ...]:
        return (
            *(f"{path} is missing" for path in self.directories),
            *(f"{one.path} is not as it should be" for one in self.files),
            *(f"{path} is not {target}" for path, target in (*self.moves, *self.links)),
            *(f"{path} is still there" for path in (*self.removals, *self.emptied)),
        )

    @property
    def diff(self) -> list[dict[str, str]]:
        shown = [one for one in self.files if one.path in (AGREEMENT, _gatehook.FRONT)]
        rest = [*self.directories, *(one.path for one in self.files if one not in shown)]
        links = [f"{path} -> {target}" for path, target in (*self.links, *self.moves)]
        gone = [path for path in (*self.removals, *self.emptied) if path not in (AGREEMENT, _gatehook.FRONT)]
        texts = [(one.path, self._before(one.path), one.content.decode()) for one in shown]
        texts += [(path, self._before(path), "") for path in (AGREEMENT, _gatehook.FRONT) if path in self.removals]
        if rest or links or gone:
            texts.append(("files of the gate", "".join(f"{path}\n" for path in gone), "\n".join([*rest, *links, ""])))
        return [{"before_header": name, "after_header": name, "before": old, "after": new} for name, old, new in texts]

    def _before(self, path: str) -> str:
        found = self.former.get(path)
        return "" if found is None else found.content.decode("utf-8", "replace")


def observe(host: Host, wanted: Wanted) -> State:
    """Read the hooks, the daemon, and the host's own values of what is agreed on.

    :raises AgreementError: the agreement cannot be used.
    """
    agreement = None if wanted.agreement is None else _agreement.of(dict(wanted.agreement))
    there, directories = _read(host)
    live, unknown = _gatevalues.live(host, agreement.values if agreement else ())
    return State(
        layout=_libvirtd.layout(host),
        version=_libvirtcheck.library_version(_libvirtcheck.library(host)),
        python=_interpreter(host) if wanted.present else "",
        there=there,
        directories=directories,
        scripts=dict(_scripts(host)),
        live=live,
        unknown=unknown,
        made_directory=_made_directory(host) if not wanted.present else False,
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What is to be written, linked and removed.

    :raises GateError: no agreement, no libvirt, no Python for the hook, or files of ours that others can write.
    """
    _refuse_exposed(state)
    return _present(state, wanted) if wanted.present else _absent(state)


def check(host: Host, plan: Plan) -> None:
    """See whether every file could be written, made or removed.

    :raises HostError: one could not.
    """
    for one in plan.files:
        if host.exists(os.path.dirname(one.path)):
            host.check_writable(one.path)
        else:
            host.check_makeable(one.path)
    touched = [path for pair in plan.moves for path in pair] + [path for path, _target in plan.links]
    for path in (*touched, *plan.directories, *plan.removals, *plan.emptied):
        host.check_makeable(path)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Write what the hook needs before the hook, and remove it after the hook."""
    if not plan.present:
        _rename(host, plan, journal)
    for path in plan.directories:
        journal.record_value(f"directory:{path}", None, "made")
        host.make_directory(path, 0o755)
    for one in plan.files:
        _write(host, plan, one, journal)
    if plan.compilation:
        host.run(plan.compilation, timeout=60.0)
    if plan.present:
        _rename(host, plan, journal)
    for path in plan.removals:
        found = plan.former.get(path)
        if found is None or found.link:
            journal.record_value(f"link:{path}", found.content.decode() if found else "", None)
        else:
            journal.record_file(path, None)
        host.remove(path)
    for path in plan.emptied:
        journal.record_value(f"directory:{path}", "made", None)
        host.remove_directory(path)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values; in check mode ``armed`` and what follows from it are as they are now."""
    armed = plan.present and plan.mode != OFF and state.armed
    needed = plan.present and plan.mode != OFF and state.layout.active and not armed
    departures = _agreement.mismatches(plan.agreement, state.live, state.unknown) if plan.agreement else []
    return {
        "armed": armed,
        "restart_required": needed,
        "restart_units": list(state.layout.restart_units) if needed else [],
        "hook": plan.hook,
        "chained": list(plan.chained),
        "digest": plan.agreement.digest if plan.agreement else "",
        "mismatches": [
            {
                "key": one.key,
                "agreed": one.agreed,
                "live": one.live if one.known else None,
                "reason": "" if one.known else one.live,
            }
            for one in departures
        ],
    }


def _read(host: Host) -> tuple[dict[str, Found], dict[str, tuple[int, int]]]:
    """Every file of the hooks and of our directory, and the directories."""
    there: dict[str, Found] = {}
    directories: dict[str, tuple[int, int]] = {}
    waiting = [HOOKS]
    while waiting:
        directory = waiting.pop()
        status = host.stat_optional(directory, follow=False)
        if status is None or not stat.S_ISDIR(status.st_mode):
            continue
        directories[directory] = (stat.S_IMODE(status.st_mode), status.st_uid)
        for name in host.list(directory):
            path = f"{directory}/{name}"
            entry = host.stat(path, follow=False)
            bits, uid = stat.S_IMODE(entry.st_mode), entry.st_uid
            if stat.S_ISLNK(entry.st_mode):
                there[path] = Found(host.readlink(path).encode("utf-8", "surrogateescape"), bits, uid, link=True)
            elif stat.S_ISDIR(entry.st_mode) and (path == HOOK_DIRECTORY or _is_ours(path)):
                waiting.append(path)
            elif stat.S_ISREG(entry.st_mode):
                there[path] = Found(host.read(path) if _is_ours(path) else b"", bits, uid)
    return there, directories


def _is_ours(path: str) -> bool:
    return path == DIRECTORY or path.startswith(f"{DIRECTORY}/")


def _scripts(host: Host) -> t.Iterator[tuple[str, float]]:
    """What libvirt runs as hooks of QEMU (virhook.c, virHookCheck), with the change time of each."""
    for path in (HOOK, *(f"{HOOK_DIRECTORY}/{name}" for name in host.list(HOOK_DIRECTORY))):
        target, entry = host.stat_optional(path), host.stat_optional(path, follow=False)
        if target and entry and stat.S_ISREG(target.st_mode) and target.st_mode & _EXECUTABLE:
            yield path, entry.st_ctime


def _interpreter(host: Host) -> str:
    """A Python for the hook: the system's own rather than one that may go with a virtual environment."""
    for path in dict.fromkeys((*_INTERPRETERS, sys.executable)):
        if host.exists(path) and host.run([path, "-I", "-S", "-c", _NEEDED], timeout=20.0).rc == 0:
            return path
    return ""


def _made_directory(host: Host) -> bool:
    """Whether qemu.d is there only because it was made for the gate."""
    from ._journal import Journal

    target = f"directory:{HOOK_DIRECTORY}"
    found = [entry for entry in Journal(host, by="").entries() if entry.target == target]
    return bool(found) and found[-1].after == "made"


def _refuse_exposed(state: State) -> None:
    """Whoever can write here decides what root runs."""
    for path in (HOOKS, HOOK_DIRECTORY, *filter(_is_ours, state.directories)):
        mode, uid = state.directories.get(path, (0o755, 0))
        if uid not in (0, os.geteuid()) or mode & 0o022:
            raise GateError(
                f"{path} belongs to uid {uid} and has mode {mode:04o}, so others than root can change what libvirt "
                f"runs as root. Nothing was done. If what is in it can be trusted: chown root {path}; chmod go-w {path}"
            )


def _present(state: State, wanted: Wanted) -> Plan:
    if wanted.agreement is None:
        raise GateError("agreement is missing: without it the gate has nothing to compare this host with.")
    if state.layout.kind == "none":
        raise GateError("libvirt is not installed on this host, so no guest can come to it. Nothing was done.")
    if not state.python:
        raise GateError(
            "No Python of this host can run the hook, which takes 3.9 or later with its standard library (on Debian "
            "the package python3, not python3-minimal alone). Nothing was done."
        )
    agreement = _agreement.of(dict(wanted.agreement))
    hook, chains = _place(state)
    files = [
        File(AGREEMENT, agreement.render()),
        *_gatehook.files(wanted.mode, state.python, CHAINED if chains else ""),
    ]
    directories = dict.fromkeys(os.path.dirname(path) for path in (*(one.path for one in files), hook))
    missing = tuple(sorted(_missing(state, directories)))
    code = [path for path in missing if path.startswith(_gatehook.CODE)]
    kept = {one.path for one in files}
    target = os.path.relpath(_gatehook.FRONT, os.path.dirname(hook))
    linked = state.there.get(hook)
    moved = chains and CHAINED not in state.there
    gone = [path for path in state.there if _is_ours(path) and path not in kept and not _is_cache(path, directories)]
    gone += [path for path in (HOOK, HOOK_IN_DIRECTORY) if path != hook and _leads_to_us(state, path)]
    return Plan(
        present=True,
        agreement=agreement,
        mode=wanted.mode,
        hook=hook,
        chained=_others(state, hook, chains),
        directories=missing,
        files=tuple(one for one in files if not _is_right(state, one)),
        former=state.there,
        compilation=(state.python, "-I", "-S", "-m", "compileall", "-q", *code) if code else (),
        moves=((HOOK, CHAINED),) if moved else (),
        links=() if linked and linked.link and linked.content.decode() == target else ((hook, target),),
        removals=tuple(gone),
        emptied=tuple(_emptied(state, directories)),
        warnings=_warnings(state, wanted),
    )


def _absent(state: State) -> Plan:
    ours = [path for path in (HOOK, HOOK_IN_DIRECTORY) if _leads_to_us(state, path)]
    restored = CHAINED in state.there and HOOK in ours
    # Its place is taken by what is renamed to it.
    gone = [path for path in ours if not (restored and path == HOOK)]
    gone += [path for path in state.there if _is_ours(path)]
    emptied = list(_emptied(state, {}))
    left = [path for path in state.there if path.startswith(f"{HOOK_DIRECTORY}/") and path not in gone]
    if state.made_directory and HOOK_DIRECTORY in state.directories and not left:
        emptied.append(HOOK_DIRECTORY)
    return Plan(
        present=False,
        agreement=None,
        mode="",
        hook="",
        chained=(),
        former=state.there,
        moves=((CHAINED, HOOK),) if restored else (),
        removals=tuple(gone),
        emptied=tuple(emptied),
    )


def _place(state: State) -> tuple[str, bool]:
    """Where the hook goes, and whether it runs the operator's own, whose place it takes."""
    if _leads_to_us(state, HOOK):
        return HOOK, CHAINED in state.there
    parts = state.version.split(".")
    if all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= _DIRECTORY_SINCE:
        return HOOK_IN_DIRECTORY, False
    return HOOK, HOOK in state.there


def _leads_to_us(state: State, path: str) -> bool:
    found = state.there.get(path)
    target = os.path.relpath(_gatehook.FRONT, os.path.dirname(path))
    return found is not None and found.link and found.content.decode("utf-8", "surrogateescape") == target


def _others(state: State, hook: str, chains: bool) -> tuple[str, ...]:
    """The operator's hooks of QEMU, which run as before."""
    found = [path for path in state.scripts if path != hook and not _leads_to_us(state, path)]
    return (*([CHAINED] if chains else []), *found)


def _is_right(state: State, one: File) -> bool:
    found = state.there.get(one.path)
    return (
        found is not None
        and not found.link
        and (found.content, found.mode) == (one.content, one.mode)
        and found.uid in (0, os.geteuid())
    )


def _missing(state: State, directories: t.Iterable[str]) -> t.Iterator[str]:
    """The directories that are to be made, each before what is in it."""
    seen = set()
    for directory in directories:
        while directory not in state.directories and directory != "/etc/libvirt":
            seen.add(directory)
            directory = os.path.dirname(directory)
    return iter(seen)


def _is_cache(path: str, directories: t.Container[str]) -> bool:
    """Whether this is what Python keeps beside a module that stays."""
    directory, cache, _name = path.rpartition("/__pycache__/")
    return bool(cache) and directory in directories


def _emptied(state: State, kept: t.Container[str]) -> t.Iterator[str]:
    """Our directories that go, what is inside before them."""
    for path in sorted(filter(_is_ours, state.directories), reverse=True):
        if path not in kept and path.rpartition("/__pycache__")[0] not in kept:
            yield path


def _warnings(state: State, wanted: Wanted) -> tuple[str, ...]:
    main = state.there.get(HOOK)
    if main is not None and HOOK not in state.scripts:
        return (f"{HOOK} is there and cannot be executed, so libvirt does not run it.",)
    return ()


def _write(host: Host, plan: Plan, one: File, journal: Journal) -> None:
    found = plan.former.get(one.path)
    if found is None or found.link or found.content != one.content:
        if os.path.dirname(one.path) not in plan.directories:  # whose making the journal has
            journal.record_file(one.path, one.content)
        host.write(one.path, one.content, mode=one.mode)
    if found is not None and (found.mode, found.uid) != (one.mode, 0):
        journal.record_value(f"mode:{one.path}", [found.uid, found.mode], [0, one.mode])
        host.set_owner(one.path, os.geteuid(), -1, one.mode)


def _rename(host: Host, plan: Plan, journal: Journal) -> None:
    for path, target in plan.moves:
        journal.record_value(f"rename:{path}", path, target)
        host.rename(path, target)
    for path, target in plan.links:
        journal.record_value(f"link:{path}", None, target)
        host.symlink(target, path)
