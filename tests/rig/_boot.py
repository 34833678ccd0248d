# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last steps of a boot, taken in the mount and network namespaces that become the host's."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
from typing import Any

from ._base import run


def boot(directory: pathlib.Path) -> None:
    """Lay the host's root file system and become systemd-nspawn; never returns.

    Waits for one JSON line on standard input, which comes when the network device is there.
    """
    line = sys.stdin.readline()
    if not line:
        sys.exit("the rig went away before the boot")
    config: dict[str, Any] = json.loads(line)
    root = directory / "root"
    options = f"lowerdir={config['lower']},upperdir={directory}/upper,workdir={directory}/work,volatile"
    run(["mount", "-t", "overlay", "overlay", "-o", options, root])
    _personalise(root, config)
    # nspawn keeps locks and sockets below /run: they are the host's own and go with it.
    run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])
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
    ]
    os.execvp(argv[0], argv)


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
