# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cgroup per host: everything of a host is in it, so it is found and killed by it."""

from __future__ import annotations

import contextlib
import os
import pathlib

from ._base import RigError, wait_for

#: How the rig's own cgroups begin.
PREFIX = "hypervisor-rig"


def mounts() -> list[tuple[pathlib.Path, str]]:
    """Mount point and type (``cgroup`` or ``cgroup2``) of each cgroup hierarchy."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        left, _dash, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            found.append((pathlib.Path(left.split()[4]), right.split()[0]))
    return found


def unified() -> pathlib.Path:
    """Where cgroup v2 is mounted.

    :raises RigError: nowhere.
    """
    for mount, fstype in mounts():
        if fstype == "cgroup2":
            return mount
    raise RigError("no cgroup2 file system is mounted here: mount one on /sys/fs/cgroup/unified")


def launch_prefix(scope: str, name: str) -> list[str]:
    """What to put before a host's command: where systemd owns the cgroups, it is asked for one.

    ``systemd-run --scope`` runs the command in the caller's own process, so its pid is the host's.
    """
    if not _systemd_runs():
        return []
    unit = f"{PREFIX}-{scope}-{name}"
    return ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", f"--unit={unit}"]


def enter(scope: str, name: str, pid: int) -> None:
    """Put a process into the host's own cgroup, unless systemd did."""
    if _systemd_runs():
        return
    group = _of(unified(), scope, name)
    group.mkdir(parents=True, exist_ok=True)
    for parent in (unified(), group.parent):
        hand_down(parent)
    move(pid, group)


def own() -> pathlib.Path:
    """The cgroup of this process.

    :raises RigError: it has none in cgroup v2.
    """
    for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::/"):
            return unified() / line.removeprefix("0::/")
    raise RigError(
        "this process has no cgroup of version 2: boot the machine without cgroup_no_v1 or with cgroup2 mounted"
    )


def move(pid: int, group: pathlib.Path) -> None:
    """Put a process into a cgroup, making it if need be."""
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


def hand_down(group: pathlib.Path) -> None:
    """Give the children of a cgroup every controller that it has; it may have no process of its own (cgroups(7)).

    libvirt takes a cgroup2 without any controller for no cgroup at all (virCgroupV2Available), and then
    leaves guests without a cgroup and a device filter of their own.
    """
    for controller in (group / "cgroup.controllers").read_text(encoding="ascii").split():
        _switch(group, f"+{controller}")


def shared_controllers() -> list[str]:
    """The controllers that the root of cgroup v2 hands to its children."""
    return (unified() / "cgroup.subtree_control").read_text(encoding="ascii").split()


def restore_controllers(before: list[str]) -> None:
    """Take from the children of the root what they did not have before."""
    for controller in shared_controllers():
        if controller not in before and not _systemd_runs():
            _switch(unified(), f"-{controller}")


def kill(scope: str, name: str) -> None:
    """Kill every process of a host (cgroup.kill, kernel 5.14 and later)."""
    for mount, _fstype in mounts():
        switch = _of(mount, scope, name) / "cgroup.kill"
        if switch.exists():
            switch.write_text("1", encoding="ascii")


def remove(scope: str, name: str) -> None:
    """Remove a host's cgroups, as soon as they are empty; nspawn mirrors them in systemd's v1 hierarchy.

    :raises RigError: a process stays in one.
    """
    for mount, _fstype in mounts():
        group = _of(mount, scope, name)
        wait_for(f"the cgroup {group} to be empty", lambda: _try_remove(group), patience=10)  # noqa: B023 (called at once)
        with contextlib.suppress(OSError):
            group.parent.rmdir()


def _of(mount: pathlib.Path, scope: str, name: str) -> pathlib.Path:
    return mount / f"{PREFIX}-{scope}" / name


def _try_remove(group: pathlib.Path) -> bool:
    for directory, _directories, _files in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    return not group.exists()


def _systemd_runs() -> bool:
    # sd_booted(3)
    return pathlib.Path("/run/systemd/system").is_dir()


def _switch(group: pathlib.Path, word: str) -> None:
    # One that the kernel refuses (busy, or held by a v1 hierarchy) is simply not there for the hosts.
    with contextlib.suppress(OSError):
        (group / "cgroup.subtree_control").write_text(word, encoding="ascii")
