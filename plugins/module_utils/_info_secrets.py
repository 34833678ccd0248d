# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of libvirt's persistent secrets on the disk: encrypted, or only encoded (secretencryption.rst)."""

from __future__ import annotations

import typing as t

from . import _libvirtcheck
from ._infocontext import Context

DIRECTORY = "/etc/libvirt/secrets"
KEY = "/var/lib/libvirt/secrets/secrets-encryption-key"
_SINCE = (12, 1)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``secrets``; its keys are documented in hypervisor_info. No value is read."""
    host = context.host
    version = _libvirtcheck.library_version(_libvirtcheck.library(host))
    names = host.list(DIRECTORY)
    values = [name for name in names if not name.endswith(".xml")]
    plain = [name for name in values if name.endswith(".base64")]
    return {
        "encryption_known": tuple(map(int, version.split(".")))[:2] >= _SINCE if version else None,
        "encrypt_data": context.configuration("secret.conf").get("encrypt_data"),
        "key_configured": context.configuration("secret.conf").get("secrets_encryption_key", ""),
        "key_exists": host.exists(KEY),
        "defined": len([name for name in names if name.endswith(".xml")]),
        "encrypted": len(values) - len(plain),
        "plain": len(plain),
    }
