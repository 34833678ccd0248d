# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is a virtual machine: it has a kernel of its own, and ssh is the one way into it."""

from __future__ import annotations

import os
import pathlib
import shlex
from collections.abc import Sequence

from . import _ssh, _vmboot
from ._base import RigError
from ._host import ENVIRONMENT, Host


class VirtualMachine(Host):
    """A disposable hypervisor with a kernel of its own, which is emulated: everything in it takes ten times as long."""

    patience = 600.0

    @property
    def root(self) -> pathlib.Path:
        """Not to be had: its file system is on a disk of its own."""
        raise RigError(f"{self.name} is a virtual machine: read its files with get, or with a command")

    def reboot(self, *words: str) -> None:
        """Reboot, keeping the disk.

        :param words: what this boot has at the end of the kernel's command line.
        :raises RigError: the host did not come back.
        """
        (self.directory / _vmboot.WORDS).write_text(" ".join(words), encoding="ascii")
        super().reboot()

    def wait_for_boot(self) -> None:
        """Wait for sshd, systemd and libvirtd, one after the other.

        :raises RigError: one of them does not come; the message has the last words of the console.
        """
        # The one of the boot before leads nowhere.
        _ssh.close(self.directory)
        super().wait_for_boot()

    def _find(self) -> int:
        return _find_qemu(self.supervisor)

    def _state(self) -> str:
        # Each question takes it a good part of a second from its boot.
        asked = ["systemctl", "is-system-running", "--wait"]
        return self.run(asked, check=False, timeout=self.patience).stdout.strip()

    def _inside(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        line = shlex.join([*ENVIRONMENT, *(os.fspath(word) for word in argv)])
        return self.ssh_argv(line, *_ssh.kept_open(self.directory))


def _find_qemu(supervisor: int) -> int:
    """The QEMU that a supervisor has started; 0 while there is none."""
    try:
        children = pathlib.Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
        for child in children:
            if pathlib.Path(f"/proc/{child}/comm").read_text(encoding="ascii").startswith("qemu-system"):
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
