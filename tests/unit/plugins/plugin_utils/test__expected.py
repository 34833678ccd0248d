# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._expected import (
    Expected,
    ExpectedError,
    told,
)


@pytest.mark.parametrize(
    ("expected", "good", "bad"),
    [
        ({"is": 1}, [1, 1.0], [0, True, "1", [1]]),
        ({"is": True}, [True], [1, "true", False]),
        ({"is": False}, [False], [0, "", []]),
        ({"is": []}, [[]], [["a"], ""]),
        ({"one_of": [1, "yes"]}, [1, "yes"], [True, "no", 0]),
        ({"none_of": ["root", 0]}, ["qemu", False, ["a", "b"]], ["root", 0, ["a", "root"]]),
        ({"subset_of": ["a", "b"]}, [["a"], ["b", "a"], []], [["c"], ["a", "c"]]),
        ({"at_least": 2}, [2, 3, 2.5], [1, -1]),
        ({"at_most": 2}, [2, -1], [3]),
        ({"at_least": "9.0"}, ["9.0.0", "10.1", 9], ["8.9.9", "1:7.2"]),
        ({"at_most": "9.0"}, ["9", "8.5"], ["9.0.1", "10.0"]),
        ({"matches": "^a+$"}, ["a", "aa"], ["b", "ab"]),
        ({"empty": True}, ["", [], {}, [[], []], [[], [[]]]], ["a", [""], [0], [None], {"a": 1}]),
        ({"not_empty": True}, ["a", [0], {"a": 1}], ["", [], {}, [[]]]),
    ],
)
def test_holds(expected: t.Any, good: list[t.Any], bad: list[t.Any]) -> None:
    one = Expected.of(expected, {})
    assert [value for value in good if not one.holds(value)] == []
    assert [value for value in bad if one.holds(value)] == []
    assert one.plain == expected


@pytest.mark.parametrize(
    ("expected", "value", "message"),
    [
        ({"one_of": [1]}, [1], "single value"),
        ({"subset_of": ["a"]}, "a", "takes a list"),
        ({"at_least": 1}, "2", "takes a number"),
        ({"at_least": 1}, True, "takes a number"),
        ({"at_least": "1"}, "none", "takes a version"),
        ({"at_most": "1"}, [], "takes a version"),
        ({"matches": "a"}, 1, "takes text"),
        ({"empty": True}, 0, "neither empty nor not"),
        ({"not_empty": True}, False, "neither empty nor not"),
    ],
)
def test_a_value_of_another_kind_is_no_verdict(expected: t.Any, value: t.Any, message: str) -> None:
    with pytest.raises(ExpectedError, match=message):
        Expected.of(expected, {}).holds(value)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (None, "exactly one of is, one_of"),
        ({}, "exactly one of"),
        ({"is": 1, "one_of": [1]}, "exactly one of"),
        ({"like": 1}, "exactly one of"),
        ({"one_of": "root"}, "one_of: is no list"),
        ({"subset_of": {"param": "what"}}, "no parameter what"),
        ({"subset_of": {"param": "number"}}, "subset_of: is no list"),
        ({"at_least": [1]}, "neither a number nor a version"),
        ({"at_least": True}, "neither a number nor a version"),
        ({"at_least": "latest"}, "'latest' is no version"),
        ({"matches": "["}, "no regular expression"),
        ({"matches": 1}, "no regular expression"),
        ({"empty": False}, "only ever true"),
        ({"is": None}, "null is what could not be read"),
    ],
)
def test_refuses_what_is_no_expectation(expected: t.Any, message: str) -> None:
    with pytest.raises(ExpectedError, match=message):
        Expected.of(expected, {"number": 1})


def test_a_parameter_takes_the_operators_value() -> None:
    default = Expected.of({"subset_of": {"param": "operators"}}, {"operators": ["anna"]})
    own = default.resolved({"operators": ["bert"]})
    assert default.holds(["anna"]) and not default.holds(["bert"])
    assert own.holds(["bert"]) and not own.holds(["anna"])
    assert own.plain == {"subset_of": ["bert"]}


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"is": 1}, "1"),
        ({"one_of": ["a", 2, True]}, "one of a, 2, true"),
        ({"none_of": ["root"]}, "none of root"),
        ({"subset_of": []}, "nothing but nothing"),
        ({"at_least": "9.0"}, "at least 9.0"),
        ({"empty": True}, "nothing"),
        ({"not_empty": True}, "something"),
    ],
)
def test_is_told_in_words(expected: t.Any, words: str) -> None:
    assert Expected.of(expected, {}).words == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        (None, "null"),
        (False, "false"),
        ([], "nothing"),
        ([["a"], {"b": 1}], "a, b: 1"),
        ("\x1b[31m\u202e", "\x1b[31m\u202e"),
        ("x" * 10_000, "x" * 400 + "…"),
        (["guest"] * 100_000, ("guest, " * 100)[:400] + "…"),
    ],
)
def test_a_value_in_a_line(value: t.Any, text: str) -> None:
    assert told(value) == text
