# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/dev/kvm: who may create virtual machines, now and whenever udev(7) makes the device anew."""

from __future__ import annotations

import re
import stat
import typing as t
from dataclasses import dataclass

from . import _conffile, _qemu, _units
from ._host import Host
from ._kernelvalues import KernelError

if t.TYPE_CHECKING:
    from ._journal import Journal

PATH = "/dev/kvm"
# After the distribution's own rules, of which the last assignment counts.
RULE = "/etc/udev/rules.d/99-hypervisor-hardening-kvm.rules"

_NAME_RE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")
_MODE_RE = re.compile(r"0?[0-7]{3}")
_OPEN = 0o6


@dataclass(frozen=True)
class Wish:
    """Owner and group by name, and the permission bits."""

    owner: str
    group: str
    mode: int

    def rule(self) -> str:
        """udev's rule."""
        assignments = f'OWNER="{self.owner}", GROUP="{self.group}", MODE="{self.mode:04o}"'
        return f'{_units.HEADER}SUBSYSTEM=="misc", KERNEL=="kvm", {assignments}\n'


@dataclass(frozen=True)
class Device:
    """As it is: permission bits, uid and gid, and the names of those; None: the host has none."""

    mode: int
    uid: int
    gid: int
    owner: str
    group: str

    def __str__(self) -> str:
        return f"{self.mode:04o} {self.owner} {self.group}"


@dataclass(frozen=True)
class State:
    """``ids``: the uid and gid of the wanted owner and group, None for an unknown one; ``qemu``: whom guests run as,
    uid, name, and whether it is in the wanted group; None where nothing tells."""

    device: Device | None
    ids: tuple[int | None, int | None]
    qemu: tuple[int, str, bool] | None


@dataclass(frozen=True)
class Change:
    """The device gets an owner, a group and a mode."""

    before: Device
    uid: int
    gid: int
    wish: Wish

    def __str__(self) -> str:
        return f"{PATH} is {self.before} instead of {self.wish.mode:04o} {self.wish.owner} {self.wish.group}"


def wish(options: t.Mapping[str, t.Any]) -> Wish:
    """The option ``kvm_device``.

    :raises KernelError: a name or a mode that can be none.
    """
    for key in ("owner", "group"):
        if not _NAME_RE.fullmatch(options[key]):
            raise KernelError(f"kvm_device: {options[key]!r} can be no {key}.")
    if not _MODE_RE.fullmatch(options["mode"]):
        raise KernelError(f"kvm_device: the mode {options['mode']!r} is not of the form 0660. Write it in quotes.")
    return Wish(options["owner"], options["group"], int(options["mode"], 8))


def read(host: Host, wanted: Wish) -> State:
    """The device, and who guests run as."""
    status = host.stat_optional(PATH)
    device = None
    if status is not None:
        owner, group = host.user_name(status.st_uid), host.group_name(status.st_gid)
        device = Device(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, owner, group)
    uid, gid, _source = _qemu.user(host, _conffile.read(host, "qemu.conf"))
    qemu = None
    if uid is not None and gid is not None:
        user = _qemu.User(host.user_name(uid), uid, gid)
        qemu = uid, user.name, host.gid(wanted.group) in _qemu.groups(host, user)
    return State(device, (host.uid(wanted.owner), host.gid(wanted.group)), qemu)


def plan(state: State, wanted: Wish) -> Change | None:
    """What to change of the device itself; the rule is a file like others.

    :raises KernelError: an unknown owner or group, or guests could not open it any more.
    """
    uid, gid = state.ids
    if uid is None or gid is None:
        unknown = f"user {wanted.owner}" if uid is None else f"group {wanted.group}"
        raise KernelError(f"kvm_device: this host has no {unknown}. Nothing was done.")
    _refuse_locking_out(state, wanted, uid)
    device = state.device
    if device is None or (device.mode, device.uid, device.gid) == (wanted.mode, uid, gid):
        return None
    return Change(device, uid, gid, wanted)


def _refuse_locking_out(state: State, wanted: Wish, owner: int) -> None:
    if state.qemu is None:
        return
    uid, name, member = state.qemu
    bits = wanted.mode >> 6 if uid == owner else wanted.mode >> 3 if member else wanted.mode
    if uid != 0 and bits & _OPEN != _OPEN:
        raise KernelError(
            f"kvm_device: guests run as {name}, which could not open {PATH} with mode {wanted.mode:04o}, owner "
            f"{wanted.owner} and group {wanted.group}, so no guest could be started. Nothing was done. If it is to be "
            f"in that group: usermod --append --groups {wanted.group} {name}"
        )


def apply(host: Host, change: Change, journal: Journal) -> None:
    """Give the device its owner, group and mode."""
    before = change.before
    journal.record_value(
        f"owner:{PATH}",
        {"uid": before.uid, "gid": before.gid, "mode": before.mode},
        {"uid": change.uid, "gid": change.gid, "mode": change.wish.mode},
    )
    host.set_owner(PATH, change.uid, change.gid, change.wish.mode)
