# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host of the rig: the qemu_conf module, with one of its system calls killed or failed, again and again.

A forked child stops itself, strace attaches with one fault to inject, and the child goes on into the module's main().
What came of it is checked here, and printed as one JSON object at the end.

    faults.py ACTION    ACTION is ``kill``, or the name of an errno
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import typing as t

from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _atomic, _journal, _syscalls
from ansible_collections.hypervisor.hardening.plugins.modules import qemu_conf

# What the module imports only when it writes, and no bytecode: each run makes the same system calls as the reference.
PRELOADED = (_atomic, _syscalls)
sys.dont_write_bytecode = True

CONF = "/etc/hardening-faults/qemu.conf"
OLD = b'# keep me \xff\nmax_files = 1\nuser = "root"\nmax_files = 2\n'
NEW = b'# keep me \xff\nmax_files = 4096\nuser = "root"\n'
MODE, OWNER = 0o640, (12, 34)
ATTRIBUTES = {"user.note": b"kept"}
ARGUMENTS = {"path": CONF, "settings": {"max_files": 4096}, "libvirt_check": False}
CALL = re.compile(r"^(\w+)\(")
# Failing these is no failure of storage: the process's own memory, its end, its signals.
NOT_STORAGE = {
    *("brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "exit_group", "exit", "futex"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "getpid", "gettid", "getrandom", "poll", "select"),
    *("clock_gettime", "clock_nanosleep", "sched_yield", "restart_syscall"),
}


def reset() -> None:
    shutil.rmtree(os.path.dirname(CONF), ignore_errors=True)
    shutil.rmtree(os.path.dirname(_journal.DIRECTORY), ignore_errors=True)
    os.makedirs(os.path.dirname(CONF), 0o755)
    with open(CONF, "wb") as stream:
        stream.write(OLD)
    os.chown(CONF, *OWNER)
    os.chmod(CONF, MODE)
    for name, value in ATTRIBUTES.items():
        os.setxattr(CONF, name, value)


def run(trace: str, *faults: str) -> tuple[int, dict[str, t.Any] | None, list[str]]:
    """One run of the module under strace: its wait status, its result if it gave one, its system calls."""
    out = os.open("/run/faults.out", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    child = os.fork()
    if child == 0:
        os.dup2(out, 1)
        sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        with patch_module_args(ARGUMENTS):
            try:
                qemu_conf.main()
            except SystemExit as end:
                sys.stdout.flush()
                os._exit(int(end.code or 0))
            except BaseException as error:  # a fault may break Python itself; the parent judges by what is left
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
                os._exit(99)
    os.waitpid(child, os.WUNTRACED)
    tracer = subprocess.Popen(
        ["strace", "-qq", "-o", trace, *faults, "-p", str(child)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    while not traced(child):
        assert tracer.poll() is None, tracer.communicate()
        time.sleep(0.001)
    os.kill(child, signal.SIGCONT)
    _pid, status = os.waitpid(child, 0)
    tracer.communicate()
    printed = os.pread(out, 1 << 20, 0)
    os.close(out)
    try:
        result = json.loads(printed)
    except ValueError:
        result = None
    with open(trace, encoding="utf-8", errors="replace") as lines:
        return status, result, [found[1] for found in map(CALL.match, lines) if found]


def traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        return re.search(r"^TracerPid:\t[1-9]", stream.read(), re.MULTILINE) is not None


def reference() -> tuple[list[tuple[str, int]], list[str]]:
    """(name, ordinal) of every system call from the first one that opens a file for writing to the exit."""
    reset()
    status, result, calls = run("/run/faults.trace")
    assert (status, result and result["changed"], whole()) == (0, True, "new"), (status, result)
    with open("/run/faults.trace", encoding="utf-8", errors="replace") as lines:
        shown = [line for line in lines if CALL.match(line)]
    first = next(i for i, line in enumerate(shown) if re.search(r"O_WRONLY|O_RDWR|O_CREAT|^mkdir", line))
    seen: collections.Counter[str] = collections.Counter()
    numbered = []
    for name in calls:
        seen[name] += 1
        numbered.append((name, seen[name]))
    return numbered[first:], shown[first:]


def whole() -> str:
    """``old`` or ``new``, with owner, mode and attributes as they were; anything else in words."""
    with open(CONF, "rb") as stream:
        content = stream.read()
    status = os.stat(CONF)
    if (status.st_uid, status.st_gid) != OWNER or stat.S_IMODE(status.st_mode) != MODE:
        return f"owner or mode lost: {status}"
    if {name: os.getxattr(CONF, name) for name in os.listxattr(CONF) if name.startswith("user.")} != ATTRIBUTES:
        return f"attributes lost: {os.listxattr(CONF)}"
    return {OLD: "old", NEW: "new"}.get(content, f"neither old nor new: {content!r}")


def journalled() -> bool:
    """Whether the old bytes can be had back: a complete entry of the journal holds them."""
    for name in sorted(os.listdir(_journal.DIRECTORY)) if os.path.isdir(_journal.DIRECTORY) else []:
        if name[0].isdigit() and name.endswith(".json"):
            with open(os.path.join(_journal.DIRECTORY, name), encoding="utf-8") as stream:
                if json.load(stream)["after"] == hashlib.sha256(NEW).hexdigest():
                    return True
    return False


def leftovers() -> list[str]:
    return [name for name in os.listdir(os.path.dirname(CONF)) if name != os.path.basename(CONF)]


def judge(action: str, name: str, ordinal: int) -> str | None:
    """Inject one fault; None when all is as promised, otherwise what is not."""
    reset()
    fault = f"inject={name}:{'signal=KILL' if action == 'kill' else f'error={action}'}:when={ordinal}"
    status, result, calls = run("/run/faults.trace", "-e", fault)
    if calls.count(name) < ordinal:
        return "the call was never reached"
    if action == "kill" and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return f"the run does not report the signal: status {status}"
    state = whole()
    if state not in ("old", "new"):
        return state
    if state == "new" and not journalled():
        return "new, and the old bytes are not in the journal"
    if action != "kill":
        if result is not None and result.get("changed") is not (state == "new"):
            return f"changed told: {result.get('changed')}, and the file is the {state} one"
        told_success = result is not None and not result.get("failed") and status == 0
        if told_success and state == "old":
            return "success told, and the file is the old one"
    status, result, _calls = run("/run/faults.trace")
    if status != 0 or whole() != "new" or (state == "old" and leftovers()):
        return f"the next run did not finish: {status} {result} {whole()} {leftovers()}"
    return None


def main(action: str) -> None:
    calls, shown = reference()
    if action != "kill":
        calls = [call for call in calls if call[0] not in NOT_STORAGE]
    wrong = {}
    states: collections.Counter[str] = collections.Counter()
    for name, ordinal in calls:
        complaint = judge(action, name, ordinal)
        if complaint:
            wrong[f"{name} #{ordinal}"] = complaint
        states[name] += 1
    print(json.dumps({"injected": len(calls), "by_name": states, "wrong": wrong, "reference": shown}))


main(sys.argv[1])
