# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disposable hypervisor is made of; a digest of it and of _guestlinux.py is part of every image's name."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

#: Debian release -> the libvirt it ships, for people.
RELEASES: Mapping[str, str] = {"bookworm": "9.0", "trixie": "11.3"}

# Init, a way in, and what Ansible needs; installed before libvirt so that its postinst finds them.
_BASE = (
    "systemd systemd-sysv systemd-container dbus udev kmod iproute2 procps openssh-server ca-certificates"
    " python3 python3-apt python3-libvirt python3-lxml apparmor"
)
_LIBVIRT = "libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils dmidecode"
# swtpm, passt and virtiofsd are the helper processes whose confinement is looked at.
_HELPERS = "swtpm swtpm-tools passt"
# For the tests themselves.
_TOOLS = "strace attr acl e2fsprogs busybox-static"
_OF_RELEASE: Mapping[str, str] = {"bookworm": "", "trixie": "virtiofsd"}

# Each of these would act on the outer kernel, which the hosts share.
MASKED_UNITS = (
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-udev-settle.service",
    "systemd-binfmt.service",
    "systemd-modules-load.service",
    "systemd-pstore.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "console-getty.service",
)

#: Stamps that tell the first boot that nothing was updated (systemd-update-done.service(8)); it is then faster.
STAMPS = ("etc/.updated", "var/.updated")

#: path -> text appended to what the packages put there.
APPENDED: Mapping[str, str] = {
    # All hosts see one machine's DMI, and libvirt refuses to migrate to a host with its own UUID.
    "etc/libvirt/libvirtd.conf": '\nhost_uuid_source = "machine-id"\n',
    # A guest that sits in its firmware never answers the power button.
    "etc/default/libvirt-guests": "\nSHUTDOWN_TIMEOUT=2\n",
    # PAM complains at every login about a missing one.
    "etc/default/locale": "",
    "etc/ssh/sshd_config.d/rig.conf": "PermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n",
}


def packages(release: str) -> list[str]:
    """The packages of one release, in one list for apt-get."""
    return " ".join([_BASE, _LIBVIRT, _HELPERS, _TOOLS, _OF_RELEASE[release]]).split()


def digest(release: str) -> str:
    """Twelve hexadecimal digits that change with the recipe."""
    here = pathlib.Path(__file__).parent
    parts = [(here / name).read_bytes() for name in ("_recipe.py", "_guestlinux.py")]
    return hashlib.sha256(b"".join(parts) + release.encode()).hexdigest()[:12]
