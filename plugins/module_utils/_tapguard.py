# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of tap_guard: whether guests find their network device names free, and old TAP devices out of the way."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from . import _domainxml, _libvirtd, _netdev
from ._host import HardeningError, Host
from ._tapverdict import CONFLICTS, Claim, Scene, Verdict, judge

if t.TYPE_CHECKING:
    from ._journal import Journal
    from ._netdev import Device

# The types for which libvirt makes a device of the host, or takes one (src/qemu/qemu_interface.c).
_TYPES = ("bridge", "direct", "ethernet", "network")


class TapGuardError(HardeningError):
    """A name is not free, or what was asked for cannot be judged."""


@dataclass(frozen=True)
class Wanted:
    """The module's options."""

    names: t.Sequence[str] = ()
    domains: t.Sequence[str] = ()
    domain_xml: str | None = None
    on_conflict: str = "fail"
    remove_stale: t.Sequence[str] = ()


@dataclass(frozen=True)
class Candidate:
    """A TAP that ``remove_stale`` matches. ``exact``: by its whole name; ``record``: all that ``ip`` says of it."""

    device: Device
    exact: bool
    addresses: tuple[str, ...]
    record: dict[str, t.Any]


@dataclass(frozen=True)
class State:
    """What was asked about (``claims``), what all ``others`` want, the devices, and what might be removed."""

    claims: tuple[Claim, ...] = ()
    others: tuple[Claim, ...] = ()
    scene: Scene = field(default_factory=Scene)
    candidates: tuple[Candidate, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Removal:
    """A stale TAP to remove."""

    device: Device
    record: dict[str, t.Any]

    def __str__(self) -> str:
        return f"{self.device.name}: a stale TAP device that was to be removed is there"


@dataclass(frozen=True)
class Plan:
    """Which stale TAP devices to remove; what is in the way of guests is an error or a result, no change."""

    changes: tuple[Removal, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def diff(self) -> dict[str, str]:
        return {
            "before_header": "TAP devices",
            "after_header": "TAP devices",
            "before": "".join(f"{_line(removal.device)}\n" for removal in self.changes),
            "after": "",
        }


def observe(host: Host, wanted: Wanted) -> State:
    """Read definitions (only if they matter), devices and their holders.

    :raises TapGuardError: a pattern that is too wide, a domain that does not exist or cannot be read.
    :raises MissingLibrary: a definition must be read, and this interpreter has no lxml.
    """
    _refuse_wide(wanted.remove_stale)
    if not (wanted.names or wanted.domains or wanted.domain_xml or wanted.remove_stale):
        return State()
    present = _netdev.names(host)
    candidates = _candidates(host, present, wanted.remove_stale)
    pids = {guest.pid: guest.name for guest in _libvirtd.guests(host)}
    asked: tuple[Claim, ...] = ()
    others: tuple[Claim, ...] = ()
    warnings: tuple[str, ...] = ()
    if wanted.domains or wanted.domain_xml or candidates:
        asked, others, warnings = _claims(host, wanted, set(pids.values()), strict=bool(candidates))
    named = {claim.name for claim in asked}
    claims = (*asked, *(Claim(name) for name in dict.fromkeys(wanted.names) if name not in named))
    found = (_netdev.device(host, claim.name) for claim in claims)
    devices = {device.name: device for device in found if device} | {
        candidate.device.name: candidate.device for candidate in candidates
    }
    held = any(device.kind in ("tap", "tun", "macvtap") for device in devices.values())
    scene = Scene(
        devices=devices,
        holders=_netdev.holders(host, devices.values()) if held else {},
        guests=pids,
        wanted=_by_name((*claims, *others)),
    )
    return State(claims, others, scene, candidates, warnings)


def plan(state: State, wanted: Wanted) -> Plan:
    """What to remove. Pure.

    :raises TapGuardError: names are not free, even after that, and ``on_conflict`` is ``fail``.
    """
    kept: list[str] = []
    removals: list[Removal] = []
    for candidate in state.candidates:
        reason = _keep(candidate, state)
        if reason:
            kept.append(f"{candidate.device.name} matches remove_stale and stays: {reason}.")
        else:
            removals.append(Removal(candidate.device, candidate.record))
    made = Plan(tuple(removals), (*state.warnings, *kept, *_concerns(state)))
    conflicts = _conflicts(state, made)
    if conflicts and wanted.on_conflict == "fail":
        raise TapGuardError(_message(conflicts), **result(state, made))
    return made


def check(host: Host, plan: Plan) -> None:
    """There is no judge of the host's to ask: ``ip``, which removes devices, has already answered in ``observe``."""


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Remove stale TAP devices, each as it was seen or not at all.

    :raises NetdevError: a device is no longer what it was, or the kernel refuses.
    """
    for removal in plan.changes:
        _netdev.remove(host, removal.device, journal, ip=removal.record)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values; ``conflicts`` without what the plan removes."""
    return {
        "interfaces": [_entry(claim, state.scene) for claim in state.claims],
        "conflicts": [
            {"name": claim.name, "domain": claim.domain or None, "verdict": verdict.verdict, "reason": verdict.reason}
            for claim, verdict in _conflicts(state, plan)
        ],
        "removed": [removal.device.name for removal in plan.changes],
    }


def _refuse_wide(patterns: t.Iterable[str]) -> None:
    for pattern in patterns:
        if not re.sub(r"\[[^]]*\]|[*?]", "", pattern):
            raise TapGuardError(
                f"remove_stale: the pattern {pattern!r} matches any device. Give at least a part of the devices' names."
            )


def _candidates(host: Host, present: t.Iterable[str], patterns: t.Sequence[str]) -> tuple[Candidate, ...]:
    matching = (name for name in present if any(fnmatchcase(name, pattern) for pattern in patterns))
    devices = (_netdev.device(host, name) for name in matching)
    return tuple(
        _candidate(host, device, device.name in patterns)
        for device in devices
        if device and device.kind == "tap" and device.persistent
    )


def _candidate(host: Host, device: Device, exact: bool) -> Candidate:
    shown = host.run(["ip", "-json", "-details", "address", "show", "dev", device.name])
    if shown.rc != 0:
        raise TapGuardError(f"ip does not show {device.name}: {shown.err.strip()}")
    record = json.loads(shown.out)[0]
    addresses = tuple(
        f"{address['local']}/{address['prefixlen']}" for address in record["addr_info"] if address["scope"] != "link"
    )
    return Candidate(device, exact, addresses, record)


def _claims(
    host: Host, wanted: Wanted, running: set[str], *, strict: bool
) -> tuple[tuple[Claim, ...], tuple[Claim, ...], tuple[str, ...]]:
    """The claims of the guests that were asked about, those of all others, and what to warn of.

    :param strict: a definition that cannot be read is an error: it may name a device that is to be removed.
    """
    found = _domainxml.definitions(host)
    status = _domainxml.running(host)
    defined = {guest.name: guest.domain for guest in found.guests}
    live = {guest.name: guest.domain for guest in status.guests if guest.name in running}
    chosen = set(wanted.domains)
    if wanted.domain_xml:
        domain = _given(wanted.domain_xml)
        defined[_domainxml.name_of(domain)] = domain
        chosen.add(_domainxml.name_of(domain))
    known = sorted({*defined, *live})
    if "all" in wanted.domains:
        chosen = set(known)
    unreadable = {bad.name: f"{bad.path} {bad.reason}" for bad in (*found.unreadable, *status.unreadable)}
    for name in sorted(chosen):
        if name in unreadable and name not in defined:
            raise TapGuardError(f"The definition of the guest {name} cannot be read: {unreadable[name]}.")
        if name not in known:
            raise TapGuardError(
                f"The guest {name} is neither defined on this host nor running; there are: {', '.join(known) or 'none'}"
            )
    if unreadable and strict:
        raise TapGuardError(
            "Nothing is removed while the definition of a guest cannot be read, since it may name a device that "
            "remove_stale matches: " + "; ".join(unreadable.values()) + "."
        )
    claims = [claim for name in known for claim in _of_guest(name, defined.get(name), live.get(name))]
    return (
        tuple(claim for claim in claims if claim.domain in chosen),
        tuple(claim for claim in claims if claim.domain not in chosen),
        tuple(f"The network devices of the guest {name} are unknown: {why}." for name, why in unreadable.items()),
    )


def _given(text: str) -> t.Any:
    try:
        return _domainxml.parse(text.encode("utf-8", "surrogatepass"))
    except _domainxml.DomainXmlError as error:
        raise TapGuardError(f"domain_xml {error}.") from None


def _by_name(claims: t.Iterable[Claim]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for claim in claims:
        if not claim.live:
            found[claim.name] = (*found.get(claim.name, ()), claim.domain)
    return found


def _of_guest(name: str, definition: t.Any, live: t.Any) -> t.Iterator[Claim]:
    """What a guest wants by its definition, and what it has by now beside that (made up by libvirt, or hot-plugged)."""
    wanted = _in(definition, name, live=False)
    targets = {claim.name for claim in wanted}
    yield from wanted
    yield from (claim for claim in _in(live, name, live=True) if claim.name not in targets)


def _in(domain: t.Any, name: str, *, live: bool) -> list[Claim]:
    return [
        Claim(entry.target, name, entry.type, entry.managed or entry.type != "ethernet", entry.queues, live)
        for entry in (() if domain is None else _domainxml.interfaces(domain))
        if entry.type in _TYPES and entry.target
    ]


def _keep(candidate: Candidate, state: State) -> str:
    """Why a TAP that remove_stale matches is not removed, "" if it is."""
    device = candidate.device
    if state.scene.perhaps_held(device):
        return f"it is held by {state.scene.who(state.scene.holders.get(device.name, ()))}"
    for claim in (*state.claims, *state.others):
        if claim.name == device.name and not claim.managed:
            return f"the guest {claim.domain} takes it as it is (managed='no')"
    ties = [f"is a port of {device.bridge}"] if device.bridge else []
    ties += [f"has the address {address}" for address in candidate.addresses]
    if ties and not candidate.exact:
        return f"it {' and '.join(ties)}; only its whole name, without wildcards, removes such a device"
    return ""


def _concerns(state: State) -> t.Iterator[str]:
    scene = state.scene
    for claim in state.claims:
        if judge(claim, scene).verdict != "own":
            continue
        device = scene.devices[claim.name]
        strangers = [holder for holder in scene.holding(device) if scene.guests.get(holder.pid) != claim.domain]
        if strangers:
            yield f"{claim.name} of the guest {claim.domain} is open in {scene.who(strangers)} as well."
        if claim.managed and device.persistent:
            yield (
                f"{claim.name} of the guest {claim.domain} is persistent: it outlives the guest, whose next start "
                "libvirt then refuses. Give the interface managed='no', or remove the device when the guest is down."
            )


def _conflicts(state: State, plan: Plan) -> list[tuple[Claim, Verdict]]:
    gone = {removal.device.name for removal in plan.changes}
    devices = {name: device for name, device in state.scene.devices.items() if name not in gone}
    scene = replace(state.scene, devices=devices)
    judged = ((claim, judge(claim, scene)) for claim in state.claims)
    return [(claim, verdict) for claim, verdict in judged if verdict.verdict in CONFLICTS]


def _message(conflicts: list[tuple[Claim, Verdict]]) -> str:
    lines = [
        f"- {claim.name}{f' of the guest {claim.domain}' if claim.domain else ''} ({verdict.verdict}): {verdict.reason}"
        for claim, verdict in conflicts
    ]
    return "\n".join(
        [
            f"{len(lines)} network device name{'s are' if len(lines) > 1 else ' is'} not free:",
            *lines,
            "A guest that is started by other means (virsh, autostart, a manager) does not pass this check.",
        ]
    )


def _entry(claim: Claim, scene: Scene) -> dict[str, t.Any]:
    device = scene.devices.get(claim.name)
    verdict = judge(claim, scene)
    return {
        "name": claim.name,
        "domain": claim.domain or None,
        "exists": device is not None,
        "kind": device.kind if device else None,
        "persistent": device.persistent if device else None,
        "owner": device.owner if device else None,
        "group": device.group if device else None,
        "multi_queue": device.multi_queue if device else None,
        "vnet_hdr": device.vnet_hdr if device else None,
        "bridge": (device.bridge or None) if device else None,
        "held_by": [
            {"pid": holder.pid, "comm": holder.comm, "guest": scene.guests.get(holder.pid)}
            for holder in (scene.holding(device) if device else ())
        ],
        "verdict": verdict.verdict,
        "reason": verdict.reason,
    }


def _line(device: Device) -> str:
    words = [device.name, "persistent"]
    words += [f"owner {device.owner}"] if device.owner is not None else []
    words += [f"group {device.group}"] if device.group is not None else []
    words += ["multi_queue"] if device.multi_queue else []
    words += [f"bridge {device.bridge}"] if device.bridge else []
    return " ".join([*words, f"mtu {device.mtu}", device.mac])
