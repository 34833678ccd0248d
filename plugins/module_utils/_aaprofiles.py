# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AppArmor's profiles of libvirt and its guests as the kernel has them, and what is switched off on disk."""

from __future__ import annotations

import re

from ._host import Host

PROFILES = "/sys/kernel/security/apparmor/profiles"
ETC = "/etc/apparmor.d"
ENFORCED = ("enforce", "kill")
# A guest's own is libvirt-UUID (libvirt's src/security/security_apparmor.c, get_profile_name).
GUEST_RE = re.compile(r"libvirt-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")
# Profiles of what libvirt starts or is.
_VIRTUAL_RE = re.compile(r"virt|qemu|swtpm|passt|dnsmasq|kvm")
# The files by which the kernel shows what was loaded: a digest of the bytes that the compiler handed to it
# (security/apparmor/apparmorfs.c, __aafs_profile_mkdir); SHA-1 before 6.8.
_POLICY = "/sys/kernel/security/apparmor/policy/profiles"
_DIGESTS = ("raw_sha256", "raw_sha1")


def loaded(host: Host) -> list[dict[str, str]]:
    """The loaded profiles that are about virtualization, each with its name and mode.

    :raises OSError: the kernel does not tell.
    """
    split = (line.rpartition(" (") for line in host.text(PROFILES).splitlines())
    return [{"name": name, "mode": mode.rstrip(")")} for name, _blank, mode in split if _VIRTUAL_RE.search(name)]


def named(host: Host, directory: str) -> list[str]:
    """What is switched off (aa-disable(8)) or set to complain (aa-complain(8)) by a link in a directory."""
    return [f"{ETC}/{directory}/{name}" for name in host.list(f"{ETC}/{directory}") if _VIRTUAL_RE.search(name)]


def digest(host: Host, profile: str) -> tuple[str, str] | None:
    """The digest of what was loaded as a profile, and its algorithm's name in hashlib; None where there is none to be
    had: it is not loaded, or this kernel does not keep what was loaded (CONFIG_SECURITY_APPARMOR_EXPORT_BINARY)."""
    stem = re.escape(profile.strip("/").replace("/", "."))  # aafs mangles a name that is a path
    for name in host.list(_POLICY):
        if re.fullmatch(rf"{stem}\.\d+", name):
            for kind in _DIGESTS:
                told = host.text_optional(f"{_POLICY}/{name}/{kind}")
                if told:
                    return told.strip(), kind.partition("_")[2]
    return None
