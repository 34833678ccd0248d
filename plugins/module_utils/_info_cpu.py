# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the processor: what sysfs says of its vulnerabilities, its threads, its microcode."""

from __future__ import annotations

import re
import typing as t

from . import _cpubugs
from ._infocontext import Context
from ._reader import Reader


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``cpu``; its keys are documented in hypervisor_info.

    :raises OSError: /proc/cpuinfo cannot be read.
    """
    reader = Reader(context.host)
    cpuinfo = context.host.text("/proc/cpuinfo")
    flags = set(" ".join(re.findall(r"^(?:flags|vmx flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)[:2]).split())
    vendor = _values(cpuinfo, "vendor_id")
    model = _values(cpuinfo, "model name")
    return {
        "vendor": vendor[0] if vendor else "",
        "model": model[0] if model else "",
        "virtualization": next((flag for flag in ("vmx", "svm") if flag in flags), ""),
        "second_level": next((flag for flag in ("ept", "npt") if flag in flags), ""),
        "virtual": "hypervisor" in flags,
        "microcode": _values(cpuinfo, "microcode"),
        "smt": _cpubugs.smt(reader),
        "vulnerabilities": _cpubugs.vulnerabilities(reader),
        "unread": reader.unread,
    }


def _values(cpuinfo: str, field: str) -> list[str]:
    """The different values of a field over all processors."""
    return sorted({value.strip() for value in re.findall(rf"^{field}\s*:(.*)$", cpuinfo, re.MULTILINE)})
