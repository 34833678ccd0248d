# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures that grows as a test asks for it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host


class TreeHost(Host):
    """``put`` and ``link`` make the directories above, and take paths as the host sees them."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))

    def put(self, path: str, text: str) -> None:
        self._room(path).write_text(text, encoding="utf-8")

    def link(self, path: str, target: str) -> None:
        self._room(path).symlink_to(target)

    def _room(self, path: str) -> Path:
        full = Path(self.path(path))
        full.parent.mkdir(parents=True, exist_ok=True)
        return full
