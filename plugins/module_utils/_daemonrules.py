# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on the values of the daemons' files: what keeps a daemon down, locks everybody out, or lets everybody in."""

from __future__ import annotations

import re
import typing as t

from ._host import Host

if t.TYPE_CHECKING:
    from ._virconf import Document, Plain

# The key, and a name or path in its value, that the host does not have.
Lacking = frozenset[tuple[str, str]]

_UNIX = ("none", "sasl", "polkit")
_NETWORK = ("none", "sasl")  # polkit knows local processes only (auth.rst)

# Sets of words and numbers, each from what libvirt looks the value up in.
_ALLOWED: dict[str, tuple[t.Any, ...]] = {
    "auth_unix_rw": _UNIX,  # remote_daemon_config.c, remoteConfigGetAuth
    "auth_unix_ro": _UNIX,
    "auth_tcp": _NETWORK,
    "auth_tls": _NETWORK,
    "access_drivers": ("none", "polkit"),  # viraccessmanager.c
    "audit_level": (0, 1, 2),  # libvirtd.conf
    "host_uuid_source": ("smbios", "machine-id"),  # remote_daemon.c, daemonSetupHostUUID
    "log_level": (1, 2, 3, 4),  # virlog.h, virLogPriority
    "firewall_backend": ("nftables", "iptables", "none"),  # bridge_driver_conf.c
}
_OCTAL = ("unix_sock_rw_perms", "unix_sock_ro_perms", "unix_sock_admin_perms")
_TLS_FILES = ("key_file", "key_files", "cert_file", "cert_files", "ca_file", "crl_file")
_EITHER = (("key_file", "key_files"), ("cert_file", "cert_files"))  # libvirtd.conf: mutually exclusive
_PATHS = (
    *(*_TLS_FILES, "unix_sock_dir", "log_root"),
    *("file_lockspace_dir", "lvm_lockspace_dir", "scsi_lockspace_dir", "disk_lease_dir"),
)
_LEAST_SSF = 112  # remote_daemon_config.c, SSF_WARNING_LEVEL

# Whoever is not in such a list is refused (virnettlscontext.c, virnetsaslcontext.c: an empty one is a list).
_LISTS = ("tls_allowed_dn_list", "sasl_allowed_username_list")
# How many clients are served in all, and before they have proved who they are (remote_daemon_config.c).
_CLIENTS = ("max_clients", 5000, "max_anonymous_clients", 20)

_OTHERS_WRITE = 0o002  # unix(7): who may write to a socket may connect


def lacking(host: Host, settings: t.Mapping[str, t.Any]) -> Lacking:
    """What the settings name and the host does not have: the group of the sockets, the files of TLS."""
    found = set()
    for key, value in settings.items():
        for word in _words(value):
            if key == "unix_sock_group" and not word.isdigit() and host.gid(word) is None:
                found.add((key, word))
            if key in _TLS_FILES and word.startswith("/") and not host.exists(word):
                found.add((key, word))
    return frozenset(found)


def problems(wanted: t.Mapping[str, Plain], document: Document, absent: Lacking) -> list[str]:
    """Why the daemon would not start with the wanted values, which are of the right type; each names its key.

    :param document: the file with the wanted values in it, for rules on more than one key.
    """
    found = [problem for key, value in wanted.items() for problem in _problems(key, value, absent)]
    most, default, before, default_before = _CLIENTS
    if wanted.keys() & {most, before}:
        served, waiting = _number(document, most, default), _number(document, before, default_before)
        if served < waiting:  # virnetserver.c, virNetServerNew
            found.append(
                f"{most}: {served} is less than {before} ({waiting}; {default_before} where it is not set), and the "
                "daemon does not start then. Set both."
            )
    for one, other in _EITHER:
        if wanted.keys() & {one, other} and document.get(one) is not None and document.get(other) is not None:
            found.append(f"{one}: libvirt takes either this key or {other}. Take the other one away by null.")
    return found


def lock_outs(wanted: t.Mapping[str, Plain]) -> list[str]:
    """The wanted values with which the daemon serves nobody any more."""
    found = [f"{key}: with an empty list every client is refused" for key in _LISTS if wanted.get(key) == []]
    if wanted.get("max_client_requests") == 0:  # measured on 11.3: the client waits for ever
        found.append("max_client_requests: with 0 no request of any client is read")
    return found


def open_door(document: Document, unit_mode: int | None) -> str:
    """Why every local user would be root with this file, "" where not.

    :param unit_mode: permission bits that systemd gives the socket, None where the daemon makes it itself.
    """
    if _text(document, "auth_unix_rw") != "none":
        return ""
    mode = unit_mode
    if mode is None:
        # remote_daemon_config.c, daemonConfigNew: root alone, unless polkit guards the socket
        perms = _text(document, "unix_sock_rw_perms") or "0700"
        mode = int(perms, 8) if re.fullmatch(r"[0-7]{1,5}", perms) else 0
    if not mode & _OTHERS_WRITE:
        return ""
    return f'auth_unix_rw: with "none" nobody has to prove who he is, and the socket has mode {mode:04o}'


def doubts(wanted: t.Mapping[str, Plain]) -> list[str]:
    """What libvirt takes, and what will not do what it seems to say."""
    found = []
    if wanted.get("access_drivers") == ["polkit"]:
        found.append(
            "access_drivers: polkit knows local processes only. Clients by TLS and TCP are refused every call, and "
            "local users who are not root all that no rule of polkit grants them."
        )
    found += [
        f"{key}: without the check any client is served whose certificate merely looks like one."
        for key in ("tls_no_verify_certificate", "tls_no_sanity_certificate")
        if wanted.get(key) in (True, 1)
    ]
    if wanted.get("auth_tcp") == "none":
        found.append("auth_tcp: whoever reaches the TCP port of this daemon, if it is opened, is root here.")
    return found


def _problems(key: str, value: Plain, absent: Lacking) -> t.Iterator[str]:
    for word in value if isinstance(value, list) else [value]:
        if key in _ALLOWED and word not in _ALLOWED[key]:
            yield f"{key}: {word!r} is not one of {', '.join(map(str, _ALLOWED[key]))}."
    if key in _OCTAL and not re.fullmatch(r"0?[0-7]{1,4}", str(value)):
        yield f"{key}: {value!r} is no octal mode such as 0660."
    for word in _words(value):
        if key in _PATHS and not word.startswith("/"):
            yield f"{key}: {word!r} is not an absolute path."
        if (key, word) in absent and key in _TLS_FILES:
            yield f"{key}: {word} does not exist, and the daemon does not start with a TLS listener then."
        elif (key, word) in absent:
            yield f"{key}: this host has no group {word!r}, and the daemon does not start then. Create it first."
    if key == "tcp_min_ssf" and isinstance(value, int) and value < _LEAST_SSF:
        yield f"{key}: libvirt does not start with less than {_LEAST_SSF}."
    if key == "max_workers" and value == 0:
        yield f"{key}: it takes at least one worker; newer libvirts do not start without."
    if key == "host_uuid" and not re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", str(value)):
        yield f"{key}: {value!r} is no UUID."


def _words(value: t.Any) -> list[str]:
    """The strings in a value that can be names: itself, or those of a list."""
    words = value if isinstance(value, list) else [value]
    return [word for word in words if isinstance(word, str) and "\0" not in word]


def _number(document: Document, key: str, default: int) -> int:
    value = document.get(key)
    return value.content if value is not None and isinstance(value.content, int) else default


def _text(document: Document, key: str) -> str:
    value = document.get(key)
    return value.content if value is not None and isinstance(value.content, str) else ""
