# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison as one HTML file in the looks of the audit's: no request, no script, all of it for a keyboard."""

from __future__ import annotations

import typing as t

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._parity_words import (
    LIBVIRT,
    Json,
    classes_named,
    counted,
    differs,
    directions,
    some_guests,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_html import (
    PARTS,
    _hash,
    _part,
    moment,
    visible,
)

LIMIT = 30
"""As many values and directions of a finding are on the page."""


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
        master=master,
        style=Markup(style),
        style_hash=_hash(style),
        limit=LIMIT,
        libvirt=LIBVIRT,
        classes=classes_named,
        counted=counted,
        differs=differs,
        directions=lambda finding: list(directions(finding)),
        some_guests=some_guests,
        places=_places,
    )
    return page


def _places(group: Json) -> dict[str, t.Any]:
    """The number of the finding that an id of the matrix leads to: what differs comes before what is unknown."""
    return {one["id"]: number for number, one in reversed(list(enumerate(group["findings"], 1)))}
