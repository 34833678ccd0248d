# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fact is on which hosts are compared, and how it is read from the facts of a host."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

Facts = Mapping[str, t.Any]
Needs = dict[Hashable, list[str]]
"""What guests of a host need there, and which of them."""


class Unknown(Exception):
    """The facts of a host do not tell; the message says why."""


def alike(_source: t.Any, _destination: t.Any) -> str:
    return ""


@dataclass(frozen=True)
class Fact:
    """A value of each host, and what a difference does to a guest that moves.

    ``libvirt`` is what libvirt does about it: C it checks and refuses, P in part or late, N it does not check.
    ``read(facts, now)`` raises Unknown. ``breaks(source, destination)`` says what happens to a guest that moves between
    two hosts with these values, or nothing. ``relabel`` sees the values of all hosts, where one alone says nothing.
    """

    id: str
    title: str
    severity: str
    libvirt: str
    read: Callable[[Facts, float], Hashable]
    breaks: Callable[[t.Any, t.Any], str]
    remedy: str
    shown: Callable[[t.Any], str] = str
    relabel: Callable[[dict[str, Hashable]], dict[str, Hashable]] | None = None


@dataclass(frozen=True)
class Need:
    """What guests need, and what a host offers.

    ``needs(facts)`` and ``offers(facts)`` raise Unknown. ``lacks(need, offer)`` says what happens to a guest with that
    need on a host with that offer, or nothing.
    """

    id: str
    title: str
    severity: str
    libvirt: str
    needs: Callable[[Facts], Needs]
    offers: Callable[[Facts], Hashable]
    lacks: Callable[[t.Any, t.Any], str]
    remedy: str
    shown: Callable[[t.Any], str] = str


def at(facts: Facts, *path: str) -> t.Any:
    """The value at a path.

    :raises Unknown: the section could not be collected, the value is null, or it is not there.
    """
    found: t.Any = facts
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
        if found is None or (isinstance(found, dict) and len(found) == 1 and "error" in found):
            raise Unknown(_why(facts, path, found))
    return found


def _why(facts: Facts, path: tuple[str, ...], found: t.Any) -> str:
    """The reason that the section itself gives, where it gives one."""
    section = facts.get(path[0])
    if isinstance(found, dict):
        return f"{path[0]}: {found['error']}"
    if not isinstance(section, dict):
        return f"the facts have no {path[0]}"
    if isinstance(section.get("reason"), str) and section["reason"]:
        return f"{'.'.join(path)}: {section['reason']}"
    unread = section.get("unread")
    entries = [entry for entry in unread if isinstance(entry, dict)] if isinstance(unread, list) else []
    told = [entry for entry in entries if entry.get("path") == path[-1]] or entries[:1]
    return f"{'.'.join(path)}: {told[0].get('reason')}" if told else f"{'.'.join(path)} is not known"


def optional(facts: Facts, *path: str) -> t.Any:
    """The value at a path, None where there is none.

    :raises Unknown: what holds it could not be collected.
    """
    holder = at(facts, *path[:-1])
    return holder.get(path[-1]) if isinstance(holder, dict) else None


def entries(facts: Facts, *path: str) -> list[Mapping[str, t.Any]]:
    """The dictionaries of a list at a path.

    :raises Unknown: there is no such list.
    """
    found = at(facts, *path)
    if not isinstance(found, list):
        raise Unknown(f"{'.'.join(path)} is no list")
    return [entry for entry in found if isinstance(entry, dict)]


def guests(facts: Facts) -> list[str]:
    """The names of the running guests; none where they could not be collected."""
    found = facts.get("guests")
    return [str(one.get("name")) for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def listed(values: t.Iterable[t.Any]) -> str:
    """Values in words."""
    return ", ".join(str(value) for value in values) or "none"
