# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons as processes and as units, and what changed below them since they started."""

from __future__ import annotations

import typing as t

from . import _daemonunits, _info_configuration, _proc, _qemuproc
from ._daemonunits import Unit
from ._host import Host
from ._infocontext import Context
from ._libvirtd import listening

# systemd.exec(5): what a unit may confine its processes with.
_SANDBOX = (
    *("NoNewPrivileges", "CapabilityBoundingSet", "SystemCallFilter", "ProtectSystem", "ProtectHome", "PrivateTmp"),
    *("PrivateDevices", "PrivateNetwork", "PrivateMounts", "DevicePolicy", "MountFlags", "RestrictNamespaces"),
    *("LimitMEMLOCK", "TasksMax", "LimitNOFILE"),
)


def facts(context: Context) -> list[dict[str, t.Any]]:
    """The section ``daemons``; its keys are documented in hypervisor_info."""
    unix = context.host.text_optional("/proc/net/unix") or ""
    found = []
    for name in _daemonunits.DAEMONS:
        service = context.units.unit(f"{name}.service")
        present = _daemonunits.installed(context.host, name)
        if present or service.fragment or name in context.processes:
            found.append(_daemon(context, name, service, unix, present=present))
    return found


def _daemon(context: Context, name: str, service: Unit, unix: str, *, present: bool) -> dict[str, t.Any]:
    process = context.processes.get(name)
    conf = f"{name}.conf"
    sockets = [context.units.unit(unit) for unit in _daemonunits.socket_units(name).values()]
    answers = any(listening(unix, path) for kind, path in _daemonunits.sockets(name).items() if kind == "rw")
    return {
        "name": name,
        "installed": present,
        "active": process is not None,
        "idle": process is None and answers,
        "suspended": process is not None and process.suspended,
        "enabled": service.enabled or any(unit.enabled for unit in sockets),
        "masked": service.masked,
        "pid": process.pid if process else None,
        "started": round(process.start_time, 2) if process else None,
        "binary": _binary(context.host, process)[0],
        "binary_deleted": _binary(context.host, process)[1],
        "listen_option": "--listen" in _arguments(context.host, process),
        "configuration": conf,
        "settings": context.configuration(conf).facts,
        "configuration_newer": _newer(context, name),
        "units_newer": _units_newer(context, process, [service, *sockets]),
        "drop_ins": list(service.drop_ins),
        "confined_by": {key: service.last(key) for key in _SANDBOX if service.last(key)},
    }


def _binary(host: Host, process: _proc.Process | None) -> tuple[str, bool]:
    try:
        return _qemuproc.binary(host, process.pid) if process else ("", False)
    except OSError:
        return "", False


def _arguments(host: Host, process: _proc.Process | None) -> list[str]:
    return _proc.command_line(host, process.pid) if process else []


def _newer(context: Context, daemon: str) -> list[str]:
    """The configuration files that were changed after the daemon that reads them started."""
    if daemon not in context.processes:
        return []
    names = [name for name in _info_configuration.FILES if _info_configuration.reader(context, name) == daemon]
    return [context.configuration(name).path for name in names if context.newer_than_daemon(name, daemon)]


def _units_newer(context: Context, process: _proc.Process | None, units: t.Sequence[Unit]) -> list[str]:
    """The files of its units that were changed after it started."""
    if process is None:
        return []
    paths = {path for unit in units for path in (unit.fragment, *unit.drop_ins) if path}
    statuses = {path: context.host.stat_optional(path) for path in sorted(paths)}
    return [path for path, status in statuses.items() if status and status.st_ctime >= process.start_time]
