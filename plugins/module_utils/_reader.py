# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files of the kernel and of /etc, read for a section of facts; what cannot be read is noted beside them."""

from __future__ import annotations

import typing as t

from ._host import Host

_TRUE, _FALSE = {"y", "1", "on", "yes", "true"}, {"n", "0", "off", "no", "false"}


class Reader:
    """Reads files of one host. ``unread`` collects ``{"path", "reason"}`` of those that are there and resist."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.unread: list[dict[str, str]] = []

    def text(self, path: str) -> str | None:
        """A file without the blanks at its ends; None where there is none, or it cannot be read (noted)."""
        try:
            found = self.host.text_optional(path)
        except OSError as error:
            self.note(path, error.strerror or str(error))
            return None
        return None if found is None else found.strip()

    def number(self, path: str) -> int | None:
        """As ``text``, for a file that holds one decimal number; another content is noted."""
        found = self.text(path)
        if found is None:
            return None
        value = integer(found)
        if value is None:
            self.note(path, f"holds no number: {found[:40]!r}")
        return value

    def truth(self, path: str) -> bool | None:
        """As ``text``, for a file that holds a switch as the kernel writes it (Y, N, 1, 0)."""
        found = self.text(path)
        return None if found is None else truth(found)

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted; none where it cannot be read (noted)."""
        try:
            return self.host.list(path)
        except OSError as error:
            self.note(path, error.strerror or str(error))
            return []

    def note(self, path: str, reason: str) -> None:
        self.unread.append({"path": path, "reason": reason})


def truth(text: str) -> bool | None:
    """A switch in one of the spellings of the kernel's kstrtobool() or of a configuration file; None for another."""
    word = text.lower()
    return True if word in _TRUE else False if word in _FALSE else None


def integer(text: str) -> int | None:
    """A decimal number, with a sign or without; None for anything else."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdigit() else None


def scalar(text: str) -> t.Any:
    """A number where it is one, the text otherwise."""
    value = integer(text)
    return text if value is None else value
