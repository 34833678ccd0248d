# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's configuration files: which ones this host's daemons read, and what is in them."""

from __future__ import annotations

import typing as t

from . import _daemonunits
from ._infocontext import Context

# Who reads a file: the daemon of the driver, in either layout.
_DRIVERS = {
    "qemu.conf": ("libvirtd", "virtqemud"),
    "qemu-lockd.conf": ("libvirtd", "virtqemud"),
    "qemu-sanlock.conf": ("libvirtd", "virtqemud"),
    "network.conf": ("libvirtd", "virtnetworkd"),
    "secret.conf": ("libvirtd", "virtsecretd"),
}
_OWN = ("libvirtd", *_daemonunits.MODULAR[:8], *_daemonunits.BESIDE)
FILES = (*_DRIVERS, *(f"{name}.conf" for name in _OWN), "libvirt.conf")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``configuration``; its keys are documented in hypervisor_info."""
    return {name: _file(context, name) for name in FILES}


def reader(context: Context, name: str) -> str:
    """The daemon that reads a file here, "" for none. libvirt.conf is the clients'."""
    if context.layout.kind == "none":
        return ""
    monolithic = context.layout.kind == "monolithic"
    if name in _DRIVERS:
        return _DRIVERS[name][0 if monolithic else 1]
    daemon = name.partition(".")[0]
    other = _daemonunits.MODULAR if monolithic else ("libvirtd",)
    return daemon if daemon in _OWN and daemon not in other and _daemonunits.installed(context.host, daemon) else ""


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
