# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on kernel same-page merging (Documentation/admin-guide/mm/ksm.rst)."""

from __future__ import annotations

import typing as t

from . import _units
from ._infocontext import Context
from ._reader import Reader

_KSM = "/sys/kernel/mm/ksm"
_WANTS = "/etc/systemd/system/multi-user.target.wants"
# Red Hat's tuning service and the switch that comes with it; Debian's ksmtuned has the first only.
_SERVICES = ("ksm", "ksmtuned")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``ksm``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    return {
        "present": context.host.exists(f"{_KSM}/run"),
        "run": reader.number(f"{_KSM}/run"),
        "pages_shared": reader.number(f"{_KSM}/pages_shared"),
        "pages_sharing": reader.number(f"{_KSM}/pages_sharing"),
        "merge_across_nodes": reader.truth(f"{_KSM}/merge_across_nodes"),
        "services": [_service(reader, name) for name in _SERVICES],
        "unread": reader.unread,
    }


def _service(reader: Reader, name: str) -> dict[str, t.Any]:
    host, unit = reader.host, f"{name}.service"
    paths = [f"{directory}/{unit}" for directory in _units.SEARCH]
    files = [path for path in paths if host.stat_optional(path, follow=False)]
    masked = bool(files) and _is_null(reader, files[0])
    return {
        "name": name,
        "installed": any(not _is_null(reader, path) for path in files),
        "masked": masked,
        "enabled": not masked and host.stat_optional(f"{_WANTS}/{unit}", follow=False) is not None,
        # a oneshot service that succeeded has no process and no cgroup
        "running": bool(reader.text(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs")),
    }


def _is_null(reader: Reader, path: str) -> bool:
    try:
        return reader.host.readlink(path) == "/dev/null"
    except OSError:
        return False
