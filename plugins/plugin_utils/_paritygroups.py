# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which migration group a host belongs to, by the variables that Ansible has of it."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain

GROUP = "hypervisor_hardening_migration_group"
VARIABLE = "hypervisor_migration_group"


def fact(variables: t.Any, name: str) -> t.Any:
    """A fact of a host, of this run or cached; None for none. A run may keep facts apart from other variables."""
    if not isinstance(variables, dict):
        return None
    cached = variables.get("ansible_facts")
    return variables.get(name) or (cached.get(name) if isinstance(cached, dict) else None)


def group_of(variables: t.Any) -> str:
    """The group of a host by its facts, else by the inventory; "" where neither tells it."""
    kept = fact(variables, GROUP)
    told = variables.get(VARIABLE) if isinstance(variables, dict) else None
    # A template would have to be filled in with the variables of that host.
    return str(plain(kept)) if kept else str(plain(told)) if isinstance(told, str) and "{{" not in told else ""
