# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the processor: what sysfs says of its vulnerabilities, its threads, its microcode."""

from __future__ import annotations

import re
import typing as t

from ._infocontext import Context
from ._reader import Reader

_CPU = "/sys/devices/system/cpu"


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``cpu``; its keys are documented in hypervisor_info.

    :raises OSError: /proc/cpuinfo cannot be read.
    """
    reader = Reader(context.host)
    cpuinfo = context.host.text("/proc/cpuinfo")
    flags = set(" ".join(re.findall(r"^(?:flags|vmx flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)[:2]).split())
    vendor = _values(cpuinfo, "vendor_id")
    model = _values(cpuinfo, "model name")
    directory = f"{_CPU}/vulnerabilities"
    names = reader.list(directory)
    if not names:
        reader.note(directory, "This kernel says nothing of vulnerabilities.")
    return {
        "vendor": vendor[0] if vendor else "",
        "model": model[0] if model else "",
        "virtualization": next((flag for flag in ("vmx", "svm") if flag in flags), ""),
        "second_level": next((flag for flag in ("ept", "npt") if flag in flags), ""),
        "virtual": "hypervisor" in flags,
        "microcode": _values(cpuinfo, "microcode"),
        "smt": {
            "control": reader.text(f"{_CPU}/smt/control"),
            "active": reader.truth(f"{_CPU}/smt/active"),
        },
        "vulnerabilities": [
            {"name": name, "text": text, **_judged(text)}
            for name in names
            if (text := reader.text(f"{directory}/{name}")) is not None
        ]
        or None,
        "unread": reader.unread,
    }


def _values(cpuinfo: str, field: str) -> list[str]:
    """The different values of a field over all processors."""
    return sorted({value.strip() for value in re.findall(rf"^{field}\s*:(.*)$", cpuinfo, re.MULTILINE)})


def _judged(text: str) -> dict[str, t.Any]:
    """What a file of the directory says (arch/x86/kernel/cpu/bugs.c; Documentation/admin-guide/hw-vuln).

    A semicolon or a comma parts statements on aspects. That other threads of a core can look is one of its own: it
    hangs on SMT, which is the operator's choice.
    """
    statements = [part.strip() for part in re.split("[;,]", text)]
    threads = [part for part in statements if part.startswith("SMT ")]
    rest = [part for part in statements if part not in threads]
    smt = any("vulnerable" in part for part in threads) if threads else None
    if any("vulnerable" in part.lower() for part in rest):
        state: str | None = "vulnerable"
    elif text == "Not affected":
        state = "not_affected"
    elif "Mitigation" in text:
        state = "mitigated"
    else:
        state = None
    return {"state": state, "smt_vulnerable": smt}
