# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where libvirt and QEMU look for TLS certificates and keys, and what is there."""

from __future__ import annotations

import os
import time
import typing as t

from . import _qemu, _tlsfiles, _x509
from ._host import HardeningError, Host
from ._infocontext import Context
from ._tlsfiles import AUTHORITY, CLIENT, SERVER

_MOST = 24
_SERVER = (AUTHORITY, SERVER.certificate, SERVER.key)
_BOTH = (*_SERVER, CLIENT.certificate, CLIENT.key)
# qemu_conf.c, virQEMUDriverConfigSetDefaults: each has a directory of its own, used if it exists.
_USES = {"vnc": _SERVER, "spice": _SERVER, "chardev": _BOTH, "migrate": _BOTH, "nbd": _BOTH, "backup": _SERVER}
# rpc/virnettlscontext.c; each can be set in the daemon's own file.
_DAEMON = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``tls``; its keys are documented in hypervisor_info."""
    uses = [_use(context, name) for name in _USES]
    uses.append(_daemon(context))
    _prove(context, uses)
    certificates = sorted({path for use in uses for path in use["present"] if "key" not in path.rpartition("/")[2]})
    return {
        "uses": uses,
        "certificates": [_certificate(context.host, path) for path in certificates[:_MOST]],
    }


def _use(context: Context, name: str) -> dict[str, t.Any]:
    conf = context.configuration("qemu.conf")
    configured = conf.get(f"{name}_tls_x509_cert_dir")
    directory = _tlsfiles.directory(context.host, conf, name)
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
        "problems": None,
    }


def _prove(context: Context, uses: list[dict[str, t.Any]]) -> None:
    """Fill in the problems of each use whose files are all there.

    A child process reads the keys, and as QEMU's user it sees what QEMU could read. Only its words come back.
    """
    host, conf = context.host, context.configuration("qemu.conf")
    whole = [use for use in uses if not use["missing"]]
    if not whole:
        return
    name = _tlsfiles.migration_name(host, conf)
    uid, gid, _source = _qemu.user(host, conf)

    def look() -> list[list[str]]:
        from . import _tlsproof

        found = []
        for use in whole:
            authority, *own = (_tlsproof.File(os.path.basename(path), host.path(path)) for path in use["present"])
            sides = [_tlsproof.Side(*own[at : at + 2]) for at in range(0, len(own), 2)]
            names = [name] if use["name"] == "migrate" else []
            found.append(_tlsproof.objections(authority, sides[0], sides[1] if len(sides) > 1 else None, names))
        if uid is not None and gid is not None:
            _qemu.become(host, _qemu.User(host.user_name(uid), uid, gid))
            for use, problems in zip(whole, found):
                if use["name"] != "daemon":
                    problems += [
                        f"{path} cannot be read by QEMU, which runs as uid {uid}."
                        for path in use["present"]
                        if not os.access(host.path(path), os.R_OK)
                    ]
        return found

    try:
        for use, problems in zip(whole, host.in_child(look)):
            use["problems"] = problems
    except (HardeningError, OSError):  # then nobody knows, and null says so
        return


def _certificate(host: Host, path: str) -> dict[str, t.Any]:
    """What a file says of its first certificate, and when the first of all in it ends; nulls and the reason if none."""
    entry: dict[str, t.Any] = {"name": path, "expires": None, "days_left": None, "algorithm": "", "bits": None}
    entry.update(alternative_names=None, names=None, digest=None, reason="")
    try:
        chain = _x509.read(host.read(path))
    except HardeningError as error:
        return {**entry, "reason": f"{path}: {error}"}
    except OSError as error:
        return {**entry, "reason": f"{path}: {error.strerror}"}
    first, ends = chain[0], min(one.ends for one in chain)
    return {
        **entry,
        "expires": ends,
        "days_left": int((ends - time.time()) // 86400),
        "algorithm": first.algorithm,
        "bits": first.bits,
        "alternative_names": bool(first.names),
        "names": list(first.names),
        "digest": _x509.digest(chain),
    }
