# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as JUnit XML, for continuous integration: a test suite for each host, a test case for each finding.

What XML 1.0 (section 2.2, Char) cannot hold, ``words`` has escaped: no such character is printable.
"""

from __future__ import annotations

from xml.etree import ElementTree

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    Json,
    fix,
    object_name,
    require,
    sources,
    waiver_words,
    words,
)

_ELEMENT = {
    "fail": "failure",
    "pending": "failure",
    "unknown": "error",
    "waived": "skipped",
    "manual": "skipped",
    "not_applicable": "skipped",
}


def render(master: Json) -> str:
    """The whole master. A host that was not audited is a suite with one test case, which is an error.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    root = ElementTree.Element("testsuites", name=f"hypervisor.hardening audit, level {words(master['level'])}")
    for host in master["hosts"]:
        root.append(_suite(master, host))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", "0")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(master: Json, host: Json) -> ElementTree.Element:
    name = words(host["name"])
    if host["state"] == "audited":
        cases = [_case(name, finding, master["rules"][finding["rule"]]) for finding in host["findings"]]
    else:
        case = ElementTree.Element("testcase", classname=f"{name}.audit", name="The host is audited", time="0")
        _outcome(case, "error", host["state"], host.get("reason") or "no reason", [])
        cases = [case]
    counts = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        # The format has no zone; the master's times are UTC.
        timestamp=words(host.get("collected") or master["generated"]).removesuffix("Z"),
        hostname=name,
        time="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    told = {**(host.get("facts") or {}), "level": master["level"], "score": (host.get("score") or {}).get("value")}
    for key, value in told.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", name=words(key), value=words(value))
    suite.extend(cases)
    return suite


def _case(host: str, finding: Json, rule: Json) -> ElementTree.Element:
    name = f"{rule['code']} {finding['rule']}: {rule['title']} [{object_name(finding['object'])}]"
    case = ElementTree.Element("testcase", classname=f"{host}.{words(rule['category'])}", name=words(name), time="0")
    state = finding["state"]
    if state == "pass":
        return case
    observed, expected = words(finding.get("observed") or "nothing"), words(finding.get("expected") or "nothing")
    reason = words(finding.get("reason") or "")
    if state == "waived":
        message = f"waived: {waiver_words(finding.get('waiver') or {})}"
    elif state in ("fail", "pending"):
        message = f"observed {observed}, expected {expected}"
    else:
        message = f"{state.replace('_', ' ')}: {reason}"
    if finding.get("pending"):
        message += f" (pending {finding['pending'].replace('_', ' ')})"
    body = [
        f"severity: {rule['severity']}",
        f"observed: {observed}",
        f"expected: {expected}",
        f"reason: {reason}" if reason else "",
        *(f"evidence: {source}" for source in sources(finding)),
        f"why: {rule['why']}",
        f"fix: {fix(rule)}",
        f"danger: {rule['breaks']}" if rule.get("breaks") else "",
    ]
    _outcome(case, _ELEMENT[state], state, message, [] if state == "not_applicable" else body)
    return case


def _outcome(case: ElementTree.Element, tag: str, kind: str, message: str, body: list[str]) -> None:
    element = ElementTree.SubElement(case, tag, type=kind, message=words(message))
    element.text = "\n".join(words(line) for line in body if line) or None
