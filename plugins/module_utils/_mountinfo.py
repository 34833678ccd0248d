# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts as /proc/PID/mountinfo shows them (proc_pid_mountinfo(5), mount_namespaces(7))."""

from __future__ import annotations

import os
import re
import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo.

    ``device`` is MAJOR:MINOR, ``root`` the directory of the file system that is mounted, ``options`` are the file
    system's, ``flags`` those of this mount alone (rw, nosuid, nodev...), ``source`` what the file system says that it
    is made of (a device, SERVER:/EXPORT).
    """

    id: int
    parent: int
    device: str
    root: str
    target: str
    fstype: str
    options: str
    shared: bool
    master: bool
    unbindable: bool
    flags: str = ""
    source: str = ""

    @property
    def propagation(self) -> str:
        """``shared``, ``slave``, ``shared,slave``, ``unbindable`` or ``private``."""
        words = (("shared", self.shared), ("slave", self.master), ("unbindable", self.unbindable))
        return ",".join(word for word, is_so in words if is_so) or "private"


def read(host: Host, pid: int) -> tuple[Mount, ...]:
    """The mounts of the namespace that process ``pid`` lives in; none where there is no such process."""
    try:
        return parse(host.text_optional(f"/proc/{pid}/mountinfo") or "")
    except ProcessLookupError:  # it ended after the open
        return ()


def parse(text: str) -> tuple[Mount, ...]:
    """The lines of a mountinfo, in their order. ``options`` are those of the file system (the last field)."""
    return tuple(_mount(line) for line in text.split("\n") if line)


def _mount(line: str) -> Mount:
    # ID PARENT MAJOR:MINOR ROOT TARGET OPTIONS TAG... - TYPE SOURCE SUPER-OPTIONS
    before, _dash, after = line.partition(" - ")
    fields = before.split(" ")
    fstype, source, options = after.split(" ", 2)
    tags = {tag.partition(":")[0] for tag in fields[6:]}
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=unescaped(fields[3]),
        target=unescaped(fields[4]),
        fstype=fstype,
        options=options,
        shared="shared" in tags,
        master="master" in tags,
        unbindable="unbindable" in tags,
        flags=fields[5],
        source=unescaped(source),
    )


def unescaped(path: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)


def visible(mounts: t.Iterable[Mount]) -> dict[str, Mount]:
    """Target -> the mount that a path leads to, parents before what is mounted below them.

    Of mounts stacked on one target the topmost counts; what lies under a later mount cannot be reached.
    """
    everyone = tuple(mounts)
    ids = {mount.id for mount in everyone}
    children: dict[int, dict[str, Mount]] = {}
    roots = {}
    for mount in everyone:
        if mount.parent in ids and mount.parent != mount.id:
            children.setdefault(mount.parent, {})[mount.target] = mount
        else:
            roots[mount.target] = mount
    found = {}
    waiting = [mount for target, mount in sorted(roots.items(), reverse=True)]
    while waiting:
        mount = waiting.pop()
        found[mount.target] = mount  # one stacked on it is a child of it, and takes its place
        below = children.get(mount.id, {})
        reachable = (child for target, child in below.items() if not any(above in below for above in ancestors(target)))
        waiting += sorted(reachable, key=lambda child: child.target, reverse=True)
    return found


def normal(path: str) -> str:
    """An absolute path without empty parts, . and .. (as text: symbolic links are not looked at).

    :raises HardeningError: it is not absolute.
    """
    if not path.startswith("/"):
        raise HardeningError(f"{path!r} is no absolute path. A mount point is named from / on.")
    return "/" + os.path.normpath(path).lstrip("/")


def ancestors(path: str) -> t.Iterator[str]:
    """The directories above an absolute path, nearest first: /a/b/c has /a/b, /a and /."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path


def is_below(path: str, directory: str) -> bool:
    """Whether an absolute path is ``directory`` or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def of_guest(host: Host, pid: int) -> dict[str, Mount] | None:
    """What a guest sees in a mount namespace of its own; None if it lives in the host's, or has ended."""
    try:
        if host.readlink(f"/proc/{pid}/ns/mnt") == host.readlink("/proc/1/ns/mnt"):
            return None
    except FileNotFoundError:
        return None
    return visible(read(host, pid))


def outside(host: Host, pid: int, targets: t.Iterable[str]) -> bool:
    """Whether a guest has a mount namespace of its own that what is mounted below one of ``targets`` does not reach.

    libvirt makes everything in a guest's namespace a slave of the host's (qemu_domain_namespace.c); a mount that the
    host had private at that time has no master and stays outside for as long as the guest runs.
    """
    seen = of_guest(host, pid)
    return seen is not None and any(target not in seen or not seen[target].master for target in targets)
