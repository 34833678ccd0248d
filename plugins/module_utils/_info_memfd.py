# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on memfd_create(2): whether QEMU's user may call it, and where QEMU puts shared memory if not."""

from __future__ import annotations

import stat
import typing as t

from . import _qemu
from ._infocontext import Context
from ._memfd import fallback_directory, probe


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``memfd``; its keys are documented in hypervisor_info."""
    host = context.host
    uid, gid, source = _qemu.user(host, context.configuration("qemu.conf"))
    works, reason = probe(host, uid, gid)
    noexec = host.text_optional("/proc/sys/vm/memfd_noexec")
    return {
        "works": works,
        "reason": reason,
        "uid": uid,
        "gid": gid,
        "user_from": source,
        "memfd_noexec": None if noexec is None else int(noexec),
        "fallback": _fallback(context),
        "unread": [{"path": "memfd_create(2)", "reason": reason}] if works is None else [],
    }


def _fallback(context: Context) -> dict[str, t.Any]:
    directory = fallback_directory(context.host, context.layout.pid)
    status = context.host.stat_optional(directory)
    return {
        "directory": directory,
        "exists": status is not None,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}" if status else "",
        "world_writable": bool(status and status.st_mode & stat.S_IWOTH),
    }
