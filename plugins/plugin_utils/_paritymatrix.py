# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix of sources and destinations, by classes of hosts that no finding tells apart."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity import Finding, Member

MOST_CLASSES = 24
"""As many classes have a row and a column, the largest ones; a screen holds no more."""

Json = dict[str, t.Any]


def matrix(found: list[Member], results: list[Finding], unknown: t.Collection[str], partial: bool) -> Json:
    """Classes and cells. A cell is ``fits``, ``breaks`` with the ids of the findings, the gravest first, ``unknown``,
    or empty where a host would have to send a guest to itself.

    :param unknown: hosts of which there are no facts.
    :param partial: not all hosts are here, so that nothing is known to fit.
    """
    classes: defaultdict[tuple[t.Any, ...], list[str]] = defaultdict(list)
    for one in found:
        classes[tuple(_label(finding, one.name) for finding in results)].append(one.name)
    order = sorted(classes.values(), key=lambda names: -len(names))
    shown, left = order[:MOST_CLASSES], order[MOST_CLASSES:]
    cells = [[_cell(a, b, results, partial) for b in shown] for a in shown]
    named = [{"hosts": names, "known": True} for names in shown]
    if unknown:
        named.append({"hosts": sorted(unknown), "known": False})
        for row in cells:
            row.append({"state": "unknown", "findings": []})
        cells.append([{"state": "unknown", "findings": []} for _class in named])
    return {
        "classes": named,
        "cells": cells,
        "left_out": {"classes": len(left), "hosts": sum(map(len, left))},
    }


def _label(finding: Finding, name: str) -> tuple[t.Any, ...]:
    return (
        finding.sources.get(name),
        finding.destinations.get(name),
        name in finding.unknown_sources,
        name in finding.unknown_destinations,
    )


def _cell(sources: list[str], destinations: list[str], results: list[Finding], partial: bool) -> Json:
    if sources is destinations and len(sources) == 1:
        return {"state": "", "findings": []}
    a, b = sources[0], destinations[0]
    broken = [
        one.told["id"]
        for one in results
        if a in one.sources and b in one.destinations and one.breaks(one.sources[a], one.destinations[b])
    ]
    if broken:
        return {"state": "breaks", "findings": broken}
    if partial or any(a in one.unknown_sources or b in one.unknown_destinations for one in results):
        return {"state": "unknown", "findings": []}
    return {"state": "fits", "findings": []}
