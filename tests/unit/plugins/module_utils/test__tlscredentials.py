# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned for certificates and keys, from states that are given; real hosts are in tests/integration."""

from __future__ import annotations

import dataclasses
import re
import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tlscredentials as room
from ansible_collections.hypervisor.hardening.plugins.module_utils import _x509
from ansible_collections.hypervisor.hardening.plugins.module_utils._qemu import User
from ansible_collections.hypervisor.hardening.tests.rig import certificates

DAY = 86400


@pytest.fixture(scope="module")
def given() -> dict[str, t.Any]:
    """The five texts; both certificates end in 40 days."""
    with certificates.authority() as authority:
        server, client = (authority.issue("h1", [purpose], days=40) for purpose in ("server", "client"))
        return dict(zip(room.FILES, (authority.certificate, *server, *client)))


@pytest.fixture(scope="module")
def now(given: dict[str, t.Any]) -> float:
    return _x509.read(given["server_cert"].encode())[0].ends - 40 * DAY


@pytest.fixture
def bare(now: float) -> room.State:
    """A host of Debian with libvirt and QEMU, and without any certificate."""
    return room.State(
        exposed=False,
        files={},
        also=(),
        sources={},
        user=User("libvirt-qemu", 64055, 64055),
        group=64055,
        used="/etc/pki/qemu",
        name="h1",
        emulator="/usr/bin/qemu-system-x86_64",
        unconfined=True,
        now=now,
    )


@pytest.fixture
def whole(bare: room.State, given: dict[str, t.Any]) -> room.State:
    """The same with all five in place."""
    files = {
        name: room.Found(
            given[option].encode(), 0, 64055 if "key" in name else 0, 0o640 if "key" in name else 0o644, False
        )
        for option, name in room.FILES.items()
    }
    return dataclasses.replace(bare, files=files)


def refused(state: room.State, wanted: room.Wanted) -> str:
    with pytest.raises(room.CredentialsError) as caught:
        room.plan(state, wanted)
    return str(caught.value)


def test_from_nothing(bare: room.State, given: dict[str, t.Any]) -> None:
    plan = room.plan(bare, room.Wanted(**given))
    assert [str(change) for change in plan.changes] == [f"{name}: new" for name in room.FILES.values()]
    assert [(file.path, file.uid, file.gid, file.mode) for file in plan.replaced] == [
        ("/etc/pki/qemu/ca-cert.pem", 0, 0, 0o644),
        ("/etc/pki/qemu/server-cert.pem", 0, 0, 0o644),
        ("/etc/pki/qemu/server-key.pem", 0, 64055, 0o640),
        ("/etc/pki/qemu/client-cert.pem", 0, 0, 0o644),
        ("/etc/pki/qemu/client-key.pem", 0, 64055, 0o640),
    ]
    assert plan.names == ("h1",)
    assert plan.warnings == ()


def test_what_is_there_already(whole: room.State, given: dict[str, t.Any]) -> None:
    for wanted in (room.Wanted(**given), room.Wanted(), room.Wanted(server_key=given["server_key"].rstrip("\n"))):
        plan = room.plan(whole, wanted)
        assert (plan.changes, plan.replaced, plan.diff) == ((), (), {})
        assert len(plan.files) == 5


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("server-key.pem", {"mode": 0o644}, "server-key.pem: 0:64055 0644 instead of 0:64055 0640"),
        ("server-key.pem", {"gid": 0}, "server-key.pem: 0:0 0640 instead of 0:64055 0640"),
        ("ca-cert.pem", {"uid": 7}, "ca-cert.pem: 7:0 0644 instead of 0:0 0644"),
        (
            "client-key.pem",
            {"data": b"old", "uid": 7},
            "client-key.pem: other content, 7:64055 0640 instead of 0:64055 0640",
        ),
    ],
)
def test_one_file_that_differs(
    whole: room.State, given: dict[str, t.Any], file: str, change: dict[str, t.Any], told: str
) -> None:
    files = {**whole.files, file: dataclasses.replace(whole.files[file], **change)}
    plan = room.plan(dataclasses.replace(whole, files=files), room.Wanted(**given))
    assert [str(one) for one in plan.changes] == [told]
    assert [one.path for one in plan.replaced] == [f"/etc/pki/qemu/{file}"]


def test_a_diff_shows_certificates_and_no_key(bare: room.State, whole: room.State, given: dict[str, t.Any]) -> None:
    old = {name: dataclasses.replace(file, mode=0o600) for name, file in whole.files.items()}
    old["server-key.pem"] = dataclasses.replace(old["server-key.pem"], data=given["client_key"].encode())
    plans = [
        room.plan(bare, room.Wanted(**given)),
        room.plan(dataclasses.replace(whole, files=old), room.Wanted(**given)),
    ]
    for plan in plans:
        shown = plan.diff["before"] + plan.diff["after"]
        for text in given.values():
            assert not [line for line in text.splitlines()[1:-1] if line in shown]
    after, before = plans[1].diff["after"].splitlines(), plans[1].diff["before"].splitlines()
    assert before[2] == "server-key.pem 0:64055 0600 (not shown)"
    assert after[2] == "server-key.pem 0:64055 0640 (changed, not shown)"
    assert after[4] == "client-key.pem 0:64055 0640 (not shown)"
    assert re.fullmatch(
        r"server-cert\.pem 0:0 0644 h1 \[h1\] \d{4}-\S+Z to \d{4}-\S+Z sha256 [0-9a-f]{64}", after[1]
    ), after[1]


def test_every_file_that_lacks_is_named(bare: room.State, given: dict[str, t.Any]) -> None:
    told = refused(bare, room.Wanted(ca_cert=given["ca_cert"], server_cert=given["server_cert"]))
    assert told.splitlines()[1:] == [
        "server-key.pem is not there. Give it in server_key or src.server_key.",
        "client-cert.pem is not there. Give it in client_cert or src.client_cert.",
        "client-key.pem is not there. Give it in client_key or src.client_key.",
    ]


def test_what_cannot_be_meant(whole: room.State, given: dict[str, t.Any]) -> None:
    both = dataclasses.replace(whole, sources={"ca_cert": b""})
    assert "ca_cert is given as text and in src. Give one of them." in refused(both, room.Wanted(**given))
    linked = {**whole.files, "ca-cert.pem": dataclasses.replace(whole.files["ca-cert.pem"], link=True)}
    assert "ca-cert.pem is a symbolic link" in refused(dataclasses.replace(whole, files=linked), room.Wanted())


@pytest.mark.parametrize(
    ("option", "text", "told"),
    [
        ("client_cert", "-----BEGIN PRIVATE KEY-----\nQQ==\n-----END PRIVATE KEY-----\n", "would hold a private key"),
        ("client_key", "nonsense", "client-key.pem would hold no private key in PEM form"),
        (
            "client_key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQQ==\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "client-key.pem would hold a key that takes a password",
        ),
        ("client_cert", "", "client-cert.pem cannot be used: no PEM certificate is in it."),
    ],
)
def test_the_wrong_kind(bare: room.State, given: dict[str, t.Any], option: str, text: str, told: str) -> None:
    message = refused(bare, room.Wanted(**{**given, option: text}))
    assert told in message
    assert "/etc/pki/qemu" in message and "Nothing was changed." in message
    assert "QQ==" not in message and "nonsense" not in message


@pytest.mark.parametrize(("days", "told"), [(40, "has expired on"), (41, "has expired on"), (-400, "is valid from")])
def test_the_time_of_validity(whole: room.State, now: float, days: int, told: str) -> None:
    message = refused(dataclasses.replace(whole, now=now + days * DAY), room.Wanted())
    assert f"server-cert.pem (h1) {told}" in message
    assert f"client-cert.pem (h1) {told}" in message


@pytest.mark.parametrize(
    ("passed", "left", "soon"), [(0, 40, False), (10, 30, False), (11, 29, True), (10.001, 29, True), (39.9, 0, True)]
)
def test_the_days_that_are_left(whole: room.State, now: float, passed: float, left: int, soon: bool) -> None:
    state = dataclasses.replace(whole, now=now + passed * DAY)
    plan = room.plan(state, room.Wanted(renew_days=30))
    result = room.result(state, plan)
    assert (result["days_left"], result["renew_soon"]) == (left, soon)
    assert [text.partition(" ")[0] for text in plan.warnings] == [
        f"/etc/pki/qemu/{name}" for name in ("server-cert.pem", "client-cert.pem") if soon
    ]


def test_doubts(whole: room.State) -> None:
    plan = room.plan(dataclasses.replace(whole, exposed=True, unconfined=False, emulator=""), room.Wanted())
    texts = (
        "does not belong to root",
        "AppArmor's rules for guests do not name /etc/pki/qemu",
        "rules of this module only",
    )
    assert [text in warning for text, warning in zip(texts, plan.warnings)] == [True] * 3
    assert room.result(whole, plan)["checked_by"] == "rules only"


def test_without_anybody_to_read_the_keys(bare: room.State, given: dict[str, t.Any]) -> None:
    nobody = dataclasses.replace(bare, group=None)
    assert "Install libvirt first, or name the group." in refused(nobody, room.Wanted(**given))
    assert refused(nobody, room.Wanted(**given, group="nosuch")).startswith("group: nosuch is no group of this host.")


@pytest.mark.parametrize(("used", "path", "answer"), [("/a", "/a", True), ("/a/", "/a", True), ("/b", "/a", False)])
def test_whether_libvirt_looks_there(
    bare: room.State, given: dict[str, t.Any], used: str, path: str, answer: bool
) -> None:
    state = dataclasses.replace(bare, used=used)
    plan = room.plan(state, room.Wanted(**given, path=path))
    assert room.result(state, plan)["used_for_migration"] is answer


def test_no_key_is_in_what_is_printed(bare: room.State, whole: room.State, given: dict[str, t.Any]) -> None:
    plan = room.plan(bare, room.Wanted(**given))
    shown = repr((plan, whole, room.Wanted(**given), room.result(bare, plan)))
    for option in ("server_key", "client_key"):
        assert not [line for line in given[option].splitlines()[1:-1] if line in shown]
