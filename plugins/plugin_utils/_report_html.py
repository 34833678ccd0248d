# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as one HTML file that asks for nothing else: no request, no library, readable without scripts too."""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _report_html_data as data
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._expected import told
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity_words import in_template
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import (
    CHANGES,
    SEVERITIES,
    STATES,
    WAIVERS,
    Json,
    changed,
    fix,
    require,
)

PARTS = Path(__file__).with_name("report_html")
# As many findings as a browser lays out at once without a person noticing; they are for readers without scripts.
STATIC_FINDINGS = 500
STATIC_CHANGES = 100


def render(master: t.Any) -> str:
    """The page.

    :param master: what ``_audit.audit`` returns.
    :raises ReportError: it is no master, or one of another version.
    :return: HTML, to be written as UTF-8. What its style and script are is fixed by hashes in its content security
        policy, which refuses all else; what the master says is text there, whatever it holds.
    """
    master = require(master)
    style, script = _part("page.css"), _part("page.js")
    environment = Environment(
        loader=FileSystemLoader(PARTS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, plain=plain, moment=moment, stacked=data.stacked, counted=data.counted)
    static = sum(finding["state"] not in data.COLLAPSED for host in master["hosts"] for finding in host["findings"])
    page: str = environment.get_template("page.html.j2").render(
        master=master,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(data.embedded(data.compact(master))),
        signs=data.SIGNS,
        states=STATES,
        severities=SEVERITIES,
        collapsed=data.COLLAPSED,
        categories=data.categories(master),
        rows=data.matrix(master),
        failures=data.failures_by_severity(master),
        not_audited=data.not_audited(master),
        rules=data.open_rules(master),
        waiver_titles=WAIVERS,
        waiver_words=data.WAIVER,
        fix=fix,
        judged=data.judged,
        number=number,
        static=static <= STATIC_FINDINGS,
        **_compared(master),
        parity=master.get("migration"),
        **in_template(),
    )
    return page


def _compared(master: Json) -> Json:
    """What the page says of an earlier run. ``earlier`` and ``now`` are counts by state of what both runs audited."""
    if not master["comparison"]:
        return {}
    by_host = data.earlier_counts(master)
    now = [data.judged(host["counts"]) for host in master["hosts"] if host["name"] in by_host]
    changes = {kind: [change for change in changed(master["comparison"]) if change.kind == kind] for kind in CHANGES}
    return {
        "earlier_by_host": by_host,
        "earlier": sum(by_host.values(), Counter()),
        "now": sum(now, Counter()),
        "changes": changes,
        "changes_limit": STATIC_CHANGES,
    }


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def plain(text: str) -> str:
    """For attributes: a character that cannot be seen is told by its number."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else f"[U+{ord(one):04X}]" for one in text)


def visible(text: t.Any, *, lines: bool = False) -> Markup:
    """Text from outside, apart from the direction of what is around it; no character in it is invisible.

    :param lines: whether the text may have several lines; a name that has is telling stories.
    """
    text = text if isinstance(text, str) else told(text)
    element = '<bdi class="long">' if len(text) > data.LONG else "<bdi>"
    if text.isprintable():
        return Markup(f"{element}{escape(text)}</bdi>")
    parts = [
        str(escape(one))
        if one.isprintable() or (lines and one in "\n\t")
        else f'<span class="code-point">U+{ord(one):04X}</span>'
        for one in text
    ]
    return Markup(f"{element}{''.join(parts)}</bdi>")


def number(value: float) -> str:
    """1,234 or 1,234.5."""
    return f"{value:,.1f}".removesuffix(".0")


def moment(text: str) -> str:
    """``2026-11-21T06:50:00Z`` as "2026-11-21 06:50 UTC"; anything else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:Z|\+00:00)", text)
    return f"{found[1]} {found[2]} UTC" if found else plain(text)
