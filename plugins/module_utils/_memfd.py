# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether memfd_create(2) works for QEMU's user.

QEMU asks for MFD_CLOEXEC and seals, and falls back to a file in its directory for temporary files, which AppArmor's
profiles do not let it write (qemu's util/memfd.c, qemu_memfd_alloc). Neither the kernel's version nor vm.memfd_noexec
tells whether the call works; only the call does.
"""

from __future__ import annotations

import os
import typing as t

from ._host import HardeningError, Host
from ._qemu import STATE

_SECONDS = 5.0


def probe(host: Host, uid: int | None, gid: int | None) -> tuple[bool | None, str]:
    """Whether memfd_create(2) works for a user as QEMU calls it, None if that could not be tried, and why.

    The call is made in a child process, which has the user's ids and no capabilities, as QEMU has.
    """
    if uid is None or gid is None:
        return None, "nobody knows as which user QEMU runs: neither qemu.conf nor " + STATE + " tells"

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


def fallback_directory(host: Host, daemon: int | None) -> str:
    """Where QEMU puts shared memory otherwise: g_get_tmp_dir of GLib takes TMPDIR, which libvirt hands on from its
    daemon (src/util/vircommand.c, virCommandAddEnvPassCommon), else /tmp.

    :param daemon: the pid of libvirt's daemon, None where it does not run.
    """
    text = "" if daemon is None else host.text_optional(f"/proc/{daemon}/environ") or ""
    return dict(word.partition("=")[::2] for word in text.split("\0")).get("TMPDIR", "") or "/tmp"
