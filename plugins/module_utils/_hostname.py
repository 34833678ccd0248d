# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt calls a host where no configuration does (src/util/virutil.c, virGetHostname)."""

from __future__ import annotations

from ._host import HardeningError, Host

_SECONDS = 5.0
_MOST = 8


def resolved(host: Host) -> tuple[str, list[str] | None]:
    """The kernel's name for the host, made whole by the resolver unless it has a dot or leads to localhost.

    :return: the name, and to what it resolves here, at most eight addresses; None where nobody can be asked.
    """
    name = host.text("/proc/sys/kernel/hostname").strip()
    try:
        lines = host.run(["getent", "ahosts", name], timeout=_SECONDS).out.splitlines()
    except HardeningError:
        return name, None
    addresses = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))[:_MOST]
    if "." in name or name.startswith("localhost"):
        return name, addresses
    canonical = next((words[2] for words in map(str.split, lines) if len(words) > 2), name)
    return name if canonical.startswith("localhost") else canonical, addresses
