# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on groups whose members are root by another name, or close to it."""

from __future__ import annotations

import re
import typing as t

from ._host import HostError
from ._infocontext import Context
from ._reader import Reader

# Debian's libvirt opens its socket to libvirt; disk reads every image; kvm and the others are those QEMU runs with.
_NAMES = ("libvirt", "libvirt-qemu", "kvm", "qemu", "disk")
_LOCAL = {"files", "compat", "systemd", "altfiles"}
_LISTED = 100
COMMAND_SECONDS = 5.0


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``groups``; its keys are documented in hypervisor_info.

    :raises OSError: /etc/group or /etc/passwd cannot be read.
    """
    reader = Reader(context.host)
    remote = _remote(reader)
    table = (context.host.text_optional("/etc/group") or "").splitlines()
    if remote:
        table += _asked(reader)
    users = [line.split(":") for line in (context.host.text_optional("/etc/passwd") or "").splitlines()]
    return {"remote": remote, "groups": [_group(name, table, users) for name in _NAMES], "unread": reader.unread}


def _remote(reader: Reader) -> list[str]:
    """Where else than in files the host looks for groups (nsswitch.conf(5))."""
    line = re.search(r"^\s*group:\s*(.*)$", reader.text("/etc/nsswitch.conf") or "", re.MULTILINE)
    return [word for word in re.sub(r"\[.*?\]", " ", line[1]).split() if word not in _LOCAL] if line else []


def _asked(reader: Reader) -> list[str]:
    try:
        return reader.host.run(["getent", "group", *_NAMES], timeout=COMMAND_SECONDS).out.splitlines()
    except HostError as error:
        reader.note("getent group", str(error))
        return []


def _group(name: str, table: list[str], users: list[list[str]]) -> dict[str, t.Any]:
    entries = [fields for line in table if (fields := line.split(":"))[0] == name and len(fields) > 3]
    numbers = {fields[2] for fields in entries}
    primary = {fields[0] for fields in users if len(fields) > 3 and fields[3] in numbers}
    members = sorted({member for fields in entries for member in fields[3].split(",") if member} | primary)
    return {
        "name": name,
        "present": bool(entries),
        "gid": int(entries[0][2]) if entries else None,
        "members": members[:_LISTED],
        "members_total": len(members),
        "primary": sorted(primary)[:_LISTED],
    }
