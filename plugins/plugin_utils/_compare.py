# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What changed between two runs of the audit."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    Json,
    ReportError,
    object_identity,
    require,
    visible,
)

# How much is proven to hold. That a failure is waived says nothing of the host; of what is unknown, nothing is proven.
_HOLDS = {"pass": 3, "manual": 2, "pending": 1, "unknown": 0, "waived": 0, "fail": 0}

Judged = dict[tuple[str, ...], tuple[str | None, Json]]


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
    for name in sorted(hosts_now.keys() & hosts_before.keys()):
        states_now, states_before = _states(hosts_now[name]), _states(hosts_before[name])
        for key in sorted(states_now.keys() | states_before.keys()):
            state_before, target = states_before.get(key, (None, {}))
            state_now, target = states_now.get(key, (None, target))
            kind = _kind(state_before, state_now)
            if kind:
                entry = {"host": name, "rule": key[0], "object": target, "before": state_before, "after": state_now}
                result[kind].append(entry)
    result["hosts"] = {
        "new": sorted(hosts_now.keys() - hosts_before.keys()),
        "gone": sorted(hosts_before.keys() - hosts_now.keys()),
    }
    return result


def _hosts(master: Json) -> dict[str, list[Json]]:
    return {host["name"]: host["findings"] for host in master["hosts"] if host["state"] == "audited"}


def _states(findings: list[Json]) -> Judged:
    """What was judged, and how. What does not apply was not."""
    return {
        (finding["rule"], *object_identity(finding["object"])): (finding["state"], finding["object"])
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
