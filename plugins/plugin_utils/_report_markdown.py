# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as Markdown, for tickets and merge requests.

What a host said stands in code spans: there no name is a link, a picture, a mention of a person or markup. What the
rules say is escaped.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    SECTIONS,
    WAIVERS,
    Alike,
    Group,
    Json,
    by_host,
    changed,
    changes_counted,
    fix,
    grouped,
    not_audited,
    require,
    score_words,
    selected,
    shortened,
    state_words,
    waiver_found,
    waiver_scope,
    waiver_words,
    words,
)

_STATES = {
    "fail": "Fail",
    "pending": "Pending",
    "unknown": "Unknown",
    "waived": "Waived",
    "manual": "Manual",
    "pass": "Pass",
    "not_applicable": "N/A",
}
_LIMIT = 300


def render(master: Json) -> str:
    """What asks for a person, in GitHub's dialect of CommonMark, which most trackers read.

    What passes and what does not apply is only counted.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    origin = f"{code(master['generated'])}, hypervisor.hardening {code(master['collection'])}"
    lines = [
        f"# Audit of {len(master['hosts'])} {'host' if len(master['hosts']) == 1 else 'hosts'}",
        "",
        f"Level {code(master['level'])}, {origin}.",
        *_selection(master),
        *_totals(master),
        *_waivers(master),
        *(line for title, states in SECTIONS for line in _section(title, master, states)),
        *_comparison(master),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is; not for the beginning of a line, nor for what names people."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;")):
        text = text.replace(character, entity)
    # An underscore within a word is none of Markdown's.
    return re.sub(r"([\\`*\[\]~|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", text)


def code(value: t.Any) -> str:
    """A code span that shows the value, cut if it is very long, and ends where it should, in a table too.

    In a table a bar ends the cell even within a code span, and parsers differ in how to escape it there: it is shown as
    the escape ``\\x7c``.
    """
    text = shortened(words(value), _LIMIT).replace("|", "\\x7c")
    if not text:
        return "(empty)"
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    # One blank on each side goes away again (CommonMark, code spans).
    padding = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def _selection(master: Json) -> list[str]:
    chosen = [f"{word} {', '.join(map(code, values))}" for word, values in selected(master).items()]
    return ["", f"Selection: {'; '.join(chosen)}."] if chosen else []


def _totals(master: Json) -> list[str]:
    score = master["score"]
    rows = [_row("Host", "Score", *_STATES.values()), _row("---", *["---:"] * (len(_STATES) + 1))]
    for host in master["hosts"]:
        if host["state"] == "audited":
            rows.append(_counted(code(host["name"]), host))
        else:
            rows.append(_row(code(host["name"]), "not audited", *[""] * len(_STATES)))
    missing = [f"- {code(name)}: {code(reason)}" for name, reason in not_audited(master)]
    if len(master["hosts"]) != 1:
        rows.append(_counted("all", master))
    return [
        "",
        *rows,
        "",
        f"Score: {score_words(score)}.",
        "",
        f"Formula: {escaped(words(score.get('formula') or 'not told'))}",
        *(["", f"## Not audited ({len(missing)})", "", *missing] if missing else []),
    ]


def _counted(name: str, host: Json) -> str:
    value = host["score"]["value"]
    return _row(name, "-" if value is None else f"{value:g}", *(str(host["counts"].get(state, 0)) for state in _STATES))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _waivers(master: Json) -> list[str]:
    lines = []
    for kind, title in WAIVERS:
        entries = master["waivers"].get(kind) or []
        if entries:
            lines += ["", f"## {title} ({len(entries)})", ""]
        lines += [
            f"- {code(entry['rule'])}, {code(waiver_scope(entry))}: {code(waiver_words(entry))}"
            + (f"; {escaped(waiver_found(entry))}" if waiver_found(entry) else "")
            for entry in entries
        ]
    return lines


def _section(title: str, master: Json, states: tuple[str, ...]) -> list[str]:
    groups = grouped(master, states)
    number = sum(len(places) for group in groups for places in group.alike.values())
    return ["", f"## {title} ({number})", *(line for group in groups for line in _group(group))] if groups else []


def _group(group: Group) -> list[str]:
    rule = group.rule
    heading = f"{rule['severity']}: {escaped(words(rule['code']))} {escaped(words(rule['title']))} ({code(group.id)})"
    lines = ["", f"### {heading}", ""]
    for alike, places in group.alike.items():
        lines.append(f"- **{state_words(alike.state, alike.pending)}**: {_places(by_host(places))}")
        lines += [f"  - {detail}" for detail in _details(alike)]
    told = [("Why", rule["why"]), ("Fix", fix(rule)), ("Danger", rule.get("breaks"))]
    lines += [f"- {label}: {escaped(words(text))}" for label, text in told if text]
    references = rule.get("references")
    return [*lines, f"- Sources: {', '.join(map(code, references))}"] if references else lines


def _places(hosts: dict[str, list[str]]) -> str:
    return ", ".join(
        f"{code(host)} ({', '.join(map(code, objects))})" if objects else code(host) for host, objects in hosts.items()
    )


def _details(alike: Alike) -> list[str]:
    details = []
    if alike.state in ("fail", "pending", "waived"):
        details.append(f"observed {code(alike.observed)}, expected {code(alike.expected)}")
    if alike.reason:
        details.append(f"reason: {code(alike.reason)}")
    if alike.sources:
        details.append(f"evidence: {', '.join(map(code, alike.sources))}")
    if alike.waiver:
        details.append(f"waiver: {code(waiver_words(dict(alike.waiver)))}")
    return details


def _comparison(master: Json) -> list[str]:
    comparison = master["comparison"]
    if comparison is None:
        return []
    lines = ["", f"## Since the audit of {code(comparison['with'])}", "", f"{changes_counted(comparison)}.", ""]
    lines += [
        f"- {change.kind}: {code(change.rule)}, {change.before} to {change.after}: {_places(by_host(change.places))}"
        for change in changed(comparison)
    ]
    hosts = comparison.get("hosts") or {}
    for kind, label in (("new", "hosts audited now only"), ("gone", "hosts audited then only")):
        if hosts.get(kind):
            lines.append(f"- {label}: {', '.join(map(code, hosts[kind]))}")
    return lines
