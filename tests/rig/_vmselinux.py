# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine has whose kernel has SELinux in AppArmor's place: Debian's policy, and a labelled disk."""

from __future__ import annotations

import hashlib
import pathlib
from typing import IO

from . import _chroot, _guestlinux, _vmrecipe
from ._base import run_long

RELEASES = ("trixie",)
PACKAGES = (
    _guestlinux.PACKAGE,
    "auditd",
    *("selinux-policy-default", "selinux-basics", "policycoreutils-python-utils", "python3-selinux", "setools"),
)

#: On the kernel's command line at each boot. A host begins permissive, so that it can be reached whatever its policy.
WORDS = "security=selinux selinux=1 enforcing=0"
_CONFIG = "SELINUX=permissive\nSELINUXTYPE=default\n"
# The files of one host, which are written before the policy is there: these keep the labels that they have by then.
_PERSONAL = ("etc/hostname", "etc/systemd/network/10-host0.network", "root/.ssh/authorized_keys")
# What Debian's policy denies libvirtd, and a guest with a /dev of its own needs: to take what is mounted below the
# host's out of that guest's sight. Without it no guest starts while SELinux is enforced (measured on 11.3).
_RULES = "/usr/share/rig/libvirtd.cil"
_RULES_TEXT = """\
(allow virtd_t device_t (filesystem (unmount)))
(allow virtd_t tmpfs_t (filesystem (unmount)))
(allow virtd_t devpts_t (filesystem (unmount)))
(allow virtd_t devpts_t (dir (write)))
(allow virtd_t hugetlbfs_t (filesystem (unmount)))
"""
_CONTEXTS = "etc/selinux/default/contexts/files/file_contexts"


def label(root: pathlib.Path, label: str, log: IO[bytes]) -> None:
    """Complete the policy in a root file system, and give every file the context that the policy has for it.

    :raises RigError: a step failed.
    """
    (root / "etc/selinux/config").write_text(_CONFIG, encoding="ascii")
    for path in _PERSONAL:
        (root / path).touch()
    inside = _chroot.command(root)
    (root / _RULES.lstrip("/")).write_text(_RULES_TEXT, encoding="ascii")
    run_long([*inside, "semodule", "--noreload", "--store=default", f"--install={_RULES}"], label, log)
    run_long([*inside, "setfiles", "-F", "-m", f"/{_CONTEXTS}", "/"], label, log)


def digest(release: str) -> str:
    """Twelve hexadecimal digits that change with this recipe, and with that of other virtual machines."""
    text = pathlib.Path(__file__).read_bytes() + _vmrecipe.digest(release).encode()
    return hashlib.sha256(text).hexdigest()[:12]
