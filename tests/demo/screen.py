# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prints: short, aligned, in colour on a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_TALKS_COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
_BEGUN = time.monotonic()


def paint(text: str, colour: str) -> str:
    return f"\033[{_COLOURS[colour]}m{text}\033[0m" if _TALKS_COLOUR else text


def say(text: str = "") -> None:
    print(text, flush=True)


def chapter(number: int, title: str) -> None:
    clock = paint(f"{time.monotonic() - _BEGUN:6.1f} s", "dim")
    say()
    say(f"{clock}  {paint(f'{number}  {title}', 'bold')}")


def line(text: str) -> None:
    say(f"   {text}")


def short(text: str, width: int = 104) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def diff(text: str) -> None:
    """The lines of a unified diff that were taken away or added."""
    for part in text.splitlines():
        if part.startswith(("+", "-")) and not part.startswith(("+++", "---")):
            line(paint(part, "green" if part.startswith("+") else "red"))


def table(header: tuple[str, ...], body: Sequence[tuple[tuple[str, str], ...]]) -> None:
    """Aligned columns; each cell is its text and its colour ("" for none)."""
    widths = [max(len(header[i]), *(len(row[i][0]) for row in body)) for i in range(len(header))]
    line(paint("   ".join(head.ljust(width) for head, width in zip(header, widths, strict=True)).rstrip(), "dim"))
    for row in body:
        cells = (_padded(text, colour, width) for (text, colour), width in zip(row, widths, strict=True))
        line("   ".join(cells).rstrip())


def _padded(text: str, colour: str, width: int) -> str:
    return (paint(text, colour) if colour else text) + " " * (width - len(text))
