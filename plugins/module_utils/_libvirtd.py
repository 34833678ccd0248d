# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons, first of all the one that drives QEMU: since when it runs, and what it has loaded.

Everything here is read from files, without systemctl and without a connection: a call costs a millisecond and neither
wakes an idle daemon nor waits for a hung one. Only ``connect`` does, and says so.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from dataclasses import dataclass, replace

from . import _proc
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal, Loaded
    from ._virconf import Document

QEMU_CONF = "/etc/libvirt/qemu.conf"
RUN_DIRECTORY = "/run/libvirt/qemu"
CONNECT_SECONDS = 10.0

# virerror.c, VIR_ERR_AUTH_FAILED and VIR_ERR_ACCESS_DENIED. A daemon that is still starting, or fails to, refuses
# nobody: it serves clients only when its drivers are up (remote_daemon.c, virNetDaemonUpdateServices).
_REFUSALS = ("authentication failed", "access denied")

_UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
# virbuffer.c, virBufferEscapeString
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})
_SO_ACCEPTCON = 0x10000  # linux/net.h; the column Flags of /proc/net/unix


class LibvirtError(HardeningError):
    """A daemon of libvirt does not do what it should."""


@dataclass(frozen=True)
class _Daemon:
    kind: str
    name: str
    socket: str
    uri: str

    @property
    def service(self) -> str:
        return f"{self.name}.service"


# libvirt's daemons.rst: libvirtd holds all drivers, virtqemud only QEMU's. The mode in the URI (uri.rst) keeps a client
# from guessing. virtproxyd of a modular host listens on libvirtd's own socket.
_DAEMONS = (
    _Daemon("monolithic", "libvirtd", "/run/libvirt/libvirt-sock", "qemu:///system?mode=legacy"),
    _Daemon("modular", "virtqemud", "/run/libvirt/virtqemud-sock", "qemu:///system?mode=direct"),
)

# Of either layout. They keep what running guests hold (pipes of their consoles, leases of their disks) over an
# execution anew, which SIGUSR1 asks for, and lose it in a restart (virtlogd(8), virtlockd(8)).
BESIDE = ("virtlogd", "virtlockd")


@dataclass(frozen=True)
class Layout:
    """A daemon of this host: the one that drives QEMU, if ``layout`` has made it.

    ``kind`` is ``monolithic`` (libvirtd), ``modular`` (virtqemud and its like), ``beside`` (see BESIDE) or ``none``;
    ``pid`` None while it does not run; ``started`` seconds since the epoch and ``ticks`` clock ticks since boot,
    rounded down to one (10 ms); ``process`` names this very process, of those of BESIDE this very execution, for ever;
    ``listening``: something answers at its socket, if need be systemd, which then starts the daemon.
    """

    kind: str
    daemon: str = ""
    service: str = ""
    restart_units: tuple[str, ...] = ()
    uri: str = ""
    enabled: bool = False
    listening: bool = False
    pid: int | None = None
    started: float | None = None
    ticks: int | None = None
    process: str = ""
    suspended: bool = False

    @property
    def active(self) -> bool:
        """Whether the daemon runs."""
        return self.pid is not None

    @property
    def idle(self) -> bool:
        """Whether it does not run, and the next client starts it (socket activation)."""
        return self.pid is None and self.listening


@dataclass(frozen=True)
class Guest:
    """A running guest of the system's libvirt; ``start_time`` in seconds since the epoch, rounded down to 10 ms."""

    name: str
    pid: int
    start_time: float
    ticks: int


@dataclass(frozen=True)
class Loading:
    """Whether the present meaning of a file is the one that the daemon and the guests go by.

    ``digest`` is the file's present meaning; ``in_force`` the one that the daemon has loaded (an idle daemon: would not
    fail to load), None if that is not known; ``since`` the time from which on guests were started with ``in_force``.
    """

    layout: Layout
    guests: tuple[Guest, ...]
    digest: str
    in_force: str | None
    since: float
    unproven: bool

    @property
    def restart_required(self) -> bool:
        """Whether the daemon goes by another meaning. An idle one loads the file by itself: that is only worth a
        start where a change of ours has not yet been proven to load."""
        if self.layout.kind == "none" or self.digest == self.in_force:
            return False
        return self.layout.active or self.unproven

    @property
    def restart_units(self) -> list[str]:
        """The units to restart, none where no restart is required."""
        return sorted(self.layout.restart_units) if self.restart_required else []

    @property
    def guests_pending(self) -> list[str]:
        """The running guests that were started before the file's present meaning was in force."""
        return [guest.name for guest in self.guests if self.restart_required or guest.start_time < self.since]

    def after(self, digest: str) -> Loading:
        """What will be the case when the file has been given this meaning, for check mode."""
        return replace(self, digest=digest, unproven=True)


def layout(host: Host) -> Layout:
    """The daemon that drives QEMU here. The running one counts; then the one systemd listens for; then the enabled
    one; then the installed one."""
    unix = host.text_optional("/proc/net/unix") or ""
    boot = _proc.boot_id(host)
    found = [(_layout(host, daemon, unix, boot), _installed(host, daemon)) for daemon in _DAEMONS]
    present = [entry for entry, installed in found if installed or entry.active or entry.listening]
    if not present:
        return Layout("none")
    return max(present, key=lambda entry: (entry.active, entry.listening and entry.enabled, entry.enabled))


def daemon(host: Host, name: str) -> Layout:
    """A daemon by its name, of kind ``none`` where this host does not have it."""
    one = _named(name)
    found = _layout(host, one, host.text_optional("/proc/net/unix") or "", _proc.boot_id(host))
    return found if _installed(host, one) or found.active else Layout("none")


def rivals(host: Host) -> list[str]:
    """The daemons that drive QEMU and are in service: they run, or systemd starts them. More than one is a mistake
    (daemons.rst). That somebody listens at libvirtd's socket says nothing: it may be virtproxyd's."""
    unix, boot = host.text_optional("/proc/net/unix") or "", _proc.boot_id(host)
    found = [(_layout(host, one, unix, boot), _installed(host, one)) for one in _DAEMONS]
    return [
        entry.daemon
        for entry, installed in found
        if entry.active or (installed and (entry.enabled or (entry.kind == "modular" and entry.listening)))
    ]


def _named(name: str) -> _Daemon:
    for known in _DAEMONS:
        if known.name == name:
            return known
    if name in BESIDE:
        return _Daemon("beside", name, f"/run/libvirt/{name}-sock", f"{name}:///system")
    if name == "virtproxyd":
        return _Daemon("modular", name, _DAEMONS[0].socket, _DAEMONS[0].uri)
    # virtnetworkd has the driver network
    return _Daemon("modular", name, f"/run/libvirt/{name}-sock", f"{name[len('virt') : -1]}:///system?mode=direct")


def running(host: Host, daemon: str) -> _proc.Process | None:
    """The process of one of libvirt's daemons, by the file that it locks while it runs (virPidFileConstructPath)."""
    text = host.text_optional(f"/run/{daemon}.pid") or ""
    if not text.strip().isdigit():
        return None
    process = _proc.process(host, int(text))
    return process if process and process.alive and process.comm == daemon else None


def guests(host: Host) -> tuple[Guest, ...]:
    """The running guests, by name. libvirt keeps NAME.xml and a pid file (qemu_process.c, qemuProcessLaunch)."""
    files = set(host.list(RUN_DIRECTORY))
    names = sorted(name[: -len(".xml")] for name in files if name.endswith(".xml"))
    found = (_guest(host, name) for name in names if _pid_file(name) in files)
    return tuple(guest for guest in found if guest)


def loading(host: Host, layout: Layout, journal: Journal, path: str, digest: str) -> Loading:
    """What of ``path``, whose present meaning is ``digest``, is in force. Reads only."""
    status = host.stat_optional(path)
    return judge(
        layout,
        guests(host),
        digest,
        ctime=0 if status is None else status.st_ctime_ns,
        loaded=journal.loaded(path),
        unproven=journal.unproven(path) is not None,
    )


def judge(
    layout: Layout, guests: tuple[Guest, ...], digest: str, *, ctime: int, loaded: Loaded | None, unproven: bool
) -> Loading:
    """The pure part of ``loading``.

    A daemon reads its files once, when it starts (remote_daemon.c). So the process of the last proof still has what was
    proven, whatever has become of the file; another process has what the file holds, if that was not changed since it
    started (a tie counts as a change: both times are coarse).

    :param ctime: change time of the file in nanoseconds since the epoch, 0 where there is no file.
    """
    changed = ctime / 1e9
    same_process = loaded is not None and layout.active and loaded.process == layout.process
    in_force: str | None
    if loaded is not None and (same_process or not layout.active):
        in_force = loaded.digest
    elif layout.started is not None and changed < layout.started:
        in_force = digest
    else:
        in_force = None
    if loaded is not None and loaded.digest == digest and (same_process or loaded.ctime == ctime):
        since = loaded.since
    elif unproven and layout.started is not None:
        since = layout.started  # guests may have been started between our change and a restart by hand
    else:
        since = changed
    return Loading(layout, guests, digest, in_force, since, unproven)


def remember(
    host: Host, layout: Layout, journal: Journal, path: str, digest: str, *, since: float | None = None
) -> None:
    """Note in the journal that the daemon, which answers, has loaded ``path`` with this meaning, if it has.

    :param since: the time from which on this meaning has been in force, where the caller knows better.
    """
    found = loading(host, layout, journal, path, digest)
    status = host.stat_optional(path)
    if layout.active and not found.restart_required:
        ctime = 0 if status is None else status.st_ctime_ns
        known = found.since if since is None else since
        journal.mark_loaded(path, digest, since=known, process=layout.process, ctime=ctime)


def prove(host: Host, layout: Layout, journal: Journal, path: str, digest: str) -> None:
    """``remember`` what the running daemon has loaded, if it answers.

    To be called before a change (what the journal keeps then is what a failed restart goes back to) and after one that
    may not change the meaning. A daemon that does not run, is suspended or needs a restart is not asked.
    """
    if not layout.active or layout.suspended or loading(host, layout, journal, path, digest).restart_required:
        return
    try:
        connect(host, layout)
    except HardeningError:
        return
    remember(host, layout, journal, path, digest)


def connect(host: Host, layout: Layout, timeout: float = CONNECT_SECONDS) -> None:
    """Open a real connection to the daemon; this starts an idle one. An answer means that its drivers are up, also if
    it is that root has to authenticate (auth_unix_rw = "sasl").

    :param timeout: seconds; a stopped daemon would keep a client for ever.
    :raises LibvirtError: no connection, with libvirt's own words.
    :raises HostError: virsh (virt-admin for those of BESIDE) is not installed, or there was no answer in time.
    """
    client = ("virt-admin", "server-list") if layout.kind == "beside" else ("virsh", "uri")
    done = host.run([client[0], "--connect", layout.uri, client[1]], timeout=timeout)
    message = libvirt_message(done.err)
    if done.rc != 0 and not any(refusal in message for refusal in _REFUSALS):
        raise LibvirtError(f"No connection to {layout.daemon}: {message}")


def libvirt_message(text: str) -> str:
    """libvirt's own words of what a command printed, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join(line[len("error: ") :] if line.startswith("error: ") else line for line in lines)


def meaning_digest(document: Document) -> str:
    """What a file means to libvirt, whatever its comments, blanks, quotes and order: sha256 of its keys and values."""
    values = {key: document.get(key) for key in document.keys()}  # noqa: SIM118 - a Document is no dict
    meaning = {key: value.plain() for key, value in values.items() if value is not None}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _layout(host: Host, daemon: _Daemon, unix: str, boot: str) -> Layout:
    process = running(host, daemon.name)
    return Layout(
        kind=daemon.kind,
        daemon=daemon.name,
        service=daemon.service,
        restart_units=(daemon.service,),
        uri=daemon.uri,
        enabled=_enabled(host, daemon),
        listening=listening(unix, daemon.socket),
        pid=process.pid if process else None,
        started=process.start_time if process else None,
        ticks=process.ticks if process else None,
        process=_identity(host, daemon, process, boot) if process else "",
        suspended=process.suspended if process else False,
    )


def _identity(host: Host, daemon: _Daemon, process: _proc.Process, boot: str) -> str:
    words = [boot, str(process.pid), str(process.ticks)]
    return " ".join([*words, _proc.image(host, process.pid)] if daemon.kind == "beside" else words)


def listening(unix: str, socket: str) -> bool:
    """Whether somebody listens at a UNIX socket.

    :param unix: the text of /proc/net/unix.
    """
    # proc_net(5), unix: Num RefCount Protocol Flags Type St Inode Path
    fields = (line.split() for line in unix.splitlines() if line.endswith(f" {socket}"))
    return any(int(field[3], 16) & _SO_ACCEPTCON for field in fields)


def _enabled(host: Host, daemon: _Daemon) -> bool:
    wants = "/etc/systemd/system"
    service = f"{wants}/multi-user.target.wants/{daemon.service}"
    socket = f"{wants}/sockets.target.wants/{daemon.name}.socket"
    return any(host.stat_optional(link, follow=False) for link in (service, socket))


def _installed(host: Host, daemon: _Daemon) -> bool:
    units = (f"{directory}/{daemon.service}" for directory in _UNIT_DIRECTORIES)
    return host.exists(f"/usr/sbin/{daemon.name}") or any(map(host.exists, units))


def _pid_file(name: str) -> str:
    """The name of a guest's pid file, in which, unlike in all others, a name is escaped as in XML (virpidfile.c,
    virPidFileBuildPath; measured on 9.0 and 11.3)."""
    return name.translate(_ESCAPED) + ".pid"


def _guest(host: Host, name: str) -> Guest | None:
    text = host.text_optional(f"{RUN_DIRECTORY}/{_pid_file(name)}") or ""
    process = _proc.process(host, int(text)) if text.strip().isdigit() else None
    if process is None or not process.alive:
        return None
    # libvirt starts QEMU with -name guest=NAME,...; QEMU's option grammar doubles a comma
    wanted = f"guest={name.replace(',', ',,')},"
    if not any(f"{word},".startswith(wanted) for word in _proc.command_line(host, process.pid)):
        return None  # a stale file, and the pid is another's by now
    return Guest(name, process.pid, process.start_time, process.ticks)
