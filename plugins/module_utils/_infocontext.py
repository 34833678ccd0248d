# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sections of hypervisor_info share: read or parsed once, and only if a section asks."""

from __future__ import annotations

import functools
import typing as t
from dataclasses import dataclass

from . import _confinement, _libvirtd
from ._host import Host


@dataclass(frozen=True)
class Context:
    """One host in one call. ``connect``: whether an idle daemon of libvirt may be woken."""

    host: Host
    connect: bool = False

    @functools.cached_property
    def layout(self) -> _libvirtd.Layout:
        """The daemon that drives QEMU."""
        return _libvirtd.layout(self.host)

    @functools.cached_property
    def confinement(self) -> dict[str, t.Any]:
        """What guest_confinement_info returns.

        :raises HardeningError: this process may not look at others, or lxml is missing and needed.
        """
        return _confinement.gather(self.host)
