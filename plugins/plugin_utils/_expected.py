# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check expects of the value that its query found."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import equal, version_numbers


class ExpectedError(ValueError):
    """An expectation that is none, or that cannot be held against a value."""


@dataclass(frozen=True, slots=True)
class Expected:
    """``operator`` with what the value is held against; ``param`` names the parameter that it comes from."""

    operator: str
    wanted: t.Any
    param: str | None = None

    @classmethod
    def of(cls, entry: t.Any, params: Mapping[str, t.Any]) -> Expected:
        """Read ``{operator: wanted}``; a wanted ``{param: name}`` is a parameter of the rule.

        :raises ExpectedError: not exactly one known operator, or one with a value that it cannot use.
        """
        if not isinstance(entry, dict) or len(entry) != 1 or not set(entry) <= set(_OPERATORS):
            raise ExpectedError(f"is not exactly one of {', '.join(_OPERATORS)}")
        ((operator, wanted),) = entry.items()
        param = None
        if isinstance(wanted, dict) and set(wanted) == {"param"}:
            param = wanted["param"]
            if param not in params:
                raise ExpectedError(f"the rule has no parameter {param}")
            wanted = params[param]
        _usable(operator, wanted)
        return cls(operator, wanted, param)

    def resolved(self, params: Mapping[str, t.Any]) -> Expected:
        """With the parameter's value as it is now.

        :raises ExpectedError: the operator cannot use it.
        """
        if self.param is None:
            return self
        try:
            _usable(self.operator, params[self.param])
        except ExpectedError as error:
            raise ExpectedError(f"{self.param}: {error}") from error
        return replace(self, wanted=params[self.param])

    def holds(self, value: t.Any) -> bool:
        """Whether the value, which is not null, is as expected.

        :raises ExpectedError: the value is of a type that cannot be told.
        """
        return _OPERATORS[self.operator](value, self.wanted)

    @property
    def words(self) -> str:
        """As a person reads it."""
        if self.operator in ("empty", "not_empty"):
            return {"empty": "nothing", "not_empty": "something"}[self.operator]
        return f"{_WORDS[self.operator]}{told(self.wanted)}"

    @property
    def plain(self) -> dict[str, t.Any]:
        """As the master has it."""
        return {self.operator: self.wanted}


TOLD = 400
"""Characters of a value in a line of a report; the master's ``checks`` have it whole."""


def told(value: t.Any) -> str:
    """A value in a line: text as it is, a list with commas, at most 400 characters."""
    if isinstance(value, str):
        text = value or '""'
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif value is None:
        text = "null"
    elif isinstance(value, (list, tuple)):
        text = ", ".join(told(one) for one in value[: TOLD // 2]) or "nothing"
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {told(one)}" for key, one in value.items()) or "nothing"
    else:
        text = str(value)
    return text if len(text) <= TOLD else f"{text[:TOLD]}…"


def holds_nothing(value: t.Any) -> bool:
    """An empty text, dictionary or list, or a list of nothing else: a projection in a projection makes such.

    :raises ExpectedError: a number or a boolean.
    """
    if isinstance(value, list):
        return all(isinstance(one, list) and holds_nothing(one) for one in value)
    if isinstance(value, (str, dict)):
        return not value
    raise ExpectedError(f"the query found {told(value)}, which can be neither empty nor not")


def _usable(operator: str, wanted: t.Any) -> None:
    if operator in ("one_of", "none_of", "subset_of") and not isinstance(wanted, list):
        raise ExpectedError(f"{operator}: is no list")
    if operator in ("empty", "not_empty") and wanted is not True:
        raise ExpectedError(f"{operator}: is only ever true")
    if operator in ("at_least", "at_most"):
        if isinstance(wanted, str) and not version_numbers(wanted):
            raise ExpectedError(f"{operator}: {wanted!r} is no version")
        if not isinstance(wanted, (int, float, str)) or isinstance(wanted, bool):
            raise ExpectedError(f"{operator}: is neither a number nor a version")
    if operator == "matches":
        try:
            re.compile(wanted)
        except (re.error, TypeError) as error:
            raise ExpectedError(f"matches: is no regular expression: {error}") from error
    if operator == "is" and wanted is None:
        raise ExpectedError("is: null is what could not be read")


def _has(values: t.Iterable[t.Any], wanted: t.Any) -> bool:
    return any(equal(value, wanted) for value in values)


def _single(operator: str, value: t.Any) -> None:
    if isinstance(value, (list, dict)):
        raise ExpectedError(f"{operator} takes a single value, and the query found a {type(value).__name__}")


def _one_of(value: t.Any, wanted: list[t.Any]) -> bool:
    _single("one_of", value)
    return _has(wanted, value)


def _none_of(value: t.Any, wanted: list[t.Any]) -> bool:
    return not any(_has(wanted, one) for one in (value if isinstance(value, list) else [value]))


def _subset_of(value: t.Any, wanted: list[t.Any]) -> bool:
    if not isinstance(value, list):
        raise ExpectedError("subset_of takes a list, and the query found none")
    return all(_has(wanted, one) for one in value)


def _order(operator: str, value: t.Any, wanted: t.Any) -> tuple[t.Any, t.Any]:
    """Both as numbers, or both as versions."""
    if isinstance(wanted, str):
        numbers = version_numbers(str(value))
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and numbers:
            return numbers, version_numbers(wanted)
        raise ExpectedError(f"{operator} takes a version, and the query found {told(value)}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value, wanted
    raise ExpectedError(f"{operator} takes a number, and the query found {told(value)}")


def _at_least(value: t.Any, wanted: t.Any) -> bool:
    have, want = _order("at_least", value, wanted)
    return bool(have >= want)


def _at_most(value: t.Any, wanted: t.Any) -> bool:
    have, want = _order("at_most", value, wanted)
    return bool(have <= want)


def _matches(value: t.Any, wanted: str) -> bool:
    if not isinstance(value, str):
        raise ExpectedError(f"matches takes text, and the query found {told(value)}")
    return re.search(wanted, value) is not None


_OPERATORS: dict[str, Callable[[t.Any, t.Any], bool]] = {
    "is": equal,
    "one_of": _one_of,
    "none_of": _none_of,
    "subset_of": _subset_of,
    "at_least": _at_least,
    "at_most": _at_most,
    "matches": _matches,
    "empty": lambda value, wanted: holds_nothing(value),
    "not_empty": lambda value, wanted: not holds_nothing(value),
}
_WORDS = {
    "is": "",
    "one_of": "one of ",
    "none_of": "none of ",
    "subset_of": "nothing but ",
    "at_least": "at least ",
    "at_most": "at most ",
    "matches": "matches ",
}
