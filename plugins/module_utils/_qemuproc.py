# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running QEMU processes, and what the kernel lets them do. Reads /proc alone: no guest and no daemon notices."""

from __future__ import annotations

import posixpath
import re
import typing as t
from dataclasses import dataclass

from . import _mountinfo, _proc
from ._guestdevices import Node, nodes

if t.TYPE_CHECKING:
    from ._devcgroup import DeviceCgroups
    from ._host import Host

_QEMU = ("qemu-system-", "qemu-kvm")
_DELETED = " (deleted)"
# The lines of mountinfo that are about / and /dev; a host may have thousands of others.
_ROOT_AND_DEV_RE = re.compile(r"^\S+ \S+ \S+ \S+ /(?:dev(?:/\S*)?)? .*$", re.MULTILINE)
# libvirt's own directory of a guest on QEMU's command line: domain-ID-SHORTNAME (virDomainDefGetShortName).
_SHORT_NAME_RE = re.compile(r"/domain-(\d+-[^/\"]+)/")


@dataclass(frozen=True)
class Ids:
    """The four user or group ids of a process: credentials(7)."""

    real: int
    effective: int
    saved: int
    filesystem: int


@dataclass(frozen=True)
class Seccomp:
    """``mode`` 0 disabled, 1 strict, 2 filter; ``filters`` None where the kernel does not count them (before 5.9)."""

    mode: int
    filters: int | None


@dataclass(frozen=True)
class Namespace:
    """``id`` as the kernel prints it (``mnt:[4026531841]``); ``private``: nobody else who matters lives in it."""

    id: str
    private: bool


@dataclass(frozen=True)
class Label:
    """The label of the kernel's mandatory access control, all "" where it has none.

    ``mode`` is an AppArmor profile's (``enforce``, ``complain``...), or ``enforcing`` or ``permissive`` (SELinux).
    """

    model: str
    value: str
    mode: str


@dataclass(frozen=True)
class Cgroup:
    """See DeviceCgroups."""

    path: str
    device_rules: list[str] | None


@dataclass(frozen=True)
class Facts:
    """What the kernel says of a process. ``uid`` and ``gid`` are the effective ones."""

    pid: int
    start_time: float
    uid: int
    gid: int
    uids: Ids
    gids: Ids
    groups: tuple[int, ...]
    cap_eff: str
    cap_prm: str
    no_new_privs: bool
    seccomp: Seccomp
    user_namespace: Namespace
    mount_namespace: Namespace
    label: Label
    cgroup: Cgroup
    binary: str
    binary_deleted: bool


@dataclass(frozen=True)
class Limit:
    """A resource limit: getrlimit(2). -1 is unlimited (RLIM_INFINITY)."""

    soft: int
    hard: int


@dataclass(frozen=True)
class Limits:
    """``core`` and ``memlock`` in bytes, ``nofile`` in open files."""

    core: Limit
    memlock: Limit
    nofile: Limit


@dataclass(frozen=True)
class CoreDump:
    """``filter`` is coredump_filter of core(5), in hexadecimal; ``guest_memory``: QEMU was not told to leave it out."""

    filter: str
    guest_memory: bool


@dataclass(frozen=True)
class Guest(Facts):
    """What the kernel says of a QEMU process. ``short_name`` is libvirt's for its files, "" if it did not start it."""

    name: str
    short_name: str
    uuid: str
    managed_by: str
    private_dev: bool
    dev: tuple[Node, ...]
    dev_incomplete: str
    propagation: str
    limits: Limits
    core_dump: CoreDump


@dataclass(frozen=True)
class View:
    """What a process is compared with.

    ``user_ns``, ``mount_ns`` and ``mounts`` are PID 1's; ``shared_ns`` the mount namespaces that more than one guest
    lives in, or libvirt's daemon; ``mac`` is ``apparmor``, ``selinux`` or "", ``mac_mode`` the mode that SELinux is in.
    """

    user_ns: str
    mount_ns: str
    shared_ns: frozenset[str]
    mounts: t.Mapping[str, _mountinfo.Mount]
    mac: str
    mac_mode: str
    cgroups: DeviceCgroups


def binary(host: Host, pid: int) -> tuple[str, bool]:
    """The file that a process executes, and whether it has been deleted or replaced since: proc_pid_exe(5).

    :raises OSError: ENOENT for a kernel thread, a zombie and what has ended, EACCES without the right to look.
    """
    link = host.readlink(f"/proc/{pid}/exe")
    return (link[: -len(_DELETED)], True) if link.endswith(_DELETED) else (link, False)


def is_qemu(path: str) -> bool:
    """Whether a process that executes ``path`` is a QEMU system emulator.

    The kernel's link to the file decides, not the name that a process gives itself (comm, its arguments).
    """
    return posixpath.basename(path).startswith(_QEMU)


def is_guest(argv: t.Sequence[str]) -> bool:
    """Whether a QEMU with this command line runs a guest, and does not merely tell what it can do.

    libvirt asks a QEMU with the machine ``none`` (src/qemu/qemu_process.c, qemuProcessQMPLaunch).
    """
    machine = option(argv, "machine") or option(argv, "M")
    told = {"-version", "--version", "-help", "--help", "-h"}
    return (machine or "").split(",")[0] not in ("none", "help") and not told.intersection(argv)


def option(argv: t.Sequence[str], name: str) -> str | None:
    """The value of QEMU's option ``-name``, the first one; None where it is not given."""
    for word, value in zip(argv, argv[1:]):
        if word in (f"-{name}", f"--{name}"):
            return value
    return None


def guest_name(argv: t.Sequence[str]) -> str:
    """What ``-name`` calls the guest, "" if nothing does. A comma in a name is doubled (qemu's util/keyval.c)."""
    words = (option(argv, "name") or "").replace(",,", "\0").split(",")
    values = [word[len("guest=") :] for word in words if word.startswith("guest=")]
    return (values or [word for word in words[:1] if "=" not in word] or [""])[0].replace("\0", ",")


def facts(host: Host, pid: int, view: View) -> Facts:
    """What the kernel says of a process.

    :raises OSError: ENOENT or ESRCH when it has ended.
    """
    process = _proc.process(host, pid)
    status = _proc.status(host, pid)
    if process is None or "Uid" not in status:
        raise ProcessLookupError(pid)
    path, deleted = binary(host, pid)
    uids, gids = (Ids(*map(int, status[name].split())) for name in ("Uid", "Gid"))
    filters = status.get("Seccomp_filters")
    user, mnt = (host.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("user", "mnt"))
    membership = host.text(f"/proc/{pid}/cgroup")
    return Facts(
        pid=pid,
        start_time=round(process.start_time, 2),
        uid=uids.effective,
        gid=gids.effective,
        uids=uids,
        gids=gids,
        groups=tuple(map(int, status.get("Groups", "").split())),
        cap_eff=status["CapEff"],
        cap_prm=status["CapPrm"],
        no_new_privs=status.get("NoNewPrivs") == "1",
        seccomp=Seccomp(int(status.get("Seccomp", "0")), None if filters is None else int(filters)),
        user_namespace=Namespace(user, user != view.user_ns),
        mount_namespace=Namespace(mnt, mnt != view.mount_ns and mnt not in view.shared_ns),
        label=_label(host, pid, view),
        cgroup=Cgroup(view.cgroups.path(membership), view.cgroups.rules(membership)),
        binary=path,
        binary_deleted=deleted,
    )


def guest(host: Host, pid: int, argv: t.Sequence[str], managed_by: str, view: View) -> Guest:
    """What the kernel says of a QEMU process; nothing in its /dev is judged yet.

    :raises OSError: ENOENT or ESRCH when it has ended.
    """
    common = facts(host, pid, view)
    mounts = root_and_dev(host.text(f"/proc/{pid}/mountinfo"))
    limits = host.text(f"/proc/{pid}/limits")
    if not limits:  # it is being buried: fs/proc/base.c, proc_pid_limits
        raise ProcessLookupError(pid)
    private = _device_of(mounts) != _device_of(view.mounts)
    found, incomplete = nodes(host, pid, mounts) if private else ([], "")
    short = _SHORT_NAME_RE.search("\0".join(argv))
    return Guest(
        **vars(common),
        name=guest_name(argv),
        short_name=short[1] if short else "",
        uuid=option(argv, "uuid") or "",
        managed_by=managed_by,
        private_dev=private,
        dev=tuple(found),
        dev_incomplete=incomplete,
        propagation=mounts["/"].propagation if "/" in mounts else "",
        limits=_limits(limits),
        core_dump=CoreDump(
            filter=(host.text_optional(f"/proc/{pid}/coredump_filter") or "0").strip(),
            guest_memory="dump-guest-core=off" not in (option(argv, "machine") or "").split(","),
        ),
    )


def root_and_dev(text: str) -> dict[str, _mountinfo.Mount]:
    """The mounts on / and on and below /dev that a mountinfo tells of: target -> the one that a path leads to."""
    return _mountinfo.visible(_mountinfo.parse("\n".join(_ROOT_AND_DEV_RE.findall(text))))


def _device_of(mounts: t.Mapping[str, _mountinfo.Mount]) -> str:
    """The file system that /dev is, "" where it is a directory of another one."""
    return mounts["/dev"].device if "/dev" in mounts else ""


def _label(host: Host, pid: int, view: View) -> Label:
    if not view.mac:
        return Label("", "", "")
    try:
        text = host.text(f"/proc/{pid}/attr/current").strip("\0\n")
    except OSError:  # EINVAL: no security module answers for this file
        text = ""
    if view.mac == "apparmor":
        # NAME (MODE), or unconfined
        value, _blank, mode = text.rpartition(" (")
        return Label(view.mac, value, mode[:-1]) if value else Label(view.mac, text, "")
    return Label(view.mac, text, view.mac_mode)


def _limits(text: str) -> Limits:
    # The kernel prints columns of 26, 21 and 21 characters: fs/proc/base.c, proc_pid_limits
    lines = {line[:26].strip(): line[26:68].split() for line in text.splitlines()}
    core, memlock, nofile = (lines[f"Max {name}"] for name in ("core file size", "locked memory", "open files"))
    return Limits(
        *(Limit(*(-1 if word == "unlimited" else int(word) for word in words)) for words in (core, memlock, nofile))
    )
