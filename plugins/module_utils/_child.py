# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for a child process, and ending it with all that it has started."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import typing as t


def answer(writer: int, function: t.Callable[[], t.Any]) -> int:
    """In the child: call, and write ["ok" | "refused" | "oserror", value] as JSON. The exit status."""
    from ._host import HardeningError

    try:
        told = ["ok", function()]
    except HardeningError as error:
        told = ["refused", [str(error), error.facts]]
    except OSError as error:
        told = ["oserror", [error.errno, error.strerror, error.filename]]
    except BaseException as error:  # the child must not unwind into the parent's code
        told = ["refused", [f"{type(error).__name__}: {error}", {}]]
    try:
        left = json.dumps(told).encode()
        while left:
            left = left[os.write(writer, left) :]
    except OSError:
        return 1
    return 0


def read_until(fd: int, deadline: float) -> bytes | None:
    """All that comes until the other end closes; None when the monotonic ``deadline`` passes first."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        part = os.read(fd, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def kill_session(leader: int) -> None:
    """Kill a session that may be gone already."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
