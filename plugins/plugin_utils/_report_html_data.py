# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the HTML page shows, from the master: once for the script, as numbers into tables, and once in sums.

A thousand hosts of twenty guests have a million findings, most of them alike. Each text, each rule and each finding
that differs is told once; a host is a list of numbers.
"""

from __future__ import annotations

import json
import typing as t
from collections import Counter, defaultdict

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._expected import Expected, told
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    CHANGES,
    SEVERITIES,
    STATES,
    Json,
    fix,
    object_identity,
)

# A sign and a word for each state: colour alone tells nothing to many, and nothing on paper.
SIGNS = {
    "fail": ("✕", "Fail"),
    "pending": ("↻", "Pending"),
    "unknown": ("?", "Unknown"),
    "waived": ("⊘", "Waived"),
    "manual": ("✎", "Manual"),
    "pass": ("✓", "Pass"),
    "not_applicable": ("\N{EN DASH}", "Not applicable"),
}
# The parts of a waiver whose name says too little.
WAIVER = {"state": "otherwise", "why": "without use because"}
# What passes, or does not apply, is counted and shown when asked for.
COLLAPSED = frozenset({"pass", "not_applicable"})
CATEGORIES = (
    *("daemon", "qemu", "guest", "kernel", "cpu", "mac", "namespace", "memory", "storage", "network"),
    *("migration", "logging", "secrets", "host", "trap"),
)

# Characters. Longer text scrolls in a box of three lines.
LONG = 400

K = t.TypeVar("K", bound=t.Hashable)


class Table(t.Generic[K]):
    """Each entry once, and its number."""

    def __init__(self) -> None:
        self._numbers: dict[K, int] = {}

    def number(self, entry: K) -> int:
        return self._numbers.setdefault(entry, len(self._numbers))

    def entries(self) -> list[K]:
        return list(self._numbers)


def compact(master: Json) -> Json:
    """The master as tables, for the script of the page.

    ``strings``; ``rules`` as in the master, with their id; ``shapes``: ``[rule, state, pending, observed, expected,
    reason, checks, waiver]`` in numbers, once for all findings that read the same; ``hosts``: ``findings`` is a flat
    list of shape and set of objects in turn, ``sets`` are lists of numbers of ``objects``.
    """
    strings: Table[str] = Table()
    strings.number("")
    shapes: Table[tuple[t.Any, ...]] = Table()
    numbers = {name: number for number, name in enumerate(master["rules"])}
    hosts = [_host(host, numbers, strings, shapes) for host in ordered_hosts(master)]
    return {
        "states": [(state, *SIGNS[state]) for state in STATES],
        "collapsed": sorted(COLLAPSED),
        "long": LONG,
        "severities": SEVERITIES,
        "rules": [{"id": name, **rule, "remediation": fix(rule)} for name, rule in master["rules"].items()],
        "hosts": hosts,
        "shapes": shapes.entries(),
        "strings": strings.entries(),
    }


def _host(host: Json, rules: dict[str, int], strings: Table[str], shapes: Table[tuple[t.Any, ...]]) -> Json:
    objects: Table[tuple[str, ...]] = Table()
    sets: Table[tuple[int, ...]] = Table()
    members: defaultdict[int, list[int]] = defaultdict(list)
    for finding in host["findings"]:
        members[shapes.number(_shape(finding, rules, strings))].append(
            objects.number(object_identity(finding["object"]))
        )
    findings: list[int] = []
    for shape, numbers in members.items():
        findings += (shape, sets.number(tuple(numbers)))
    return {
        "name": host["name"],
        "reason": host.get("reason") or "",
        "audited": host["state"] == "audited",
        "collected": host.get("collected") or "",
        "facts": host.get("facts") or {},
        "score": host.get("score") or {},
        "objects": objects.entries(),
        "sets": sets.entries(),
        "findings": findings,
    }


def _shape(finding: Json, rules: dict[str, int], strings: Table[str]) -> tuple[t.Any, ...]:
    number = strings.number
    checks = tuple(
        (
            number(check.get("truth") or ""),
            number(check.get("state") or finding["state"]),
            number(told(check["observed"])),
            number(_expectation(check["expected"])),
            number((check.get("evidence") or {}).get("source") or ""),
            number(_excerpt(check)),
        )
        for check in finding.get("checks") or ()
    )
    waiver = tuple((WAIVER.get(key, key), str(value)) for key, value in (finding.get("waiver") or {}).items() if value)
    return (
        rules[finding["rule"]],
        STATES.index(finding["state"]),
        number(finding.get("pending") or ""),
        number(finding.get("observed") or ""),
        number(finding.get("expected") or ""),
        number(finding.get("reason") or ""),
        checks,
        waiver,
    )


def _expectation(expected: Json) -> str:
    ((operator, wanted),) = expected.items()
    return Expected(operator, wanted).words


def _excerpt(check: Json) -> str:
    excerpt = (check.get("evidence") or {}).get("excerpt")
    if excerpt in (None, "", [], {}):
        return ""
    return excerpt if isinstance(excerpt, str) else json.dumps(excerpt, ensure_ascii=False, indent=1, default=str)


def embedded(data: t.Any) -> str:
    """JSON that no HTML parser takes for markup, and no editor for another direction of writing: in ASCII."""
    text = json.dumps(data, separators=(",", ":"), default=str)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def ordered_hosts(master: Json) -> list[Json]:
    """The hosts that were not audited first, then those with the worst failures."""
    severity = {name: SEVERITIES.index(rule["severity"]) for name, rule in master["rules"].items()}

    def badness(host: Json) -> tuple[t.Any, ...]:
        failures = Counter(severity[finding["rule"]] for finding in host["findings"] if finding["state"] == "fail")
        return (
            host["state"] == "audited",
            *(-failures[number] for number in range(len(SEVERITIES))),
            -sum(finding["state"] not in COLLAPSED for finding in host["findings"]),
            host["name"],
        )

    return sorted(master["hosts"], key=badness)


def categories(master: Json) -> list[str]:
    """The categories of the rules, in their usual order; those of operators after them."""
    used = {rule["category"] for rule in master["rules"].values()}
    return [name for name in CATEGORIES if name in used] + sorted(used - set(CATEGORIES))


def counted(counts: t.Mapping[str, int]) -> str:
    """ "3 fail, 20 pass": the counts by state, worst first."""
    return ", ".join(f"{counts[state]} {SIGNS[state][1].lower()}" for state in STATES if counts.get(state))


def matrix(master: Json) -> list[Json]:
    """A row a host, a cell a category: the worst state there, how many findings have it, and all counts."""
    names = categories(master)
    rules = master["rules"]
    rows = []
    for host in ordered_hosts(master):
        cells: dict[str, Counter[str]] = {name: Counter() for name in names}
        critical = set()
        for finding in host["findings"]:
            rule = rules[finding["rule"]]
            cells[rule["category"]][finding["state"]] += 1
            if finding["state"] == "fail" and rule["severity"] == "critical":
                critical.add(rule["category"])
        rows.append({"host": host, "cells": [_cell(name, cells[name], name in critical) for name in names]})
    return rows


def _cell(category: str, counts: Counter[str], critical: bool) -> Json:
    worst = next((state for state in STATES if counts[state]), "")
    told = counted(counts) or "no rule"
    return {
        "category": category,
        "state": worst,
        "count": counts[worst],
        "critical": critical,
        "told": told + ("; one that fails is critical" if critical else ""),
    }


def failures_by_severity(master: Json) -> dict[str, int]:
    counts = Counter(
        master["rules"][finding["rule"]]["severity"]
        for host in master["hosts"]
        for finding in host["findings"]
        if finding["state"] == "fail"
    )
    return {severity: counts[severity] for severity in SEVERITIES}


def not_audited(master: Json) -> list[tuple[str, list[str]]]:
    """Why hosts were not audited, and which; the reason that most share first."""
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for host in master["hosts"]:
        if host["state"] != "audited":
            reasons[host.get("reason") or "no reason was given"].append(host["name"])
    return sorted(((reason, sorted(names)) for reason, names in reasons.items()), key=lambda entry: -len(entry[1]))


def open_rules(master: Json) -> list[Json]:
    """The rules with open findings, worst first, with their counts: what a page without scripts says."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    hosts: defaultdict[str, set[str]] = defaultdict(set)
    for host in master["hosts"]:
        for finding in host["findings"]:
            if finding["state"] not in COLLAPSED:
                counts[finding["rule"]][finding["state"]] += 1
                hosts[finding["rule"]].add(host["name"])
    rules = [
        {"id": name, **master["rules"][name], "counted": counted(states), "hosts": len(hosts[name]), "states": states}
        for name, states in counts.items()
    ]
    return sorted(
        rules,
        key=lambda rule: (
            next(number for number, state in enumerate(STATES) if rule["states"][state]),
            SEVERITIES.index(rule["severity"]),
            -rule["hosts"],
            rule["code"],
        ),
    )


def earlier_counts(master: Json) -> dict[str, Counter[str]]:
    """The counts by state in the earlier run: of each host that both runs audited, today's with the changes taken back.

    What does not apply is left out: the comparison does not tell where it did not apply before.
    """
    comparison = master["comparison"]
    only_now = set(comparison["hosts"]["new"])
    counts = {
        host["name"]: judged(host["counts"])
        for host in master["hosts"]
        if host["state"] == "audited" and host["name"] not in only_now
    }
    for kind in CHANGES:
        for change in comparison[kind]:
            host = counts.get(change["host"], Counter())
            if change["after"]:
                host[change["after"]] -= 1
            if change["before"]:
                host[change["before"]] += 1
    return counts


def judged(counts: t.Mapping[str, int]) -> Counter[str]:
    """The counts less those of what does not apply."""
    return Counter({state: count for state, count in counts.items() if state != "not_applicable"})


def stacked(counts: t.Mapping[str, int], width: int = 1000) -> list[tuple[str, int, float, float]]:
    """A stacked bar: state, count, left edge and width of each part, in units of ``width``."""
    total = sum(counts.get(state, 0) for state in STATES)
    parts = []
    left = 0.0
    for state in STATES:
        if counts.get(state):
            share = width * counts[state] / total
            parts.append((state, counts[state], round(left, 1), round(share, 1)))
            left += share
    return parts
