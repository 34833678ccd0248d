# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the rig needs: its places, its errors, its words, locks and child processes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

_PR_SET_PDEATHSIG = 1
_started = time.monotonic()


class RigError(Exception):
    """The rig cannot go on; the message says what, why and what to do."""


def cache_dir() -> pathlib.Path:
    """The one place on disk where images and hosts live (HYPERVISOR_RIG_CACHE overrides it)."""
    chosen = os.environ.get("HYPERVISOR_RIG_CACHE") or "/var/cache/hypervisor-hardening-rig"
    return pathlib.Path(chosen).absolute()


def scope() -> str:
    """The name of this user's own set of hosts (HYPERVISOR_RIG_SCOPE); sets share images and nothing else.

    :raises RigError: the name is not a plain word.
    """
    name = os.environ.get("HYPERVISOR_RIG_SCOPE") or "main"
    check_name(name)
    return name


def check_name(name: str) -> None:
    """Refuse a name that is no host name of 1 to 32 lower-case letters, digits and hyphens.

    :raises RigError: the name is refused.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}[a-z0-9]|[a-z]", name):
        raise RigError(f"{name!r} is no name for a host: use lower-case letters, digits and hyphens, a letter first")


def say(text: str) -> None:
    """One line of progress with the time since the program began, on standard error."""
    print(f"  {time.monotonic() - _started:6.1f}s  {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str, *, patience: float = 900.0) -> Iterator[int]:
    """Hold the lock file ``name`` of the cache; the kernel frees it when its last holder dies.

    :yields: the descriptor, for a child that must keep the lock alive as well.
    :raises RigError: somebody else held it for ``patience`` seconds.
    """
    path = cache_dir() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for_lock(descriptor, path, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: pathlib.Path, patience: float) -> None:
    begun = time.monotonic()
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - begun
            if waited > patience:
                raise RigError(f"{path} is held by another run since {patience:.0f} s: see 'fuser {path}'") from None
            if waited > 2.0 and not told:
                say(f"waiting for another run ({path.name})")
                told = True
            time.sleep(0.05)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    timeout: float | None = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run a short command of this machine and return what it printed.

    :raises RigError: it failed (with ``check``), is missing or took longer than ``timeout`` seconds.
    """
    words = [os.fspath(word) for word in argv]
    try:
        result = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise RigError(f"the command {words[0]} is missing here: 'rig check' says which package has it") from None
    except subprocess.TimeoutExpired:
        raise RigError(f"no end after {timeout:.0f} s: {' '.join(words)}") from None
    if check and result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise RigError(f"exit status {result.returncode} of: {' '.join(words)}\n{said}")
    return result


def _environment() -> dict[str, str]:
    wanted = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    wanted["PATH"] = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    return wanted


def run_long(
    argv: Sequence[str | os.PathLike[str]], label: str, log: IO[bytes], *, pass_fds: tuple[int, ...] = ()
) -> None:
    """Run a long command with its output in ``log``; say every few seconds where it is.

    The command dies with this process, whatever kills it.

    :raises RigError: it failed; the message ends with its last lines.
    """
    words = [os.fspath(word) for word in argv]
    begun = time.monotonic()
    say(label)
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (the rig has no threads)
        pass_fds=pass_fds,
    ) as child:
        assert child.stdout is not None
        try:
            tail = _follow(child.stdout, label, log)
        except BaseException:
            child.kill()
            raise
    if child.returncode != 0:
        said = b"\n".join(tail).decode(errors="replace")
        raise RigError(f"{label}: exit status {child.returncode} of: {' '.join(words)}\n{said}")
    say(f"{label}: done in {time.monotonic() - begun:.1f} s")


def _follow(stream: IO[bytes], label: str, log: IO[bytes]) -> list[bytes]:
    last: list[bytes] = []
    told = time.monotonic()
    while True:
        ready, _write, _other = select.select([stream], [], [], 5.0)
        if ready:
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return last
            log.write(chunk)
            log.flush()
            last = [*last, *(line for line in chunk.splitlines() if line.strip())][-20:]
        if time.monotonic() - told >= 10.0:
            told = time.monotonic()
            say(f"{label}: {last[-1].decode(errors='replace')[:70] if last else 'running'}")


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    dies_with_parent: bool,
    stdin: int | None = None,
    output: IO[bytes] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a Ctrl-C at the terminal reaches only the rig."""
    return subprocess.Popen(
        [os.fspath(word) for word in argv],
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        env=_environment(),
        start_new_session=True,
        preexec_fn=_die_with_parent if dies_with_parent else None,  # noqa: PLW1509 (the rig has no threads)
        pass_fds=pass_fds,
    )


def start_time(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot (field 22 of proc(5) stat); None for a dead one."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before the last ")" may hold blanks and brackets; after it comes field 3, the state.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def wait_for(what: str, ready: Callable[[], bool], *, patience: float) -> None:
    """Look every 50 ms until ``ready`` says yes.

    :raises RigError: it did not within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            raise RigError(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(0.05)


def boot_id() -> str:
    """The kernel's name for the present boot."""
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def existing_parent(path: pathlib.Path) -> pathlib.Path:
    """The path itself, or the nearest directory above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def remove_tree(path: pathlib.Path, *, patience: float = 10.0) -> None:
    """Remove a tree even while a dying process still writes into it or left files immutable.

    :raises RigError: it is still there after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        run(["chattr", "-R", "-f", "-i", "-a", path], check=False)
        if time.monotonic() > deadline:
            raise RigError(f"{path} cannot be removed: look for mounts and attributes below it")
        time.sleep(0.1)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a clean-up finish: SIGINT, SIGTERM and SIGHUP are held back until its end."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
