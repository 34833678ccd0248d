# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount propagation of the host (the kernel's sharedsubtree document, mount_namespaces(7))."""

from __future__ import annotations

import errno
import typing as t
from dataclasses import dataclass
from fnmatch import fnmatchcase

from . import _libvirtd, _mountinfo, _units
from ._host import HardeningError, Host
from ._mountinfo import Mount
from ._syscalls import MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE

if t.TYPE_CHECKING:
    from ._journal import Journal

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")

# What snapd, systemd, libvirt and the managers of containers keep private for reasons of their own.
DEFAULT_EXCLUDE = (
    "/run/snapd/ns",
    "/run/credentials",
    "/run/systemd/*",
    "/run/libvirt/qemu/*.dev",
    "/run/containerd",
    "/run/containers",
    "/run/docker",
    "/run/host",
    "/run/user/*",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/incus",
    "/var/lib/lxc",
    "/var/lib/lxd",
    "/var/snap/lxd",
)

FLAGS = {"private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE}


class PropagationError(HardeningError):
    """A mount cannot be given the propagation that is wanted."""


@dataclass(frozen=True)
class Wanted:
    """``propagation`` is one of PROPAGATIONS; ``exclude`` holds fnmatch patterns of mount points."""

    mounts: t.Sequence[str] = ("/",)
    propagation: str = "rshared"
    exclude: t.Sequence[str] = DEFAULT_EXCLUDE
    persist: bool = True

    @property
    def kind(self) -> str:
        """The word without the r of recursion."""
        return self.propagation[1:] if self.recursive else self.propagation

    @property
    def recursive(self) -> bool:
        return self.propagation.startswith("r")

    @property
    def targets(self) -> tuple[str, ...]:
        """The named mount points in their plain form, each once."""
        return tuple(dict.fromkeys(map(_mountinfo.normal, self.mounts)))


@dataclass(frozen=True)
class State:
    """``mounts``: what paths lead to in PID 1's namespace; ``all_mounts``: the hidden ones as well.

    ``no_mount``: wanted mount point -> what is there instead; ``units``: files of ours that are not as they should be.
    """

    mounts: t.Mapping[str, Mount]
    all_mounts: tuple[Mount, ...]
    no_mount: t.Mapping[str, str]
    boot: _units.Boot
    units: tuple[_units.Change, ...]
    guests_pending: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One mount whose propagation is to change."""

    target: str
    before: str
    kind: str

    def __str__(self) -> str:
        return f"{self.target} is {self.before} instead of {self.kind}"

    @property
    def after(self) -> str:
        """What the kernel will show, as far as that can be told."""
        return "shared,slave" if self.kind == "shared" and self.before == "slave" else self.kind


@dataclass(frozen=True)
class Spared:
    """A mount that a recursive word left alone, and why. ``guessed``: no pattern says so, its looks do."""

    mount: Mount
    reason: str
    guessed: bool = False


@dataclass(frozen=True)
class Plan:
    """``propagation`` is in the order in which it is to be applied; ``named`` the mount points asked for."""

    named: tuple[str, ...]
    propagation: tuple[Change, ...]
    spared: tuple[Spared, ...]
    units: tuple[_units.Change, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(
            f"{entry.mount.target} stays {entry.mount.propagation}, for it looks pinned on purpose: {entry.reason}. "
            "Name it in mounts to change it all the same, or in exclude to have it left alone without a word."
            for entry in self.spared
            if entry.guessed
        )

    @property
    def changes(self) -> tuple[Change | _units.Change, ...]:
        return (*self.propagation, *self.units)

    @property
    def diff(self) -> list[dict[str, str]]:
        lines = sorted(self.propagation, key=lambda change: change.target)
        mounts = {
            "before_header": "mount propagation",
            "after_header": "mount propagation",
            "before": "".join(f"{change.target} {change.before}\n" for change in lines),
            "after": "".join(f"{change.target} {change.after}\n" for change in lines),
        }
        return ([mounts] if lines else []) + [change.diff for change in self.units]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the mounts of PID 1, what the next boot makes of them, and which guests stay outside."""
    everyone = _mountinfo.read(host, 1)
    mounts = _mountinfo.visible(everyone)
    boot = _units.boot(host)
    return State(
        mounts=mounts,
        all_mounts=everyone,
        no_mount={target: _what_is(host, target) for target in wanted.targets if target not in mounts},
        boot=boot,
        units=_units.changes(host, _files(host, wanted, boot)) if wanted.persist else (),
        guests_pending=_guests_pending(host, wanted),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What to change, mount by mount.

    :raises PropagationError: a mount point that is none, or that is both named and excluded.
    :raises NoMechanism: ``persist`` with an init other than systemd.
    """
    for target in wanted.targets:
        _refuse_named(state, wanted, target)
    if wanted.persist:
        call = f"mount --make-{wanted.propagation} {' '.join(wanted.targets)}"
        state.boot.require_systemd(f"have a boot script that runs before libvirt's call: {call}")
    reached, spared = _reach(state, wanted)
    # A mount's children first: whoever finds this broken off then sees the parent still to do, and no private mount
    # below a shared one, which would look like one pinned on purpose.
    changes = [
        Change(mount.target, mount.propagation, wanted.kind)
        for mount in reversed(reached)
        if not _is(mount, wanted.kind)
    ]
    return Plan(wanted.targets, tuple(changes), spared, state.units)


def check(host: Host, plan: Plan) -> None:
    """Have the kernel try the calls in a copy of the namespace, and see whether the units could be written."""
    for change in plan.propagation:
        _make(host, plan, change, rehearse=True)
    _units.check(host, plan.units)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Change the running mounts, then the units.

    :raises PropagationError: the kernel refused; the message names the mount.
    """
    for change in plan.propagation:
        journal.record_value(f"propagation:{change.target}", change.before, change.kind)
        _make(host, plan, change)
    _units.apply(host, plan.units, journal)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    before = {change.target: change for change in plan.propagation}
    targets = sorted({*plan.named, *before})
    return {
        "mounts": [_shown(state, target, before.get(target)) for target in targets],
        "excluded": [
            {"target": entry.mount.target, "propagation": entry.mount.propagation, "reason": entry.reason}
            for entry in plan.spared
        ],
        "guests_pending": list(state.guests_pending),
    }


def _shown(state: State, target: str, change: Change | None) -> dict[str, str]:
    mount = state.mounts.get(target)
    now = mount.propagation if mount else "unmounted"
    if change is None:
        return {"target": target, "before": now, "after": now}
    return {"target": target, "before": change.before, "after": change.after if now == change.before else now}


def _is(mount: Mount, kind: str) -> bool:
    return is_kind(mount.propagation, kind)


def is_kind(propagation: str, kind: str) -> bool:
    """Whether the kernel's call would change nothing (fs/pnode.c, change_mnt_propagation).

    A shared mount may be a slave besides. Making a slave of a mount that gets nothing from anywhere leaves it private.

    :param propagation: as ``_mountinfo.Mount.propagation`` has it.
    """
    shared = propagation.startswith("shared")
    if kind == "shared":
        return shared
    if kind == "slave":
        return not shared
    return propagation == kind


def _refuse_named(state: State, wanted: Wanted, target: str) -> None:
    if target in state.no_mount:
        holder = next((above for above in _mountinfo.ancestors(target) if above in state.mounts), "/")
        raise PropagationError(
            f"{target} is no mount point ({state.no_mount[target]}), so it has no propagation of its own. Name the "
            f"mount that holds it ({holder}), or mount something there first (mount --bind {target} {target} makes one "
            "of a directory)."
        )
    pattern = _pattern(wanted.exclude, target)
    if pattern:
        raise PropagationError(
            f"{target} is named in mounts, and the pattern {pattern} in exclude covers it. Take it out of one of them."
        )


def _pattern(exclude: t.Sequence[str], target: str) -> str | None:
    """The first pattern that covers a mount point or a directory that holds it."""
    paths = (target, *_mountinfo.ancestors(target))
    return next((pattern for pattern in exclude if any(fnmatchcase(path, pattern) for path in paths)), None)


def _reach(state: State, wanted: Wanted) -> tuple[list[Mount], tuple[Spared, ...]]:
    """The mounts that the word is for, parents first, and those that it spares although it would change them."""
    if not wanted.recursive:
        return [state.mounts[target] for target in wanted.targets], ()
    named = set(wanted.targets)
    reached: list[Mount] = []
    spared: dict[str, Spared] = {}
    for target, mount in state.mounts.items():
        nearest = next((path for path in (target, *_mountinfo.ancestors(target)) if path in named), None)
        if nearest is None or any(
            path in spared and _mountinfo.is_below(path, nearest) for path in _mountinfo.ancestors(target)
        ):
            continue
        pattern = _pattern(wanted.exclude, target)
        if pattern:
            spared[target] = Spared(mount, f"exclude: {pattern}")
            continue
        pinned = _pinned(state, mount) if wanted.kind == "shared" and not mount.shared and target != nearest else None
        if pinned:
            spared[target] = pinned
        else:
            reached.append(mount)
    return reached, tuple(entry for entry in spared.values() if not _is(entry.mount, wanted.kind))


def _pinned(state: State, mount: Mount) -> Spared | None:
    """Why a mount that is not shared has to stay so, or looks as if somebody wanted it so; None if it does not."""
    if mount.fstype == "autofs":
        return Spared(mount, "autofs, where the call would trigger the mount")
    if mount.unbindable:
        return Spared(mount, "unbindable, which no mount is unless somebody made it so")
    if any(other.parent == mount.id and other.root.startswith("mnt:[") for other in state.all_mounts):
        return Spared(mount, "it holds the file of a mount namespace (unshare --mount=FILE), which no shared mount may")
    parent = next((other for other in state.all_mounts if other.id == mount.parent), None)
    if parent and parent.shared:
        return Spared(mount, "below a shared mount every new one is shared unless somebody makes it otherwise", True)
    if parent and (mount.device, mount.root) == (parent.device, _path_in(parent, mount.target)):
        return Spared(mount, "a directory mounted on itself is how somebody pins one", True)
    return None


def _path_in(parent: Mount, target: str) -> str:
    """The directory of the parent's file system that a mount point below it is."""
    inside = target[len(parent.target.rstrip("/")) :]
    return parent.root.rstrip("/") + inside


def _what_is(host: Host, target: str) -> str:
    status = host.stat_optional(target, follow=False)
    if status is None:
        return "it does not exist"
    try:
        return f"it is a symbolic link to {host.readlink(target)}"
    except OSError:
        return "it is part of the mount above it"


def _guests_pending(host: Host, wanted: Wanted) -> tuple[str, ...]:
    # libvirt gives each guest a /dev of its own: what is mounted below the host's spreads to no guest anyway.
    targets = [target for target in wanted.targets if target != "/dev"]
    if wanted.kind != "shared" or not targets:
        return ()
    return tuple(guest.name for guest in _libvirtd.guests(host) if _mountinfo.outside(host, guest.pid, targets))


def _make(host: Host, plan: Plan, change: Change, *, rehearse: bool = False) -> None:
    try:
        host.mount("none", change.target, "", FLAGS[change.kind], rehearse=rehearse)
    except OSError as error:
        if change.target not in plan.named and change.target not in _mountinfo.visible(_mountinfo.read(host, 1)):
            return  # unmounted meanwhile, as a container's mounts are
        done = "Nothing was changed." if rehearse else "What was changed before it stays changed and is in the journal."
        hint = " Run as root of the host itself, with CAP_SYS_ADMIN." if error.errno == errno.EPERM else ""
        raise PropagationError(
            f"{change.target} cannot be made {change.kind}: {error.strerror}. {done}{hint}"
        ) from error


def _files(host: Host, wanted: Wanted, boot: _units.Boot) -> t.Iterator[_units.File]:
    """The unit of each named mount: with a text where the boot itself would not make it so."""
    if boot.init != "systemd":
        return
    for target in wanted.targets:
        _units.require_plain(target)
        needed = _at_boot(host, target, boot) != wanted.kind
        mount_unit = f"{_units.escape(target)}.mount"
        yield _units.File(
            f"{_units.DIRECTORY}/hypervisor-hardening-propagation-{_units.escape(target)}.service",
            _service(target, wanted.propagation, mount_unit) if needed else None,
            "sysinit.target" if target == "/" else mount_unit,
        )


def _at_boot(host: Host, target: str, boot: _units.Boot) -> str:
    """What the next boot makes of a mount, "" if that is not known.

    systemd makes everything shared when the kernel itself started it (src/shared/mount-setup.c), and systemd-nspawn
    does it for its containers; other managers of containers do as they please. A mount unit or a line of fstab may
    hold one of the eight words among its options (mount(8)).
    """
    options = _units.last_value(host, f"{_units.escape(target)}.mount", "Options").split(",")
    if target == "/":  # systemd-remount-fs reads its options from fstab itself
        options += _root_options(host)
    words = [option for option in options if option in PROPAGATIONS]
    if words:
        return words[-1].removeprefix("r")
    return "shared" if boot.container in ("", "systemd-nspawn") else ""


def _root_options(host: Host) -> list[str]:
    lines = (line.split() for line in (host.text_optional("/etc/fstab") or "").splitlines())
    return [option for fields in lines if len(fields) > 3 and fields[1] == "/" for option in fields[3].split(",")]


def _service(target: str, propagation: str, mount_unit: str) -> str:
    root = target == "/"
    return f"""{_units.HEADER}[Unit]
Description=Mount propagation of {target}: {propagation}
DefaultDependencies=no
After={"local-fs.target" if root else mount_unit}
{"Before=sysinit.target" if root else f"BindsTo={mount_unit}"}
Before=libvirtd.service virtqemud.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mount --make-{propagation} {target}

[Install]
WantedBy={"sysinit.target" if root else mount_unit}
"""
