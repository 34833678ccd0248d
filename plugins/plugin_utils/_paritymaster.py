# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of a fleet in one document, from which every report is made."""

from __future__ import annotations

import datetime
import typing as t
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._agreements import Policy, agreed
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity import Finding, Member, findings, members
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymatrix import matrix
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import SEVERITIES, visible

SCHEMA = "hypervisor.hardening/parity/1"
FAIL_ON = (*SEVERITIES, "unknown")

Json = dict[str, t.Any]


class FailOnError(ValueError):
    """A word that is neither a severity nor ``unknown``."""


def parity(
    hosts: Mapping[str, t.Any],
    groups: Mapping[str, str],
    now: datetime.datetime,
    collection: str,
    *,
    max_age: float = 3600,
    partial: bool = False,
    choice: Mapping[str, t.Any] | None = None,
    plain: Callable[[t.Any], t.Any] = lambda facts: facts,
) -> Json:
    """Compare the hosts of each group.

    :param hosts: name -> facts; a text is the reason why there are none.
    :param groups: name of a host -> name of its group.
    :param now: with a time zone.
    :param max_age: of facts, in seconds.
    :param partial: whether these are not all hosts: then nothing is known to be equal.
    :param choice: values of the agreement that the operator chose.
    """
    now = now.astimezone(datetime.UTC)
    found, unknown = members(hosts, now.timestamp(), max_age, plain)
    here: defaultdict[str, list[Member]] = defaultdict(list)
    for one in found:
        here[groups[one.name]].append(one)
    names = sorted({groups[name] for name in hosts})
    return {
        "schema": SCHEMA,
        "collection": collection,
        "generated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_age": max_age,
        "partial": partial,
        "groups": [
            _group(
                name, here[name], {host: why for host, why in unknown.items() if groups[host] == name}, partial, choice
            )
            for name in names
        ],
    }


def _group(
    name: str, found: list[Member], unknown: Mapping[str, str], partial: bool, choice: Mapping[str, t.Any] | None
) -> Json:
    results: list[Finding] = findings(found)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for host, why in unknown.items():
        reasons[why].append(host)
    return {
        "name": name,
        "hosts": sorted([*unknown, *(one.name for one in found)]),
        "unknown": [{"reason": why, "hosts": hosts} for why, hosts in reasons.items()],
        "findings": [one.told for one in results],
        "matrix": matrix(found, results, unknown, partial),
        "agreement": agreed(
            name, [Policy.of(one) for one in found], choice or {}, unknown=len(unknown), partial=partial
        ),
    }


def counts(group: Json) -> Counter[str]:
    """How many findings there are of each severity; what is unknown is counted as that."""
    return Counter("unknown" if one["state"] == "unknown" else one["severity"] for one in group["findings"])


def summary(master: Json) -> Json:
    """The figures, small enough for the artifacts of a job."""
    return {
        "generated": master["generated"],
        "partial": master["partial"],
        "groups": {
            group["name"]: {
                "hosts": len(group["hosts"]),
                "unknown_hosts": sum(len(one["hosts"]) for one in group["unknown"]),
                "findings": dict(counts(group)),
                "ids": [one["id"] for one in group["findings"] if one["state"] == "differs"],
            }
            for group in master["groups"]
        },
    }


def failures(master: Json, fail_on: Iterable[str]) -> dict[str, list[str]]:
    """A line for each finding that names a host and must not be; only hosts with such findings are in it.

    :param fail_on: severities, each for itself, and ``unknown``.
    :raises FailOnError: another word.
    """
    wanted = list(dict.fromkeys(fail_on))
    strange = [word for word in wanted if word not in FAIL_ON]
    if strange:
        raise FailOnError(f"fail_on: {', '.join(strange)} is none of {', '.join(FAIL_ON)}.")
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for group in master["groups"]:
        for finding in group["findings"]:
            if ("unknown" if finding["state"] == "unknown" else finding["severity"]) in wanted:
                for host, line in _lines(finding):
                    lines[host].append(visible(line))
        for entry in group["unknown"] if "unknown" in wanted else ():
            for host in entry["hosts"]:
                lines[host].append(visible(f"{host}: not compared: {entry['reason']}"))
    return dict(sorted(lines.items()))


def _lines(finding: Json) -> t.Iterator[tuple[str, str]]:
    head = f"{finding['id']} ({finding['severity']})"
    if finding["state"] == "unknown":
        for entry in finding["reasons"]:
            for host in entry["hosts"]:
                yield host, f"{host}: {head}: unknown: {entry['reason']}"
        return
    odd = set(finding["odd"])
    for number, entry in enumerate(finding["values"]):
        about = [one["happens"] for one in finding["directions"] if number in one["to"] or number in one["from"]]
        for host in odd.intersection(entry["hosts"]):
            yield host, f"{host}: {head}: {entry['value']}: {(about or [finding['remedy']])[0]}"
