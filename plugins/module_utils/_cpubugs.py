# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of the processor: its vulnerabilities (Documentation/admin-guide/hw-vuln), and its threads."""

from __future__ import annotations

import re
import typing as t

from ._reader import Reader

CPU = "/sys/devices/system/cpu"


def vulnerabilities(reader: Reader) -> list[dict[str, t.Any]] | None:
    """Each with ``name``, ``text``, ``state`` and ``smt_vulnerable``; None where the kernel says nothing."""
    directory = f"{CPU}/vulnerabilities"
    names = reader.list(directory)
    if not names:
        reader.note(directory, "This kernel says nothing of vulnerabilities.")
    return [
        {"name": name, "text": text, **_judged(text)}
        for name in names
        if (text := reader.text(f"{directory}/{name}")) is not None
    ] or None


def smt(reader: Reader) -> dict[str, t.Any]:
    """``control`` and ``active`` of sysfs; None where this processor or kernel has no such file."""
    return {"control": reader.text(f"{CPU}/smt/control"), "active": reader.truth(f"{CPU}/smt/active")}


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
