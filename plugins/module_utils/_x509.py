# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as their files hold them (RFC 5280, RFC 7468). Whether one can be trusted is judged elsewhere."""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import re
import time
import typing as t
from dataclasses import dataclass

from ._host import HardeningError

_BLOCK_RE = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----", re.DOTALL)
_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
_PRIVATE = "PRIVATE KEY"
_OID, _UTC_TIME = 0x06, 0x17
_VERSION, _EXTENSIONS, _DNS_NAME, _IP_ADDRESS = 0xA0, 0xA3, 0x82, 0x87
_COMMON_NAME = "2.5.4.3"
_ALTERNATIVE_NAMES = "2.5.29.17"
# As OpenSSL calls them.
_ALGORITHMS = {
    "1.2.840.113549.1.1.1": "rsaEncryption",
    "1.2.840.113549.1.1.10": "rsassaPss",
    "1.2.840.10045.2.1": "id-ecPublicKey",
    "1.3.101.112": "ED25519",
    "1.3.101.113": "ED448",
}
_CURVES = {"1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384, "1.3.132.0.35": 521}


class CertificateError(HardeningError):
    """What should be a certificate is none."""


@dataclass(frozen=True)
class Certificate:
    """``begins`` and ``ends`` are seconds since the epoch; ``names`` the DNS names and addresses among the alternative
    names; ``bits`` None where the size of the key is not known; ``sha256`` the fingerprint in hexadecimal digits."""

    subject: str
    begins: int
    ends: int
    names: tuple[str, ...]
    algorithm: str
    bits: int | None
    sha256: str


def labels(data: bytes) -> tuple[str, ...]:
    """The labels of the PEM blocks of a file, in order."""
    return tuple(found[1].decode() for found in _BLOCK_RE.finditer(data))


def holds_key(data: bytes) -> bool:
    """Whether a private key is among the PEM blocks of a file."""
    return any(label.endswith(_PRIVATE) for label in labels(data))


def is_encrypted(data: bytes) -> bool:
    """Whether a private key takes a password (RFC 5958, and the header of RFC 1421 in the old form)."""
    return "ENCRYPTED PRIVATE KEY" in labels(data) or b"Proc-Type: 4,ENCRYPTED" in data


def read(data: bytes) -> tuple[Certificate, ...]:
    """The certificates of a PEM file.

    :raises CertificateError: there is none, or one cannot be read.
    """
    blocks = [found[2] for found in _BLOCK_RE.finditer(data) if found[1].decode() in _LABELS]
    if not blocks:
        raise CertificateError("no PEM certificate is in it")
    return tuple(map(_certificate, blocks))


def digest(chain: t.Sequence[Certificate]) -> str:
    """What a file of certificates is compared by: the fingerprint of a single one, else one of all, in any order."""
    if len(chain) == 1:
        return chain[0].sha256
    return hashlib.sha256("".join(sorted(one.sha256 for one in chain)).encode()).hexdigest()


def moment(seconds: int) -> str:
    """A time as results show it, in UTC (ISO 8601)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _certificate(block: bytes) -> Certificate:
    try:
        data = base64.b64decode(b"".join(block.split()), validate=True)
        ((_tag, outer),) = _values(data)
        fields = _values(_values(outer)[0][1])
        if fields[0][0] == _VERSION:
            del fields[0]
        _serial, _signature, _issuer, validity, subject, key, *rest = fields
        begins, ends = (_time(tag, value) for tag, value in _values(validity[1]))
        algorithm, bits = _public_key(key[1])
        return Certificate(
            subject=_common_name(subject[1]),
            begins=begins,
            ends=ends,
            names=_names(rest),
            algorithm=algorithm,
            bits=bits,
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (binascii.Error, ValueError, IndexError, TypeError) as error:
        raise CertificateError(f"a certificate in it is broken ({error})") from None


def _values(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each DER value, one after the other (ITU-T X.690)."""
    found = []
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > len(data):
            raise ValueError("it is cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _oid(data: bytes) -> str:
    first, *rest = data
    numbers = [min(first // 40, 2), first - 40 * min(first // 40, 2)]
    number = 0
    for byte in rest:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    return ".".join(map(str, numbers))


def _time(tag: int, value: bytes) -> int:
    text = value.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: two digits of the year, 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _public_key(data: bytes) -> tuple[str, int | None]:
    (_tag, algorithm), (_bits, key) = _values(data)
    (_oid_tag, number), *parameters = _values(algorithm)
    name = _ALGORITHMS.get(_oid(number), _oid(number))
    if name == "rsaEncryption":
        ((_sequence, numbers),) = _values(key[1:])
        return name, int.from_bytes(_values(numbers)[0][1], "big").bit_length()
    if parameters and parameters[0][0] == _OID:
        return name, _CURVES.get(_oid(parameters[0][1]))
    return name, None


def _common_name(subject: bytes) -> str:
    for _set, group in _values(subject):
        for _sequence, pair in _values(group):
            (_tag, kind), (_string, text) = _values(pair)
            if _oid(kind) == _COMMON_NAME:
                return text.decode("utf-8", "replace")
    return ""


def _names(rest: t.Sequence[tuple[int, bytes]]) -> tuple[str, ...]:
    for tag, value in rest:
        if tag == _EXTENSIONS:
            for _sequence, extension in _values(_values(value)[0][1]):
                parts = _values(extension)
                if _oid(parts[0][1]) == _ALTERNATIVE_NAMES:
                    return tuple(filter(None, map(_name, _values(_values(parts[-1][1])[0][1]))))
    return ()


def _name(entry: tuple[int, bytes]) -> str:
    tag, value = entry
    if tag == _DNS_NAME:
        return value.decode("ascii", "replace")
    if tag != _IP_ADDRESS:
        return ""
    import ipaddress

    return str(ipaddress.ip_address(value))
