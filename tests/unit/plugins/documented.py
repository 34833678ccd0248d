# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts against the documentation of hypervisor_info: the same keys, and values of the type that is told."""

from __future__ import annotations

import functools
import typing as t

import yaml

from ansible_collections.hypervisor.hardening.plugins.modules import hypervisor_info

_TYPES: dict[str, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
    "raw": object,
}


@functools.cache
def _sections() -> dict[str, t.Any]:
    found: dict[str, t.Any] = yaml.safe_load(hypervisor_info.RETURN)["hypervisor"]["contains"]
    return found


def mismatches(section: str, value: t.Any) -> list[str]:
    """Where facts and documentation differ. A null is always allowed: it says that something could not be read."""
    return list(_differences(section, _sections()[section], value))


def _differences(path: str, told: dict[str, t.Any], value: t.Any, kind: str = "") -> t.Iterator[str]:
    kind = kind or told["type"]
    if value is None:
        return
    if not isinstance(value, _TYPES[kind]) or (kind == "int" and isinstance(value, bool)):
        yield f"{path} is a {type(value).__name__}, not a {kind}"
    elif isinstance(value, list):
        for element in value:
            yield from _differences(f"{path}[]", told, element, told["elements"])
    elif isinstance(value, dict) and "contains" in told:
        for key in sorted(set(told["contains"]) ^ set(value)):
            yield f"{path}.{key} is {'missing' if key in told['contains'] else 'not documented'}"
        for key in set(told["contains"]) & set(value):
            yield from _differences(f"{path}.{key}", told["contains"][key], value[key])
