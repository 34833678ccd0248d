# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison as lines for a terminal: what breaks, the gravest first, and who can send guests to whom."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity_words import (
    LIBVIRT,
    Json,
    classes_named,
    counted,
    differs,
    directions,
    hosts,
    some_guests,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import shortened, words
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_terminal import wrapped

_VALUE = 400
_VALUES = 8
_DIRECTIONS = 6


def render(master: Json, width: int = 100) -> list[str]:
    """What a person reads first; each line, but those of the matrix, at most ``width`` columns wide."""
    lines: list[str] = []
    for group in master["groups"]:
        if lines:
            lines.append("")
        lines += [part for line in _group(master, group) for part in wrapped(line, width)]
        lines += _matrix(group)
        lines += [part for line in _agreement(group) for part in wrapped(line, width)]
    return lines or ["There is no host to compare."]


def _group(master: Json, group: Json) -> t.Iterator[str]:
    total = len(group["hosts"])
    missing = sum(len(one["hosts"]) for one in group["unknown"])
    text = f"Migration group {words(group['name'])}: {counted(total, 'host')}"
    yield (
        f"{text}, {missing} not known, {words(master['generated'])}."
        if missing
        else f"{text}, {words(master['generated'])}."
    )
    if master["partial"]:
        yield "Only a part of the hosts is here: what differs is told, and whatever looks equal is unknown."
    for entry in group["unknown"]:
        yield _line("unknown", f"{shortened(words(entry['reason']), _VALUE)}: {hosts(entry['hosts'])}")
    for number, finding in enumerate(group["findings"], 1):
        yield from _finding(number, finding)
    if not group["findings"] and total - missing > 1:
        yield "Nothing differs that matters."
    elif total < 2:
        yield "There is nothing to compare a single host with."


def _finding(number: int, finding: Json) -> t.Iterator[str]:
    title = f"{number:>2}  {finding['severity']} {finding['id']}: {finding['fact']}"
    if finding["state"] == "unknown":
        yield f"{title}: unknown"
        for entry in finding["reasons"]:
            yield _line("reason", f"{shortened(words(entry['reason']), _VALUE)}: {hosts(entry['hosts'])}")
        return
    yield f"{title}: {differs(finding)} ({LIBVIRT[finding['libvirt']]})"
    for entry in finding["values"][:_VALUES]:
        value = shortened(words(entry["value"]), _VALUE) or "nothing of this"
        yield _line(counted(len(entry["hosts"]), "host"), f"{value}: {hosts(entry['hosts'])}")
    if len(finding["values"]) > _VALUES:
        yield _line("more", f"{len(finding['values']) - _VALUES} other values")
    told = list(directions(finding))
    for way, text in told[:_DIRECTIONS]:
        yield _line("moving", f"{shortened(way, _VALUE)}: {shortened(words(text), _VALUE)}")
    if len(told) > _DIRECTIONS:
        yield _line("more", f"{len(told) - _DIRECTIONS} other directions")
    if finding["guests"]["total"]:
        yield _line("guests", some_guests(finding["guests"]))
    yield _line("fix", words(finding["remedy"]))


def _line(label: str, text: str) -> str:
    return f"    {label:<10}  {text}"


def _matrix(group: Json) -> list[str]:
    """A row for each class of sources, a column for each of destinations; a number is that of the gravest finding."""
    matrix = group["matrix"]
    if sum(len(one["hosts"]) for one in matrix["classes"]) < 2:
        return []
    names = [name for name, _class in classes_named(matrix)]
    numbers = {one["id"]: number for number, one in reversed(list(enumerate(group["findings"], 1)))}
    lines = ["Who can send guests to whom (rows send, columns take; a number is the finding against it)"]
    lines += [
        f"  {name:<3} {counted(len(one['hosts']), 'host')}: {hosts(one['hosts'])}"
        for name, one in classes_named(matrix)
    ]
    lines.append("  " + " " * 3 + "".join(f"{name:>6}" for name in names))
    lines += [
        f"  {name:<3}" + "".join(f"{_cell(cell, numbers):>6}" for cell in row)
        for name, row in zip(names, matrix["cells"], strict=True)
    ]
    if matrix["left_out"]["classes"]:
        left = matrix["left_out"]
        lines.append(
            f"  {left['classes']} more kinds of hosts, {counted(left['hosts'], 'host')} in all, are not shown."
        )
    return lines


def _cell(cell: Json, numbers: dict[str, int]) -> str:
    if cell["state"] != "breaks":
        return {"fits": "ok", "unknown": "?", "": "-"}[cell["state"]]
    more = "+" if len(cell["findings"]) > 1 else ""
    return f"{numbers[cell['findings'][0]]}{more}"


def _agreement(group: Json) -> t.Iterator[str]:
    agreement = group["agreement"]
    for error in agreement["errors"]:
        yield f"No agreement: {words(error)}"
    if agreement["agreement"]:
        whole = agreement["agreement"]
        yield f"Agreement: {len(whole['values'])} values, digest {whole['digest'][:12]}."
