# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as CSV, for spreadsheets: a line for each finding, and one for each host that was not audited."""

from __future__ import annotations

import csv
import io
import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    Json,
    fix,
    require,
    sources,
    words,
)

COLUMNS = (
    "host", "state", "pending", "severity", "category", "level", "rule", "code", "title",
    "object_type", "object", "guest", "observed", "expected", "reason", "evidence", "why", "fix", "breaks",
    "waiver_reason", "waiver_owner", "waiver_expires", "waiver_ticket", "collected",
)  # fmt: skip

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t")


def render(master: Json) -> str:
    """The whole master as RFC 4180 has it, in the order of hosts and rules of the master.

    Each cell is quoted: a spreadsheet that splits at semicolons then still sees where a cell begins.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, restval="", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    rules = {name: _cells(_rule(name, rule)) for name, rule in master["rules"].items()}
    for host in master["hosts"]:
        common = _cells({"host": host["name"], "collected": host.get("collected")})
        if host["state"] != "audited":
            writer.writerow({**common, **_cells({"state": host["state"], "reason": host.get("reason")})})
        for finding in host["findings"]:
            writer.writerow({**common, **rules[finding["rule"]], **_cells(_finding(finding))})
    return file.getvalue()


def _rule(name: str, rule: Json) -> Json:
    columns = ("severity", "category", "level", "code", "title", "why", "breaks")
    return {"rule": name, "fix": fix(rule), **{column: rule.get(column) for column in columns}}


def _finding(finding: Json) -> Json:
    waiver = finding.get("waiver") or {}
    return {
        **{column: finding.get(column) for column in ("state", "pending", "observed", "expected", "reason")},
        **{f"waiver_{column}": waiver.get(column) for column in ("reason", "owner", "expires", "ticket")},
        "object_type": finding["object"]["type"],
        "object": finding["object"]["name"],
        "guest": finding["object"].get("guest"),
        "evidence": ", ".join(sources(finding)),
    }


def _cells(row: Json) -> dict[str, str]:
    return {column: _cell(value) for column, value in row.items()}


def _cell(value: t.Any) -> str:
    text = "" if value is None else words(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
