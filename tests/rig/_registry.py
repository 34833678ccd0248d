# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts there are: a file ``host.json`` in the directory of each, written before anything of it is started."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from typing import Any

from ._base import boot_id, cache_dir, scope, start_time

#: What a host.json holds.
Facts = dict[str, Any]


def hosts_dir() -> pathlib.Path:
    """Where the hosts of all scopes are."""
    return cache_dir() / "hosts"


def scope_dir(chosen: str | None = None) -> pathlib.Path:
    """Where the hosts of a scope are, by default of one's own."""
    return hosts_dir() / (chosen or scope())


def scopes_up() -> set[str]:
    """The scopes that have a host."""
    return {path.parent.parent.name for path in hosts_dir().glob("*/*/host.json")}


def everyone(chosen: str | None = None) -> list[Facts]:
    """The hosts of a scope, in the order of their addresses."""
    found = []
    for path in scope_dir(chosen).glob("*/host.json"):
        # Others come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return sorted(found, key=lambda facts: int(facts["slot"]))


def images_in_use() -> set[str]:
    """The images that hosts of any scope are on."""
    hosts = [facts for name in scopes_up() for facts in everyone(name)]
    return {facts[which] for facts in hosts for which in ("image", "disk") if facts.get(which)}


def save(facts: Facts) -> None:
    """Write a host down, whole or not at all."""
    path = pathlib.Path(facts["directory"]) / "host.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def lives(facts: Facts) -> bool:
    """Whether a host's own process is there, and whoever must outlive it (its owner) as well."""
    if facts["boot_id"] != boot_id():
        return False
    if facts["owner"] is not None and start_time(facts["owner"]) != facts["owner_start"]:
        return False
    # No process yet: its owner is between writing it down and starting it.
    return facts["pid"] is None or start_time(facts["pid"]) == facts["pid_start"]
