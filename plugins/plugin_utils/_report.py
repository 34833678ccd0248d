# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all reports of an audit have in common: how the master is read, and how what it says is put in words.

Names of guests and hosts, and whatever a host said, can be hostile: ``visible`` is what happens to them first.
"""

from __future__ import annotations

import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass

SCHEMA = "hypervisor.hardening/audit/1"
# What asks most of a person comes first.
STATES = ("fail", "pending", "unknown", "waived", "manual", "pass", "not_applicable")
SEVERITIES = ("critical", "high", "medium", "low", "info")

# What a report for people names, in this order; what passes and what does not apply is only counted there.
SECTIONS = (
    ("Fails or is pending", ("fail", "pending")),
    ("Unknown: not proven, either way", ("unknown",)),
    ("Manual: for a person to look at", ("manual",)),
    ("Waived: not proven, and accepted", ("waived",)),
)
WAIVERS = (
    ("expired", "Waivers that have expired, and waive nothing"),
    ("expiring", "Waivers that expire soon"),
    ("unused", "Waivers without use"),
)
CHANGES = ("worse", "better", "new", "gone", "other")

Json = dict[str, t.Any]

_PARTS = (
    "collection", "generated", "level", "selection", "rules", "hosts", "counts", "score", "waivers", "comparison",
)  # fmt: skip

_MEANS = {
    "auto": "Harden the host{variable}.",
    "auto-optin": "Switch it on{variable} and harden the host.",
}
_ACTIVATION = {
    "daemon_restart": "Effective after a restart of the daemon.",
    "guest_restart": "Effective after a restart of the guest.",
    "reboot": "Effective after a reboot.",
}


class ReportError(ValueError):
    """A master that cannot be rendered or compared."""


@dataclass(frozen=True)
class Alike:
    """Findings of one rule that say the same of several objects."""

    state: str
    pending: str | None
    observed: str
    expected: str
    reason: str
    sources: tuple[str, ...]
    waiver: tuple[tuple[str, str], ...]


Places = list[tuple[str, Json]]


@dataclass(frozen=True)
class Group:
    """A rule, and where it was found in which state: pairs of host and object."""

    id: str
    rule: Json
    alike: dict[Alike, Places]


@dataclass(frozen=True)
class Change:
    """A rule whose state changed in the same way in several places. ``before`` and ``after`` are words."""

    kind: str
    rule: str
    before: str
    after: str
    places: Places


def require(master: t.Any, what: str = "The report") -> Json:
    """Return ``master`` if it is one that this version can read.

    :raises ReportError: anything else, in words.
    """
    if not isinstance(master, dict) or "schema" not in master:
        raise ReportError(f"{what} is no result of an audit: give what the filter hypervisor.hardening.audit returned.")
    if master["schema"] != SCHEMA:
        raise ReportError(
            f"{what} is of the kind '{words(master['schema'])}', and this version of the collection reads "
            f"'{SCHEMA}' alone. Make it anew with the audit of this version."
        )
    missing = [key for key in _PARTS if key not in master]
    if missing:
        raise ReportError(f"{what} is no whole result of an audit: it lacks {', '.join(missing)}.")
    return master


def visible(text: str) -> str:
    r"""One line in which each character can be seen.

    Controls, directions of writing, line ends and what is no character at all are written as Python would escape them
    (``\n``, ``\x1b``, ``\u202e``), blanks at either end as ``\x20``.
    """
    inner = text.strip(" ")
    if inner == text and text.isprintable():
        return text
    ends = [r"\x20" * blanks for blanks in (len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" ")))]
    seen = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in inner)
    return f"{ends[0]}{seen}{ends[1]}" if inner else ends[0]


def shortened(text: str, limit: int) -> str:
    """At most about ``limit`` characters, and how many there were."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def words(value: t.Any) -> str:
    """A value as one visible line: text as it is, anything else as JSON."""
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def sources(finding: Json) -> tuple[str, ...]:
    """The evidence of the checks that did not pass; of all, if all did."""
    checks = finding.get("checks") or []
    telling = [check for check in checks if check.get("state") != "pass"] or checks
    named = (str((check.get("evidence") or {}).get("source") or "") for check in telling)
    return tuple(dict.fromkeys(source for source in named if source))


def object_name(target: Json) -> str:
    """``host``, or type and name of what is on it, and the guest that it belongs to."""
    if target["type"] == "host":
        return "host"
    name = f"{visible(target['type'])} {visible(target['name'])}"
    return f"{name} of guest {visible(target['guest'])}" if target.get("guest") else name


def object_identity(target: Json) -> tuple[str, ...]:
    """What tells an object from all others of its host."""
    return (target["type"], target["name"], *([target["guest"]] if target.get("guest") else []))


def fix(rule: Json) -> str:
    """What to do, and when it takes effect."""
    remediation = rule.get("remediation") or {}
    variable = remediation.get("variable")
    parts = (
        _MEANS.get(remediation.get("mode", ""), "").format(variable=f" ({variable})" if variable else ""),
        remediation.get("advice") or "",
        _ACTIVATION.get(remediation.get("activation", ""), ""),
    )
    return visible(" ".join(" ".join(parts).split()))


def state_words(state: str, pending: str | None = None) -> str:
    """The state as a person says it."""
    text = state.replace("_", " ")
    return f"{text} ({pending.replace('_', ' ')})" if pending else text


def grouped(master: Json, states: t.Collection[str]) -> list[Group]:
    """The findings in these states by rule, the gravest first; within a rule, those that say the same together."""
    found: defaultdict[str, defaultdict[Alike, Places]] = defaultdict(lambda: defaultdict(list))
    for host in master["hosts"]:
        for finding in host["findings"]:
            if finding["state"] in states:
                found[finding["rule"]][_alike(finding)].append((host["name"], finding["object"]))
    groups = [
        Group(
            name,
            master["rules"][name],
            dict(sorted(alike.items(), key=lambda entry: STATES.index(entry[0].state))),
        )
        for name, alike in found.items()
    ]
    return sorted(groups, key=lambda group: gravity(group.id, group.rule))


def gravity(identifier: str, rule: Json) -> tuple[int, str, str]:
    """What rules are sorted by."""
    return SEVERITIES.index(rule["severity"]), str(rule["code"]), identifier


def _alike(finding: Json) -> Alike:
    return Alike(
        finding["state"],
        finding.get("pending"),
        words(finding.get("observed") or ""),
        words(finding.get("expected") or ""),
        words(finding.get("reason") or ""),
        tuple(map(visible, sources(finding))),
        tuple((key, words(value)) for key, value in (finding.get("waiver") or {}).items() if value),
    )


def changed(comparison: Json) -> list[Change]:
    """What changed since the earlier run, that which changed alike together.

    A guest that came or went brings, or takes, all that passed: there the count is enough.
    """
    found: defaultdict[tuple[str, str, str, str], Places] = defaultdict(list)
    for kind in CHANGES:
        for entry in comparison.get(kind) or ():
            before, after = (state_words(words(entry[key] or "absent")) for key in ("before", "after"))
            if {before, after} != {"pass", "absent"}:
                found[kind, visible(entry["rule"]), before, after].append((entry["host"], entry["object"]))
    return [Change(*key, places) for key, places in found.items()]


def changes_counted(comparison: Json) -> str:
    """How much changed, in each way."""
    return ", ".join(f"{len(comparison[kind])} {kind}" for kind in CHANGES if kind in comparison)


def selected(master: Json) -> dict[str, list[str]]:
    """What the run was asked to look at alone, or to leave out: words to ids and categories."""
    selection = master.get("selection") or {}
    return {word: list(map(words, selection[word])) for word in ("only", "skip", "disabled") if selection.get(word)}


def not_audited(master: Json) -> list[tuple[str, str]]:
    """Name and reason of each host of which nothing is known."""
    missing = (host for host in master["hosts"] if host["state"] != "audited")
    return [(visible(host["name"]), words(host.get("reason") or "no reason")) for host in missing]


def by_host(places: Places) -> dict[str, list[str]]:
    """The objects of each host in words; none stands for the host itself."""
    hosts: dict[str, list[str]] = {}
    for host, target in places:
        objects = hosts.setdefault(visible(host), [])
        if target["type"] != "host":
            objects.append(object_name(target))
    return hosts


def score_words(score: Json) -> str:
    """The figure with the fraction behind it."""
    if score["value"] is None:
        return "none, for nothing applies"
    text = f"{score['value']:g} of 100, from {score['passed']:.10g} of {score['applicable']:.10g} points"
    if score["capped"]:
        text += ", capped because a critical control fails"
    if score["fixable_now"] is not None:
        text += f"; {score['fixable_now']:g} of 100 of what can be fixed now"
    return text


def waiver_words(waiver: Json) -> str:
    """Why, who, until when, where it is written, and what it covers up."""
    facts = [waiver.get("owner") or "no owner", f"expires {waiver.get('expires')}", waiver.get("ticket")]
    if waiver.get("state"):
        facts.append(f"otherwise {state_words(waiver['state'])}")
    return words(f"{waiver.get('reason') or 'no reason'} ({', '.join(str(fact) for fact in facts if fact)})")


def waiver_scope(waiver: Json) -> str:
    """The hosts, guests and objects that a waiver is meant for."""
    kinds = ("hosts", "guests", "objects")
    scope = [f"{kind} {', '.join(map(str, waiver[kind]))}" for kind in kinds if waiver.get(kind)]
    return words(", ".join(scope) or "all hosts")


def waiver_found(waiver: Json) -> str:
    """What a listed waiver was good for in this run."""
    if waiver.get("why"):
        return words(waiver["why"])
    number = waiver.get("findings")
    return "" if number is None else f"{number} {'finding' if number == 1 else 'findings'}"
