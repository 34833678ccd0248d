# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as SARIF 2.1.0, for code scanning and vulnerability management."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    Json,
    fix,
    not_audited,
    object_identity,
    object_name,
    require,
    sources,
    visible,
    words,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_markdown import escaped

_LEVEL = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "note"}
# Code scanning of forges sorts by this number, in the bands of CVSS.
_SECURITY_SEVERITY = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0", "info": "0.0"}
# SARIF 2.1.0, 3.27.9. What passes and what does not apply is left out: consumers that do not know `kind` would show it
# as an alert. The counts of the run still tell of it.
_KIND = {"fail": "fail", "pending": "fail", "waived": "fail", "unknown": "open", "manual": "review"}


def render(master: Json) -> str:
    """What a person has to look at, with what is waived as suppressed results.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    numbers = {name: number for number, name in enumerate(master["rules"])}
    driver = {
        "name": "hypervisor.hardening",
        "semanticVersion": words(master["collection"]),
        "rules": [_rule(name, rule) for name, rule in master["rules"].items()],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(master)],
        "results": [
            _result(host["name"], finding, master["rules"][finding["rule"]], numbers[finding["rule"]])
            for host in master["hosts"]
            for finding in host["findings"]
            if finding["state"] in _KIND
        ],
        "properties": {key: master[key] for key in ("level", "selection", "counts", "score")},
    }
    log = {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    # In ASCII, what is no Unicode at all included.
    return json.dumps(log, indent=1, default=str) + "\n"


def _rule(name: str, rule: Json) -> Json:
    facts = [("Why", rule["why"]), ("Fix", fix(rule)), ("Danger", rule.get("breaks")), ("Level", rule["level"])]
    facts += [("Sources", ", ".join(rule.get("references") or ()))]
    facts += [(framework, ", ".join(values)) for framework, values in (rule.get("mappings") or {}).items()]
    told = [(visible(label), words(text)) for label, text in facts if text]
    return {
        "id": visible(name),
        "name": words(rule["code"]),
        "shortDescription": {"text": words(rule["title"])},
        "fullDescription": {"text": words(rule["why"])},
        "help": {
            "text": "\n".join(f"{label}: {text}" for label, text in told),
            "markdown": "\n".join(f"- **{label}**: {escaped(text)}" for label, text in told),
        },
        "defaultConfiguration": {"level": _LEVEL[rule["severity"]]},
        "properties": {
            "tags": ["security", words(rule["category"]), words(rule["level"])],
            "severity": rule["severity"],
            "security-severity": _SECURITY_SEVERITY[rule["severity"]],
        },
    }


def _result(host: str, finding: Json, rule: Json, number: int) -> Json:
    kind = _KIND[finding["state"]]
    identity = _identity(host, finding)
    result: Json = {
        "ruleId": visible(finding["rule"]),
        "ruleIndex": number,
        "kind": kind,
        # 3.27.10: what is no failure has no level.
        "level": _LEVEL[rule["severity"]] if kind == "fail" else "none",
        "message": {"text": _message(host, finding, rule)},
        "locations": _locations(host, finding),
        "fingerprints": {"finding/v1": identity},
        # The one that forges follow an alert by.
        "partialFingerprints": {"primaryLocationLineHash": identity},
        "properties": {"host": visible(host), "state": finding["state"], "pending": finding.get("pending")},
    }
    waiver = finding.get("waiver")
    if finding["state"] == "waived" and waiver:
        result["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": words(waiver.get("reason") or ""),
                "properties": {
                    key: words(waiver[key]) for key in ("owner", "expires", "ticket", "state") if waiver.get(key)
                },
            }
        ]
    return result


def _identity(host: str, finding: Json) -> str:
    named = json.dumps([host, finding["rule"], *object_identity(finding["object"])])
    return hashlib.sha256(named.encode()).hexdigest()


def _message(host: str, finding: Json, rule: Json) -> str:
    where = f"{visible(host)}, {object_name(finding['object'])}"
    if finding["state"] in ("unknown", "manual"):
        return f"{words(rule['title'])}: {finding['state']} ({where}): {words(finding.get('reason') or 'no reason')}"
    observed, expected = words(finding.get("observed") or "nothing"), words(finding.get("expected") or "nothing")
    text = f"{words(rule['title'])} ({where}): observed {observed}, expected {expected}."
    if finding.get("pending"):
        text += f" Pending: {finding['pending'].replace('_', ' ')}."
    if finding.get("reason"):
        text += f" Reason: {words(finding['reason'])}"
    return text


def _locations(host: str, finding: Json) -> list[Json]:
    target = finding["object"]
    logical = [{"name": visible(host), "fullyQualifiedName": visible(host), "kind": "host"}]
    if target["type"] != "host":
        logical = [
            {
                "name": visible(target["name"]),
                "fullyQualifiedName": "/".join(map(visible, (host, *_path(target)))),
                "kind": visible(target["type"]),
            }
        ]
    paths = [source for source in sources(finding) if source.startswith("/") and not set(source) & set(" \t\r\n")]
    physical = [{"physicalLocation": {"artifactLocation": {"uri": _uri(host, path)}}} for path in paths]
    return [{**place, "logicalLocations": logical} for place in physical or [{}]]


def _path(target: Json) -> tuple[str, ...]:
    own = (target["type"], target["name"])
    return ("guest", target["guest"], *own) if target.get("guest") else own


def _uri(host: str, path: str) -> str:
    """The file on that host, as RFC 8089 has it."""
    return f"file://{_quoted(host, '')}{_quoted(path, '/')}"


def _quoted(text: str, safe: str) -> str:
    return quote(text.encode("utf-8", "backslashreplace"), safe=safe)


def _invocation(master: Json) -> Json:
    missing = not_audited(master)
    return {
        "executionSuccessful": not missing,
        "endTimeUtc": words(master["generated"]),
        "toolExecutionNotifications": [
            {"level": "error", "message": {"text": f"{name} was not audited: {reason}"}} for name, reason in missing
        ],
    }
