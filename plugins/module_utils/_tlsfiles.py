# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files QEMU wants for TLS, where libvirt has it look for them, and under which name a host is reached."""

from __future__ import annotations

from dataclasses import dataclass

from . import _hostname
from ._host import Host
from ._qemu import Settings

DEFAULT_DIRECTORY = "/etc/pki/qemu"
AUTHORITY = "ca-cert.pem"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, file names; ``role`` is the side of a connection that shows it."""

    role: str
    certificate: str
    key: str


# QEMU, crypto/tlscredsx509.c: the names are fixed.
SERVER = Pair("server", "server-cert.pem", "server-key.pem")
CLIENT = Pair("client", "client-cert.pem", "client-key.pem")
PAIRS = (SERVER, CLIENT)


def directory(host: Host, settings: Settings, use: str) -> str:
    """Where libvirt looks for the files of one use, such as ``migrate``.

    qemu_conf.c, virQEMUDriverConfigSetDefaults: what is set for the use; else a directory of its own if there is one
    when the daemon starts; else the one for all.
    """
    own = f"/etc/pki/libvirt-{use}"
    general = settings.get("default_tls_x509_cert_dir") or DEFAULT_DIRECTORY
    return str(settings.get(f"{use}_tls_x509_cert_dir") or (own if host.exists(own) else general))


def migration_name(host: Host, settings: Settings) -> str:
    """The name that a destination gives to the source of a migration, which looks for it in the server's certificate.

    qemu_migration.c, qemuMigrationDstPrepareDirect: migration_host, else what libvirt calls the host.
    """
    configured = settings.get("migration_host")
    if configured:
        return str(configured)
    return _hostname.resolved(host)[0]
