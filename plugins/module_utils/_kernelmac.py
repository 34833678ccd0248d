# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mandatory access control as the running kernel has it."""

from __future__ import annotations

from ._host import Host


def kernel_mac(host: Host) -> tuple[str, str]:
    """Which mandatory access control this kernel has for guests, and the mode that SELinux is in."""
    enforce = host.text_optional("/sys/fs/selinux/enforce")
    if enforce is not None:
        return "selinux", "enforcing" if enforce.strip() == "1" else "permissive"
    # securityfs need not be mounted: admin-guide/LSM/index.rst; AppArmor's own switch is always there.
    active = (host.text_optional("/sys/kernel/security/lsm") or "").strip().split(",")
    enabled = (host.text_optional("/sys/module/apparmor/parameters/enabled") or "").strip() == "Y"
    return ("apparmor" if enabled or "apparmor" in active else ""), ""
