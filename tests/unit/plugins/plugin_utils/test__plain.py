# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import typing as t
from collections import OrderedDict

import pytest
from ansible.template import Templar, trust_as_template

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain


class Text(str):
    """As Ansible's texts are: of a type of their own."""


class Number(int):
    pass


def test_makes_what_json_has() -> None:
    made = plain(OrderedDict({Text("a"): (Text("b"), Number(1), 1.5, True, None), "c": {"d": []}}))
    assert made == {"a": ["b", 1, 1.5, True, None], "c": {"d": []}}
    assert [type(one) for one in (made, *made, made["a"], *made["a"])] == [
        dict, str, str, list, str, int, float, bool, type(None),
    ]  # fmt: skip


def test_dates_stay() -> None:
    assert plain([datetime.date(2026, 11, 21)]) == [datetime.date(2026, 11, 21)]


def test_what_ansible_fills_in_late_is_filled_in() -> None:
    variables = {"facts": {"guests": [{"name": trust_as_template("{{ 'we' ~ 'b' }}")}]}, "seen": None}
    kept: list[t.Any] = []

    def keep(value: t.Any) -> str:
        kept.append(plain(value))
        return "kept"

    templar = Templar(variables=variables)
    templar.environment.filters["keep"] = keep
    assert templar.template(trust_as_template("{{ facts | keep }}")) == "kept"
    assert kept == [{"guests": [{"name": "web"}]}]
    assert kept[0]["guests"][0]["name"].__class__ is str


@pytest.mark.parametrize("value", [{1, 2}, b"x", object()])
def test_refuses_anything_else(value: t.Any) -> None:
    with pytest.raises(TypeError, match="is neither text, number"):
        plain({"a": [value]})
