# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the definitions of guests: what guest_definition_info tells, in the short form that the audit needs."""

from __future__ import annotations

import typing as t

from ._definition import MITIGATIONS, Cpu
from ._definitiondevices import Disk, Nic
from ._definitions import Read
from ._infocontext import Context

# Longer texts are cut, and of one kind of departure no more are told: an entry has to stay short.
_TEXT = 120
_MOST = 8
_INTERFACES = 32
_DISKS = 32
# formatdomain.rst, "CPU model and topology": such a feature the guest does not see, or does not start with.
_TAKEN_AWAY = ("disable", "forbid")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``definitions``; its keys are documented in hypervisor_info.

    :raises MissingLibrary: there is a definition, and no lxml.
    """
    found, unread = context.definitions
    # By the file, which libvirt names after the guest: whatever two files call themselves, both are told.
    read: dict[str, dict[str, Read]] = {}
    broken: dict[str, set[str]] = {}
    for entry in found:
        read.setdefault(_file(entry.definition.path), {})[entry.source] = entry
    for bad in unread:
        broken.setdefault(_file(bad.path), set()).add(bad.source)
    return {
        "guests": [_entry(file, read.get(file, {}), broken.get(file, set())) for file in sorted({*read, *broken})],
        "unread": [{"path": bad.path, "reason": _short(bad.reason)} for bad in unread],
    }


def _file(path: str) -> str:
    return path.rpartition("/")[2][: -len(".xml")]


def _entry(file: str, read: t.Mapping[str, Read], broken: t.Collection[str]) -> dict[str, t.Any]:
    """A guest: what of it could be read, and what not, by source."""
    configured, running = read.get("configured"), read.get("running")
    # A guest without a file in /etc/libvirt starts again, if ever, as whoever made it says: most likely as it runs.
    next_start = None if "configured" in broken else configured or running
    any_read = configured or running
    definition = any_read.definition if any_read else None
    name = definition.name if definition else file
    return {
        "name": _short(name),
        "uuid": definition.uuid[:36] if definition else None,
        "persistent": configured is not None or "configured" in broken,
        "active": running is not None or "running" in broken,
        "type": _short(definition.type) if definition else None,
        "machine": _short(definition.machine) if definition else None,
        "launch_security": _launch_security(definition) if definition else None,
        "configured": _departures(next_start) if next_start else None,
        "running": None if "running" in broken else _departures(running) if running else [],
        "traits": list(next_start.definition.traits) if next_start else None,
        "cpu": _cpu(next_start.definition.cpu) if next_start else None,
        "encrypted": _encrypted(next_start) if next_start else None,
        "disks": _disks(name, next_start) if next_start else None,
        "interfaces": _interfaces(name, next_start, running, "running" in broken),
    }


def _cpu(cpu: Cpu) -> dict[str, t.Any]:
    by_policy = [(name, policy in _TAKEN_AWAY) for name, policy in cpu.features.items() if name in MITIGATIONS]
    return {
        "mode": cpu.mode,
        "model": _short(cpu.model),
        "pmu": cpu.pmu,
        "given": [name for name, taken in by_policy if not taken],
        "taken_away": [name for name, taken in by_policy if taken],
        "pinned": _short(cpu.pinned),
    }


def _encrypted(read: Read) -> bool:
    """Whether each disk that the guest writes to is."""
    return all(disk.encrypted for disk in read.definition.disks if disk.source and not disk.readonly)


def _disks(name: str, read: Read) -> list[dict[str, t.Any]]:
    """The disks that are no plain image or device of this host, or that are not this guest's alone."""
    return [_disk(name, disk) for disk in read.definition.disks if _remarkable(disk)][:_DISKS]


def _remarkable(disk: Disk) -> bool:
    return disk.type == "network" or disk.shareable or bool(_scsi(disk))


def _scsi(disk: Disk) -> list[str]:
    """By what a guest gets commands of its own through to the device (formatdomain.rst, "Hard drives")."""
    found = {
        "rawio": disk.rawio,
        "sgio unfiltered": disk.sgio == "unfiltered",
        "lun": disk.device == "lun",
        "reservations": disk.reservations,
    }
    return [word for word, is_so in found.items() if is_so]


def _disk(name: str, disk: Disk) -> dict[str, t.Any]:
    return {
        "name": _short(f"{name}/{disk.target}"),
        "guest": _short(name),
        "source": _short(disk.source),
        "protocol": disk.source.partition(":")[0] if disk.type == "network" else "",
        "format": disk.format,
        "cache": disk.cache,
        "readonly": disk.readonly,
        "shareable": disk.shareable,
        "scsi": _scsi(disk),
        "authenticated": disk.authenticated,
        "tls": disk.tls is True,
    }


def _launch_security(definition: t.Any) -> str:
    return definition.launch_security.type if definition.launch_security else ""


def _departures(read: Read) -> list[dict[str, str]]:
    kinds: dict[str, list[dict[str, str]]] = {}
    for one in read.departures:
        told = {"id": one.id, "where": _short(one.where), "observed": _short(one.observed)}
        kinds.setdefault(one.id, []).append(told)
    for name, entries in kinds.items():
        if len(entries) > _MOST:
            # An allow-list must not pass what it was not shown.
            entries[_MOST - 1 :] = [{"id": name, "where": "and more", "observed": "see guest_definition_info"}]
    return [entry for entries in kinds.values() for entry in entries]


def _interfaces(
    name: str, next_start: Read | None, running: Read | None, broken: bool
) -> list[dict[str, t.Any]] | None:
    """The interfaces of the next start, and those that only the running guest has, without a filter first."""
    if next_start is None:
        return None
    live = {nic.mac: nic for nic in running.definition.interfaces} if running else {}
    wanted = {nic.mac for nic in next_start.definition.interfaces}
    plugged = [nic for mac, nic in live.items() if mac not in wanted]
    shown = [
        _interface(name, nic, live.get(nic.mac, nic), broken) for nic in (*next_start.definition.interfaces, *plugged)
    ]
    return sorted(shown, key=lambda entry: bool(entry["filter"] and entry["filter_running"]))[:_INTERFACES]


def _interface(name: str, nic: Nic, now: Nic, broken: bool) -> dict[str, t.Any]:
    return {
        "name": _short(f"{name}/{nic.mac or nic.target}"),
        "guest": _short(name),
        "type": _short(nic.type),
        "source": _short(nic.source),
        "target": _short(now.target),
        "filter": _short(nic.filter),
        "filter_running": None if broken else _short(now.filter),
        "parameters": [_short(entry) for entry in nic.parameters[:_MOST]],
        "isolated": nic.isolated,
        "trusted_rx_filters": nic.trusted_rx_filters,
        "limited": nic.limited,
    }


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
