# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a set of certificates and keys works: two sides made of them talk to each other, in memory."""

from __future__ import annotations

import os
import ssl
import typing as t
from dataclasses import dataclass

# Neither side needs more rounds to say all of its part (RFC 8446, 2).
_ROUNDS = 10
# X509_V_FLAG_PARTIAL_CHAIN: a host trusts what is in its file of authorities, also what another one has signed. So does
# GnuTLS. Python has a name for it from 3.10 on.
_PARTIAL_CHAIN = 0x80000
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_NAME_MISMATCH = (62, 64)
# X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN,
# UNABLE_TO_GET_ISSUER_CERT_LOCALLY and UNABLE_TO_VERIFY_LEAF_SIGNATURE
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)
_INVALID_PURPOSE = 26


@dataclass(frozen=True)
class File:
    """``name`` is what an objection calls it; ``path`` is where OpenSSL reads it."""

    name: str
    path: str


@dataclass(frozen=True)
class Side:
    """What one side of a connection shows and signs with."""

    certificate: File
    key: File


def in_memory(files: t.Mapping[str, bytes]) -> dict[str, File]:
    """The same files where they are on no disk, by name, for as long as this process lives."""
    found = {}
    for name, data in files.items():
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.write(fd, data)
        found[name] = File(name, f"/proc/self/fd/{fd}")
    return found


def objections(authority: File, server: Side, client: Side | None, names: t.Sequence[str] = ()) -> list[str]:
    """What keeps the two sides from talking to each other, none if nothing does.

    The client looks for each of ``names`` in the server's certificate. Without ``client`` none is asked of it.
    Keys are read: to be called in a child process (Host.in_child), so that none stays in this one's memory.
    """
    found: list[str] = []
    listening = _context(ssl.PROTOCOL_TLS_SERVER, authority, server, found)
    calling = _context(ssl.PROTOCOL_TLS_CLIENT, authority, client, found)
    if found or listening is None or calling is None:
        return list(dict.fromkeys(found))
    listening.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_NONE
    shown = (server.certificate.name, client.certificate.name if client else "the client's certificate")
    calling.check_hostname = False
    objection = _meet(listening, calling, None, authority.name, shown)
    if objection:
        return [objection]
    calling.check_hostname = True
    return [found for found in (_meet(listening, calling, name, authority.name, shown) for name in names) if found]


def _context(protocol: int, authority: File, own: Side | None, found: list[str]) -> ssl.SSLContext | None:
    """One side; None, and an objection more, where it cannot be made."""
    context = ssl.SSLContext(protocol)
    context.verify_flags |= _PARTIAL_CHAIN
    try:
        context.load_verify_locations(authority.path)
    except (ssl.SSLError, OSError) as error:
        found.append(f"{authority.name} cannot be read: {_words(error)}.")
        return None
    if own is None:
        return context
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(own.certificate.path, own.key.path, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            found.append(f"{own.key.name} is not the key of {own.certificate.name}.")
        else:
            found.append(f"{own.certificate.name} and {own.key.name} cannot be used: {_words(error)}.")
        return None
    return context


def _meet(
    listening: ssl.SSLContext, calling: ssl.SSLContext, name: str | None, authority: str, shown: tuple[str, str]
) -> str:
    """The objection of whichever side breaks off, "" if none does. ``shown``: the certificates of server and client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client = calling.wrap_bio(to_client, to_server, server_hostname=name)
    except ValueError as error:
        return f"{name!r} is no name that a host can have: {error}."
    server = listening.wrap_bio(to_server, to_client, server_side=True)
    for _round in range(_ROUNDS):
        waiting = False
        for side, certificate in zip((client, server), shown):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting = True
            except ssl.SSLCertVerificationError as error:
                return _refusal(authority, certificate, name, error)
            except ssl.SSLError as error:
                return f"{certificate} is not accepted: {_words(error)}."
        if not waiting:
            return ""
    return "The two sides come to no end."


def _refusal(authority: str, certificate: str, name: str | None, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _NAME_MISMATCH:
        return f"{certificate} does not name {name}."
    if error.verify_code in _UNKNOWN_ISSUER:
        return f"{certificate} was issued by none of the authorities in {authority}."
    purpose = " (extendedKeyUsage)" if error.verify_code == _INVALID_PURPOSE else ""
    return f"{certificate} is not accepted: {error.verify_message}{purpose}."


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")
