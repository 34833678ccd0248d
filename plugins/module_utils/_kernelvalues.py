# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running values of the kernel: how they are asked for, changed, and put back if one of them is refused."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal


class KernelError(HardeningError):
    """What is wanted of the kernel cannot be had."""


@dataclass(frozen=True)
class Value:
    """A running value that is to become another one. ``final``: the kernel will not change it again before a boot."""

    name: str
    path: str
    before: str
    after: str
    final: bool = False

    def __str__(self) -> str:
        return f"{self.name} is {self.before} instead of {self.after}"


@dataclass(frozen=True)
class Departure:
    """``name`` will not be as wanted at the next boot, or is not before it, for ``reason``, which says what to do."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Entry:
    """A parameter that was asked for: its running value, what this run makes it, and what the next boot does, by which
    file. None: not known, or the kernel's own default."""

    name: str
    before: str | None
    after: str | None
    boot: str | None
    boot_by: str | None


@dataclass(frozen=True)
class Planned:
    """What one domain of the kernel has to become.

    ``content``: that of our file, None for none; ``overridden``: what the next boot will not, or may not, make as
    wanted; ``waiting``: what only a boot changes.
    """

    entries: tuple[Entry, ...] = ()
    values: tuple[Value, ...] = ()
    content: str | None = None
    left_alone: tuple[Departure, ...] = ()
    overridden: tuple[Departure, ...] = ()
    waiting: tuple[Departure, ...] = ()
    warnings: tuple[str, ...] = ()


def text(value: t.Any) -> str:
    """A value of an option as the kernel takes it: switches are 1 and 0.

    :raises KernelError: it is neither a switch nor a number nor a line of text.
    """
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise KernelError(f"{value!r} is no value of the kernel: it takes true, false, a number, or one line of text.")


def write(host: Host, values: t.Iterable[Value], journal: Journal) -> None:
    """Change running values, journal first; those that cannot be changed back come last.

    :raises KernelError: the kernel refused one. Those before it have their former values again.
    """
    done: list[Value] = []
    for value in sorted(values, key=lambda value: value.final):
        journal.record_value(value.path, value.before, value.after)
        try:
            host.write_kernel(value.path, value.after)
        except OSError as error:
            kept = _put_back(host, reversed(done), journal)
            raise KernelError(
                f"{value.name}: the kernel refused {value.after!r} in {value.path} ({error.strerror}), so it is "
                f"{value.before!r} still. {kept}"
            ) from None
        done.append(value)


def check(host: Host, values: t.Iterable[Value]) -> None:
    """Have the kernel say whether the files can be opened for writing; nothing is written.

    :raises KernelError: one cannot.
    """
    for value in values:
        try:
            host.write_kernel(value.path, value.after, rehearse=True)
        except OSError as error:
            raise KernelError(
                f"{value.name} is {value.before} and cannot be made {value.after}: {value.path} cannot be written "
                f"({error.strerror}). Nothing was done. In a container the kernel is the machine's: run this there."
            ) from None


def _put_back(host: Host, done: t.Iterable[Value], journal: Journal) -> str:
    left = []
    for value in done:
        journal.record_value(value.path, value.after, value.before)
        try:
            host.write_kernel(value.path, value.before)
        except OSError:
            left.append(f"{value.name} is {value.after}")
    if left:
        return f"What was changed before it could not all be changed back: {', '.join(left)}."
    return "What was changed before it is as it was."
