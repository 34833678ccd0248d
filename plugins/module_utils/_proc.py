# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes as /proc shows them (proc_pid_stat(5), proc_pid_status(5), proc_pid_cmdline(5))."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ._host import Host, HostError

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# Fields of proc_pid_stat(5), counted from the one after comm.
_STATE = 0
_START = 19


@dataclass(frozen=True)
class Process:
    """A process as it was seen once. Its pid can be given to another one; pid and ``ticks`` together cannot."""

    pid: int
    comm: str
    state: str
    ticks: int

    @property
    def start_time(self) -> float:
        """Seconds since the epoch, rounded down to a clock tick (10 ms)."""
        return epoch(self.ticks)

    @property
    def alive(self) -> bool:
        """Whether it is more than an entry that its parent has not read yet."""
        return self.state not in "ZXx"

    @property
    def suspended(self) -> bool:
        """Whether SIGSTOP or a debugger holds it."""
        return self.state in "Tt"


def process(host: Host, pid: int) -> Process | None:
    """The process ``pid``, None where there is none."""
    text = _read(host, pid, "stat")
    if text is None:
        return None
    # comm may hold blanks and parentheses; nothing after it does
    head, _paren, tail = text.rpartition(")")
    fields = tail.split()
    return Process(pid, head.partition("(")[2], fields[_STATE], int(fields[_START]))


def start_time(host: Host, pid: int) -> float:
    """When a process started, in seconds since the epoch, rounded down to a clock tick (10 ms).

    :raises HostError: there is no such process.
    """
    found = process(host, pid)
    if found is None:
        raise HostError(f"There is no process {pid} any more.")
    return found.start_time


def epoch(ticks: int) -> float:
    """A time in clock ticks since boot (field 22 of proc_pid_stat(5)) as seconds since the epoch, by today's clock.

    The kernel counts suspended time in (task->start_boottime), hence CLOCK_BOOTTIME.
    """
    boot = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / TICKS_PER_SECOND


def status(host: Host, pid: int) -> dict[str, str]:
    """The fields of proc_pid_status(5): name -> value. Empty where there is no such process."""
    lines = (_read(host, pid, "status") or "").splitlines()
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def command_line(host: Host, pid: int) -> list[str]:
    """The arguments of proc_pid_cmdline(5). Empty for a kernel thread, and where there is no such process."""
    text = _read(host, pid, "cmdline") or ""
    return text.rstrip("\0").split("\0") if text else []


def image(host: Host, pid: int) -> str:
    """A name for what a process executes, "" where there is no such process: execve(2) lays out other addresses in
    proc_pid_auxv(5), so that a daemon that executes itself anew, with pid and start time kept, can be told from before.
    """
    import hashlib

    vector = _read(host, pid, "auxv")
    return hashlib.sha256(vector.encode("utf-8", "surrogateescape")).hexdigest()[:16] if vector else ""


def boot_id(host: Host) -> str:
    """The kernel's name for the present boot (proc_sys_kernel(5)): ticks are only unique within one."""
    return host.text("/proc/sys/kernel/random/boot_id").strip()


def _read(host: Host, pid: int, name: str) -> str | None:
    try:
        return host.text_optional(f"/proc/{pid}/{name}")
    except ProcessLookupError:  # it ended after the open
        return None
