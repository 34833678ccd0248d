# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which libvirt and QEMU this host has, and what of qemu.conf is in force."""

from __future__ import annotations

import re
import typing as t

from . import _libvirtcheck, _qemu
from ._host import HardeningError, Host
from ._infocontext import Context

_COMMAND_SECONDS = 5.0
_MECHANISMS_RE = re.compile(r"^[ \t]*mech_list[ \t]*:[ \t]*(.*)$", re.MULTILINE)
_VERSION_RE = re.compile(r"version (\d+(?:\.\d+)+)(?: \(([^)]*)\))?")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``libvirt``; its keys are documented in hypervisor_info."""
    layout, loading = context.layout, context.loading
    library = _libvirtcheck.library(context.host)
    qemu = _qemu_version(context.host)
    return {
        "installed": layout.kind != "none",
        "layout": layout.kind,
        "daemon": layout.daemon,
        "service": layout.service,
        "uri": layout.uri,
        "enabled": layout.enabled,
        "active": layout.active,
        "idle": layout.idle,
        "suspended": layout.suspended,
        "version": _libvirtcheck.library_version(library) or None,
        "version_from": library,
        "qemu_version": qemu[0],
        "qemu_package": qemu[1],
        "qemu_version_from": qemu[2],
        "restart_required": loading.restart_required,
        "restart_units": loading.restart_units,
        "guests_pending": loading.guests_pending,
        "secure_erase": _secure_erase(context.library, library),
        "built_with": _built_with(context.library),
        "sasl_mechanisms": _sasl_mechanisms(context.host),
    }


def _qemu_version(host: Host) -> tuple[str | None, str, str]:
    """QEMU's version, its package's and what said so."""
    path = _qemu.emulator(host)
    if not path:
        return None, "", ""
    try:
        done = host.run([path, "--version"], timeout=_COMMAND_SECONDS)
    except HardeningError as error:
        return None, "", str(error)
    found = _VERSION_RE.search(done.out)
    return (found[1], found[2] or "", f"{path} --version") if found else (None, "", f"{path} --version")


def _secure_erase(library: bytes, path: str) -> dict[str, str]:
    """What libvirt has of virSecureErase (util/virsecureerase.c), which wipes passwords and keys from its memory.

    It calls explicit_bzero where the C library has that, and memset, which a compiler may leave out, where not.
    """
    if not library:
        return {"state": "unknown", "source": "no library of libvirt was found"}
    if b"virSecureErase\0" not in library:
        return {"state": "absent", "source": f"{path} has no virSecureErase"}
    if b"explicit_bzero" not in library:
        return {"state": "weak", "source": f"{path} has virSecureErase, but calls memset and no explicit_bzero"}
    return {"state": "present", "source": f"{path} has virSecureErase and calls explicit_bzero"}


def _built_with(library: bytes) -> dict[str, bool | None]:
    """What the defaults of libvirt's authentication depend on (remote_daemon_config.c, daemonConfigNew)."""
    if not library:
        return {"polkit": None, "sasl": None}
    return {"polkit": b"org.freedesktop.PolicyKit1.Authority" in library, "sasl": b"libsasl2.so" in library}


def _sasl_mechanisms(host: Host) -> list[str] | None:
    """What SASL offers to libvirt's clients (auth.rst); None where no file says so, and it is all that is installed."""
    found = _MECHANISMS_RE.findall(host.text_optional("/etc/sasl2/libvirt.conf") or "")
    return sorted(found[-1].lower().split()) if found else None
