# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on memfd_create(2): whether QEMU's user may call it, and where QEMU puts shared memory if not.

QEMU asks for MFD_CLOEXEC and seals, and falls back to a file in its directory for temporary files, which AppArmor's
profiles do not let it write (qemu's util/memfd.c, qemu_memfd_alloc). Neither the kernel's version nor vm.memfd_noexec
tells whether the call works; only the call does.
"""

from __future__ import annotations

import os
import stat
import typing as t

from . import _qemu
from ._host import HardeningError, Host
from ._infocontext import Context

_SECONDS = 5.0


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


def probe(host: Host, uid: int | None, gid: int | None) -> tuple[bool | None, str]:
    """Whether memfd_create(2) works for a user as QEMU calls it, None if that could not be tried, and why.

    The call is made in a child process, which has the user's ids and no capabilities, as QEMU has.
    """
    if uid is None or gid is None:
        return None, "nobody knows as which user QEMU runs: neither qemu.conf nor " + _qemu.STATE + " tells"

    def call() -> list[t.Any]:
        if (os.geteuid(), os.getegid()) != (uid, gid):
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        try:
            fd = os.memfd_create("hypervisor-hardening", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, 4096)
        except OSError as error:
            return [False, f"memfd_create: {error.strerror}"]
        return [True, ""]

    try:
        works, reason = host.in_child(call, timeout=_SECONDS)
    except (OSError, HardeningError) as error:
        return None, f"it could not be tried as uid {uid}: {getattr(error, 'strerror', None) or error}"
    return works, reason


def _fallback(context: Context) -> dict[str, t.Any]:
    """Where QEMU would put shared memory: g_get_tmp_dir of GLib takes TMPDIR, which libvirt hands on from its daemon
    (src/util/vircommand.c, virCommandAddEnvPassCommon), else /tmp."""
    told = ""
    if context.layout.pid is not None:
        text = context.host.text_optional(f"/proc/{context.layout.pid}/environ") or ""
        told = dict(word.partition("=")[::2] for word in text.split("\0")).get("TMPDIR", "")
    directory = told or "/tmp"
    status = context.host.stat_optional(directory)
    return {
        "directory": directory,
        "exists": status is not None,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}" if status else "",
        "world_writable": bool(status and status.st_mode & stat.S_IWOTH),
    }
