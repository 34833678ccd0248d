# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every guest of this host and what confines it, from the kernel alone; libvirt's files only say what to expect."""

from __future__ import annotations

import collections
import hashlib
import posixpath
import re
import time
import typing as t
from dataclasses import dataclass, is_dataclass, replace

from . import _guestdevices, _libvirtd, _proc, _qemuproc
from ._devcgroup import DeviceCgroups
from ._host import HardeningError, Host
from ._journal import Journal
from ._kernelmac import kernel_mac
from ._virconf import Document, VirConfError
from ._weakness import HostFacts, weaknesses

if t.TYPE_CHECKING:
    from lxml.etree import _Element

# What libvirt starts beside a guest: qemu_tpm.c, qemu_virtiofs.c, qemu_passt.c, qemu_slirp.c, qemu_dbus.c,
# qemu_nbdkit.c, qemu_vhost_user_gpu.c and qemuProcessStartManagedPRDaemon of src/qemu.
_HELPERS = {"swtpm", "virtiofsd", "passt", "passt.avx2", "qemu-pr-helper", "slirp-helper", "dbus-daemon", "nbdkit"}
_HELPERS |= {"vhost-user-gpu", "qemu-rdp"}
# Where libvirt keeps their pid files, ID-SHORTNAME-WHAT.pid, below RUN_DIRECTORY.
_PID_FILES = ("", "/swtpm", "/passt", "/slirp", "/dbus", "/rdp")
# What building a guest's /dev leaves when it breaks off: one path for /dev itself and one for each mount below it
# (qemu_namespace.c, qemuDomainGetPreservedMountPath; NAME.devpts and the like in libvirt 3).
_OWN_DEV_RE = re.compile(r"(.+)\.dev(?:pts|shm)?\Z")
_NOT_OF_DEV = (".pid", ".xml", ".xml.new")
# Seconds. libvirt needs these paths for a moment when a guest starts.
_A_START = 60.0
# How reading /proc ends when the process does.
_ENDED = (FileNotFoundError, ProcessLookupError)


class ConfinementError(HardeningError):
    """This process may not look at others."""


@dataclass(frozen=True)
class _Qemu:
    pid: int
    argv: tuple[str, ...]
    mount_ns: str
    managed_by: str


def gather(host: Host) -> dict[str, t.Any]:
    """The module's result: all guests, by name and pid, and the paths that broken-off starts have left behind.

    :raises HardeningError: this process may not look at others, or lxml is missing and needed.
    """
    loading, document = _configuration(host)
    running, helpers = _processes(host, {guest.pid for guest in loading.guests})
    guests: list[_qemuproc.Guest] = []
    results = []
    if running:
        view = _view(host, running, loading.layout.pid)
        measure = _host_facts(host, loading, view.mac)
        judge = _guestdevices.Judge(host, _guestdevices.listed(host, document), view.mounts)
        guests = [guest for guest in (_guest(host, qemu, view, judge) for qemu in running) if guest]
        guests.sort(key=lambda guest: (guest.name, guest.pid))
        beside = _beside(host, guests, helpers, view)
        for guest in guests:
            found = [vars(weakness) for weakness in weaknesses(guest, measure)]
            results.append({**_plain(guest), "helpers": beside.get(guest.pid, []), "weaknesses": found})
    return {"guests": results, "leftovers": _leftovers(host, guests)}


def _configuration(host: Host) -> tuple[_libvirtd.Loading, Document | None]:
    """What of qemu.conf is in force, and what is in it, None where it is broken."""
    data = host.read_optional(_libvirtd.QEMU_CONF) or b""
    document: Document | None
    try:
        document = Document.parse(data)
        digest = _libvirtd.meaning_digest(document)
    except VirConfError:
        document = None
        digest = hashlib.sha256(data).hexdigest()
    journal = Journal(host, by="guest_confinement_info")
    return _libvirtd.loading(host, _libvirtd.layout(host), journal, _libvirtd.QEMU_CONF, digest), document


def _processes(host: Host, of_libvirt: t.Container[int]) -> tuple[list[_Qemu], dict[int, str]]:
    """The QEMU processes with a guest, and the helpers: pid -> name.

    :param of_libvirt: the pids that libvirt keeps as its guests': QEMU, by whatever name it is installed.
    """
    found: list[_Qemu] = []
    helpers = {}
    for pid in (int(entry) for entry in host.list("/proc") if entry.isdigit()):
        try:
            binary, _deleted = _qemuproc.binary(host, pid)
            if pid in of_libvirt or _qemuproc.is_qemu(binary):
                argv = tuple(_proc.command_line(host, pid))
                if argv and _qemuproc.is_guest(argv):
                    found.append(_Qemu(pid, argv, _namespace(host, pid, "mnt"), _manager(host, pid, argv, of_libvirt)))
            elif posixpath.basename(binary) in _HELPERS:
                helpers[pid] = posixpath.basename(binary)
        except _ENDED:
            continue
        except PermissionError:
            raise ConfinementError(
                f"Process {pid} may not be looked at, so nothing can be proven about the guests of this host. Run as "
                "root (become: true), and not in a container without the right to look at others (CAP_SYS_PTRACE)."
            ) from None
    # With async-teardown QEMU has a child of the same program and memory, which frees it faster (qemu's os-posix.c).
    same = collections.Counter(qemu.argv for qemu in found)
    argv_of = {qemu.pid: qemu.argv for qemu in found}
    running = [qemu for qemu in found if same[qemu.argv] == 1 or argv_of.get(_parent(host, qemu.pid)) != qemu.argv]
    return running, helpers


def _manager(host: Host, pid: int, argv: tuple[str, ...], of_libvirt: t.Container[int]) -> str:
    """``libvirt``, ``libvirt-session`` (a user's own libvirt) or ``other``, by the pid files that libvirt keeps."""
    if pid in of_libvirt:
        return "libvirt"
    name = _qemuproc.guest_name(argv)
    uid = _proc.status(host, pid).get("Uid", "").split("\t")[0]
    # The state directory of a session's driver: qemu_conf.c, virQEMUDriverConfigNew.
    file = f"/run/user/{uid}/libvirt/qemu/run/{name}.pid"
    mine = name and "/" not in name and (host.text_optional(file) or "").strip() == str(pid)
    return "libvirt-session" if mine else "other"


def _parent(host: Host, pid: int) -> int:
    return int(_proc.status(host, pid).get("PPid", "0"))


def _namespace(host: Host, pid: int, kind: str) -> str:
    return host.readlink(f"/proc/{pid}/ns/{kind}")


def _view(host: Host, running: list[_Qemu], daemon: int | None) -> _qemuproc.View:
    lived_in = collections.Counter(qemu.mount_ns for qemu in running)
    shared = {namespace for namespace, guests in lived_in.items() if guests > 1}
    if daemon is not None:
        try:
            shared.add(_namespace(host, daemon, "mnt"))
        except _ENDED:
            pass
    mac, mode = kernel_mac(host)
    return _qemuproc.View(
        user_ns=_namespace(host, 1, "user"),
        mount_ns=_namespace(host, 1, "mnt"),
        shared_ns=frozenset(shared),
        mounts=_qemuproc.root_and_dev(host.text("/proc/1/mountinfo")),
        mac=mac,
        mac_mode=mode,
        cgroups=DeviceCgroups(host),
    )


def _host_facts(host: Host, loading: _libvirtd.Loading, mac: str) -> HostFacts:
    origins = [_proc.status(host, pid) for pid in (1, loading.layout.pid) if pid is not None]
    counted = [int(status["Seccomp_filters"]) for status in origins if "Seccomp_filters" in status]
    names = set(loading.guests_pending)
    return HostFacts(
        seccomp_mode=max(int(status.get("Seccomp", "0")) for status in origins),
        seccomp_filters=max(counted) if counted else None,
        mac=mac,
        pending=frozenset(guest.pid for guest in loading.guests if guest.name in names),
        in_force_since=None if loading.restart_required else loading.since,
    )


def _guest(host: Host, qemu: _Qemu, view: _qemuproc.View, judge: _guestdevices.Judge) -> _qemuproc.Guest | None:
    """A guest with its device nodes judged, None if it ends meanwhile."""
    begun = _proc.process(host, qemu.pid)
    try:
        guest = _qemuproc.guest(host, qemu.pid, qemu.argv, qemu.managed_by, view)
    except OSError:
        # Of a process that ends some files are gone (ENOENT), others refuse (ESRCH, EINVAL).
        if _alive(host, begun):
            raise
        return None
    if not _alive(host, begun):
        return None
    return replace(guest, dev=judge.judged(guest.dev, guest.uid, lambda: _definition(host, guest)))


def _alive(host: Host, process: _proc.Process | None) -> bool:
    """Whether this very process still runs, and its pid is not another's by now."""
    now = None if process is None else _proc.process(host, process.pid)
    if now is None or process is None or not now.alive or now.ticks != process.ticks:
        return False
    try:
        _qemuproc.binary(host, now.pid)
    except _ENDED:  # its memory is gone, and it is a zombie in a moment (kernel/exit.c, do_exit)
        return False
    return True


def _definition(host: Host, guest: _qemuproc.Guest) -> _Element | None:
    if guest.managed_by != "libvirt":
        return None
    from . import _domainxml

    try:
        return _domainxml.parse(host.read(f"{_domainxml.STATUS}/{guest.name}.xml", limit=_domainxml.SIZE_LIMIT))
    except (OSError, _domainxml.DomainXmlError):
        return None


def _beside(
    host: Host, guests: list[_qemuproc.Guest], helpers: dict[int, str], view: _qemuproc.View
) -> dict[int, list[dict[str, t.Any]]]:
    """The helpers of each guest, by the guest's pid: those that libvirt has a pid file for, their children (virtiofsd
    leaves its work to one), and those in the guest's cgroup."""
    by_scope = {_scope(guest.cgroup.path): guest.pid for guest in guests if _scope(guest.cgroup.path)}
    by_name = {guest.short_name: guest.pid for guest in guests if guest.short_name}
    stems = _pid_files(host) if helpers else {}
    found: dict[int, list[dict[str, t.Any]]] = collections.defaultdict(list)
    for pid, name in sorted(helpers.items()):
        try:
            facts = _qemuproc.facts(host, pid, view)
        except OSError:
            continue  # it has ended: _processes has seen that others may be looked at
        # 1-web-swtpm and 1-web-net0-passt are web's
        stem = stems.get(pid) or stems.get(_parent(host, pid), "")
        named = [by_name.get(stem.rsplit("-", parts)[0]) for parts in (1, 2)]
        owners = [owner for owner in (*named, by_scope.get(_scope(facts.cgroup.path))) if owner is not None]
        if owners:
            found[owners[0]].append({"name": name, **_plain(facts)})
    return found


def _scope(cgroup: str) -> str:
    """The cgroup that systemd-machined makes for a guest and all of its helpers, "" for any other."""
    before, scope, _below = cgroup.partition(".scope")
    return before + scope if scope and "/machine-" in before else ""


def _pid_files(host: Host) -> dict[int, str]:
    """pid -> the stem of the file that holds it."""
    found = {}
    for part in _PID_FILES:
        directory = _libvirtd.RUN_DIRECTORY + part
        for entry in host.list(directory):
            if entry.endswith(".pid"):
                text = (host.text_optional(f"{directory}/{entry}") or "").strip()
                if text.isdigit():
                    found[int(text)] = entry[: -len(".pid")]
    return found


def _leftovers(host: Host, guests: list[_qemuproc.Guest]) -> list[str]:
    entries = host.list(_libvirtd.RUN_DIRECTORY)
    alive = {name for guest in guests for name in (guest.name, guest.short_name)}
    dead = {match[1] for match in map(_OWN_DEV_RE.match, entries) if match and match[1] not in alive}
    found = []
    for entry in entries:
        if entry.endswith(_NOT_OF_DEV) or not any(entry.startswith(f"{name}.") for name in dead):
            continue
        path = f"{_libvirtd.RUN_DIRECTORY}/{entry}"
        status = host.stat_optional(path, follow=False)
        if status is not None and status.st_mtime < time.time() - _A_START:
            found.append(path)
    return found


def _plain(value: t.Any) -> t.Any:
    """Dataclasses as dictionaries, tuples as lists."""
    if isinstance(value, (str, int, float)):  # most are, and a guest has a hundred values
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return {name: _plain(entry) for name, entry in vars(value).items()} if is_dataclass(value) else value
