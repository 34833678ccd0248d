# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt and the kernel would make of a guest's network device name. Pure.

What libvirt does was tried on 9.0 (Debian 12) and 11.3 (Debian 13); tests/integration/test_tap_guard.py tries it again.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ._netdev import Device, Holder, too_long, valid_name

# VIR_NET_GENERATED_*_PREFIX of src/conf/domain_conf.h: read from a definition, such a name is dropped.
_RESERVED = ("vnet", "macvtap", "macvlan")

CONFLICTS = frozenset(
    ("foreign", "stale", "reserved", "too_long", "invalid", "duplicate", "missing", "mismatch"),
)


@dataclass(frozen=True)
class Claim:
    """Somebody wants a device of this name.

    ``domain`` is the guest, "" for a name that was only asked about; ``live``: not in the guest's definition, but the
    running guest has it.
    """

    name: str
    domain: str = ""
    type: str = ""
    managed: bool = True
    queues: int = 1
    live: bool = False


@dataclass(frozen=True)
class Verdict:
    """``verdict`` is a word of the module's documentation, ``reason`` says why and what to do."""

    verdict: str
    reason: str


@dataclass(frozen=True)
class Scene:
    """What a name is judged by: the devices, who holds them (by name), which process is which guest (by pid), and which
    guests' definitions want which name (once for each interface, "" for a name that was only asked about)."""

    devices: t.Mapping[str, Device] = field(default_factory=dict)
    holders: t.Mapping[str, tuple[Holder, ...]] = field(default_factory=dict)
    guests: t.Mapping[int, str] = field(default_factory=dict)
    wanted: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def holding(self, device: Device) -> tuple[Holder, ...]:
        """Who holds a device of the host.

        The kernel tells a process's device by name alone. A process in another network namespace most likely holds
        another device of that name, unless nobody else can be the one who holds this one.
        """
        everyone = self.holders.get(device.name, ())
        return tuple(holder for holder in everyone if holder.here) or (everyone if device.attached else ())

    def held(self, device: Device) -> bool:
        """Whether somebody holds a device of the host."""
        return bool(device.attached or self.holding(device))

    def perhaps_held(self, device: Device) -> bool:
        """Whether anybody at all may hold it, in whatever namespace: reason enough not to remove it."""
        return bool(device.attached or self.holders.get(device.name))

    def who(self, holders: t.Sequence[Holder]) -> str:
        """Holders in words."""
        return " and ".join(map(self._holder, holders)) or "a process that does not show itself"

    def _holder(self, holder: Holder) -> str:
        guest = self.guests.get(holder.pid)
        return f"{f'the guest {guest}, ' if guest else ''}process {holder.pid} ({holder.comm})"


def judge(claim: Claim, scene: Scene) -> Verdict:
    """Whether a guest that wants this name can start, and what would be lost if it tried."""
    device = scene.devices.get(claim.name)
    if device and claim.domain in {scene.guests.get(holder.pid) for holder in scene.holding(device)}:
        return Verdict("own", f"The guest {claim.domain} runs on it{_owner(device)}.")
    wrong = _name(claim)
    if wrong:
        return wrong
    if _is_template(claim.name):
        return Verdict("free", "A template: libvirt puts a number for %d that makes it free.")
    if device and (claim.managed or scene.held(device)):
        return _occupied(claim, device, scene)
    if len(scene.wanted.get(claim.name, ())) > 1:
        return _duplicate(claim, scene)
    if not claim.managed:
        return _brought_along(claim, device)
    if claim.live:
        return Verdict("missing", f"The guest {claim.domain} runs with it, but it is gone: the guest lost its network.")
    return Verdict("free", "There is no device of this name.")


def _name(claim: Claim) -> Verdict | None:
    plain = claim.name.replace("%d", "0") if _is_template(claim.name) else claim.name
    if not valid_name(plain):
        return Verdict("invalid", "The kernel takes no blank, '/', ':' or '%' (but one %d) in a name, nor '.' or '..'.")
    if too_long(plain):
        return Verdict("too_long", "The kernel takes at most 15 bytes (IFNAMSIZ): choose a shorter name.")
    if claim.name.startswith(_RESERVED) and claim.managed and not claim.live:
        return Verdict(
            "reserved",
            "libvirt keeps names that begin with vnet, macvtap or macvlan for itself: it drops them from a definition "
            "and makes up another one. Choose a name that begins otherwise.",
        )
    return None


def _is_template(name: str) -> bool:
    return name.count("%") == 1 and "%d" in name


def _occupied(claim: Claim, device: Device, scene: Scene) -> Verdict:
    refused = "libvirt refuses to start the guest"
    if scene.held(device):
        who = scene.who(scene.holding(device))
        # Tried: with several queues, libvirt attaches the guest to a device that somebody else already reads.
        loss = refused if claim.managed or not device.multi_queue else "the guest would share its traffic with that"
        return Verdict(
            "foreign", f"It is {_what(device)}, held by {who}; {loss}. Choose another name, or see that it is released."
        )
    if device.kind != "tap":
        return Verdict("foreign", f"It is {_what(device)}; {refused}. Choose another name.")
    # virNetDevTapDelete (src/util/virnetdevtap.c) asks for one queue, and the kernel then refuses a multi-queue device.
    if claim.type in ("ethernet", "") and not device.multi_queue:
        refused += ", and its clean-up DELETES this device" + ("" if claim.type else " if the type is ethernet")
    return Verdict(
        "stale",
        f"It is {_what(device)} that no process holds; {refused}. To give it to a guest, write <interface "
        f"type='ethernet'> with <target dev='{claim.name}' managed='no'/>. Else choose another name, or remove it.",
    )


def _what(device: Device) -> str:
    if device.kind != "tap":
        return f"a device of the host (kind {device.kind})"
    details = [f"port of {device.bridge}"] if device.bridge else []
    details += [f"owner uid {device.owner}"] if device.owner is not None else []
    described = "a persistent TAP device" if device.persistent else "a TAP device"
    return described + (f" ({', '.join(details)})" if details else "")


def _owner(device: Device) -> str:
    return "" if device.owner in (None, 0) else f"; its owner, uid {device.owner}, may open it too"


def _duplicate(claim: Claim, scene: Scene) -> Verdict:
    domains = [domain or "this task" for domain in scene.wanted[claim.name]]
    return Verdict(
        "duplicate",
        f"{len(domains)} interfaces want this name ({', '.join(domains)}): one gets it, and libvirt refuses to start "
        "the others. Choose another name.",
    )


def _brought_along(claim: Claim, device: Device | None) -> Verdict:
    """An interface with managed='no' (type ethernet), whose device libvirt opens and leaves as it is."""
    command = f"ip tuntap add dev {claim.name} mode tap{' multi_queue' if claim.queues > 1 else ''}"
    if device is None:
        return Verdict(
            "missing",
            "The interface has managed='no' and there is no such device: libvirt refuses to start the guest. Make the "
            f"device first ({command}), or leave managed='no' out.",
        )
    if device.kind not in ("tap", "macvtap"):
        return Verdict("mismatch", f"The interface has managed='no' and needs a TAP; this is {_what(device)}.")
    if device.kind == "tap" and device.multi_queue != (claim.queues > 1):
        made = "with" if device.multi_queue else "without"
        return Verdict(
            "mismatch",
            f"The interface wants queues={claim.queues}, and the TAP was made {made} multi_queue: libvirt refuses to "
            f"start the guest. Make it anew ({command}), or change the queues.",
        )
    return Verdict("exempt", f"The interface has managed='no' and takes this device as it is{_owner(device)}.")
