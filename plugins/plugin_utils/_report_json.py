# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as JSON: the master itself, to keep, to compare the next run with, and for programs."""

from __future__ import annotations

import json

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import Json, require


def render(master: Json) -> str:
    """The whole master, in ASCII.

    :raises ReportError: not a master, or one of another version.
    """
    return json.dumps(require(master), indent=1, default=str) + "\n"
