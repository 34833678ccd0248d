# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures whose kernel has SELinux, as Fedora has it, cut down."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import QemuHost


class SelinuxHost(QemuHost):
    """``types``: name -> the flags of a decision about it; ``refusal``: what the kernel answers instead."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.types: dict[str, int] = {}
        self.refusal = 0
        self.asked: list[tuple[str, str]] = []
        self.put("/etc/selinux/config", "# SELINUX= can take one of these\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
        self.put("/sys/fs/selinux/enforce", "1")
        self.put("/sys/fs/selinux/mls", "1")
        self.put("/sys/fs/selinux/class/process/index", "2")

    def boolean(self, name: str, *, running: bool) -> None:
        self.put(f"/sys/fs/selinux/booleans/{name}", f"{int(running)} {int(running)}")

    def ask_kernel(self, path: str, question: str) -> str:
        self.asked.append((path, question))
        source, target, _class = question.split()
        kind = source.split(":")[2]
        error = self.refusal or (0 if source == target and kind in self.types else errno.EINVAL)
        if error:
            raise OSError(error, os.strerror(error), path)
        return f"ffffffff ffffffff 0 ffffffff 3 {self.types[kind]:x}"
