# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of a survey: an argument spec accepts them as strings, and a filter then gets them as they came."""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.common.validation import check_type_dict


def words(value: str | t.Iterable[str] | None) -> list[str]:
    """A list, or a string that holds one as JSON or as words between commas, blanks or line ends.

    None and an empty string are an empty list.
    """
    if not isinstance(value, str):
        return list(value or ())
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
        return parsed
    return value.replace(",", " ").split()


def mapping(name: str, value: str | t.Mapping[str, t.Any] | None) -> dict[str, t.Any]:
    """A dictionary, or a string that holds one as JSON or as key=value; None and an empty string are an empty one.

    :raises TypeError: anything else; the message names ``name`` and holds no value, which may be a password.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    try:
        return dict(check_type_dict(value))
    except TypeError:
        raise TypeError(f"{name} is no dictionary, neither by itself nor as JSON or key=value.") from None
