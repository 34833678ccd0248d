# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the reports of a comparison put into words what the master says."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import shortened, visible, words

Json = dict[str, t.Any]

LIBVIRT = {
    "C": "libvirt checks this and refuses",
    "P": "libvirt checks this in part, or late",
    "N": "libvirt does not check this",
}
LIMIT = 30
"""As many values and directions of a finding are on a page."""
_HOSTS = 6
_NAME = 40


def counted(number: int, noun: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def hosts(names: list[str]) -> str:
    """The first names, and how many more there are."""
    told = ", ".join(shortened(visible(name), _NAME) for name in names[:_HOSTS])
    return f"{told} and {len(names) - _HOSTS} more" if len(names) > _HOSTS else told


def differs(finding: Json) -> str:
    """``1 of 51 differs``; the odd ones are those that most hosts are not like."""
    odd, known = len(finding["odd"]), finding["known"]
    return f"{odd} of {known} {'differs' if odd == 1 else 'differ'}"


def some_guests(guests: Json) -> str:
    """How many guests are concerned, and the first of them."""
    named = [f"{visible(one['guest'])} on {visible(one['host'])}" for one in guests["first"][:_HOSTS]]
    more = guests["total"] - len(named)
    return f"{guests['total']} concerned: {', '.join(named)}" + (f" and {more} more" if more > 0 else "")


def directions(finding: Json) -> t.Iterator[tuple[str, str]]:
    """Each way in which something breaks, and what happens then."""
    values = finding["values"]
    for one in finding["directions"]:
        to = _places(values, one["to"])
        if "need" in one:
            yield f"{words(one['need'])} from {hosts(one['from'])} to {to}", one["happens"]
        elif one["from"] == one["to"] and len(one["from"]) == 1:
            yield f"among {to}", one["happens"]
        elif one["from"] == one["to"]:
            yield f"either way between {to}", one["happens"]
        elif len(one["from"]) == len(values) > 1:
            yield f"from any host to {to}", one["happens"]
        else:
            yield f"from {_places(values, one['from'])} to {to}", one["happens"]


def _places(values: list[Json], numbers: list[int]) -> str:
    """Hosts with these values: by name where they are few, else by the value."""
    return "; ".join(
        hosts(values[number]["hosts"])
        if len(values[number]["hosts"]) <= 2
        else f"{len(values[number]['hosts'])} hosts with {shortened(words(values[number]['value']) or 'none', _NAME)}"
        for number in numbers
    )


def classes_named(matrix: Json) -> list[tuple[str, Json]]:
    """The classes of the matrix with a letter each, and one for hosts that nothing is known of."""
    return [(chr(ord("A") + number) if one["known"] else "?", one) for number, one in enumerate(matrix["classes"])]


def in_template() -> dict[str, t.Any]:
    """What ``parity_groups.html.j2`` needs beside ``parity``, the master of a comparison."""
    return {
        "limit": LIMIT,
        "libvirt": LIBVIRT,
        "classes": classes_named,
        "counted": counted,
        "differs": differs,
        "directions": lambda finding: list(directions(finding)),
        "some_guests": some_guests,
        "places": _numbers,
    }


def _numbers(group: Json) -> dict[str, t.Any]:
    """The number of the finding that an id of the matrix leads to: what differs comes before what is unknown."""
    return {one["id"]: number for number, one in reversed(list(enumerate(group["findings"], 1)))}
