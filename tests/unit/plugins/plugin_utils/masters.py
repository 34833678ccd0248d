# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masters of an audit to render: small ones, and such as a hostile guest would like to have.

A master is plain JSON. Build one of your own with ``rule``, ``finding``, ``host`` and ``master``; the counts and scores
follow from the findings.
"""

from __future__ import annotations

import typing as t
from collections import Counter

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import parity
from ansible_collections.hypervisor.hardening.tests.unit.plugins import fleets

Json = dict[str, t.Any]

STATES = ("fail", "pending", "unknown", "waived", "manual", "pass", "not_applicable")
SEVERITIES = ("critical", "high", "medium", "low", "info")
# Any weights do: a renderer only shows what it is given.
WEIGHTS = {"critical": 10, "high": 5, "medium": 3, "low": 1, "info": 0}

GENERATED = "2026-11-21T06:50:00Z"
EARLIER = "2026-10-01T06:50:00Z"

# What a guest can be called, since libvirt refuses only a slash and an empty name, and more than it would let through.
NASTY_NAMES = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quoted\" 'twice' & `ticks` ``more``",
    "first\nsecond\r\nthird\ttab",
    "\x1b[31mred\x1b[0m\x07\x00\x7f\x85",
    "\u202eexe.tpircs\u202c\u200b\u2028\u2029",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "|---|---| \\| a",
    "[click](javascript:alert(1)) ![x](https://example.org/x.png)",
    "@admin #1 www.example.org",
    "# heading",
    "]]> --> &amp; &#60;b&#62;",
    "{{ 7 * 7 }} {% raw %}",
    "../../etc/passwd",
    "\udcff\ud800 \ufffe\uffff",
    "客户机一 \N{SMILING FACE WITH OPEN MOUTH} e\u0301",
    "   ",
    "x" * 10_240,
)


def rule(identifier: str, **changes: t.Any) -> Json:
    """A rule as it is in ``master["rules"]``; ``identifier`` is only used to make its texts differ."""
    return {
        "code": "TST-01",
        "title": f"Title of {identifier}",
        "category": "qemu",
        "severity": "medium",
        "level": "baseline",
        "why": f"Why {identifier} matters.",
        "breaks": f"What the fix of {identifier} can break.",
        "remediation": {
            "mode": "auto",
            "variable": "hypervisor_qemu_settings",
            "advice": f"Advice for {identifier}.",
            "activation": "guest_restart",
        },
        "references": ["src/qemu/qemu.conf.in"],
        "mappings": {"bsi": ["SYS.1.5.A26"]},
        **changes,
    }


def finding(identifier: str, state: str, kind: str = "host", name: str = "kvm1", **changes: t.Any) -> Json:
    """A finding with the parts that its state calls for."""
    reasons = {
        "unknown": "/proc/4711/status cannot be read.",
        "not_applicable": "No guest runs.",
        "manual": "A person has to look at the switch.",
    }
    checks = [] if state == "not_applicable" else [check(state)]
    return {
        "rule": identifier,
        "object": {"type": kind, "name": name},
        "state": state,
        "pending": "guest_restart" if state == "pending" else None,
        "observed": "" if state == "not_applicable" else "0",
        "expected": "" if state == "not_applicable" else "1",
        "reason": reasons.get(state, ""),
        "checks": checks,
        "waiver": waiver() if state == "waived" else None,
        **changes,
    }


def check(state: str = "fail", **changes: t.Any) -> Json:
    states = {"waived": "fail", "manual": "pass", "pending": "fail"}
    return {
        "truth": "configured",
        "state": states.get(state, state),
        "observed": None if state == "unknown" else 0,
        "expected": {"is": 1},
        "evidence": {"source": "/etc/libvirt/qemu.conf", "excerpt": "seccomp_sandbox = 0"},
        **changes,
    }


def waiver(**changes: t.Any) -> Json:
    """What a waived finding carries."""
    return {
        "reason": "The vendor's appliance needs it.",
        "owner": "platform team",
        "expires": "2027-01-31",
        "ticket": "SEC-17",
        "state": "fail",
        **changes,
    }


def listed_waiver(identifier: str, **changes: t.Any) -> Json:
    """An entry of ``master["waivers"]``: the waiver as its file has it, and how many findings it is about."""
    written = {key: value for key, value in waiver().items() if key != "state"}
    return {"rule": identifier, "hosts": ["kvm1"], "guests": [], "objects": [], **written, "findings": 1, **changes}


def change(identifier: str, before: str | None, after: str | None, host_name: str = "kvm1", **changes: t.Any) -> Json:
    """An entry of ``master["comparison"]``."""
    obj = {"type": "host", "name": host_name}
    return {"host": host_name, "rule": identifier, "object": obj, "before": before, "after": after, **changes}


def score(findings: t.Iterable[Json], rules: t.Mapping[str, Json]) -> Json:
    passed = applicable = pending = 0
    capped = False
    for entry in findings:
        severity = rules[entry["rule"]]["severity"]
        weight = WEIGHTS[severity]
        if entry["state"] in ("pass", "fail", "pending", "unknown"):
            applicable += weight
            passed += weight * (entry["state"] == "pass")
            pending += weight * (entry["state"] == "pending")
            capped = capped or (severity == "critical" and entry["state"] == "fail")
    if not applicable:
        nothing = {"passed": 0, "applicable": 0, "fixable_passed": 0, "fixable_applicable": 0}
        return {"value": None, "capped": False, "fixable_now": None, **nothing}
    value = 1000 * passed // applicable / 10
    return {
        "value": min(value, 50.0) if capped else value,
        "passed": passed,
        "applicable": applicable,
        "capped": capped,
        "fixable_now": 1000 * (passed + pending) // applicable / 10,
        "fixable_passed": passed + pending,
        "fixable_applicable": applicable,
    }


def host(name: str, findings: t.Sequence[Json] = (), **changes: t.Any) -> Json:
    """A host that was audited; ``master`` fills in its counts and its score."""
    return {
        "name": name,
        "state": "audited",
        "reason": "",
        "collected": GENERATED,
        "facts": {
            "os": "Debian GNU/Linux 13 (trixie)",
            "kernel": "6.12.48+deb13-amd64",
            "libvirt": "11.3.0",
            "qemu": "10.0.3",
            "guests": 2,
        },
        "findings": list(findings),
        **changes,
    }


def not_audited(name: str, reason: str) -> Json:
    """A host of which there are no facts."""
    facts = {"os": None, "kernel": None, "libvirt": None, "qemu": None, "guests": None}
    return host(name, state="not_audited", reason=reason, collected=None, facts=facts)


def master(hosts: t.Sequence[Json] = (), rules: t.Mapping[str, Json] | None = None, **changes: t.Any) -> Json:
    """A master of these hosts. A rule that a finding names and ``rules`` lacks is made by ``rule``."""
    every = [entry for one in hosts for entry in one["findings"]]
    known = {entry["rule"]: rule(entry["rule"]) for entry in every} | dict(rules or {})
    counted = [
        {**one, "counts": counts(one["findings"]), "score": one.get("score") or score(one["findings"], known)}
        for one in hosts
    ]
    return {
        "schema": "hypervisor.hardening/audit/1",
        "collection": "0.1.0",
        "generated": GENERATED,
        "level": "hardened",
        "selection": {"only": [], "skip": [], "disabled": []},
        "rules": known,
        "hosts": counted,
        "counts": counts(every),
        "score": {
            **score(every, known),
            "formula": "Weight of what passes, divided by the weight of what applies and is not waived.",
        },
        "waivers": {"expired": [], "unused": [], "expiring": []},
        "comparison": None,
        **changes,
    }


def counts(findings: t.Iterable[Json]) -> dict[str, int]:
    counter = Counter(entry["state"] for entry in findings)
    return {state: counter[state] for state in STATES}


def empty() -> Json:
    """No host at all."""
    return master()


def small() -> Json:
    """Three hosts: one with a finding of each state, one without a fault, one that could not be audited."""
    rules = {
        "qemu-seccomp-on": rule("qemu-seccomp-on", code="QEM-05", severity="critical", title="Seccomp sandbox is on"),
        "daemon-no-tcp": rule(
            "daemon-no-tcp",
            code="DMN-01",
            severity="high",
            category="daemon",
            title="No libvirt daemon listens on TCP",
            remediation={
                "mode": "advise",
                "variable": "",
                "advice": "Stop the TCP socket unit.",
                "activation": "daemon_restart",
            },
        ),
        "cpu-mitigated": rule("cpu-mitigated", code="CPU-02", category="cpu", title="CPU vulnerabilities mitigated"),
        "ksm-off": rule("ksm-off", code="MEM-01", category="memory", severity="low", title="KSM is off"),
        "switch-hardened": rule("switch-hardened", code="NET-03", category="network", title="Ports are isolated"),
        "secrets-0600": rule(
            "secrets-0600", code="SEC-01", category="secrets", severity="info", title="Secrets are private"
        ),
        "mac-enforcing": rule(
            "mac-enforcing", code="MAC-01", category="mac", severity="high", title="A MAC is enforcing"
        ),
    }
    first = host(
        "kvm1",
        [
            finding("qemu-seccomp-on", "fail", "guest", "web"),
            finding("qemu-seccomp-on", "pending", "guest", "db"),
            finding("daemon-no-tcp", "fail", observed="0.0.0.0:16509", expected="nothing"),
            finding("cpu-mitigated", "unknown", observed="", reason="/sys/devices/system/cpu cannot be read."),
            finding("ksm-off", "waived"),
            finding("switch-hardened", "manual"),
            finding("secrets-0600", "not_applicable", reason="There is no secret."),
            finding("mac-enforcing", "pass", observed="1"),
        ],
    )
    second = host("kvm2", [finding(name, "pass", name="kvm2", observed="1") for name in rules])
    return master(
        [first, second, not_audited("kvm3", "unreachable: connection timed out")],
        rules,
        waivers={
            "expired": [listed_waiver("daemon-no-tcp", expires="2026-11-01", reason="Old backup client.")],
            "unused": [
                listed_waiver("mac-enforcing", guests=["test*"], findings=0, why="no host of this run is covered")
            ],
            "expiring": [listed_waiver("ksm-off", expires="2026-12-01")],
        },
    )


def compared() -> Json:
    """``small`` with what changed since an earlier run."""
    return small() | {
        "comparison": {
            "with": EARLIER,
            "better": [change("mac-enforcing", "fail", "pass")],
            "worse": [change("daemon-no-tcp", "pass", "fail")],
            "new": [change("ksm-off", None, "fail")],
            "gone": [change("qemu-seccomp-on", "fail", None, object={"type": "guest", "name": "old"})],
            # Neither better nor worse: fail, waived and unknown all mean that nothing is proven to hold.
            "other": [change("cpu-mitigated", "fail", "unknown")],
            "hosts": {"new": ["kvm2"], "gone": ["kvm3"]},
        }
    }


def every_combination() -> Json:
    """Each state of each severity, on a host and on a guest."""
    rules = {f"rule-{severity}": rule(f"rule-{severity}", severity=severity) for severity in SEVERITIES}
    findings = [
        finding(name, state, kind, f"{kind}-{state}")
        for name in rules
        for state in STATES
        for kind in ("host", "guest")
    ]
    return master([host("kvm1", findings)], rules)


def nasty() -> Json:
    """Hostile text wherever a host, a guest, or a careless operator can put it, in each state."""
    rules = {
        "hostile-rule": rule(
            "hostile-rule",
            severity="critical",
            title="<b>bold</b> | `code` *stars* [a](b)",
            why="<script>why</script>",
            breaks="=breaks()",
            remediation={"mode": "advise", "variable": "", "advice": "<i>advice</i>\nsecond", "activation": "none"},
        )
    }
    findings = [
        finding(
            "hostile-rule",
            state,
            "guest",
            name,
            observed=name,
            expected=name,
            reason=name,
            waiver=waiver(reason=name, owner=name, ticket=name) if state == "waived" else None,
            checks=[check(state, observed=name, evidence={"source": name, "excerpt": name})],
        )
        for state in STATES
        for name in NASTY_NAMES
    ]
    hosts = [host("kvm1", findings)]
    hosts += [
        host(name, [finding("hostile-rule", "fail", "host", name)], facts={"os": name, "kernel": name, "guests": 1})
        for name in NASTY_NAMES
    ]
    hosts += [not_audited(f"gone {name}", name) for name in NASTY_NAMES]
    listed = [listed_waiver("hostile-rule", hosts=[name], guests=[name], reason=name) for name in NASTY_NAMES]
    changes = [
        change("hostile-rule", "pass", "fail", name, object={"type": "guest", "name": name}) for name in NASTY_NAMES
    ]
    return master(
        hosts,
        rules,
        waivers={"expired": listed, "unused": listed, "expiring": listed},
        comparison={
            "with": EARLIER,
            "better": changes,
            "worse": changes,
            "new": changes,
            "gone": changes,
            "other": changes,
            "hosts": {"new": list(NASTY_NAMES), "gone": list(NASTY_NAMES)},
        },
    )


def migrating() -> Json:
    """A group with another user, a hostile name and a host without facts; a lone host; twelve that all differ."""
    root = {"uid": 0, "gid": 0, "source": "capabilities"}
    found: dict[str, t.Any] = {name: fleets.host(name) for name in ("kvm1", "kvm2", "<b>kvm3</b>", "alone")}
    found["odd"] = fleets.host("odd", capabilities__dac=root)
    found["gone"] = "not audited"
    groups = {**dict.fromkeys(found, "rack1"), "alone": "rack2"}
    for uid in range(1000, 1012):
        name = f"unlike{uid}"
        found[name] = fleets.host(name, capabilities__dac=root | {"uid": uid})
        groups[name] = "rack3"
    return small() | {"migration": parity(found, groups, fleets.NOW, "0.1.0")}


def fleet(hosts: int, guests: int = 20) -> Json:
    """Many hosts alike, for figures."""
    rules = {
        f"rule-{number}": rule(f"rule-{number}", severity=SEVERITIES[number % 5], category=f"category-{number % 12}")
        for number in range(150)
    }
    names = list(rules)
    return master(
        [
            host(
                f"kvm{index}",
                [finding(name, STATES[(index + position) % 7]) for position, name in enumerate(names[:110])]
                + [
                    finding(name, "fail" if (index + guest) % 9 == 0 else "pass", "guest", f"guest{guest}")
                    for name in names[110:]
                    for guest in range(guests)
                ],
            )
            for index in range(hosts)
        ],
        rules,
    )
