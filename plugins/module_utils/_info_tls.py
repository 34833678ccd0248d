# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where libvirt and QEMU look for TLS certificates and keys, and what is there."""

from __future__ import annotations

import calendar
import re
import time
import typing as t

from ._host import HardeningError, Host
from ._infocontext import Context

_COMMAND_SECONDS = 5.0
_MOST = 24
_BOTH = ("ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem")
_SERVER = _BOTH[:3]
_DEFAULT = "/etc/pki/qemu"
# qemu_conf.c, virQEMUDriverConfigSetDefaults: each has a directory of its own, used if it exists.
_USES = {"vnc": _SERVER, "spice": _SERVER, "chardev": _BOTH, "migrate": _BOTH, "nbd": _BOTH, "backup": _SERVER}
# rpc/virnettlscontext.c; each can be set in the daemon's own file.
_DAEMON = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}
_END_RE = re.compile(r"Not After\s*: (.+?)(?: GMT)?$", re.MULTILINE)
_BITS_RE = re.compile(r"Public[ -]Key: \((\d+) bit\)")
_ALGORITHM_RE = re.compile(r"Public Key Algorithm: (\S+)")


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``tls``; its keys are documented in hypervisor_info."""
    uses = [_use(context, name) for name in _USES]
    uses.append(_daemon(context))
    certificates = sorted({path for use in uses for path in use["present"] if "key" not in path.rpartition("/")[2]})
    return {
        "uses": uses,
        "certificates": [_certificate(context.host, path) for path in certificates[:_MOST]],
    }


def _use(context: Context, name: str) -> dict[str, t.Any]:
    conf = context.configuration("qemu.conf")
    configured = conf.get(f"{name}_tls_x509_cert_dir")
    own, general = f"/etc/pki/libvirt-{name}", conf.get("default_tls_x509_cert_dir", _DEFAULT)
    directory = str(configured or (own if context.host.exists(own) else general))
    return _found(context.host, name, directory, [f"{directory}/{file}" for file in _USES[name]], bool(configured))


def _daemon(context: Context) -> dict[str, t.Any]:
    daemon = "virtproxyd" if context.layout.kind == "modular" else "libvirtd"
    conf = context.configuration(f"{daemon}.conf")
    paths = [str(conf.get(key, default)) for key, default in _DAEMON.items()]
    return _found(context.host, "daemon", "/etc/pki/libvirt", paths, any(conf.get(key) for key in _DAEMON))


def _found(host: Host, name: str, directory: str, paths: list[str], configured: bool) -> dict[str, t.Any]:
    present = [path for path in paths if host.exists(path)]
    return {
        "name": name,
        "directory": directory,
        "configured": configured,
        "exists": host.exists(directory),
        "present": present,
        "missing": [path.rpartition("/")[2] for path in paths if path not in present],
    }


def _certificate(host: Host, path: str) -> dict[str, t.Any]:
    """What openssl-x509(1) says of a certificate; nulls and the reason where it cannot."""
    entry: dict[str, t.Any] = {"name": path, "expires": None, "days_left": None, "algorithm": "", "bits": None}
    entry.update(alternative_names=None, reason="")
    try:
        done = host.run(["openssl", "x509", "-noout", "-text", "-in", path], timeout=_COMMAND_SECONDS)
    except HardeningError as error:
        return {**entry, "reason": str(error)}
    if done.rc != 0:
        return {**entry, "reason": done.err.strip().partition("\n")[0]}
    end, bits, algorithm = (pattern.search(done.out) for pattern in (_END_RE, _BITS_RE, _ALGORITHM_RE))
    if end:
        entry["expires"] = calendar.timegm(time.strptime(end[1], "%b %d %H:%M:%S %Y"))
        entry["days_left"] = int((entry["expires"] - time.time()) // 86400)
    entry["bits"] = int(bits[1]) if bits else None
    entry["algorithm"] = algorithm[1] if algorithm else ""
    entry["alternative_names"] = "X509v3 Subject Alternative Name" in done.out
    return entry
