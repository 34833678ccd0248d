# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules and facts made up for the tests of the audit."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import ANY
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import Rule, read_rule

FREE = dict.fromkeys(("host", "libvirt", "guests", "configuration", "listeners"), ANY)
EVIDENCE = {"source": "/proc"}


def entry(id_: str = "a-rule", **changes: t.Any) -> dict[str, t.Any]:
    """A rule as a file has it. A key that is None is left out."""
    rule: dict[str, t.Any] = {
        "id": id_,
        "code": id_.upper(),
        "title": "A rule",
        "category": "host",
        "severity": "high",
        "level": "baseline",
        "checks": [check()],
        "why": "Because.",
        "breaks": "Nothing.",
        "remediation": {"mode": "advise", "advice": "Do it.", "activation": "none"},
        "references": ["a document"],
        **changes,
    }
    return {key: value for key, value in rule.items() if value is not None}


def check(query: str = "host.value", expected: t.Any = None, **changes: t.Any) -> dict[str, t.Any]:
    return {
        "truth": "configured",
        "query": query,
        "expected": expected or {"is": 1},
        "evidence": EVIDENCE,
        **changes,
    }


def rule(id_: str = "a-rule", **changes: t.Any) -> Rule:
    made, errors = read_rule(entry(id_, **changes), FREE)
    assert made is not None, errors
    return made
