# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sides of a connection made of real certificates; that QEMU agrees is shown in tests/integration."""

from __future__ import annotations

import os
import re
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tlsproof
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.tests.rig import certificates
from ansible_collections.hypervisor.hardening.tests.rig.certificates import Authority, Pair

UNKNOWN = "was issued by none of the authorities in ca-cert.pem."


@pytest.fixture(scope="module")
def authority() -> t.Iterator[Authority]:
    with certificates.authority() as made:
        yield made


@pytest.fixture(scope="module")
def other() -> t.Iterator[Authority]:
    with certificates.authority("other") as made:
        yield made


def meet(authority: str, server: Pair, client: Pair | None = None, names: t.Sequence[str] = ("h1",)) -> list[str]:
    """As the module asks: in a child, with files that are on no disk."""
    texts = {"ca-cert.pem": authority, "server-cert.pem": server.certificate, "server-key.pem": server.key}
    if client:
        texts.update({"client-cert.pem": client.certificate, "client-key.pem": client.key})

    def ask() -> list[str]:
        files = _tlsproof.in_memory({name: text.encode() for name, text in texts.items()})
        calling = _tlsproof.Side(files["client-cert.pem"], files["client-key.pem"]) if client else None
        listening = _tlsproof.Side(files["server-cert.pem"], files["server-key.pem"])
        return _tlsproof.objections(files["ca-cert.pem"], listening, calling, names)

    return t.cast("list[str]", Host().in_child(ask))


def test_a_good_set(authority: Authority) -> None:
    names = ["DNS:h1", "DNS:*.h1.example", "IP:192.0.2.1", "IP:2001:db8::1"]
    server, client = authority.issue("h1", ["server"], names=names), authority.issue("h1", ["client"])
    asked = ["h1", "migration.h1.example", "192.0.2.1", "2001:db8::1"]
    assert meet(authority.certificate, server, client, asked) == []
    assert meet(authority.certificate, server, None, asked) == []
    assert meet(authority.certificate, server, client, ["h2", "192.0.2.2", "h1"]) == [
        "server-cert.pem does not name h2.",
        "server-cert.pem does not name 192.0.2.2.",
    ]


def test_one_certificate_for_both(authority: Authority) -> None:
    both = authority.issue("h1")
    assert meet(authority.certificate, both, both) == []


def test_the_common_name_counts_where_there_is_no_other(authority: Authority) -> None:
    """As with GnuTLS: tests/integration has a migration with it."""
    assert meet(authority.certificate, authority.issue("h1", names=[])) == []
    assert meet(authority.certificate, authority.issue("h1", names=["DNS:h2"])) == ["server-cert.pem does not name h1."]


@pytest.mark.parametrize(
    ("purposes", "options", "objection"),
    [
        (["server", "client"], {"begin": -9, "days": -1}, r"certificate has expired\."),
        (["server", "client"], {"begin": 9}, r"certificate is not yet valid\."),
        # as OpenSSL 3 and 1.1 have it
        ([], {}, r"(unsuitable|unsupported) certificate purpose \(extendedKeyUsage\)\."),
    ],
)
def test_either_side_is_judged(
    authority: Authority, purposes: list[str], options: dict[str, t.Any], objection: str
) -> None:
    for role, opposite in (("server", "client"), ("client", "server")):
        pairs = {
            role: authority.issue("h1", purposes or [opposite], **options),
            opposite: authority.issue("h1", [opposite]),
        }
        (told,) = meet(authority.certificate, pairs["server"], pairs["client"])
        assert re.fullmatch(rf"{role}-cert\.pem is not accepted: {objection}", told)


def test_strange_authorities(authority: Authority, other: Authority) -> None:
    server, client = authority.issue("h1", ["server"]), authority.issue("h1", ["client"])
    assert meet(other.certificate, server, client) == [f"server-cert.pem {UNKNOWN}"]
    assert meet(authority.certificate, server, other.issue("h1", ["client"])) == [f"client-cert.pem {UNKNOWN}"]
    assert meet(other.certificate + authority.certificate, server, other.issue("h1", ["client"])) == []
    alone = Pair(authority.certificate, authority.issue("h1").key)
    assert meet(authority.certificate, alone) == ["server-key.pem is not the key of server-cert.pem."]


def test_keys_that_do_not_match(authority: Authority) -> None:
    server, client = authority.issue("h1", ["server"]), authority.issue("h1", ["client"])
    swapped = Pair(server.certificate, client.key), Pair(client.certificate, server.key)
    assert meet(authority.certificate, *swapped) == [
        "server-key.pem is not the key of server-cert.pem.",
        "client-key.pem is not the key of client-cert.pem.",
    ]


def test_what_is_no_certificate_or_key(authority: Authority) -> None:
    good = authority.issue("h1")
    (told,) = meet("nonsense", good)
    assert told.startswith("ca-cert.pem cannot be read: ")
    (told,) = meet(authority.certificate, Pair(good.certificate, "nonsense"))
    assert told.startswith("server-cert.pem and server-key.pem cannot be used: ")


@pytest.mark.parametrize("name", ["", ".h1", "a..b", "x" * 64])
def test_what_no_host_is_called(authority: Authority, name: str) -> None:
    (told,) = meet(authority.certificate, authority.issue("h1"), None, [name])
    assert "is no name that a host can have" in told


def test_the_memory_is_no_file() -> None:
    file = _tlsproof.in_memory({"server-key.pem": b"secret"})["server-key.pem"]
    fd = int(os.path.basename(file.path))
    try:
        assert Path(file.path).read_bytes() == b"secret"
        assert os.readlink(file.path) == "/memfd:server-key.pem (deleted)"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
