# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of the weaknesses of running guests."""

from __future__ import annotations

import typing as t


def weakness_lines(guests: t.Iterable[dict[str, t.Any]], only: t.Collection[str] | None = None) -> list[str]:
    """A line for each weakness: guest, fact, observed and expected value, made ``visible``.

    :param guests: as ``guest_confinement_info`` returns them.
    :param only: weakness ids to tell; None for all.
    """
    return [
        visible(
            f"{guest['name']} (pid {guest['pid']}): {weakness['id']}: "
            f"observed {weakness['observed']}, expected {weakness['expected']}"
        )
        for guest in guests
        for weakness in guest["weaknesses"]
        if only is None or weakness["id"] in only
    ]


def visible(text: str) -> str:
    """Text with escapes for what a terminal acts on and does not show: control characters, and those that turn the
    direction of writing. Whoever names a guest could otherwise rearrange the line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
