# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of tap_device: persistent TAP devices for those who may not make them."""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass, field

from . import _netdev, _units
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal
    from ._netdev import Device

# The mark of a device that was made here: ifalias, which nothing else on a host reads.
MARK = "hypervisor.hardening"

# What needs no quoting in the name of a unit and in a command; libvirt takes no more either (basictypes.rng).
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class TapDeviceError(HardeningError):
    """What is wanted of a TAP device makes no sense, or is in the way of somebody."""


@dataclass(frozen=True)
class Wanted:
    """The module's options; ``devices`` as they were given."""

    devices: t.Sequence[t.Mapping[str, t.Any]]
    persist: bool = True


@dataclass(frozen=True)
class Entry:
    """One device as it is wanted. ``owner`` and ``group``: numbers, None for any; ``bridge``: "" for as it is."""

    name: str
    owner: int | None = None
    group: int | None = None
    multi_queue: bool = False
    vnet_hdr: bool = True
    bridge: str = ""
    absent: bool = False

    def differences(self, found: Device) -> tuple[str, ...]:
        """What only a new device would have. Whoever opens a TAP sets ``vnet_hdr`` anew, so it is none of these."""
        pairs = (
            ("owner", found.owner, self.owner),
            ("group", found.group, self.group),
            ("multi_queue", found.multi_queue, self.multi_queue),
        )
        return tuple(f"{name} is {_word(now)}, not {_word(wanted)}" for name, now, wanted in pairs if now != wanted)

    def missing(self, found: Found) -> tuple[str, ...]:
        """What the device that is there still lacks."""
        port = [f"it is no port of {self.bridge}"] if self.bridge and found.device.bridge != self.bridge else []
        return (*port, *([] if found.up else ["its link is down"]))

    @property
    def make(self) -> list[str]:
        """The command that makes it. iproute2 asks the kernel to refuse where the name is taken (IFF_TUN_EXCL)."""
        words = ["ip", "tuntap", "add", "dev", self.name, "mode", "tap"]
        words += ["user", str(self.owner)] if self.owner is not None else []
        words += ["group", str(self.group)] if self.group is not None else []
        words += ["multi_queue"] if self.multi_queue else []
        return words + (["vnet_hdr"] if self.vnet_hdr else [])

    @property
    def mark(self) -> list[str]:
        """The command that marks it as made here."""
        return ["ip", "link", "set", "dev", self.name, "alias", MARK]

    @property
    def link(self) -> list[str]:
        """The command that plugs it in: libvirt does neither to a device with managed='no'."""
        return ["ip", "link", "set", "dev", self.name, *(["master", self.bridge] if self.bridge else []), "up"]

    def __str__(self) -> str:
        words = [self.name]
        words += [f"owner {self.owner}"] if self.owner is not None else []
        words += [f"group {self.group}"] if self.group is not None else []
        words += ["multi_queue"] if self.multi_queue else []
        words += [f"bridge {self.bridge}"] if self.bridge else []
        return " ".join([*words, "up"])


@dataclass(frozen=True)
class Found:
    """A device that is there. ``ours``: it was made here; ``held_by``: who has it open, in whatever namespace."""

    device: Device
    ours: bool
    up: bool
    held_by: tuple[_netdev.Holder, ...] = ()

    def __str__(self) -> str:
        device = self.device
        words = [device.name]
        words += [f"owner {device.owner}"] if device.owner is not None else []
        words += [f"group {device.group}"] if device.group is not None else []
        words += ["multi_queue"] if device.multi_queue else []
        words += [f"bridge {device.bridge}"] if device.bridge else []
        return " ".join([*words, "up" if self.up else "down"])


@dataclass(frozen=True)
class State:
    """``found``: by name; ``bridges``: the bridges of the host among those that are wanted."""

    entries: tuple[Entry, ...]
    found: t.Mapping[str, Found] = field(default_factory=dict)
    bridges: frozenset[str] = frozenset()
    boot: _units.Boot = field(default_factory=lambda: _units.Boot("systemd", ""))
    units: tuple[_units.Change, ...] = ()


@dataclass(frozen=True)
class Step:
    """One change. ``remove`` and ``make`` of one device are a replacement; ``link`` alone plugs in what is there."""

    entry: Entry
    found: Found | None
    remove: bool
    make: bool

    @property
    def lines(self) -> tuple[str, str]:
        """What is and what is to be, in words."""
        return str(self.found or ""), "" if self.entry.absent else str(self.entry)

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.entry.name} is missing"
        if self.entry.absent:
            return f"{self.entry.name} is still there"
        return f"{self.entry.name}: " + "; ".join(
            (*self.entry.differences(self.found.device), *self.entry.missing(self.found))
        )


@dataclass(frozen=True)
class Plan:
    """What to change."""

    steps: tuple[Step, ...]
    units: tuple[_units.Change, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step | _units.Change, ...]:
        return (*self.steps, *self.units)

    @property
    def diff(self) -> list[dict[str, str]]:
        before, after = ("".join(f"{step.lines[side]}\n" for step in self.steps if step.lines[side]) for side in (0, 1))
        table = {"before_header": "TAP devices", "after_header": "TAP devices", "before": before, "after": after}
        return ([table] if self.steps else []) + [change.diff for change in self.units]


def observe(host: Host, wanted: Wanted) -> State:
    """Read the devices, who holds them, and what the next boot makes of them.

    :raises TapDeviceError: what is wanted makes no sense by itself, or names an unknown user or group.
    """
    entries = _entries(host, wanted.devices)
    _netdev.names(host)  # refuses to look at the devices of another network namespace
    devices = [device for device in (_netdev.device(host, entry.name) for entry in entries) if device]
    holders = _netdev.holders(host, devices) if devices else {}
    bridges = {entry.bridge: _netdev.device(host, entry.bridge) for entry in entries if entry.bridge}
    boot = _units.boot(host)
    files = [_unit(entry) for entry in entries] if wanted.persist and boot.init == "systemd" else []
    return State(
        entries=entries,
        found={
            device.name: Found(
                device, _netdev.alias(host, device.name) == MARK, _netdev.is_up(host, device.name), holders[device.name]
            )
            for device in devices
        },
        bridges=frozenset(name for name, device in bridges.items() if device and device.kind == "bridge"),
        boot=boot,
        units=_units.changes(host, files),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What to change. Pure.

    :raises TapDeviceError: a device is somebody else's, is held, or its bridge is missing.
    :raises NoMechanism: ``persist`` with an init other than systemd.
    """
    if wanted.persist:
        state.boot.require_systemd("make the devices by what configures the network of this host at boot")
    steps = (_step(entry, state) for entry in state.entries)
    return Plan(tuple(step for step in steps if step), state.units)


def check(host: Host, plan: Plan) -> None:
    """See whether the units could be written. Changes nothing."""
    _units.check(host, plan.units)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Remove, make and plug in, journal first, then write the units.

    :raises NetdevError: a device changed, or was taken, since it was looked at.
    :raises TapDeviceError: the kernel refused.
    """
    for step in plan.steps:
        entry = step.entry
        if step.found and step.remove:
            _netdev.remove(host, step.found.device, journal)
        if not entry.absent:
            before = asdict(step.found.device) if step.found and not step.remove else None
            journal.record_value(f"{_netdev.SYSFS}/{entry.name}", before, vars(entry))
            for command in ([entry.make, entry.mark] if step.make else []) + [entry.link]:
                _run(host, command)
    _units.apply(host, plan.units, journal)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    return {"devices": [_shown(entry.name, state.found.get(entry.name)) for entry in state.entries]}


def _entries(host: Host, given: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Entry, ...]:
    entries = tuple(
        _entry(host, {key: value for key, value in device.items() if value not in (None, "")}) for device in given
    )
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise TapDeviceError(f"devices: {name} is named twice. Say once what it is to be.")
    return entries


def _entry(host: Host, device: t.Mapping[str, t.Any]) -> Entry:
    name = str(device.get("name", ""))
    if not _NAME.fullmatch(name) or _netdev.too_long(name):
        raise TapDeviceError(
            f"devices: {name!r} cannot be the name of a TAP device here: letters, digits and . _ - are taken, "
            f"{_netdev.NAME_LIMIT} at most."
        )
    bridge = str(device.get("bridge", ""))
    if bridge and not _NAME.fullmatch(bridge):
        raise TapDeviceError(f"{name}: bridge {bridge!r} cannot be the name of a bridge.")
    absent = device.get("state") == "absent"
    owner, group = (_number(host, name, kind, device) for kind in ("owner", "group"))
    if not absent and owner is None and group is None:
        raise TapDeviceError(
            f"{name}: give owner or group. The kernel lets every user of the host open a TAP device that has neither, "
            "and send and receive there."
        )
    return Entry(
        name=name,
        owner=owner,
        group=group,
        multi_queue=bool(device.get("multi_queue", False)),
        vnet_hdr=bool(device.get("vnet_hdr", True)),
        bridge=bridge,
        absent=absent,
    )


def _number(host: Host, name: str, kind: str, device: t.Mapping[str, t.Any]) -> int | None:
    who = str(device.get(kind, ""))
    if not who or device.get("state") == "absent":
        return None
    look_up = host.uid if kind == "owner" else host.gid
    number = int(who) if who.isdigit() else look_up(who)
    if number is None:
        noun = "user" if kind == "owner" else "group"
        raise TapDeviceError(f"{name}: this host has no {noun} {who!r}. Create it first, or give its number.")
    return number


def _step(entry: Entry, state: State) -> Step | None:
    found = state.found.get(entry.name)
    if entry.bridge and not entry.absent and entry.bridge not in state.bridges:
        raise TapDeviceError(f"{entry.name}: this host has no bridge {entry.bridge}. Make it first.")
    if found is None:
        return None if entry.absent else Step(entry, None, remove=False, make=True)
    if not found.ours:
        raise TapDeviceError(
            f"{entry.name} exists and was not made by this module (its alias is not {MARK!r}), so it stays as it is. "
            "Choose another name; or, if nobody needs it, remove it together with what makes it at boot."
        )
    replace = not entry.absent and bool(entry.differences(found.device))
    if not entry.absent and not replace and not entry.missing(found):
        return None
    step = Step(entry, found, remove=entry.absent or replace, make=replace)
    if found.held_by or found.device.attached:
        who = ", ".join(f"process {holder.pid} ({holder.comm})" for holder in found.held_by)
        raise TapDeviceError(
            f"{step}. It is held by {who or 'a process that does not show itself'}, so it stays as it is. "
            "Stop that first."
        )
    return step


def _run(host: Host, command: t.Sequence[str]) -> None:
    done = host.run(command)
    if done.rc != 0:
        raise TapDeviceError(f"{' '.join(command)} failed: {(done.err or done.out).strip()}")
    host.changed = True


def _unit(entry: Entry) -> _units.File:
    """The service that makes a device at boot.

    It comes before any user's session or manager. A bridge may come later than network.target (NetworkManager), so the
    service tries again for a while, without holding up the boot, and then fails for systemctl --failed to show.
    """
    path = f"{_units.DIRECTORY}/hypervisor-hardening-tap-{entry.name}.service"
    if entry.absent:
        return _units.File(path, None, "multi-user.target")
    make, mark, link = (" ".join(command) for command in (entry.make, entry.mark, entry.link))
    ours = f'test "$$(cat {_netdev.SYSFS}/{entry.name}/ifalias 2>/dev/null)" = {MARK}'
    again = "StartLimitIntervalSec=10min\nStartLimitBurst=60\n" if entry.bridge else ""
    restart = "Restart=on-failure\nRestartSec=5\n" if entry.bridge else ""
    text = f"""{_units.HEADER}[Unit]
Description=TAP device {entry.name}
After=network.target
Before=systemd-user-sessions.service libvirtd.service virtqemud.service
{again}
[Service]
Type=oneshot
RemainAfterExit=yes
{restart}ExecStart=/bin/sh -c '{ours} || {{ {make} && {mark}; }}'
ExecStart=/bin/sh -c '{link}'

[Install]
WantedBy=multi-user.target
"""
    return _units.File(path, text, "multi-user.target")


def _shown(name: str, found: Found | None) -> dict[str, t.Any]:
    device = found.device if found else None
    return {
        "name": name,
        "exists": found is not None,
        "owner": device.owner if device else None,
        "group": device.group if device else None,
        "multi_queue": device.multi_queue if device else None,
        "vnet_hdr": device.vnet_hdr if device else None,
        "bridge": (device.bridge or None) if device else None,
        "up": found.up if found else None,
        "held_by": [{"pid": holder.pid, "comm": holder.comm} for holder in (found.held_by if found else ())],
    }


def _word(value: int | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "anybody" if value is None else str(value)
