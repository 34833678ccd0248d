# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes: real ones of this machine, and names that only a fixture has."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _proc
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError


def stat(root: Path, comm: str, *, state: str = "S", ticks: int = 500) -> Host:
    """A line as proc_pid_stat(5) numbers it: pid, comm, state, fields 4 to 21, starttime (22), vsize."""
    (root / "proc/7").mkdir(parents=True)
    middle = " ".join(str(number) for number in range(4, 22))
    (root / "proc/7/stat").write_text(f"7 ({comm}) {state} {middle} {ticks} 99999\n")
    return Host(str(root))


@pytest.mark.parametrize("comm", ["libvirtd", "a b", "x) S 1 (", "(", ")", ") 0 0 0 0"])
def test_a_name_may_hold_anything(tmp_path: Path, comm: str) -> None:
    found = _proc.process(stat(tmp_path, comm), 7)
    assert found == _proc.Process(7, comm, "S", 500)


@pytest.mark.parametrize(
    ("state", "alive", "suspended"),
    [
        *[("S", True, False), ("R", True, False), ("D", True, False), ("T", True, True), ("t", True, True)],
        *[("Z", False, False), ("X", False, False)],
    ],
)
def test_states(tmp_path: Path, state: str, alive: bool, suspended: bool) -> None:
    found = _proc.process(stat(tmp_path, "x", state=state), 7)
    assert found is not None
    assert (found.alive, found.suspended) == (alive, suspended)


def test_a_real_process_started_when_it_did() -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as child:
        after = time.time()
        try:
            started = _proc.start_time(Host(), child.pid)
        finally:
            child.kill()
    assert before - 0.02 <= started <= after + 0.02


def test_a_real_process_that_is_stopped_and_killed() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        stopped = _proc.process(Host(), child.pid)
        assert stopped is not None
        assert (stopped.comm, stopped.suspended) == ("sleep", True)
        assert _proc.command_line(Host(), child.pid) == ["sleep", "60"]
        assert _proc.status(Host(), child.pid)["State"] == "T (stopped)"
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = _proc.process(Host(), child.pid)
        assert zombie is not None
        assert not zombie.alive
        assert _proc.command_line(Host(), child.pid) == []


def test_no_such_process(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    assert _proc.process(host, 7) is None
    assert _proc.status(host, 7) == {}
    assert _proc.command_line(host, 7) == []
    with pytest.raises(HostError, match="no process 7"):
        _proc.start_time(host, 7)


def test_a_process_that_ends_after_the_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Host, path: str) -> str:
        raise ProcessLookupError

    monkeypatch.setattr(Host, "text_optional", gone)
    assert _proc.process(Host(str(tmp_path)), 7) is None


def test_the_boot_has_a_name() -> None:
    assert _proc.boot_id(Host()) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
