# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's configuration files: which ones this host's daemons read, and what is in them."""

from __future__ import annotations

import typing as t

from . import _daemonunits
from ._infocontext import Context

_DRIVERS = ("qemu.conf", "qemu-lockd.conf", "qemu-sanlock.conf", "network.conf", "secret.conf")
_OWN = ("libvirtd", *_daemonunits.MODULAR[:8], *_daemonunits.BESIDE)
FILES = (*_DRIVERS, *(f"{name}.conf" for name in _OWN), "libvirt.conf")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``configuration``; its keys are documented in hypervisor_info."""
    return {name: _file(context, name) for name in FILES}


def reader(context: Context, name: str) -> str:
    """The daemon that reads a file here, "" for none. libvirt.conf is the clients'."""
    if context.layout.kind == "none":
        return ""
    daemon = _daemonunits.reader(context.layout.kind, name)
    return daemon if name in _DRIVERS or _daemonunits.installed(context.host, daemon) else ""


def _file(context: Context, name: str) -> dict[str, t.Any]:
    found = context.configuration(name)
    daemon = reader(context, name)
    return {
        "path": found.path,
        "exists": found.exists,
        "read_by": daemon,
        "error": found.error,
        "settings": found.facts,
        "unknown": list(found.unknown),
        "duplicates": list(found.duplicates),
        "wrong_type": list(found.wrong_type),
        "keys_from": found.keys_from,
        "newer_than_daemon": context.newer_than_daemon(name, daemon),
    }
