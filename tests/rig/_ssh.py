# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the hosts are reached by ssh: one key per cache, one list of known hosts and one inventory per scope."""

from __future__ import annotations

import pathlib
import shlex

from . import _registry
from ._base import cache_dir, locked, run


def key() -> pathlib.Path:
    """The key that opens every host; made when it is first wanted."""
    path = cache_dir() / "ssh" / "id_ed25519"
    with locked("key"):
        if not path.with_suffix(".pub").exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hypervisor-rig", "-f", path])
    return path


def public_key() -> str:
    """The line for authorized_keys."""
    return key().with_suffix(".pub").read_text(encoding="ascii")


def options(chosen: str | None = None) -> list[str]:
    """The options of ssh(1) that reach the hosts of a scope and touch nothing of the user's."""
    settings = {
        "IdentityFile": key(),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": _registry.scope_dir(chosen) / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "LogLevel": "ERROR",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def kept_open(directory: pathlib.Path) -> list[str]:
    """More options, which let the commands on one host share a connection; whoever removes the host closes it."""
    settings = {"ControlMaster": "auto", "ControlPath": _socket(directory), "ControlPersist": "yes"}
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def close(directory: pathlib.Path) -> None:
    """End the connection that the commands on a host share, if there is one."""
    if _socket(directory).exists():
        run(["ssh", "-o", f"ControlPath={_socket(directory)}", "-O", "exit", "any"], check=False)


def _socket(directory: pathlib.Path) -> pathlib.Path:
    return directory / "ssh"


def known_hosts(hosts: list[_registry.Facts]) -> str:
    """The text of a known_hosts file."""
    lines = ""
    for facts in hosts:
        public = pathlib.Path(facts["image"], "root/etc/ssh/ssh_host_ed25519_key.pub")
        lines += f"{facts['address']} {public.read_text(encoding='ascii')}"
    return lines


def inventory(hosts: list[_registry.Facts]) -> str:
    """The text of an inventory with the group ``hypervisors``."""
    lines = ["---", "hypervisors:", "  hosts:" if hosts else "  hosts: {}"]
    for facts in hosts:
        lines += [f"    {facts['name']}:", f"      ansible_host: {facts['address']}"]
    lines += [
        "  vars:",
        "    ansible_user: root",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_common_args: {shlex.join(options())}",
    ]
    return "\n".join(lines) + "\n"


def hosts_file(hosts: list[_registry.Facts]) -> str:
    """The text of /etc/hosts inside."""
    return "127.0.0.1 localhost\n" + "".join(f"{facts['address']} {facts['name']}\n" for facts in hosts)
