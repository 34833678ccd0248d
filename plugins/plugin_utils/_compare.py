# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed between two runs of the audit."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import Json, ReportError, require, visible

# How much is proven to hold. That a failure is waived says nothing of the host; of what is unknown, nothing is proven.
_HOLDS = {"pass": 3, "manual": 2, "pending": 1, "unknown": 0, "waived": 0, "fail": 0}

Key = tuple[str, str, str, str]


def compare(master: t.Any, earlier: t.Any) -> Json:
    """What got better or worse since ``earlier``, by host, rule and object.

    ``better`` and ``worse``: more, or less, is proven to hold. ``other``: changes that are neither, such as a failure
    that was waived or that nobody can see any more. ``new`` and ``gone``: only one of the two runs could judge it,
    because the object, or the rule, was not there or did not apply. Each entry has ``host``, ``rule``, ``object``,
    ``before`` and ``after`` (a state, or None). ``hosts``: names of those that only one of the two runs audited
    (``new``, ``gone``); their findings are not told one by one.

    :raises ReportError: one of the two is no master, or they are of different kinds.
    """
    now = require(master, "The audit")
    before = require(earlier, "The earlier audit")
    hosts_now, hosts_before = _hosts(now), _hosts(before)
    result: Json = {"with": before["generated"], "better": [], "worse": [], "new": [], "gone": [], "other": []}
    for name in hosts_now.keys() & hosts_before.keys():
        states_now, states_before = _states(name, hosts_now[name]), _states(name, hosts_before[name])
        for key in states_now.keys() | states_before.keys():
            kind = _kind(states_before.get(key), states_now.get(key))
            if kind:
                result[kind].append(_entry(key, states_before.get(key), states_now.get(key)))
    for kind in ("better", "worse", "new", "gone", "other"):
        result[kind].sort(key=lambda entry: (entry["host"], entry["rule"], *entry["object"].values()))
    result["hosts"] = {
        "new": sorted(hosts_now.keys() - hosts_before.keys()),
        "gone": sorted(hosts_before.keys() - hosts_now.keys()),
    }
    return result


def _hosts(master: Json) -> dict[str, list[Json]]:
    return {host["name"]: host["findings"] for host in master["hosts"] if host["state"] == "audited"}


def _states(host: str, findings: list[Json]) -> dict[Key, str]:
    """What was judged, and how. What does not apply was not."""
    return {
        (host, finding["rule"], finding["object"]["type"], finding["object"]["name"]): finding["state"]
        for finding in findings
        if finding["state"] != "not_applicable"
    }


def _kind(before: str | None, after: str | None) -> str | None:
    if before == after:
        return None
    if before is None or after is None:
        return "new" if before is None else "gone"
    for state in (before, after):
        if state not in _HOLDS:
            raise ReportError(f"An audit has a finding in the state '{visible(state)}'; there are {', '.join(_HOLDS)}.")
    change = _HOLDS[after] - _HOLDS[before]
    return "better" if change > 0 else "worse" if change < 0 else "other"


def _entry(key: Key, before: str | None, after: str | None) -> Json:
    host, rule, kind, name = key
    return {"host": host, "rule": rule, "object": {"type": kind, "name": name}, "before": before, "after": after}
