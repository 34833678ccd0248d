# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A function called in a forked child; Host.in_child says what for."""

from __future__ import annotations

import json
import os
import select
import time
import typing as t

from ._host import HardeningError, HostError, kill_session


def call(function: t.Callable[[], t.Any], timeout: float) -> t.Any:
    """What ``function`` returned, as JSON types.

    :param timeout: seconds, after which the child's whole session is killed.
    :raises HardeningError: the child raised it, or gave no answer in time.
    :raises OSError: the child raised it.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(_answer(writer, function))
    os.close(writer)
    try:
        answer = _read_until(reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
        kill_session(pid)
        os.waitpid(pid, 0)
    if answer is None:
        raise HostError(f"No answer within {timeout:g} seconds; the attempt was ended.")
    if not answer:
        raise HostError("A child process ended without an answer.")
    kind, value = json.loads(answer)
    if kind == "oserror":
        raise OSError(*value)
    if kind == "refused":
        raise HostError(value[0], **value[1])
    return value


def _answer(writer: int, function: t.Callable[[], t.Any]) -> int:
    """In the child: call, and write ["ok" | "refused" | "oserror", value] as JSON. The exit status."""
    try:
        answer = ["ok", function()]
    except HardeningError as error:
        answer = ["refused", [str(error), error.facts]]
    except OSError as error:
        answer = ["oserror", [error.errno, error.strerror, error.filename]]
    except BaseException as error:  # the child must not unwind into the parent's code
        answer = ["refused", [f"{type(error).__name__}: {error}", {}]]
    try:
        with open(writer, "wb") as stream:
            stream.write(json.dumps(answer).encode())
    except OSError:
        return 1
    return 0


def _read_until(fd: int, deadline: float) -> bytes | None:
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
