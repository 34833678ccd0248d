# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart libvirt's daemon over files that it accepts, and go back to the former ones if it does not come up.

Only a connection proves a start: systemd counts libvirtd as started before its drivers are (measured on 9.0 and 11.3:
with a qemu.conf that the driver refuses, ``systemctl restart`` returns 0, and half a second later the unit and its
sockets have failed with start-limit-hit). Only /proc proves that a guest lived through it.
"""

from __future__ import annotations

import re
import time
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass, replace

from . import _libvirtd, _proc
from ._host import Completed, HardeningError, Host
from ._libvirtd import Guest, Layout, LibvirtError

if t.TYPE_CHECKING:
    from ._journal import Journal, Loaded
    from ._virconf import Document

DIRECTORY = "/etc/libvirt"
_LOCK = "/var/lib/hypervisor-hardening"
# What the runs before this one may need in all, in units of their own limit.
_PATIENCE = 10
_SETTLE_SECONDS = 15.0

# What a daemon reads when it starts beside its own file (qemu_conf.c, bridge_driver_conf.c and their like).
_FILES = {
    "libvirtd": ("qemu.conf", "network.conf", "nwfilter.conf", "secret.conf"),
    "virtqemud": ("qemu.conf",),
    "virtnetworkd": ("network.conf",),
    "virtnwfilterd": ("nwfilter.conf",),
    "virtsecretd": ("secret.conf",),
}

# systemd.kill(5): the other modes also end what the daemon started.
_SPARING = ("process", "none")
# Whose restart breaks what guests are doing.
_DRIVING = ("libvirtd", "virtqemud")
# virDomainAsyncJob (domainjob.c). A backup goes on by itself; a restart breaks the others, and a dump leaves the
# guest paused (measured on 11.3).
_LASTING = ("none", "backup")
_JOB_RE = re.compile(r"<job [^>]*\basync='([^']+)'")


@dataclass(frozen=True)
class Wanted:
    """The daemon is to be a process that was started after ``since`` (clock ticks since boot).

    ``timeout``: seconds for each step: systemd's restart, and the first connection. ``daemon``: its name, "" for the
    one that drives QEMU. ``not_process``: one of BESIDE is to be another than this, for it does not grow younger.
    """

    since: int
    timeout: float
    daemon: str = ""
    not_process: str = ""


@dataclass(frozen=True)
class State:
    """The daemon, the running guests, and whether systemd runs the host."""

    layout: Layout
    guests: tuple[Guest, ...]
    systemd: bool


@dataclass(frozen=True)
class Plan:
    """``changes``: the units to restart. ``layout`` and ``guests`` are as they were before."""

    changes: tuple[str, ...]
    diff: dict[str, str]
    warnings: tuple[str, ...]
    layout: Layout
    guests: tuple[Guest, ...]
    wanted: Wanted


def now() -> int:
    """This moment in clock ticks since boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _proc.TICKS_PER_SECOND)


def observe(host: Host, wanted: Wanted) -> State:
    """Which daemon runs and which guests, once no other run is restarting it."""
    with _alone(host, wanted):
        return State(_layout(host, wanted), _libvirtd.guests(host), host.exists("/run/systemd/system"))  # sd_booted(3)


def plan(state: State, wanted: Wanted) -> Plan:
    """Restart the daemon, unless it was started after ``wanted.since``.

    :raises LibvirtError: there is no daemon, or no systemd to restart it.
    """
    layout = state.layout
    if layout.kind == "none" and wanted.daemon:
        raise LibvirtError(f"units: {wanted.daemon} is not installed on this host. Nothing was done. Leave it out.")
    if layout.kind == "none":
        raise LibvirtError(
            "There is nothing to restart: neither libvirtd nor virtqemud is installed. Install libvirt, or leave this "
            "host out."
        )
    if not state.systemd:
        raise LibvirtError(
            f"This host does not run systemd, and no other way to restart {layout.daemon} is known. Nothing was done. "
            f"Restart {layout.daemon} by the means of its init."
        )
    if _is_done(layout, wanted):
        return Plan((), {}, (), layout, state.guests, wanted)
    was = f"process {layout.pid}" if layout.active else "idle" if layout.idle else "not running"
    unit = layout.service
    diff = {"before_header": unit, "before": f"{was}\n", "after_header": unit, "after": "restarted\n"}
    return Plan(layout.restart_units, diff, tuple(_warnings(layout)), layout, state.guests, wanted)


def check(host: Host, plan: Plan) -> None:
    """Make sure that a restart can do no harm. Reads only.

    :raises LibvirtError: the daemon would refuse one of its files, or is traced; the unit is not what runs it, is
        masked, or ends more than the daemon; a job of a guest would be broken; a command is missing.
    """
    if not plan.changes:
        return
    client = "virt-admin" if plan.layout.kind == "beside" else "virsh"
    for command, package in (("systemctl", "systemd"), (client, "libvirt-clients (libvirt-client)")):
        if not host.has_command(command):
            raise LibvirtError(f"{command} is not installed; without it no restart can be proven. Install {package}.")
    _check_unit(host, plan)
    if plan.layout.daemon in _DRIVING:
        _check_jobs(host, plan.guests)
    for path in files(plan.layout):
        document = _document(host, path)
        if path == _libvirtd.QEMU_CONF:
            _check_qemu_conf(host, document)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Restart the daemon and open a connection; otherwise put the journalled files back and do it again.

    :raises LibvirtError: the daemon does not come up, also if it does with the former files; a guest is gone.
    """
    host.make_directory(_LOCK, 0o700)
    with _alone(host, plan.wanted):
        before = _layout(host, plan.wanted)
        if _is_done(before, plan.wanted):
            return  # another run did it while this one waited
        for path in files(before):
            if journal.unproven(path):
                _libvirtd.prove(host, before, journal, path, _digest(host, path))
        try:
            after = _bring_up(host, plan, before)
        except HardeningError as error:
            _go_back(host, plan, journal, before, str(error))
        for path in files(before):
            _libvirtd.remember(host, after, journal, path, _digest(host, path))
        lost = _lost(host, plan, after)
        if lost:
            raise LibvirtError(f"{before.daemon} was restarted and answers, but {lost}", **_facts(host, plan, False))


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    return {"restarted": list(plan.changes), "rolled_back": False, "guests": _compared(plan.guests, state.guests)}


def files(layout: Layout) -> list[str]:
    """The files that the daemon reads when it starts, whether they exist or not."""
    return [f"{DIRECTORY}/{name}" for name in (f"{layout.daemon}.conf", *_FILES.get(layout.daemon, ()))]


def _layout(host: Host, wanted: Wanted) -> Layout:
    return _libvirtd.daemon(host, wanted.daemon) if wanted.daemon else _libvirtd.layout(host)


def _is_done(layout: Layout, wanted: Wanted) -> bool:
    if layout.ticks is not None and layout.ticks > wanted.since:
        return True
    return layout.active and bool(wanted.not_process) and layout.process != wanted.not_process


@contextmanager
def _alone(host: Host, wanted: Wanted) -> t.Iterator[None]:
    """Not while another run restarts the daemon; the first run of all finds no directory to hold, and no other run."""
    if not host.exists(_LOCK):
        yield
        return
    with host.locked(_LOCK, timeout=_PATIENCE * wanted.timeout):
        yield


def _warnings(layout: Layout) -> t.Iterator[str]:
    if layout.suspended:
        yield f"{layout.daemon} (process {layout.pid}) is stopped by a signal (SIGSTOP); the restart ends that."
    if not layout.active and not layout.idle:
        yield f"{layout.daemon} does not run, and no client can start it; the restart starts it."


def _check_unit(host: Host, plan: Plan) -> None:
    unit = plan.layout.service
    asked = ["systemctl", "show", "--property=LoadState,KillMode,MainPID", unit]
    told = dict(line.partition("=")[::2] for line in host.run(asked, timeout=plan.wanted.timeout).out.splitlines())
    state = told.get("LoadState", "not known")
    if state != "loaded":
        advice = f"systemctl unmask {unit}" if state == "masked" else f"systemctl status {unit}"
        raise LibvirtError(f"{unit} cannot be restarted: to systemd it is {state}. Nothing was done. See: {advice}")
    running = _layout(host, plan.wanted).pid
    tracer = _proc.status(host, running).get("TracerPid", "0") if running is not None else "0"
    if tracer != "0":
        raise LibvirtError(
            f"Process {tracer}, a debugger or strace, is attached to {plan.layout.daemon} (process {running}), which "
            "may never end under it. Nothing was done. Let it detach and run again."
        )
    if running is not None and told.get("MainPID") != str(running):
        raise LibvirtError(
            f"{plan.layout.daemon} runs as process {running}, which systemd does not know as {unit}: its restart would "
            f"not reach it. Nothing was done. End that process, then: systemctl start {unit}"
        )
    mode = told.get("KillMode", "not known")
    if plan.guests and mode not in _SPARING and plan.layout.kind != "beside":
        names = ", ".join(guest.name for guest in plan.guests)
        raise LibvirtError(
            f"{unit} has KillMode={mode}: a restart would also end what belongs to running guests ({names}). Nothing "
            f"was done. Give it libvirt's own KillMode=process (systemctl edit {unit}), or stop the guests first."
        )


def _check_jobs(host: Host, guests: tuple[Guest, ...]) -> None:
    found = [(guest.name, _job(host, guest.name)) for guest in guests]
    busy = [f"{name} ({job})" for name, job in found if job not in _LASTING]
    if busy:
        raise LibvirtError(
            f"A job is under way that a restart of the daemon would break: {', '.join(busy)}. Nothing was done. Run "
            "again when it is done (virsh domjobinfo shows how far it is, virsh domjobabort ends it)."
        )


def _job(host: Host, name: str) -> str:
    """The asynchronous job of a running guest, from its status file (domain_conf.c, virDomainObjFormat)."""
    head = (host.text_optional(f"{_libvirtd.RUN_DIRECTORY}/{name}.xml") or "").partition("<domain ")[0]
    found = _JOB_RE.search(head)
    return found[1] if found else "none"


def _check_qemu_conf(host: Host, document: Document) -> None:
    """Let the installed libvirt judge qemu.conf, where it can be asked."""
    from . import _libvirtcheck
    from ._confrules import secrets

    if not _libvirtcheck.version(host):
        return
    try:
        _libvirtcheck.check(host, _libvirtd.QEMU_CONF, document.render())
    except _libvirtcheck.CheckError as error:
        words = str(error)
        for secret in secrets(document):
            words = words.replace(secret, "(not shown)")
        raise LibvirtError(
            f"The installed libvirt refuses {_libvirtd.QEMU_CONF}. Nothing was restarted: it would not come up again. "
            f"Correct the file. libvirt's words: {words}"
        ) from None


def _document(host: Host, path: str) -> Document:
    """A file, empty where there is none.

    :raises LibvirtError: libvirt's grammar does not accept it.
    """
    from ._virconf import Document, VirConfError

    try:
        return Document.parse(host.read_optional(path) or b"")
    except VirConfError as error:
        raise LibvirtError(f"{path}: {error}. Libvirt does not start with that. Correct the file.") from None


def _digest(host: Host, path: str) -> str:
    return _libvirtd.meaning_digest(_document(host, path))


def _bring_up(host: Host, plan: Plan, before: Layout) -> Layout:
    """Restart the unit and open a connection to the new process.

    :returns: the daemon that answered.
    :raises HardeningError: none does; the message is the daemon's own where it has left one.
    """
    begun = time.time()
    host.changed = True
    # Earlier restarts must not count against this one, nor against the sockets (systemd.unit(5), StartLimitBurst=).
    _systemctl(host, plan, "reset-failed", before.service)
    done = _systemctl(host, plan, *_anew(_layout(host, plan.wanted), before.service))
    if done is None:
        # It does not end; what belongs to guests is spared (see _check_unit). systemd's own job goes on and is only
        # waited for: another restart would hit the new process.
        _systemctl(host, plan, "kill", "--kill-who=main", "--signal=KILL", before.service)
        done = _systemctl(host, plan, "start", before.service)
    deadline = time.monotonic() + plan.wanted.timeout
    while True:
        left = deadline - time.monotonic()
        try:
            _libvirtd.connect(host, before, max(1.0, min(left, _libvirtd.CONNECT_SECONDS)))
            after = _layout(host, plan.wanted)
            if after.active and after.process != before.process:
                # of one that has executed itself anew, the process is as old as it was
                return replace(after, started=begun) if before.kind == "beside" else after
            said = done.err.strip() if done else f"systemctl restart did not end within {plan.wanted.timeout:g} seconds"
            raise LibvirtError(f"{before.daemon} answers, but it is still process {before.pid}. {said}")
        except HardeningError as error:
            failed = _systemctl(host, plan, "is-failed", "--quiet", before.service)
            if left <= 0 or (failed is not None and failed.rc == 0):
                raise LibvirtError((_words(host, before, begun) or str(error)).rstrip(".")) from None
        time.sleep(0.2)


def _anew(present: Layout, unit: str) -> tuple[str, ...]:
    """How to have a daemon start over: those of BESIDE hand on what guests hold of them, if asked by SIGUSR1."""
    if present.kind == "beside" and present.active:
        return ("kill", "--kill-who=main", "--signal=USR1", unit)
    return ("restart", unit)


def _systemctl(host: Host, plan: Plan, *words: str) -> Completed | None:
    """How systemctl ended, None if it did not in time. The status of a restart proves nothing: another one cancels it,
    and a daemon that is up may be down in a moment."""
    try:
        return host.run(["systemctl", *words], timeout=plan.wanted.timeout)
    except HardeningError:
        return None


def _words(host: Host, layout: Layout, since: float) -> str:
    """Why a driver did not start, by what the daemon has said since; or else its last line; "" if it said nothing."""
    query = [f"--since=@{since:.6f}", f"_SYSTEMD_UNIT={layout.service}", f"_COMM={layout.daemon}"]
    try:
        told = host.run(["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=50", *query], timeout=10)
    except HardeningError:
        return ""
    lines = [line for line in told.out.splitlines() if line.strip() and line != "Driver state initialization failed"]
    why = [line for line in lines if line.startswith("Initialization of ")]
    return (why or lines or [""])[-1]


def _go_back(host: Host, plan: Plan, journal: Journal, before: Layout, why: str) -> t.NoReturn:
    """Put back the files as they were when the daemon last came up with them, restart it, and say so."""
    daemon = before.daemon
    known = {path: journal.loaded(path) for path in files(before)}
    put_back: list[str] = []
    trouble: list[str] = []
    for path in known:
        entry = journal.unproven(path)
        if entry is None or host.read_optional(path) == entry.content():
            continue
        try:
            journal.restore(entry)
            put_back.append(f"{path} (as it was before {entry.time})")
        except HardeningError as error:
            trouble.append(str(error))
    mend = f"Mend the cause, then: systemctl reset-failed {before.service}; systemctl restart {before.service}"
    if not put_back:
        nothing = " ".join(trouble) or "The journal has no change of its files since it last came up: nothing to undo."
        raise LibvirtError(f"{daemon} does not come up. It says: {why}. {nothing} {mend}", **_facts(host, plan, False))
    back = f"Put back: {', '.join(put_back)}."
    try:
        after = _bring_up(host, plan, before)
    except HardeningError as error:
        raise LibvirtError(
            f"{daemon} does not come up. It says: {why}. {back} It does not come up with that either: {error}. {mend}",
            **_facts(host, plan, True),
        ) from None
    for path, former in known.items():
        digest = _digest(host, path)
        _libvirtd.remember(host, after, journal, path, digest, since=_unbroken(former, before, digest))
    lost = _lost(host, plan, after)
    raise LibvirtError(
        f"{daemon} did not come up with the new configuration. It said: {why}. {back} With that it answers again; "
        f"what it refused is kept in the journal. Mend the cause and run again.{f' But {lost}' if lost else ''}",
        **_facts(host, plan, True),
    )


def _unbroken(former: Loaded | None, before: Layout, digest: str) -> float | None:
    """Since when this meaning is in force, if the daemon that ran before the attempt went by it."""
    if former is not None and former.process == before.process and former.digest == digest:
        return former.since
    return None


def _lost(host: Host, plan: Plan, after: Layout) -> str:
    """What to say of guests that did not live through the restart, "" if all did.

    libvirt takes up its guests one by one after it answers; it writes each one's status file at the end
    (qemu_process.c, qemuProcessReconnect) and ends a guest that it cannot take up.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    alive = _alive(plan.guests, _libvirtd.guests(host))
    while time.monotonic() < deadline and not all(_taken_up(host, guest.name, after) for guest in alive):
        time.sleep(0.05)
        alive = _alive(plan.guests, _libvirtd.guests(host))
    gone = [f"{guest.name} (was process {guest.pid})" for guest in plan.guests if guest not in alive]
    if not gone:
        return ""
    return (
        f"these guests are gone: {', '.join(gone)}. Why is in /var/log/libvirt/qemu/NAME.log and in journalctl -u "
        f"{plan.layout.service}."
    )


def _taken_up(host: Host, name: str, after: Layout) -> bool:
    if after.daemon not in _DRIVING:
        return True
    status = host.stat_optional(f"{_libvirtd.RUN_DIRECTORY}/{name}.xml")
    return status is None or after.started is None or status.st_mtime >= after.started


def _alive(before: tuple[Guest, ...], after: tuple[Guest, ...]) -> list[Guest]:
    same = {(guest.name, guest.pid, guest.ticks) for guest in after}
    return [guest for guest in before if (guest.name, guest.pid, guest.ticks) in same]


def _compared(before: tuple[Guest, ...], after: tuple[Guest, ...]) -> list[dict[str, t.Any]]:
    alive = _alive(before, after)
    return [
        {"name": guest.name, "pid": guest.pid, "start_time": round(guest.start_time, 2), "same": guest in alive}
        for guest in before
    ]


def _facts(host: Host, plan: Plan, rolled_back: bool) -> dict[str, t.Any]:
    guests = _compared(plan.guests, _libvirtd.guests(host))
    return {"restarted": list(plan.changes), "rolled_back": rolled_back, "guests": guests}
