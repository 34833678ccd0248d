# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the packages that virtualization is made of."""

from __future__ import annotations

import typing as t

from . import _packages
from ._infocontext import Context
from ._reader import Reader

_LIMIT = 120


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``packages``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    found = context.packages
    updates = _packages.updates(reader, found)
    pending = updates.pending
    return {
        "source": found.source,
        "reason": found.reason,
        "installed": [
            {"name": package.name, "version": package.version, "family": package.family}
            for package in found.packages[:_LIMIT]
        ],
        "installed_total": len(found.packages),
        "security": {
            "pending": None if pending is None else [_update(update) for update in pending],
            "age_days": updates.age_days,
            "reason": updates.reason,
        },
        "unread": reader.unread,
    }


def _update(update: _packages.Update) -> dict[str, t.Any]:
    package = update.package
    return {
        "name": package.name,
        "family": package.family,
        "installed": package.version,
        "candidate": update.candidate,
    }
