# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on ssh between hypervisors: what a key that is let in may do, and whether the other side's key is looked at."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t

from ._infocontext import Context
from ._reader import Reader

# root, and the user that OpenStack migrates as.
_HOMES = ("/root", "/var/lib/nova")
_FILES = ("authorized_keys", "authorized_keys2")
_MOST = 50
# sshd(8), "AUTHORIZED_KEYS FILE FORMAT": options, if any, then the type of the key.
_KEY_RE = re.compile(r"(?:^|\s)(?:ssh-|ecdsa-|sk-ssh-|sk-ecdsa-)\S+\s+([A-Za-z0-9+/=]+)")
_OPTION_RE = re.compile(r'(?:^|,)(from|command|restrict)\b(?:="(?:[^"\\]|\\.)*")?', re.IGNORECASE)
# ssh_config(5)
_LAX_RE = re.compile(
    r"[ \t]*(StrictHostKeyChecking[ \t=]+(?:no|off)|(?:Global|User)KnownHostsFile[ \t=]+/dev/null)\b", re.IGNORECASE
)
_HOST_RE = re.compile(r"[ \t]*(Host|Match)[ \t=]+(.*)", re.IGNORECASE)
# What systemd-ssh-proxy(1) leads to are sockets of this machine.
_LOCAL = ("unix/", "unix%", "unix,", "vsock/", "vsock%", "vsock,", "machine/", "machine%", ".host")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``ssh``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    keys = [key for home in _HOMES for name in _FILES for key in _keys(reader, f"{home}/.ssh/{name}")]
    clients = ["/etc/ssh/ssh_config", *(f"{home}/.ssh/config" for home in _HOMES)]
    clients += [f"/etc/ssh/ssh_config.d/{name}" for name in reader.list("/etc/ssh/ssh_config.d")]
    unchecked = [{"name": path, "setting": setting} for path in clients for setting in _lax(reader.text(path) or "")]
    known = ["/etc/ssh/ssh_known_hosts", *(f"{home}/.ssh/known_hosts" for home in _HOMES)]
    # of what could not be read whole, an empty list would say too much
    whole = not reader.unread
    return {
        "keys": keys if len(keys) <= _MOST and (keys or whole) else None,
        "unchecked": unchecked if unchecked or whole else None,
        "known_hosts": [path for path in known if reader.text(path)],
        "unread": reader.unread,
    }


def _keys(reader: Reader, path: str) -> t.Iterator[dict[str, t.Any]]:
    for number, line in enumerate((reader.text(path) or "").splitlines(), 1):
        found = None if line.lstrip().startswith("#") else _KEY_RE.search(line)
        if found is None:
            continue
        options = {name.lower() for name in _OPTION_RE.findall(line[: found.start()])}
        yield {
            "name": f"{path}:{number}",
            "fingerprint": _fingerprint(found[1]),
            "from": "from" in options,
            "command": "command" in options,
            "restrict": "restrict" in options,
        }


def _lax(text: str) -> t.Iterator[str]:
    """The settings by which the key of another machine is not looked at."""
    local = False
    for line in text.splitlines():
        block, setting = _HOST_RE.match(line), _LAX_RE.match(line)
        if block:
            local = block[1].lower() == "host" and all(name.startswith(_LOCAL) for name in block[2].split())
        elif setting and not local:
            yield " ".join(setting[1].split())


def _fingerprint(key: str) -> str:
    """As ssh-keygen(1) -l prints it."""
    try:
        digest = hashlib.sha256(base64.b64decode(key, validate=True)).digest()
    except (binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
