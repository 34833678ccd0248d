# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as files of the controller."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write(directory: str, name: str, text: str) -> str:
    """Write a report whole or not at all, for its owner alone: it tells what is weak. Return its path.

    :raises OSError: the directory cannot be made, or the file cannot be written.
    """
    place = Path(directory)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    final = place / name
    descriptor, temporary = tempfile.mkstemp(prefix=f".{Path(name).stem}-", dir=place)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(temporary, final)
    except BaseException:
        os.unlink(temporary)
        raise
    return str(final)
