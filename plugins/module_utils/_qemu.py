# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU that libvirt runs: its program, and as whom."""

from __future__ import annotations

import os
import pwd
import typing as t
from dataclasses import dataclass

from ._host import Host

# libvirt gives it to QEMU's user when its driver starts (qemu_driver.c, qemuStateInitialize).
STATE = "/var/lib/libvirt/qemu"


class Settings(t.Protocol):
    """What can be asked for a setting of qemu.conf: a ConfFile."""

    def get(self, key: str, default: t.Any = None, /) -> t.Any: ...


@dataclass(frozen=True)
class User:
    """Whom guests run as; ``name`` is the number where the host has no name for it."""

    name: str
    uid: int
    gid: int


def emulator(host: Host) -> str:
    """The QEMU for guests of the host's own architecture, "" for none."""
    machine = {"i686": "i386"}.get(os.uname().machine, os.uname().machine)
    paths = (f"/usr/bin/qemu-system-{machine}", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")
    return next((path for path in paths if host.exists(path)), "")


def user(host: Host, settings: Settings) -> tuple[int | None, int | None, str]:
    """As whom libvirt runs QEMU: what qemu.conf says, else whom libvirt has given its state directory to.

    A name that begins with + is a number (qemu.conf's own words on ``user``); a plain number is one if there is no such
    name.

    :return: uid, gid, and the file that told; None and "" where nothing does.
    """
    status = host.stat_optional(STATE)
    name, group = settings.get("user"), settings.get("group")
    uid = number(name, host.uid) if isinstance(name, str) else None
    gid = number(group, host.gid) if isinstance(group, str) else None
    if status is not None:
        uid, source = (status.st_uid, STATE) if uid is None else (uid, "/etc/libvirt/qemu.conf")
        return uid, status.st_gid if gid is None else gid, source
    return uid, gid, "" if uid is None else "/etc/libvirt/qemu.conf"


def groups(host: Host, user: User) -> frozenset[int]:
    """The groups of a guest's process: all of its user's, and its own (util/virutil.c, virGetGroupList).

    A user's primary group counts, which /etc/group does not name its members of: Debian's libvirt-qemu has kvm so.
    """
    if not host.root:
        try:
            primary = pwd.getpwuid(user.uid).pw_gid
        except KeyError:
            return frozenset({user.gid})
        return frozenset({user.gid, *os.getgrouplist(user.name, primary)})
    users = (line.split(":") for line in (host.text_optional("/etc/passwd") or "").splitlines())
    primaries = {int(fields[3]) for fields in users if fields[0] == user.name and len(fields) > 3}
    table = [line.split(":") for line in (host.text_optional("/etc/group") or "").splitlines()]
    named = {int(fields[2]) for fields in table if len(fields) > 3 and user.name in fields[3].split(",")}
    return frozenset({user.gid} | primaries | named)


def become(host: Host, user: User) -> None:
    """Take the ids on that libvirt gives to a guest's process, groups included (util/vircommand.c, virExec).

    There is no way back: to be called in a child process (Host.in_child).
    """
    if os.geteuid() == user.uid:
        return
    os.setgroups(sorted(groups(host, user)))
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def number(name: str, look_up: t.Callable[[str], int | None]) -> int | None:
    """The number that libvirt takes a name for: that of the one who has it, else what follows a + or is a number."""
    found = look_up(name)
    digits = name.removeprefix("+")
    return int(digits) if found is None and digits.isascii() and digits.isdigit() else found
