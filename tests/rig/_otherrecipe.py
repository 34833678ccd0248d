# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases before and after those of _recipe.py, which are built when somebody wants a host of them."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

from . import _recipe

#: Debian release -> the libvirt it ships, for people.
RELEASES: Mapping[str, str] = {"bullseye": "7.0", "forky": "12.8"}

#: The script of debootstrap for a release that it may not know yet.
SCRIPTS: Mapping[str, str] = {"forky": "/usr/share/debootstrap/scripts/sid"}

# What Debian 11 has not.
_ABSENT = {"bullseye": {"passt", "swtpm", "swtpm-tools", "virtiofsd"}}


def packages(release: str) -> list[str]:
    """The packages of one release, those of Debian 13 as far as it has them."""
    return [package for package in _recipe.packages("trixie") if package not in _ABSENT.get(release, set())]


def digest(release: str) -> str:
    """Twelve hexadecimal digits that change with this recipe and with the common one."""
    text = pathlib.Path(__file__).read_bytes() + _recipe.digest(release).encode()
    return hashlib.sha256(text).hexdigest()[:12]
