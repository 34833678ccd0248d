# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the IOMMU and on devices that user space holds through VFIO."""

from __future__ import annotations

import typing as t

from . import _iommu
from ._infocontext import Context
from ._reader import Reader


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``iommu``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    return {**_iommu.read(reader), "unread": reader.unread}
