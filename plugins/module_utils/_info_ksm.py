# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on kernel same-page merging."""

from __future__ import annotations

import typing as t

from . import _ksm
from ._infocontext import Context
from ._reader import Reader


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``ksm``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    found = _ksm.read(reader)
    return {
        "present": found.present,
        "run": found.run,
        "pages_shared": found.pages_shared,
        "pages_sharing": found.pages_sharing,
        "merge_across_nodes": found.merge_across_nodes,
        "services": [
            {key: getattr(service, key) for key in ("name", "installed", "masked", "enabled", "running")}
            for service in found.services
        ],
        "unread": reader.unread,
    }
