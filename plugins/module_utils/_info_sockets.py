# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets of libvirt's daemons: as the file system and the kernel have them, and as systemd's units want them."""

from __future__ import annotations

import stat
import typing as t

from . import _daemonunits, _libvirtd
from ._daemonunits import Unit
from ._infocontext import Context
from ._tcp import listeners

_DIRECTORY = "/run/libvirt"
_DEFAULT_MODE = "0666"  # systemd.socket(5), SocketMode=
_OWN_USER = "own-user"


def facts(context: Context) -> list[dict[str, t.Any]]:
    """The section ``sockets``; its keys are documented in hypervisor_info."""
    unix = context.host.text_optional("/proc/net/unix") or ""
    ports = {listener.port for listener in listeners(context.host)}
    found: dict[str, dict[str, t.Any]] = {}
    for daemon in _daemonunits.DAEMONS:
        paths = _daemonunits.sockets(daemon)
        present = _daemonunits.installed(context.host, daemon)
        for kind, name in _daemonunits.socket_units(daemon).items():
            unit = context.units.unit(name)
            for address in unit.values.get("ListenStream", ()) or ([paths[kind]] if kind in paths and present else []):
                entry = _socket(context, daemon, kind, unit, address)
                local = address.startswith("/")
                entry["listening"] = _libvirtd.listening(unix, address) if local else _port(address) in ports
                if local:
                    entry.update(_file(context, address))
                known = found.get(address)
                if known is None or (not known["enabled"] and unit.enabled):
                    found[address] = entry
    for name in context.host.list(_DIRECTORY):
        path = f"{_DIRECTORY}/{name}"
        if path not in found:
            status = context.host.stat(path, follow=False)
            if stat.S_ISSOCK(status.st_mode):
                entry = _socket(context, "", "other", Unit(""), path)
                found[path] = {**entry, "listening": _libvirtd.listening(unix, path), **_file(context, path)}
    return [found[address] for address in sorted(found)]


def _port(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else None


def _socket(context: Context, daemon: str, kind: str, unit: Unit, address: str) -> dict[str, t.Any]:
    return {
        "name": address,
        "kind": kind,
        "daemon": daemon,
        "unit": unit.name if unit.fragment else "",
        "enabled": unit.enabled,
        "masked": unit.masked,
        "unit_mode": unit.last("SocketMode", _DEFAULT_MODE) if unit.fragment else None,
        "unit_user": unit.last("SocketUser", "root") if unit.fragment else None,
        "unit_group": unit.last("SocketGroup", "root") if unit.fragment else None,
        "exists": False,
        "listening": False,
        "mode": None,
        "owner": None,
        "group": None,
        "open_to": "",
        "authentication": _authentication(context, daemon, kind),
    }


def _file(context: Context, path: str) -> dict[str, t.Any]:
    """What the file system says; ``open_to``: who else than its owner and root may connect, for which the kernel
    demands write permission (unix(7))."""
    status = context.host.stat_optional(path)
    if status is None:
        return {}
    mode = stat.S_IMODE(status.st_mode)
    return {
        "exists": True,
        "mode": f"{mode:04o}",
        "owner": context.host.user_name(status.st_uid),
        "group": context.host.group_name(status.st_gid),
        "open_to": "others" if mode & stat.S_IWOTH else "group" if mode & stat.S_IWGRP else "owner",
    }


def _authentication(context: Context, daemon: str, kind: str) -> str | None:
    """How a client has to prove who it is; None where nothing says so.

    The daemons compare a client's uid with their own on the sockets of virtlogd, virtlockd and virt-admin
    (log_daemon.c, lock_daemon.c, remote_daemon.c and admin_server_dispatch.c). What holds where nothing is configured
    is in remote_daemon_config.c (daemonConfigNew).
    """
    if kind == "admin" or daemon in _daemonunits.BESIDE:
        return _OWN_USER
    if not daemon:
        return None
    found = context.configuration(f"{daemon}.conf")
    if found.error:
        return None
    key = {"rw": "auth_unix_rw", "ro": "auth_unix_ro", "tcp": "auth_tcp", "tls": "auth_tls"}[kind]
    if isinstance(found.get(key), str):
        return str(found.get(key))
    if kind == "tls":
        return "none"
    if not context.library:
        return None
    if kind == "tcp":
        return "sasl" if b"libsasl2.so" in context.library else "none"
    return "polkit" if b"org.freedesktop.PolicyKit1.Authority" in context.library else "none"
