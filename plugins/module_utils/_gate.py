# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate's judgement on a guest that wants to come: what the hook of migration_gate runs on the destination.

libvirt calls its hook at ``migrate begin`` before anything on the host is touched, with the guest's XML on standard
input; what the hook says on standard error reaches the operator's virsh (libvirt's docs/hooks.rst).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import typing as t

from . import _agreement, _gatevalues, _incoming
from ._host import HardeningError, Host

DIRECTORY = "/etc/libvirt/hooks/hypervisor-hardening"
AGREEMENT = f"{DIRECTORY}/agreement.json"
IDENT = "hypervisor-hardening-gate"

OFF, ENFORCE = "off", "enforce"
# Python itself ends with 1 or 2 where it fails.
ALLOWED, REFUSED = 0, 3

# A migration may have to wait for two seconds.
SECONDS = 2.0
_LOG_SECONDS = 0.3
_LEAST = 0.1
_LINE_LIMIT = 900


class Answer(t.NamedTuple):
    """``refusals``: why the guest may not come; ``notes``: what to know if it does."""

    refusals: list[str]
    notes: list[str]


def main(mode: str, guest: str, begun: float) -> int:
    """Judge the guest whose XML is on standard input, log it, and return the exit status.

    :param mode: ``warn`` or ``enforce``.
    :param begun: when this began, by the monotonic clock: the import of all this counts as well.
    """
    host = Host()
    left = max(begun + SECONDS - 2 * _LOG_SECONDS - time.monotonic(), _LEAST)
    try:
        refusals, notes = host.in_child(lambda: judge(host, _stdin()), timeout=left)
    except (HardeningError, OSError) as error:
        refusals, notes = [f"the gate came to no judgement: {error}"], []
    line = message(guest, refusals)
    lines = [("LOG_NOTICE", f"{shown(guest)}: {note}") for note in notes]
    if not refusals:
        lines.append(("LOG_INFO", f"{shown(guest)} may come: this host is as agreed"))
    elif mode == ENFORCE:
        sys.stderr.write(line + "\n")
        lines.append(("LOG_ERR", line))
    else:
        lines.append(("LOG_WARNING", f"{line} It is let through all the same: the mode is {mode}."))
    _log(host, lines)
    return REFUSED if refusals and mode == ENFORCE else ALLOWED


def judge(host: Host, xml: bytes) -> Answer:
    """Compare the host with what was agreed on and with what the guest needs.

    :raises HardeningError: the XML cannot be read.
    :raises OSError: something of the host cannot be read.
    """
    try:
        agreement = _agreement.parse(host.read_optional(AGREEMENT))
    except _agreement.AgreementError as error:
        return Answer([f"{AGREEMENT}: {error}"], [])
    live, unknown = _gatevalues.live(host, {*agreement.values, "memfd_create"})
    departures = _agreement.mismatches(agreement, live, unknown)
    memfd = live.get("memfd_create"), unknown.get("memfd_create", "")
    missing, notes = _incoming.needs(host, _incoming.parse(xml), memfd)
    return Answer([*map(str, departures), *missing], notes)


def message(guest: str, refusals: t.Sequence[str]) -> str:
    """The one line for the operator."""
    reasons = [shown(reason).rstrip(".") for reason in refusals]
    head = f"hypervisor.hardening: {shown(guest)} may not come to {os.uname().nodename}: "
    text, left = "; ".join(reasons), 0
    while len(text) > _LINE_LIMIT and len(reasons) > 1:
        reasons.pop()
        left += 1
        text = "; ".join([*reasons, f"and {left} more"])
    return f"{head}{text[:_LINE_LIMIT]}."


def shown(text: str) -> str:
    """A text that fits into one line and any terminal: names of guests and files can hold anything."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "replace").decode() for sign in text)


def _stdin() -> bytes:
    return sys.stdin.buffer.read(_incoming.SIZE_LIMIT + 1)


def _log(host: Host, lines: t.Sequence[tuple[str, str]]) -> None:
    """To syslog(3), in a child: whoever reads there may hang."""
    import syslog

    def call() -> None:
        syslog.openlog(IDENT, syslog.LOG_PID, syslog.LOG_DAEMON)
        for priority, text in lines:
            syslog.syslog(getattr(syslog, priority), text)

    with contextlib.suppress(HardeningError, OSError):
        host.in_child(call, timeout=_LOG_SECONDS)
