# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures whose kernel is played: it takes values as Linux does, or refuses them.

What the real one does is shown by tests/integration.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

KSM = "/sys/kernel/mm/ksm"


class KernelHost(TreeHost):
    """``refused``: files of the kernel that take no value, with the error number; ``deaf``: those that take every value
    and keep their own; ``calls``: commands that were run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refused: dict[str, int] = {}
        self.deaf: set[str] = set()
        self.calls: list[str] = []
        self.put("/proc/cmdline", "root=/dev/vda ro quiet\n")
        self.put("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
        self.put_all(KSM, {"run": "0\n", "pages_shared": "0\n", "pages_sharing": "0\n", "merge_across_nodes": "1\n"})

    def sysctl(self, name: str, value: str) -> None:
        self.put("/proc/sys/" + name.replace(".", "/"), f"{value}\n")

    def parameter(self, name: str, value: str, *, mode: int = 0o444, builtin: bool = False) -> None:
        """A parameter of a module that is loaded, or in the kernel's image."""
        module, parameter = name.split(".")
        if not builtin:
            self.put(f"/sys/module/{module}/initstate", "live\n")
        self.put(f"/sys/module/{module}/parameters/{parameter}", f"{value}\n", mode)

    def guest(self, name: str, pid: int) -> None:
        """A QEMU that runs."""
        self.link(f"/proc/{pid}/exe", "/usr/bin/qemu-system-x86_64")
        self.put(f"/proc/{pid}/cmdline", f"/usr/bin/qemu-system-x86_64\0-name\0guest={name},debug-threads=on\0")

    def write_kernel(self, path: str, value: str, *, rehearse: bool = False) -> None:
        if not stat.S_IMODE(self.stat(path).st_mode) & 0o222:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        if rehearse:
            return
        if path in self.refused:
            raise OSError(self.refused[path], os.strerror(self.refused[path]), path)
        self.changed = True
        if path in self.deaf:
            return
        mode = stat.S_IMODE(self.stat(path).st_mode)
        if path == f"{KSM}/run" and value == "2":
            self.put(f"{KSM}/pages_sharing", "0\n")
            self.put(f"{KSM}/pages_shared", "0\n")
        switch = self.text(path).strip() in ("Y", "N")
        self.put(path, f"{ {'1': 'Y', '0': 'N'}.get(value, value) if switch else value }\n", mode)

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        self.put(path, self.text(path), mode, (uid, gid))
        self.changed = True

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        self.calls.append(" ".join(argv))
        return super().run(argv, stdin=stdin, timeout=timeout)

    def tree(self) -> dict[str, tuple[int, str]]:
        """Every path below the root with its mode and content: what a check must leave as it is."""
        return {
            str(path): (0, os.readlink(path))
            if path.is_symlink()
            else (path.stat().st_mode, path.read_text() if path.is_file() else "")
            for path in sorted(Path(self.root).rglob("*"))
        }
