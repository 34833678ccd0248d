# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _history
from ansible_collections.hypervisor.hardening.plugins.module_utils._former import Kind
from ansible_collections.hypervisor.hardening.plugins.module_utils._history import History, SelectionError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Entry


def history(changes: str, now: str) -> History:
    """``ab bc cb<1``: a became b, b became c, then c became b again, which took the change number 1 back."""
    entries = []
    for number, word in enumerate(changes.split()):
        undone = word.partition("<")[2]
        entries.append(Entry(str(number), "", "", "", "value", "x", word[0], word[1], undone))
    return History("x", Kind(), tuple(entries), now)


@pytest.mark.parametrize(
    ("changes", "now", "standing", "states"),
    [
        ("ab", "b", "0", "in_force"),
        ("ab bc", "c", "0 1", "in_force in_force"),
        # Recorded and then killed; or somebody else put it back, and nothing is lost either.
        ("ab", "a", "", "not_made"),
        ("ab bc", "b", "0", "in_force not_made"),
        ("ab ab", "b", "1", "not_made in_force"),
        ("ab bc bc", "b", "0", "in_force not_made not_made"),
        # Somebody else.
        ("ab", "x", "0", "drifted"),
        ("ab xc", "c", "0 1", "drifted in_force"),
        ("ab bc", "x", "0 1", "in_force drifted"),
        # Put back, the last one, both, and one after the other.
        ("ab ba<0", "a", "", "put_back in_force"),
        ("ab bc cb<1", "b", "0", "in_force put_back in_force"),
        ("ab bc ca<0", "a", "", "put_back put_back in_force"),
        ("ab bc cb<1 ba<0", "a", "", "put_back put_back put_back in_force"),
        # Changed again after it, by us, or by somebody else before.
        ("ab ba<0 ac", "c", "2", "put_back in_force in_force"),
        ("ab ba<0 xc", "c", "2", "put_back drifted in_force"),
        # The way back taken back, and again.
        ("ab ba<0 ab<1", "b", "0", "in_force put_back in_force"),
        ("ab ba<0 ab<1 ba<0", "a", "", "put_back put_back put_back in_force"),
        # Killed on the way back, and finished by the next.
        ("ab ba<0", "b", "0", "in_force not_made"),
        ("ab ba<0 ba<0", "a", "", "put_back not_made in_force"),
    ],
)
def test_what_stands(changes: str, now: str, standing: str, states: str) -> None:
    found = history(changes, now)
    assert [entry.name for entry in found.standing()] == standing.split()
    assert list(found.states().values()) == states.split()


@pytest.mark.parametrize(
    ("changes", "now", "since", "standing"),
    [
        ("ab bc cd", "d", "1", "1 2"),
        ("ab bc cd", "d", "3", ""),
        # Both are in it: they cancel each other.
        ("ab bc cb<1", "b", "1", ""),
        # The way back alone is a change like another.
        ("ab bc cb<1", "b", "2", "2"),
        ("ab ba<0 ab<1", "b", "2", "2"),
        ("ab ba<0 ab<1", "b", "1", ""),
        ("ab bc ca<0 ad", "d", "1", "1 2 3"),
    ],
)
def test_what_stands_since_a_change(changes: str, now: str, since: str, standing: str) -> None:
    assert [entry.name for entry in history(changes, now).standing(since)] == standing.split()


@pytest.mark.parametrize(
    ("changes", "now", "departure"),
    [
        ("ab bc", "c", None),
        ("ab bc", "x", ("1", None)),
        ("ab xc", "c", ("0", "1")),
        ("ab xc", "y", ("1", None)),
        ("ab bc cb<1 bd", "d", None),
        ("ab bc cb<1 xd", "d", ("2", "3")),
    ],
)
def test_where_somebody_else_changed_it(changes: str, now: str, departure: tuple[str, str | None] | None) -> None:
    found = history(changes, now)
    told = found.departure(found.entries[0])
    assert (told and (told[0].name, told[1] and told[1].name)) == departure


def test_only_what_comes_after_the_first_selected_one_counts() -> None:
    found = history("ab xc cd", "d")
    assert found.departure(found.entries[1]) is None


@pytest.mark.parametrize(
    ("since", "beginning"),
    [
        ("2026-01-31T23:59:00Z", "20260131T235900"),
        ("2026-01-31 23:59:01", "20260131T235901"),
        ("2026-01-31 23:59:01+00:00", "20260131T235901"),
        ("2026-01-31T23:59", "20260131T235900"),
        ("20260131T235902Z", "20260131T235902"),
        ("20260131T235900.123456789-4711.json", "20260131T235900.123456789-4711.json"),
    ],
)
def test_moments(since: str, beginning: str) -> None:
    assert _history.beginning(since) == beginning
    assert _history.beginning("2026-01-31T23:59:00Z") <= "20260131T235900.000000001-1.json"


@pytest.mark.parametrize("since", ["yesterday", "2026-01-31", "2026-01-31T23:59:00+01:00", "../loaded.json", " "])
def test_what_is_no_moment(since: str) -> None:
    with pytest.raises(SelectionError, match="is no moment"):
        _history.beginning(since)
