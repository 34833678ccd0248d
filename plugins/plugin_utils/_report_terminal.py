# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as lines for a terminal: what asks for a person, the gravest first, and the figures."""

from __future__ import annotations

import unicodedata

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    SECTIONS,
    WAIVERS,
    Alike,
    Group,
    Json,
    Places,
    by_host,
    changed,
    changes_counted,
    fix,
    gravity,
    grouped,
    not_audited,
    require,
    score_words,
    selected,
    shortened,
    state_words,
    visible,
    waiver_found,
    waiver_scope,
    waiver_words,
    words,
)

_COLUMNS = {
    "score": "SCORE",
    "fail": "FAIL",
    "pending": "PENDING",
    "unknown": "UNKNOWN",
    "waived": "WAIVED",
    "manual": "MANUAL",
    "pass": "PASS",
    "not_applicable": "N/A",
}
_NAME = 40
_VALUE = 400
# Lines with a label begin after so many blanks, and their text so many columns later.
_DETAIL = 4
_LABEL = 12


def render(master: Json, width: int = 100) -> list[str]:
    """What a person reads first; each line, but those of the table, at most ``width`` columns wide.

    What passes and what does not apply is only counted. All else is named.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    sections = (
        _score(master),
        _not_audited(master),
        _waivers(master),
        *(_groups(title, master, states) for title, states in SECTIONS),
        _comparison(master),
    )
    lines = [*wrapped(_headline(master), width), "", *_totals(master)]
    for section in filter(None, sections):
        lines += ["", *(part for line in section for part in wrapped(line, width))]
    return lines


def wrapped(line: str, width: int) -> list[str]:
    """The line in parts of at most ``width`` columns, those that follow indented to where its own text begins."""
    if columns(line) <= width:
        return [line]
    blanks = len(line) - len(line.lstrip())
    label = line.find("  ", blanks, _DETAIL + _LABEL)
    end = blanks if label < 0 else len(line) - len(line[label:].lstrip())
    head, margin = line[:end], " " * (blanks + 2 if label < 0 else end)
    parts, current = [], head
    for word in line[len(head) :].split():
        glue = "" if current in (head, margin) else " "
        if columns(f"{current}{glue}{word}") <= width:
            current += glue + word
            continue
        if glue:
            parts.append(current)
            current = margin
        while columns(current + word) > width:
            fitting = _fitting(word, width - columns(current))
            parts.append(current + fitting)
            current, word = margin, word[len(fitting) :]
        current += word
    return [*parts, current]


def _fitting(text: str, width: int) -> str:
    end = 1
    while end < len(text) and columns(text[: end + 1]) <= width:
        end += 1
    return text[:end]


def columns(text: str) -> int:
    """How many columns a terminal takes for it (Unicode Standard Annex 11; what combines takes none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _name(text: str) -> str:
    return shortened(visible(text), _NAME)


def _headline(master: Json) -> str:
    hosts, missing = len(master["hosts"]), len(not_audited(master))
    text = f"Audit of {hosts} {'host' if hosts == 1 else 'hosts'}"
    if missing:
        text += f" ({missing} not audited)"
    text += f" at level {words(master['level'])}, {words(master['generated'])}"
    chosen = [f"{word} {', '.join(values)}" for word, values in selected(master).items()]
    return f"{text}. Selection: {'; '.join(chosen)}." if chosen else f"{text}."


def _totals(master: Json) -> list[str]:
    rows = [(_name(host["name"]), host) for host in master["hosts"]]
    if len(rows) != 1:
        rows.append((f"all {len(rows)}", {"state": "audited", **master}))
    names = max(columns(name) for name in ("HOST", *(name for name, _host in rows)))
    lines = ["  ".join((_padded("HOST", names), *_COLUMNS.values()))]
    for name, host in rows:
        if host["state"] == "audited":
            figures = {**host["counts"], "score": host["score"]["value"]}
            cells = [_figure(figures.get(key)).rjust(len(title)) for key, title in _COLUMNS.items()]
        else:
            cells = [state_words(words(host["state"]))]
        lines.append("  ".join((_padded(name, names), *cells)))
    return lines


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"


def _score(master: Json) -> list[str]:
    score = master["score"]
    return [f"Score: {score_words(score)}.", f"Formula: {words(score.get('formula') or 'not told')}"]


def _not_audited(master: Json) -> list[str]:
    missing = not_audited(master)
    lines = [f"  {shortened(name, _NAME)}: {shortened(reason, _VALUE)}" for name, reason in missing]
    return [f"Not audited ({len(missing)})", *lines] if missing else []


def _waivers(master: Json) -> list[str]:
    lines = []
    for kind, title in WAIVERS:
        entries = sorted(master["waivers"].get(kind) or (), key=lambda entry: _waiver_gravity(master, entry))
        if entries:
            lines.append(f"{title} ({len(entries)})")
        lines += [
            f"  {words(entry['rule'])}, {shortened(waiver_scope(entry), _VALUE)}: "
            + shortened(waiver_words(entry), _VALUE)
            + (f"; {waiver_found(entry)}" if waiver_found(entry) else "")
            for entry in entries
        ]
    return lines


def _waiver_gravity(master: Json, entry: Json) -> tuple[int, str, str]:
    rule = master["rules"].get(entry["rule"])
    return gravity(entry["rule"], rule) if rule else (len(master["rules"]), "", str(entry["rule"]))


def _groups(title: str, master: Json, states: tuple[str, ...]) -> list[str]:
    groups = grouped(master, states)
    number = sum(len(places) for group in groups for places in group.alike.values())
    return [f"{title} ({number})", *(line for group in groups for line in _group(group))] if groups else []


def _group(group: Group) -> list[str]:
    rule = group.rule
    lines = [f"  {words(rule['severity']):<8}  {words(rule['code'])} {visible(group.id)}: {words(rule['title'])}"]
    for alike, places in group.alike.items():
        lines += _details(alike, places)
    repair = fix(rule)
    if _needs_fix(group) and repair:
        lines.append(_labelled("fix", repair))
        if rule.get("breaks"):
            lines.append(_labelled("danger", words(rule["breaks"])))
    return lines


def _needs_fix(group: Group) -> bool:
    """Whether somebody has to change the host, or has to look at what changes it."""
    return any(alike.state in ("fail", "pending") for alike in group.alike)


def _places(hosts: dict[str, list[str]]) -> str:
    return ", ".join(
        f"{shortened(host, _NAME)} ({', '.join(shortened(name, _NAME) for name in objects)})"
        if objects
        else shortened(host, _NAME)
        for host, objects in hosts.items()
    )


def _details(alike: Alike, places: Places) -> list[str]:
    if alike.state in ("fail", "pending", "waived"):
        text = ", ".join(
            f"{label} {shortened(value or 'nothing', _VALUE)}"
            for label, value in (("observed", alike.observed), ("expected", alike.expected))
        )
        if alike.pending:
            text += f", until {alike.pending.replace('_', ' ')}"
    else:
        text = shortened(alike.reason or "no reason", _VALUE)
    lines = [_labelled(alike.state, text), _labelled("on", _places(by_host(places)))]
    if alike.reason and alike.reason not in text:
        lines.append(_labelled("reason", shortened(alike.reason, _VALUE)))
    if alike.sources:
        lines.append(_labelled("where", shortened(", ".join(alike.sources), _VALUE)))
    if alike.waiver:
        lines.append(_labelled("waiver", shortened(waiver_words(dict(alike.waiver)), _VALUE)))
    return lines


def _labelled(label: str, text: str) -> str:
    return f"{' ' * _DETAIL}{label:<{_LABEL - 2}}  {text}"


def _comparison(master: Json) -> list[str]:
    comparison = master["comparison"]
    if comparison is None:
        return []
    lines = [f"Since the audit of {words(comparison['with'])}: {changes_counted(comparison)}"]
    lines += [
        _labelled(change.kind, f"{change.rule}, {change.before} -> {change.after}: {_places(by_host(change.places))}")
        for change in changed(comparison)
    ]
    hosts = comparison.get("hosts") or {}
    for kind, label in (("new", "new host"), ("gone", "lost host")):
        if hosts.get(kind):
            lines.append(_labelled(label, ", ".join(map(_name, hosts[kind]))))
    return lines
