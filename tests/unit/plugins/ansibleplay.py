# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real run of ansible-playbook, with the Ansible that runs the tests and no script of its own on PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ansible_collections.hypervisor.hardening as collection

MAIN = "import sys; from ansible.cli.playbook import main; sys.exit(main())"
COLLECTIONS = Path(next(iter(collection.__path__))).parents[2]


def play(directory: Path, *words: str) -> None:
    """Run ansible-playbook in a directory; its output is in the failure."""
    own = {
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
        "HOME": str(directory),
    }
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words],
        cwd=directory,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
