# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of the audit, small enough for the artifacts of a job."""

from __future__ import annotations

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import Json, gravity, require


def render(master: Json) -> Json:
    """Counts and score of all, and of each host with the ids of the rules that fail there, the gravest first.

    :raises ReportError: not a master, or one of another version.
    """
    require(master)
    order = {name: gravity(name, rule) for name, rule in master["rules"].items()}
    return {
        "generated": master["generated"],
        "level": master["level"],
        "counts": master["counts"],
        "score": master["score"]["value"],
        "hosts": {host["name"]: _host(host, order) for host in master["hosts"]},
    }


def _host(host: Json, order: dict[str, tuple[int, str, str]]) -> Json:
    failed = {finding["rule"] for finding in host["findings"] if finding["state"] == "fail"}
    return {
        "state": host["state"],
        "reason": host["reason"],
        "counts": host["counts"],
        "score": host["score"]["value"],
        "failed": sorted(failed, key=order.__getitem__),
    }
