# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings and identities that hosts are compared on, and what each difference does to a guest that moves."""

from __future__ import annotations

import typing as t
from collections import Counter
from collections.abc import Hashable

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityfact import (
    Fact,
    Facts,
    Unknown,
    at,
    entries,
    listed,
    optional,
)

Words = tuple[str, ...]
_CORE_ORDER = ("none", "vcpus", "emulator", "full")
_QEMU_CONF = "Set {} to the same on all hosts of the group (role hypervisor_qemu), and restart the daemon."
_LOST = "The guest silently gets the destination's policy: "


def user(facts: Facts, _now: float = 0) -> tuple[int, int]:
    """The numbers that QEMU runs as.

    :raises Unknown: nobody tells, or only a file that the daemon has not loaded.
    """
    found = at(facts, "capabilities", "dac")
    uid, gid = at(facts, "capabilities", "dac", "uid"), at(facts, "capabilities", "dac", "gid")
    if found.get("source") == "/etc/libvirt/qemu.conf" and at(facts, "libvirt", "restart_required"):
        raise Unknown("capabilities.dac: qemu.conf was changed, and the daemon goes by the former one")
    return uid, gid


def models(facts: Facts, _now: float = 0) -> Words:
    """The security drivers, without the word for none."""
    return tuple(sorted({str(one.get("model")) for one in entries(facts, "capabilities", "secmodels")} - {"none"}))


def value(key: str) -> t.Callable[[Facts, float], Hashable]:
    """Reads what qemu.conf decides; a list becomes a tuple."""

    def read(facts: Facts, _now: float) -> Hashable:
        at(facts, "migration", "values")
        found = at(facts, "migration", "values", key)
        return tuple(map(str, found)) if isinstance(found, list) else t.cast(Hashable, found)

    return read


def _labels(facts: Facts, _now: float) -> Hashable:
    return tuple(
        sorted(
            (str(one.get("model")), str(one.get("doi")), tuple(sorted((one.get("baselabels") or {}).items())))
            for one in entries(facts, "capabilities", "secmodels")
            if one.get("model") not in ("dac", "none")
        )
    )


def _user_breaks(source: tuple[int, int], destination: tuple[int, int]) -> str:
    if source == destination:
        return ""
    root = " The guest then runs as root." if destination[0] == 0 else ""
    return (
        f"The destination gives the guest's disks to {destination[0]}:{destination[1]} before the migration is done, "
        f"and the source, which runs as {source[0]}:{source[1]}, can lose access to them: the guest sees I/O "
        f"errors.{root}"
    )


def _models_break(source: t.Any, destination: t.Any) -> str:
    have, get = ({one[0] for one in side} for side in (source, destination))
    if have - get:
        return f"The label of {listed(sorted(have - get))} moves along with the guest, and the destination refuses it."
    if get - have:
        return f"The guest comes under {listed(sorted(get - have))} there, without having been prepared for it."
    if source != destination:
        return "Labels are made by another domain of interpretation or base: the destination cannot tell them apart."
    return ""


def _booleans(facts: Facts, _now: float) -> Words:
    return tuple(
        sorted(str(one.get("name")) for one in entries(facts, "mac", "selinux", "booleans") if one.get("running"))
    )


def _booleans_break(source: Words, destination: Words) -> str:
    gone, more = sorted(set(source) - set(destination)), sorted(set(destination) - set(source))
    if gone:
        return f"What {listed(gone)} allows is denied there: the guest fails to start, or sees I/O errors."
    return f"{_LOST}{listed(more)} widens what it may do." if more else ""


def _missing_breaks(what: str) -> t.Callable[[Words, Words], str]:
    def breaks(source: Words, destination: Words) -> str:
        gone = sorted(set(source) - set(destination))
        return f"{_LOST}{what} {listed(gone)} is gone." if gone else ""

    return breaks


def _devices_break(source: Words, destination: Words) -> str:
    gone, more = sorted(set(source) - set(destination)), sorted(set(destination) - set(source))
    if gone:
        return f"The guest may not open {listed(gone)} there: it fails to start, or loses the device."
    return f"{_LOST}it may open {listed(more)} as well." if more else ""


def _gone(text: str) -> t.Callable[[bool, bool], str]:
    """What happens where the source has something and the destination has not."""
    return lambda source, destination: f"{_LOST}{text}" if source and not destination else ""


def _differs(text: str) -> t.Callable[[t.Any, t.Any], str]:
    return lambda source, destination: text if source != destination else ""


def _sched_breaks(source: str, destination: str) -> str:
    rank = {word: number for number, word in enumerate(_CORE_ORDER)}
    if rank.get(source, 0) <= rank.get(destination, 0):
        return ""
    return f"{_LOST}its threads share cores with others (sched_core {destination} instead of {source})."


def _core_breaks(source: str, destination: str) -> str:
    def size(word: str) -> float:
        return float("inf") if word == "unlimited" else float(int(word)) if word.isdigit() else 0.0

    if size(destination) <= size(source):
        return ""
    return f"{_LOST}a crash leaves a core file of up to {destination} bytes instead of {source}."


def _ownership_breaks(source: bool, destination: bool) -> str:
    if source and not destination:
        return (
            "The destination does not give the disks to its own QEMU: the guest cannot open them unless the user fits."
        )
    if destination and not source:
        return "The destination changes the owner of disks that the source leaves alone."
    return ""


def _unique(values: dict[str, Hashable]) -> dict[str, Hashable]:
    """Only a value that several hosts have is one to look at."""
    counts = Counter(values.values())
    return {name: one if counts[one] > 1 else "" for name, one in values.items()}


def _version(*paths: Words) -> t.Callable[[Facts, float], Hashable]:
    def read(facts: Facts, _now: float) -> Hashable:
        words = [optional(facts, *path) for path in paths if isinstance(facts.get(path[0]), dict)]
        found = next((word for word in words if isinstance(word, str) and word), None)
        if found is None:
            raise Unknown(f"{'.'.join(paths[-1])} is not known")
        return tuple(int(part) if part.isdigit() else 0 for part in found.split("."))

    return read


def _older(name: str) -> t.Callable[[Words, Words], str]:
    def breaks(source: Words, destination: Words) -> str:
        if source <= destination:
            return ""
        return f"An older {name} may refuse what a newer one sends: the guest stays, or fails at the end of the move."

    return breaks


def _dotted(version: Words) -> str:
    return ".".join(map(str, version))


def _truth(one: bool) -> str:
    return "on" if one else "off"


def _working(facts: Facts, _now: float) -> Hashable:
    return bool(at(facts, "memfd", "works"))


def _setting(key: str) -> t.Callable[[Facts, float], Hashable]:
    def read(facts: Facts, _now: float) -> Hashable:
        found = optional(facts, "configuration", "qemu.conf", "settings", key)
        return tuple(sorted(map(str, found))) if isinstance(found, (list, tuple)) else ()

    return read


def _policy(facts: Facts, _now: float) -> Hashable:
    return str(optional(facts, "mac", "configured", "selinux_policy") or "")


VALUES: tuple[Fact, ...] = (
    Fact(
        "qemu-user", "user and group of QEMU, by number", "critical", "N", user, _user_breaks,
        "Give QEMU the same numbers everywhere: user and group in qemu.conf as +UID and +GID, or the same numbers for "
        "the names; then restart the daemon.",
        lambda one: f"{one[0]}:{one[1]}",
    ),
    Fact(
        "host-uuid", "UUID of the host", "high", "C", lambda facts, _now: str(at(facts, "capabilities", "host_uuid")),
        lambda a, b: "libvirt takes both for one host and refuses." if a and a == b else "",
        "Set host_uuid, or host_uuid_source = \"machine-id\", in the daemon's configuration, and restart it.",
        lambda one: one or "one of its own", _unique,
    ),
    Fact(
        "architecture", "architecture", "high", "C", lambda facts, _now: str(at(facts, "host", "architecture")),
        _differs("A guest under KVM cannot run on another architecture: it is refused."),
        "Keep hosts of another architecture in a group of their own.",
    ),
    Fact(
        "libvirt-version", "version of libvirt", "medium", "P",
        _version(("capabilities", "libvirt_version"), ("libvirt", "version")), _older("libvirt"),
        "Migrate towards the newer release only, or bring all hosts to one.", _dotted,
    ),
    Fact(
        "qemu-version", "version of QEMU", "high", "P",
        _version(("capabilities", "qemu_version"), ("libvirt", "qemu_version")), _older("QEMU"),
        "Migrate towards the newer release only, or bring all hosts to one.", _dotted,
    ),
    Fact(
        "dynamic-ownership", "dynamic_ownership", "high", "N", value("dynamic_ownership"), _ownership_breaks,
        _QEMU_CONF.format("dynamic_ownership"), _truth,
    ),
    Fact(
        "remember-owner", "remember_owner", "medium", "N", value("remember_owner"),
        _differs("One side counts who uses an image and the other does not: in the end it keeps QEMU's owner, or loses "
                 "it while a guest runs."),
        _QEMU_CONF.format("remember_owner"), _truth,
    ),
    Fact(
        "security-models", "security drivers, their domain of interpretation and base labels", "high", "P", _labels,
        _models_break, _QEMU_CONF.format("security_driver"),
        lambda one: listed(model if doi in ("", "0") and not labels else f"{model} (doi {doi}, {dict(labels)})"
                           for model, doi, labels in one),
    ),
    Fact(
        "mac-enforced", "enforcement of AppArmor or SELinux", "high", "N",
        lambda facts, _now: bool(at(facts, "mac", "enforcing")), _gone("no mandatory access control confines it."),
        "Switch enforcement on everywhere.", _truth,
    ),
    Fact(
        "selinux-booleans", "SELinux booleans for guests that are on", "high", "N", _booleans, _booleans_break,
        "Set them to the same everywhere with setsebool -P.", listed,
    ),
    Fact(
        "selinux-policy", "SELinux policy", "medium", "N", _policy,
        _differs("Labels of one policy can be unknown to the other: the guest is refused, or denied its files."),
        "Use one policy on all hosts.", lambda one: one or "none",
    ),
    Fact(
        "namespaces", "namespaces of guests", "high", "N", value("namespaces"), _missing_breaks("the namespace"),
        _QEMU_CONF.format("namespaces"), listed,
    ),
    Fact(
        "seccomp", "filter of system calls (seccomp_sandbox)", "high", "N", value("seccomp_sandbox"),
        _gone("no filter limits its system calls."), _QEMU_CONF.format("seccomp_sandbox"), _truth,
    ),
    Fact(
        "cgroup-controllers", "cgroup controllers", "high", "N", value("cgroup_controllers"),
        _missing_breaks("the cgroup controller"), _QEMU_CONF.format("cgroup_controllers"), listed,
    ),
    Fact(
        "cgroup-devices", "devices that guests may use (cgroup_device_acl)", "medium", "N", value("cgroup_device_acl"),
        _devices_break, _QEMU_CONF.format("cgroup_device_acl"), listed,
    ),
    Fact(
        "sched-core", "sched_core", "medium", "N", value("sched_core"), _sched_breaks, _QEMU_CONF.format("sched_core"),
    ),
    Fact("max-core", "max_core", "medium", "N", value("max_core"), _core_breaks, _QEMU_CONF.format("max_core")),
    Fact(
        "memory-backing-dir", "memory_backing_dir", "medium", "N", value("memory_backing_dir"),
        _differs("Memory of the guest that is kept in files lies elsewhere there: it may not fit, or not be private."),
        _QEMU_CONF.format("memory_backing_dir"),
    ),
    Fact(
        "lock-manager", "lock_manager", "high", "N", value("lock_manager"),
        _differs("The hosts do not see each other's locks: the same disk can be written to by two guests."),
        _QEMU_CONF.format("lock_manager"),
    ),
    Fact(
        "shared-filesystems", "shared_filesystems", "low", "N", _setting("shared_filesystems"),
        _differs("Only one side takes the storage for shared: after a failed move the other can lose access to it."),
        _QEMU_CONF.format("shared_filesystems"), listed,
    ),
    Fact(
        "memfd-create", "memfd_create(2) as QEMU's user", "high", "N", _working,
        lambda _a, b: "" if b else "QEMU falls back to a file that confinement denies: the guest cannot be migrated "
        "on, or does not start.",
        "Use a kernel that has memfd_create, and let nothing deny it.", lambda one: "works" if one else "does not work",
    ),
)  # fmt: skip
