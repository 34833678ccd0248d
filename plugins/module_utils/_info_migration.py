# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts that two hosts are compared on before guests move between them: what is effective, and what guests need."""

from __future__ import annotations

import typing as t

from . import _agreedvalues, _confkeys, _hostname, _libvirtcheck, _tcp
from ._infocontext import Context
from ._migrationneeds import needs
from ._reader import Reader

# qemu.conf's migration_port_min and migration_port_max (src/qemu/qemu_conf.h).
_PORTS = (49152, 49215)
_MOST = 64


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``migration``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    conf = context.configuration("qemu.conf")
    first, last = (int(conf.get(f"migration_port_{end}", default)) for end, default in zip(("min", "max"), _PORTS))
    taken = sorted({one.port for one in _tcp.listeners(context.host) if first <= one.port <= last})
    name, addresses = _hostname.resolved(context.host)
    return {
        "values": _values(context, reader),
        "hostname": name,
        "addresses": addresses,
        "address": conf.get("migration_address"),
        "host": conf.get("migration_host"),
        "first_port": first,
        "last_port": last,
        "taken_ports": taken[:_MOST],
        "taken_ports_total": len(taken),
        **needs(context, reader),
        "unread": reader.unread,
    }


def _values(context: Context, reader: Reader) -> dict[str, t.Any] | None:
    """What qemu.conf decides and libvirt does not compare, if the daemon goes by the present file; None, with a note,
    if not. A single value that is not known is None."""
    conf, layout = context.configuration("qemu.conf"), context.layout
    if layout.kind == "none":
        reason = "libvirt is not installed."
    elif conf.error:
        reason = f"libvirt's parser refuses the file: {conf.error}"
    elif context.newer_than_daemon("qemu.conf", layout.daemon):
        reason = f"{layout.daemon} goes by an older one; it has to be restarted."
    else:
        values, unknown = _agreedvalues.of_settings(
            conf.settings,
            version=_libvirtcheck.library_version(_libvirtcheck.library(context.host)),
            device_acl=_built_in_devices(context),
        )
        for key, why in unknown.items():
            reader.note(key, why)
        return {**dict.fromkeys(unknown), **values}
    reader.note("/etc/libvirt/qemu.conf", reason)
    return None


def _built_in_devices(context: Context) -> list[str] | None:
    default = _confkeys.sample(context.host)
    value = default.get("cgroup_device_acl") if default else None
    plain = value.plain() if value is not None else None
    return list(map(str, plain)) if isinstance(plain, (list, tuple)) else None
