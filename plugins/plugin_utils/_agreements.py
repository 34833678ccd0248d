# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agreement of a migration group: what its hosts have in common, or what most of them have."""

from __future__ import annotations

import typing as t
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreement
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parityfact import Unknown

if t.TYPE_CHECKING:
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity import Member

_NAMED = 5
Json = dict[str, t.Any]


@dataclass(frozen=True)
class Policy:
    """What a host can agree on; a key whose value is not known is not in it."""

    host: str
    values: Mapping[str, Hashable]

    @classmethod
    def of(cls, member: Member) -> Policy:
        from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity import FACTS

        found: dict[str, Hashable] = {}
        for fact, value in zip(FACTS, member.values, strict=True):
            if isinstance(value, Unknown):
                continue
            if fact.id == "qemu-user":
                found["qemu_uid"], found["qemu_gid"] = value
            elif fact.id == "security-models":
                found["security_models"] = tuple(sorted(["dac", *(one[0] for one in value)]))
            elif fact.id in _KEYS:
                found[_KEYS[fact.id]] = value
        return cls(member.name, found)


_KEYS = {
    "dynamic-ownership": "dynamic_ownership",
    "remember-owner": "remember_owner",
    "namespaces": "namespaces",
    "seccomp": "seccomp_sandbox",
    "cgroup-controllers": "cgroup_controllers",
    "cgroup-devices": "cgroup_device_acl",
    "sched-core": "sched_core",
    "max-core": "max_core",
    "memory-backing-dir": "memory_backing_dir",
    "lock-manager": "lock_manager",
    "tls-force": "migrate_tls_force",
    "memfd-create": "memfd_create",
}


def agreed(
    group: str, policies: list[Policy], choice: Mapping[str, t.Any], *, unknown: int = 0, partial: bool = False
) -> Json:
    """The agreement, or the errors for which there is none, and who departs from it.

    A key on which the group does not agree has the operator's value, else that of more hosts than any other. It is an
    error if nobody is in the majority, or if hosts that are not known could change it. A key that no host knows is not
    agreed on.

    :param unknown: how many hosts of the group are not known.
    :return: ``agreement`` (None with errors), ``errors``, ``departures`` (key, agreed and values with their hosts).
    """
    if partial:
        return {"agreement": None, "errors": ["A part of the hosts cannot agree for all of them."], "departures": []}
    errors: list[str] = []
    if unknown >= len(policies):
        errors.append(f"{unknown} of {unknown + len(policies)} hosts are not known, and can have other values.")
    departures: list[Json] = []
    values: dict[str, t.Any] = {}
    for key in _agreement.KEYS:
        classes: defaultdict[Hashable, list[str]] = defaultdict(list)
        for policy in policies:
            if key in policy.values:
                classes[policy.values[key]].append(policy.host)
        order = sorted(classes, key=lambda value: -len(classes[value]))
        if key in choice:
            values[key] = choice[key]
        elif len(order) > 1 and len(classes[order[0]]) <= len(classes[order[1]]) + unknown:
            errors.append(_undecided(key, [(value, classes[value]) for value in order[:2]], unknown))
        elif order:
            values[key] = list(order[0]) if isinstance(order[0], tuple) else order[0]
        if len(order) > 1:
            told = [{"value": _agreement.shown(value), "hosts": classes[value]} for value in order]
            departures.append(
                {"key": key, "agreed": _agreement.shown(values[key]) if key in values else None, "values": told}
            )
    strange = sorted(set(choice) - set(_agreement.KEYS))
    errors += [f"{key} is nothing that can be agreed on; that are {', '.join(_agreement.KEYS)}." for key in strange]
    agreement = None
    if not errors:
        try:
            agreement = _agreement.make(group, values).data
        except _agreement.AgreementError as error:
            errors.append(str(error))
    return {"agreement": agreement, "errors": errors, "departures": departures}


def _undecided(key: str, sides: list[tuple[Hashable, list[str]]], unknown: int) -> str:
    (first, most), (second, fewer) = sides
    told = f"{_agreement.shown(first)} ({_some(most)})", f"{_agreement.shown(second)} ({_some(fewer)})"
    if len(most) == len(fewer):
        why = f"as many hosts have {told[0]} as have {told[1]}"
    else:
        why = f"{told[0]} and {told[1]} differ, and {unknown} hosts that are not known can decide it"
    return f"{key}: {why}. Choose one in hypervisor_migration_agreement."


def _some(hosts: list[str]) -> str:
    more = len(hosts) - _NAMED
    return ", ".join(hosts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
