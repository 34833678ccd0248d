# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as JSON has them, whatever Ansible wraps around them."""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Mapping


def plain(value: t.Any) -> t.Any:
    """Dictionaries, lists, text, numbers, booleans and None of exactly those types; dates stay dates.

    Ansible's containers fill in templates when they are read, and its texts carry where they came from.

    :raises TypeError: anything else.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int or kind is float:
        return value
    if isinstance(value, Mapping):
        return {_text(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, str):
        return _text(value)
    for number in (int, float):
        if isinstance(value, number):
            return number(value)
    if isinstance(value, datetime.date):
        return value
    raise TypeError(f"A value of the type {kind.__name__} is neither text, number, boolean, list nor dictionary.")


def _text(value: t.Any) -> t.Any:
    return str.__str__(value) if isinstance(value, str) else value
