# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison as one HTML file in the looks of the audit's: no request, no script, all of it for a keyboard."""

from __future__ import annotations

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity_words import Json, in_template
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_html import (
    PARTS,
    _hash,
    _part,
    moment,
    visible,
)


def render(master: Json) -> str:
    """The page. Its style is fixed by a hash in its content security policy, which refuses all else; what the master
    says is text there, whatever it holds."""
    style = _part("page.css")
    environment = Environment(
        loader=FileSystemLoader(PARTS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, moment=moment)
    page: str = environment.get_template("parity.html.j2").render(
        master=master, parity=master, style=Markup(style), style_hash=_hash(style), **in_template()
    )
    return page
