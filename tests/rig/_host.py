# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is up, and the ways into it."""

from __future__ import annotations

import os
import pathlib
import shlex
import socket
import subprocess
from collections.abc import Callable, Sequence

from . import _ssh
from ._base import RigError, start_time, wait_for
from ._registry import Facts

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What a command inside finds itself in.
ENVIRONMENT = ("env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C")


class Host:
    """A disposable hypervisor that is up: a container, which shares the machine's kernel."""

    #: Seconds that a step of a boot may take. A libvirtd of 11.3 that hears of its end together with a client ends by
    #: force, 30 s later (in one of 30 reboots).
    patience = 90.0

    def __init__(self, facts: Facts) -> None:
        self.name: str = facts["name"]
        self.scope: str = facts["scope"]
        self.release: str = facts["release"]
        self.address: str = facts["address"]
        self.supervisor: int = facts["pid"]
        self.directory = pathlib.Path(facts["directory"])
        #: The process of the machine that is the host since its last boot: its init, or its QEMU.
        self.pid1 = self._find()

    @property
    def root(self) -> pathlib.Path:
        """The host's root file system as its PID 1 sees it (an absolute symlink below it leads outside)."""
        return pathlib.Path(f"/proc/{self.pid1}/root")

    @property
    def inventory(self) -> pathlib.Path:
        """The inventory file that has this host in the group ``hypervisors``."""
        return self.directory.parent / "inventory.yml"

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: bytes | None = None,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside through nsenter (about 10 ms), as root, with ``LC_ALL=C`` and output as text.

        :raises RigError: it failed (with ``check``) or took longer than ``timeout`` seconds.
        """
        return self._finish(self._inside(argv), argv, stdin, check, timeout)

    def ssh(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: bytes | None = None,
        check: bool = True,
        timeout: float | None = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside through ssh, the way a user's Ansible comes in.

        :raises RigError: it failed (with ``check``) or took longer than ``timeout`` seconds.
        """
        return self._finish(self.ssh_argv(shlex.join(os.fspath(word) for word in argv)), argv, stdin, check, timeout)

    def put(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file inside, through its symlinks, with this mode.

        :raises RigError: it cannot be written.
        """
        self.run(["sh", "-c", 'cat > "$1" && chmod "$2" "$1"', "put", path, f"{mode:o}"], stdin=data)

    def get(self, path: str) -> bytes:
        """Read a file inside.

        :raises RigError: it cannot be read.
        """
        command = self._inside(["cat", path])
        result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        if result.returncode != 0:
            raise RigError(f"{self.name}: {result.stderr.decode(errors='replace').strip()}")
        return result.stdout

    def reboot(self) -> None:
        """Reboot, keeping the disk; the kernel, its hugepages and its sysctls are the machine's and stay.

        :raises RigError: the host did not come back.
        """
        before = self.pid1
        # The connection may end before the command does.
        self.run(["systemctl", "reboot"], check=False)
        wait_for(f"{self.name} to go down", lambda: start_time(before) is None, patience=self.patience)
        self.wait_for_boot()

    def wait_for_boot(self) -> None:
        """Wait for sshd, systemd and libvirtd, one after the other.

        :raises RigError: one of them does not come; the message has the last words of the console.
        """
        self._wait("sshd", lambda: _says_ssh(self.address))
        try:
            self._wait("systemd", self._is_booted)
        except RigError as error:
            raise RigError(f"{error}\n{self._what_keeps_systemd()}") from None
        self.run(["virsh", "-c", "qemu:///system", "version"], timeout=self.patience)

    def ssh_argv(self, line: str, *options: str) -> list[str]:
        """The ssh command for a line of the host's shell; for a session, if it is empty."""
        return ["ssh", *_ssh.options(self.scope), *options, f"root@{self.address}", *([line] if line else [])]

    def _find(self) -> int:
        return find_init(self.supervisor)

    def _inside(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        enter = ["nsenter", "-t", str(self.pid1), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        return [*enter, *ENVIRONMENT, *(os.fspath(word) for word in argv)]

    def _finish(
        self,
        command: list[str],
        argv: Sequence[str | os.PathLike[str]],
        stdin: bytes | None,
        check: bool,
        timeout: float | None,
    ) -> subprocess.CompletedProcess[str]:
        words = " ".join(os.fspath(word) for word in argv)
        try:
            raw = subprocess.run(command, input=stdin or b"", capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise RigError(f"{self.name}: no end after {timeout:.0f} s: {words}") from None
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in (raw.stdout, raw.stderr))
        if check and raw.returncode != 0:
            raise RigError(f"{self.name}: exit status {raw.returncode} of: {words}\n{(err or out).strip()}")
        return subprocess.CompletedProcess(raw.args, raw.returncode, out, err)

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        wait_for(f"{what} of {self.name}", lambda: self._still_lives() and ready(), patience=self.patience)

    def _still_lives(self) -> bool:
        if start_time(self.supervisor) is None:
            said = (self.directory / "console.log").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            raise RigError(f"{self.name} died while booting; its console said:\n{said}")
        return True

    def _is_booted(self) -> bool:
        # Found anew each time: while nspawn hands its child on there is none, after a reboot perhaps still the old one.
        self.pid1 = self._find()
        if self.pid1 == 0:
            return False
        return self._state() in ("running", "degraded")

    def _state(self) -> str:
        return self.run(["systemctl", "is-system-running"], check=False).stdout.strip()

    def _what_keeps_systemd(self) -> str:
        asked = (["is-system-running"], ["list-jobs"], ["--failed"])
        said = [self.run(["systemctl", "--no-pager", *words], check=False).stdout for words in asked]
        return "".join([*said, self.run(["journalctl", "--no-pager", "-n", "40"], check=False).stdout])


def find_init(supervisor: int) -> int:
    """The host's init: the descendant that is number 1 in its own pid namespace and alive; 0 while there is none."""
    try:
        children = pathlib.Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
        for child in children:
            status = pathlib.Path(f"/proc/{child}/status").read_text(encoding="utf-8", errors="replace")
            first = any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines())
            if first and start_time(int(child)) is not None:
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(filter(None, (find_init(int(child)) for child in children)), 0)


def _says_ssh(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=10.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
