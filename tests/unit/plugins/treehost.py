# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures: files with owners that need no root to make, and commands that answer as told."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed, Host, HostError


class TreeHost(Host):
    """``answers``: the words of a command -> what it prints, or an exit status that is not zero; ``tables``: those of
    nftables; ``size``: that of every file system in bytes; ``labels``: SELinux's, by path."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        root.chmod(0o755)
        self.answers: dict[str, str | int] = {}
        self.tables: list[tuple[int, str]] = []
        self.size = 1 << 40
        self.labels: dict[str, str] = {}
        self._owners: dict[str, tuple[int, int]] = {}
        self.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/false\n")
        self.put("/etc/group", "root:x:0:\nkvm:x:994:\nlibvirt-qemu:x:64055:libvirt-qemu\nusers:x:100:\n")
        self.put("/proc/sys/kernel/osrelease", "6.12.48+deb13-amd64\n")

    def put(self, path: str, text: str = "", mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> None:
        full = Path(self.path(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text)
        full.chmod(mode)
        self._owners[path] = owner

    def put_all(self, directory: str, files: t.Mapping[str, str]) -> None:
        for name, text in files.items():
            self.put(f"{directory}/{name}", text)

    def directory(self, path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
        full = Path(self.path(path))
        full.mkdir(parents=True, exist_ok=True)
        full.chmod(mode)
        self._owners[path] = owner

    def link(self, path: str, target: str) -> None:
        full = Path(self.path(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        full.symlink_to(target)

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        found = super().stat(path, follow=follow)
        owner = self._owners.get(path, (0, 0))
        times = {name: getattr(found, name) for name in dir(found) if name.endswith(("time", "time_ns"))}
        return os.stat_result((*found[:4], *owner, *found[6:]), times)

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        answer = self.answers.get(" ".join(argv))
        if answer is None:
            raise HostError(f"The command {argv[0]} is not installed on this host.")
        if isinstance(answer, int):
            return Completed(tuple(argv), answer, "", "refused")
        return Completed(tuple(argv), 0, answer, "")

    def nftables(self) -> list[tuple[int, str]]:
        return self.tables

    def capacity(self, path: str) -> int:
        return self.size

    def attributes(self, path: str) -> dict[str, bytes]:
        label = self.labels.get(path)
        found = super().attributes(path)
        return found if label is None else {**found, "security.selinux": label.encode() + b"\0"}
