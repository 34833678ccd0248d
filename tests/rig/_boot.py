# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor of a host: the process in whose mount and network namespaces systemd-nspawn or QEMU boots it."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import stat
import sys
import time
from typing import Any

from . import _cgroups, _vmboot
from ._base import run, spawn

# Where hosts have the directory that they share.
SHARED = "/srv/shared"
# Beside the host's root file system: its device, MAJOR:MINOR.
ROOT_DEVICE = "root-device"
# What systemd-nspawn --keep-unit exits with when the host wants to be booted again.
_AGAIN = 133


def boot(directory: pathlib.Path) -> int:
    """Lay the host's root file system and boot it, again whenever it reboots; return the last exit status.

    Waits for one JSON line on standard input, which comes when the network device is there.
    """
    line = sys.stdin.readline()
    if not line:
        sys.exit("the rig went away before the boot")
    config: dict[str, Any] = json.loads(line)
    # Locks and sockets below /run are the host's own and go with it.
    run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])
    if config["disk"]:
        return _vmboot.boot(directory, config)
    return _boot_container(directory, config)


def _boot_container(directory: pathlib.Path, config: dict[str, Any]) -> int:
    root = directory / "root"
    options = f"lowerdir={config['image']}/root,upperdir={directory}/upper,workdir={directory}/work,volatile"
    run(["mount", "-t", "overlay", "overlay", "-o", options, root])
    device = os.stat(root).st_dev
    (directory / ROOT_DEVICE).write_text(f"{os.major(device)}:{os.minor(device)}", encoding="ascii")
    _personalise(root, config)
    os.environ.update(
        # A filter of nspawn's own would show as Seccomp: 2 in every process and prove nothing of QEMU's.
        SYSTEMD_SECCOMP="0",
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1",
        SYSTEMD_NSPAWN_API_VFS_WRITABLE="1",
    )
    argv = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={root}",
        f"--machine={config['name']}",
        f"--hostname={config['name']}",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--capability=all",
        "--network-namespace-path=/proc/self/ns/net",
        "--console=read-only",
        *([f"--bind={config['shared']}:{SHARED}"] if config["shared"] else []),
    ]
    home = _cgroups.own()
    keeper = home / "keeper"
    _cgroups.move(os.getpid(), keeper)
    _cgroups.hand_down(home)
    for count in itertools.count(1):
        status = _boot_once(argv, home / f"boot-{count}", keeper)
        if status != _AGAIN:
            return status
    raise AssertionError("itertools.count has no end")


def _boot_once(argv: list[str], group: pathlib.Path, keeper: pathlib.Path) -> int:
    # A child begins where its parent is; nspawn then divides its cgroup in two and leaves it empty.
    _cgroups.move(os.getpid(), group)
    # It dies with its supervisor, and the host with it.
    nspawn = spawn(argv, dies_with_parent=True)
    _cgroups.move(os.getpid(), keeper)
    while nspawn.poll() is None and (group / "cgroup.procs").read_text(encoding="ascii"):
        time.sleep(0.01)
    _cgroups.hand_down(group)
    return nspawn.wait()


def _personalise(root: pathlib.Path, config: dict[str, Any]) -> None:
    (root / "etc/machine-id").write_text(config["machine_id"] + "\n", encoding="ascii")
    (root / "etc/hostname").write_text(config["name"] + "\n", encoding="ascii")
    (root / "etc/hosts").write_text(config["hosts"], encoding="ascii")
    keys = root / "root/.ssh/authorized_keys"
    keys.write_text(config["public_key"], encoding="ascii")
    keys.chmod(0o600)
    (root / "etc/tmpfiles.d/rig-devices.conf").write_text(_device_lines(), encoding="ascii")


def _device_lines() -> str:
    """Nodes of the host's own: with a bind mount a chown inside would reach the outer machine's node."""
    lines = []
    for path, mode, group in (
        ("/dev/kvm", "0660", "kvm"),
        ("/dev/net/tun", "0666", "root"),
        ("/dev/vhost-net", "0660", "kvm"),
        ("/dev/fuse", "0666", "root"),
    ):
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue
        if stat.S_ISCHR(status.st_mode):
            lines.append(f"c {path} {mode} root {group} - {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}\n")
    return "".join(lines)
