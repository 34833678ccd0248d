# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What running guests need, against what each other host of their group offers."""

from __future__ import annotations

import typing as t
from collections.abc import Hashable, Mapping

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityfact import (
    Facts,
    Need,
    Needs,
    Unknown,
    at,
    entries,
    listed,
    optional,
)

_AS_IT_IS = ("host-passthrough", "maximum")
_UNITS = {"K": 1, "M": 1 << 10, "G": 1 << 20}


def _collected(pairs: t.Iterable[tuple[Hashable, str]]) -> Needs:
    found: Needs = {}
    for need, guest in pairs:
        if guest not in (kept := found.setdefault(need, [])):
            kept.append(guest)
    return found


def _machines(facts: Facts) -> Needs:
    pairs = ((str(one.get("machine") or ""), str(one.get("name"))) for one in entries(facts, "guests"))
    return _collected((machine, guest) for machine, guest in pairs if machine)


def _offered(facts: Facts) -> Hashable:
    return frozenset(
        f"{name}-{version}" if version else name
        for name, versions in at(facts, "capabilities", "machines").items()
        for version in versions
    )


def _cpus(facts: Facts) -> Needs:
    """A guest that has the host's own processor needs that very processor, any other one its features."""
    if not entries(facts, "migration", "cpus"):
        return {}
    pairs: list[tuple[Hashable, str]] = []
    for one in entries(facts, "migration", "cpus"):
        if one.get("mode") in _AS_IT_IS:
            need: Hashable = ("as it is", at(facts, "cpu", "model"))
        else:
            most = at(facts, "capabilities", "cpu_features")
            features = set(map(str, most)).difference(one.get("lacks") or ()) | set(map(str, one.get("beyond") or ()))
            need = (str(one.get("model")), frozenset(features))
        pairs += [(need, str(guest)) for guest in one.get("guests") or ()]
    return _collected(pairs)


def _cpu(facts: Facts) -> Hashable:
    return at(facts, "cpu", "model"), frozenset(map(str, at(facts, "capabilities", "cpu_features")))


def _cpu_lacks(need: t.Any, offer: t.Any) -> str:
    kind, wanted = need
    model, features = offer
    if kind == "as it is":
        if wanted == model:
            return ""
        return (
            f"A guest that was given the whole {wanted} meets a {model}: it can crash there, and libvirt does not look."
        )
    missing = sorted(wanted - features)
    return f"libvirt refuses a guest with the processor {kind}: {listed(missing)} is missing there." if missing else ""


def _displays(facts: Facts) -> Needs:
    return _collected((one.get("port"), str(one.get("guest"))) for one in entries(facts, "migration", "displays"))


def _listening(facts: Facts) -> Hashable:
    return frozenset(one.get("port") for one in entries(facts, "listeners"))


def _migration_ports(facts: Facts) -> Hashable:
    return at(facts, "migration", "first_port"), at(facts, "migration", "last_port")


def _taps(facts: Facts) -> Needs:
    """The names of devices that running guests hold and that their definitions fix."""
    running = {one.get("name") for one in entries(facts, "guests")}
    return _collected(
        (str(one.get("interface")), str(one.get("guest")))
        for one in entries(facts, "taps", "wanted")
        if one.get("guest") in running
    )


def _devices(facts: Facts) -> Hashable:
    """Each device, and whether it waits for a guest that takes it as it is."""
    return frozenset(
        str(one.get("name")) for one in entries(facts, "taps", "interfaces") if not one.get("reserved_for_guest")
    )


def _pages(facts: Facts) -> Needs:
    return _collected(
        ((one.get("kib"), one.get("pages")), str(one.get("guest"))) for one in entries(facts, "migration", "hugepages")
    )


def _page_sizes(facts: Facts) -> Needs:
    return _collected((one.get("kib"), str(one.get("guest"))) for one in entries(facts, "migration", "hugepages"))


def _mounted(facts: Facts) -> Hashable:
    """The sizes that libvirt finds a mount for: of all mounts, or of those that qemu.conf names."""
    told = optional(facts, "hugepages", "configured", "hugetlbfs_mount")
    return frozenset(
        _kib(str(one.get("size")))
        for one in entries(facts, "hugepages", "mounts")
        if told is None or one.get("name") in told
    )


def _kib(label: str) -> int:
    return int(label[:-1]) * _UNITS[label[-1]] if label[:-1].isdigit() and label[-1:] in _UNITS else 0


def _free(facts: Facts) -> Hashable:
    return tuple(sorted((one.get("kib"), one.get("free")) for one in entries(facts, "hugepages", "pools")))


def _size(kib: int) -> str:
    unit = next((unit for unit in "GM" if kib % _UNITS[unit] == 0), "K")
    return f"{kib // _UNITS[unit]}{unit}"


def _pages_lack(need: tuple[int, int], offer: tuple[tuple[int, int], ...]) -> str:
    free = dict(offer).get(need[0], 0)
    if free >= need[1]:
        return ""
    size = _size(need[0])
    return f"QEMU cannot allocate {need[1]} pages of {size}, of which {free} are free there: the guest is refused."


def _storage(facts: Facts) -> Needs:
    """File systems with disks of running guests: mount point, type, identity ("" for one that is not shared)."""
    pairs: list[tuple[Hashable, str]] = []
    for one in entries(facts, "migration", "filesystems"):
        shared = bool(one.get("recognised"))
        unlisted = one.get("unlisted") or ()
        for guest in one.get("guests") or ():
            usable = shared or (bool(one.get("listed")) and guest not in unlisted)
            if usable and one.get("id") is None:
                raise Unknown(f"migration.filesystems: {one.get('name')} did not answer")
            identity = str(one.get("id")) if usable else ""
            pairs.append(((str(one.get("name")), str(one.get("fstype")), identity), str(guest)))
    return _collected(pairs)


def _shared(facts: Facts) -> Hashable:
    return frozenset(
        (str(one.get("name")), str(one.get("fstype")), "" if one.get("id") is None else str(one.get("id")))
        for one in entries(facts, "migration", "filesystems")
        if one.get("recognised") or one.get("listed")
    )


def _storage_lacks(need: tuple[str, str, str], offer: frozenset[tuple[str, str, str]]) -> str:
    place, kind, identity = need
    if not identity:
        return (
            f"libvirt does not take {place} ({kind}) for shared: it refuses unless told to copy the disks, and when it "
            "is overridden and fails, the source loses its access."
        )
    if need in offer:
        return ""
    other = [f"{one[1]} {one[2]}" for one in sorted(offer) if one[0] == place]
    if other:
        return f"Another file system is on {place} there ({listed(other)}): QEMU opens other disks or none."
    return f"{place} ({kind} {identity}) is not mounted there: QEMU does not find the disks, and the guest is refused."


NEEDS: tuple[Need, ...] = (
    Need(
        "machine-type", "machine types", "high", "C", _machines,
        _offered,
        lambda need, offer: "" if need in offer else f"QEMU there does not know the machine type {need}: refused.",
        "Bring QEMU up to date there, or give the guest an older machine type before its next start.",
    ),
    Need(
        "cpu", "processor", "high", "C", _cpus, _cpu, _cpu_lacks,
        "Give guests a processor model that all hosts of the group have (virsh hypervisor-cpu-baseline).",
        lambda need: f"the whole {need[1]}" if need[0] == "as it is" else need[0],
    ),
    Need(
        "hugepage-mount", "mounts for huge pages", "high", "P", _page_sizes, _mounted,
        lambda need, offer: "" if need in offer else f"There is no mount for pages of {_size(need)} there: refused.",
        "Mount hugetlbfs for that size (role hypervisor_hugepages), and restart libvirt's daemon.", _size,
    ),
    Need(
        "hugepage-free", "free huge pages", "medium", "P", _pages, _free, _pages_lack,
        "Reserve more pages there (role hypervisor_hugepages), or make room.",
        lambda need: f"{need[1]} of {_size(need[0])}",
    ),
    Need(
        "storage", "storage of guests", "high", "P", _storage, _shared, _storage_lacks,
        "Mount the same storage at the same path everywhere, on a file system that libvirt takes for shared, or name "
        "it in shared_filesystems on the hosts that export it.",
        lambda need: need[0],
    ),
    Need(
        "display-port", "fixed display ports", "medium", "P", _displays, _listening,
        lambda need, offer: f"Port {need} is taken there: the guest fails to start, and stays."
        if need in offer else "",
        "Let libvirt choose the port (autoport='yes'), or give each guest a port of its own in the group.",
    ),
    Need(
        "display-in-migration-ports", "fixed display ports among those for migrations", "low", "N", _displays,
        _migration_ports,
        lambda need, offer: f"An incoming migration may have taken port {need} there: the guest then fails to start."
        if offer[0] <= need <= offer[1] else "",
        "Keep fixed display ports out of the range from migration_port_min to migration_port_max.",
    ),
    Need(
        "tap-name", "names of TAP devices", "medium", "N", _taps, _devices,
        lambda need, offer: f"{need} is there already, for another guest: the guest fails to start, or takes its place."
        if need in offer else "",
        "Give each guest of the group device names of its own, or let libvirt choose them.",
    ),
)  # fmt: skip


def about(facts: Facts) -> Mapping[str, t.Any]:
    """What of a host's facts is looked at: without the rest, many hosts fit into memory."""
    kept = {
        section: facts.get(section)
        for section in (
            "host", "libvirt", "capabilities", "tls", "mac", "hugepages", "taps", "memfd", "cpu", "listeners",
            "migration",
        )
    }  # fmt: skip
    configuration = facts.get("configuration")
    if isinstance(configuration, dict) and "qemu.conf" in configuration:
        configuration = {"qemu.conf": configuration["qemu.conf"]}
    guests = facts.get("guests")
    if isinstance(guests, list):
        guests = [{key: one.get(key) for key in ("name", "machine")} for one in guests if isinstance(one, dict)]
    return {**kept, "configuration": configuration, "guests": guests}
