# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hugetlbfs mounts: what is there, what is to change, and the change itself."""

from __future__ import annotations

import stat
import typing as t
from dataclasses import dataclass, field, replace

from ._host import HardeningError, Host
from ._hugepages import PoolError, label
from ._hugewanted import FORCED_MODE, Entry
from ._mountinfo import Mount, ancestors
from ._syscalls import MS_NODEV, MS_NOSUID

if t.TYPE_CHECKING:
    from ._journal import Journal

HUGETLBFS_MAGIC = 0x958458F6  # linux/magic.h

# libvirt's directory in each mount, in which it makes one for each guest (qemu_conf.c, qemuGetBaseHugepagePath).
BASE = "libvirt/qemu"
DELEGATE_MODE = 0o700

# Mounts are looked at where PID 1 lives, whatever this process lives in.
PID1_ROOT = "/proc/1/root"
_DEPTH = 8


@dataclass(frozen=True)
class Root:
    """A hugetlbfs mount: its page size in kibibytes, and owner, group and mode of its root directory."""

    size: int
    uid: int = 0
    gid: int = 0
    mode: int = 0o755

    def __str__(self) -> str:
        return f"hugetlbfs with pages of {label(self.size)}, {self.uid}:{self.gid} {self.mode:04o}"

    @property
    def options(self) -> str:
        """As mount(2) takes them (hugetlbpage.rst)."""
        return f"pagesize={label(self.size)},uid={self.uid},gid={self.gid},mode={self.mode:04o}"


@dataclass(frozen=True)
class Place:
    """What is at a mount point.

    ``root`` None: no hugetlbfs; then ``obstacle`` says what hinders mounting one there, "" if nothing does.
    ``base``: libvirt's directory is there; ``delegated``: owner and mode of each user's; ``holders``: what is in use.
    """

    root: Root | None = None
    obstacle: str = ""
    base: bool = False
    delegated: t.Mapping[str, tuple[int, int]] = field(default_factory=dict)
    holders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One change. ``kind``: unmount, mount, owner, base or delegate; ``path``: the mount point.

    ``name``: the user of the directory that is delegated; its owner is in ``after``.
    """

    kind: str
    path: str
    before: Root | None
    after: Root | None
    name: str = ""

    @property
    def news_to_libvirt(self) -> bool:
        """Whether a running daemon, which looks for mounts once, at its start, does not know of it."""
        return self.kind in ("unmount", "mount", "base")

    @property
    def lines(self) -> tuple[str, str]:
        """What is and what is to be, in words."""
        if self.kind in ("base", "delegate"):
            where = f"{self.path}/{BASE if self.kind == 'base' else self.name}"
            wanted = "0:0 0755" if self.kind == "base" else f"{self.after.uid if self.after else 0} {DELEGATE_MODE:04o}"
            return f"{where}: missing, or another's", f"{where}: {wanted}"
        return f"{self.path}: {self.before or 'no hugetlbfs'}", f"{self.path}: {self.after or 'no hugetlbfs'}"

    def __str__(self) -> str:
        return self.lines[0]


def place(host: Host, mounts: t.Mapping[str, Mount], entry: Entry) -> Place:
    """What is at an entry's mount point. Reads only."""
    mount = mounts.get(entry.path)
    full = PID1_ROOT + entry.path
    if mount is None:
        return Place(obstacle=_obstacle(host, entry.path))
    if mount.fstype != "hugetlbfs":
        return Place(obstacle=f"{mount.fstype} is mounted there. Unmount it, or choose another path")
    if host.filesystem(full) != HUGETLBFS_MAGIC:
        return Place(obstacle="statfs(2) finds no hugetlbfs where /proc/1/mountinfo shows one. Look for what hides it")
    status = host.stat(full)
    users = {user: host.stat_optional(f"{full}/{user}", follow=False) for user in entry.delegate or ()}
    return Place(
        root=Root(host.block_size(full) >> 10, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)),
        base=host.exists(f"{full}/{BASE}"),
        delegated={user: (found.st_uid, stat.S_IMODE(found.st_mode)) for user, found in users.items() if found},
        holders=tuple(_holders(host, entry.path, "", _DEPTH)) if entry.absent else (),
    )


def _obstacle(host: Host, path: str) -> str:
    for part in (path, *ancestors(path)):
        try:
            link = host.readlink(PID1_ROOT + part)
        except OSError:
            continue
        return f"{part} is a symbolic link to {link}. Name the directory itself"
    status = host.stat_optional(PID1_ROOT + path)
    if status is None:
        return ""
    if not stat.S_ISDIR(status.st_mode):
        return "there is something that is no directory. Remove it, or choose another path"
    if host.list(PID1_ROOT + path):
        return "the directory is not empty, and a mount would hide its content. Move that away, or choose another path"
    return ""


def _holders(host: Host, path: str, inside: str, depth: int) -> t.Iterator[str]:
    """The directories of guests (libvirt removes them when a guest stops) and the files in a mount.

    QEMU unlinks its files at once, so a guest is seen by its directory alone.
    """
    for name in host.list(f"{PID1_ROOT}{path}{inside}"):
        status = host.stat_optional(f"{PID1_ROOT}{path}{inside}/{name}", follow=False)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode) or inside.endswith("/" + BASE):
            yield f"{path}{inside}/{name}"
        elif depth:
            yield from _holders(host, path, f"{inside}/{name}", depth - 1)


def effective(entry: Entry, found: Place, uid: int | None, gid: int | None) -> Root:
    """What the root of an entry's mount is to be: as asked for, else as it is, else as the kernel makes it.

    :param uid: of the owner that was asked for, None for none; likewise ``gid``.
    """
    now = found.root or Root(entry.size)
    return Root(
        entry.size,
        now.uid if uid is None else uid,
        now.gid if gid is None else gid,
        now.mode | FORCED_MODE if entry.mode is None else entry.mode,
    )


def absent(entry: Entry, found: Place) -> list[Step]:
    """The steps to an entry that is not mounted any more.

    :raises PoolError: something is in it.
    """
    if found.root is None or found.root.size != entry.size:
        return []
    if found.holders:
        raise PoolError(
            f"{entry.path} is in use and stays mounted: {', '.join(found.holders)}. Stop the guests, or remove files.",
            holders=list(found.holders),
        )
    return [Step("unmount", entry.path, found.root, None)]


def present(
    entry: Entry, found: Place, wanted: Root, uids: t.Mapping[str, int | None], *, replaced: bool
) -> list[Step]:
    """The steps to an entry that is mounted with all that belongs to it.

    :param uids: of the users that directories are delegated to.
    :param replaced: what is mounted there now is unmounted before.
    :raises PoolError: something else is there.
    """
    now = Place() if replaced else found
    steps = []
    if now.obstacle:
        raise PoolError(f"{entry.path}: {now.obstacle}.")
    if now.root is None:
        steps.append(Step("mount", entry.path, None, wanted))
    elif now.root.size != wanted.size:
        raise PoolError(
            f"{entry.path} has pages of {label(now.root.size)}, not of {label(wanted.size)}, and a mount's page size "
            "cannot be changed. Choose another path; or put another pool into the list, with this path, size "
            f"{label(now.root.size)} and state absent, which unmounts it if nothing uses it."
        )
    elif now.root != wanted:
        steps.append(Step("owner", entry.path, now.root, wanted))
    if not now.base:
        steps.append(Step("base", entry.path, now.root, wanted))
    for user in entry.delegate or ():
        uid = uids[user]
        if uid is not None and now.delegated.get(user) != (uid, DELEGATE_MODE):
            steps.append(Step("delegate", entry.path, None, replace(wanted, uid=uid), user))
    return steps


def take(host: Host, step: Step, journal: Journal, daemon: str) -> t.Callable[[], None] | None:
    """Make one change; return what takes it back, if anything need be.

    :param daemon: the libvirt daemon that runs, by ``Layout.process``: the journal keeps who does not know of it.
    :raises PoolError: the kernel refused.
    """
    inside = {"base": f"/{BASE}", "delegate": f"/{step.name}"}.get(step.kind, "")
    after = {"is": vars(step.after) if step.after else None, **({"daemon": daemon} if step.news_to_libvirt else {})}
    if step.kind == "mount":
        for path in reversed([step.path, *ancestors(step.path)]):
            if not host.exists(PID1_ROOT + path):
                journal.record_value(f"directory:{path}", None, "made")
    before = step.after if step.kind == "base" else step.before  # libvirt's directory is no part of the mount's state
    journal.record_value(f"hugetlbfs:{step.path}{inside}", {"is": vars(before) if before else None}, after)
    full = PID1_ROOT + step.path
    if step.kind == "unmount" and step.before:
        return _unmount(host, step.path, step.before)
    if step.kind == "mount" and step.after:
        return _mount(host, step.path, step.after)
    if step.kind == "owner" and step.after and step.before:
        before = step.before
        host.set_owner(full, step.after.uid, step.after.gid, step.after.mode)
        return lambda: host.set_owner(full, before.uid, before.gid, before.mode)
    if step.kind == "base":
        host.make_directory(f"{full}/{BASE}", 0o755)
    if step.kind == "delegate" and step.after:
        host.make_directory(f"{full}/{step.name}", DELEGATE_MODE)
        host.set_owner(f"{full}/{step.name}", step.after.uid, -1, DELEGATE_MODE)
    return None


def is_news(target: str, after: t.Any, daemon: str) -> bool:
    """Whether an entry of the journal is of a mount that the daemon, by ``Layout.process``, does not know of."""
    return target.startswith("hugetlbfs:") and isinstance(after, dict) and after.get("daemon") == daemon != ""


def _mount(host: Host, path: str, root: Root) -> t.Callable[[], None]:
    made = not host.exists(PID1_ROOT + path)
    host.make_directory(PID1_ROOT + path, 0o755)
    try:
        host.mount("hugetlbfs", path, "hugetlbfs", MS_NOSUID | MS_NODEV, root.options)
    except (OSError, HardeningError) as error:
        if made:
            host.remove_directory(PID1_ROOT + path)
        raise PoolError(f"{path}: the kernel did not mount hugetlbfs ({root.options}): {_words(error)}.") from error
    return lambda: host.unmount(path)


def _unmount(host: Host, path: str, root: Root) -> t.Callable[[], None]:
    try:
        host.unmount(path)
    except OSError as error:
        raise PoolError(
            f"{path} could not be unmounted: {error.strerror}. Something has a file in it open or mapped, perhaps a "
            "guest, in whose own mount namespace it is mounted as well. Stop that first."
        ) from error
    return lambda: host.mount("hugetlbfs", path, "hugetlbfs", MS_NOSUID | MS_NODEV, root.options)


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
