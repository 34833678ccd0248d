# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreement
from ansible_collections.hypervisor.hardening.plugins.module_utils._agreement import AgreementError, Mismatch

VALUES: dict[str, t.Any] = {
    "qemu_uid": 64055,
    "qemu_gid": 64055,
    "dynamic_ownership": True,
    "remember_owner": True,
    "security_models": ["apparmor", "dac"],
    "namespaces": ["mount"],
    "seccomp_sandbox": True,
    "cgroup_controllers": ["cpu", "devices"],
    "cgroup_device_acl": ["/dev/null", "/dev/zero"],
    "sched_core": "none",
    "max_core": "0",
    "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
    "lock_manager": "nop",
    "migrate_tls_force": False,
    "memfd_create": True,
}
# Of the text below, made with sha256sum(1).
TEXT = b'{"group":"web","values":{"namespaces":["mount"],"qemu_uid":64055},"version":1}'
DIGEST = "b15957134bad11cd9cfc4feb5a83759304afacc5dbf0be5a3c84098470ba3798"


def test_values_of_every_key_are_taken_as_they_are() -> None:
    assert set(VALUES) == set(_agreement.KEYS)
    found = _agreement.make("web", VALUES)
    assert found.values == VALUES
    assert _agreement.parse(found.render()) == found
    assert _agreement.of(found.data) == found


def test_digest_is_of_canonical_json() -> None:
    found = _agreement.make("web", {"qemu_uid": 64055, "namespaces": ["mount"]})
    assert hashlib.sha256(TEXT).hexdigest() == DIGEST
    assert found.digest == DIGEST
    assert found.data == {
        "version": 1,
        "group": "web",
        "values": {"qemu_uid": 64055, "namespaces": ["mount"]},
        "digest": DIGEST,
    }


def test_one_form_whatever_the_order() -> None:
    one = _agreement.make("web", {"security_models": ["selinux", "none", "dac", "dac"], "qemu_uid": 0})
    other = _agreement.make("web", {"qemu_uid": 0, "security_models": ("dac", "selinux"), "qemu_gid": None})
    assert one == other and one.digest == other.digest
    assert one.values["security_models"] == ["dac", "selinux"]


def test_another_group_or_value_is_another_digest() -> None:
    digests = {
        _agreement.make(group, {"seccomp_sandbox": value}).digest for group in ("a", "b") for value in (True, False)
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("qemu_uid", True, "qemu_uid: True is not a whole number"),
        ("qemu_uid", -1, "qemu_uid: -1 is not a whole number"),
        ("qemu_uid", 2**32 - 1, "is not a whole number"),
        ("qemu_gid", "64055", "qemu_gid: '64055' is not a whole number"),
        ("dynamic_ownership", 1, "dynamic_ownership: 1 is not true or false"),
        ("namespaces", "mount", "namespaces: 'mount' is not a list of strings"),
        ("namespaces", [1], "namespaces: [1] is not a list of strings"),
        ("namespaces", [""], "namespaces: [''] is not a list of strings"),
        ("max_core", 0, "max_core: 0 is not a string"),
        ("lock_manager", " ", "lock_manager: ' ' is not a string"),
        ("user", "root", "user is nothing that can be agreed on; that are qemu_uid"),
    ],
)
def test_refuses_a_value(key: str, value: t.Any, words: str) -> None:
    with pytest.raises(AgreementError) as refused:
        _agreement.make("web", {"qemu_uid": 1, "seccomp_sandbox": "no", key: value})
    assert words in str(refused.value)
    # all objections at once
    assert "seccomp_sandbox: 'no' is not true or false" in str(refused.value)


@pytest.mark.parametrize("group", ["", "  ", None, 3])
def test_refuses_a_group_without_a_name(group: t.Any) -> None:
    with pytest.raises(AgreementError, match="is no name of a group"):
        _agreement.make(group, {})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "no dictionary"),
        ([], "no dictionary"),
        ({}, "of version None"),
        ({"version": 2, "group": "web", "values": {}}, "of version 2, and this is for version 1"),
        ({"version": True, "group": "web", "values": {}}, "of version True"),
        ({"version": 1, "group": "web"}, "has no values"),
        ({"version": 1, "values": {}}, "is no name of a group"),
        ({"version": 1, "group": "web", "values": {}, "mode": "off"}, "does not belong in it: mode"),
        ({"version": 1, "group": "web", "values": {"qemu_uid": 1}, "digest": DIGEST}, "altered"),
    ],
)
def test_refuses_what_is_no_agreement(data: t.Any, words: str) -> None:
    with pytest.raises(AgreementError) as refused:
        _agreement.of(data)
    assert words in str(refused.value)


def test_an_agreement_by_hand_needs_no_digest_and_its_file_does() -> None:
    data = {"version": 1, "group": "web", "values": {"qemu_uid": 1}}
    assert _agreement.of(data).values == {"qemu_uid": 1}
    with pytest.raises(AgreementError, match="no digest"):
        _agreement.parse(json.dumps(data).encode())


def test_a_file_that_is_missing_or_cut_off() -> None:
    whole = _agreement.make("web", VALUES).render()
    assert _agreement.parse(whole).group == "web"
    with pytest.raises(AgreementError, match="is missing"):
        _agreement.parse(None)
    for end in range(len(whole) - 1):  # but for the line end
        with pytest.raises(AgreementError, match="cut off"):
            _agreement.parse(whole[:end])


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff\xfe", b"\x00", b"null", b"1" * 300_000])
def test_a_file_of_anything_else(data: bytes) -> None:
    with pytest.raises(AgreementError):
        _agreement.parse(data)


@settings(deadline=None)
@given(st.binary())
def test_a_file_of_anything_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(AgreementError):
        _agreement.parse(data)


def test_every_departure_is_named_in_the_order_of_the_keys() -> None:
    agreed = _agreement.make("web", VALUES)
    assert _agreement.mismatches(agreed, VALUES, {}) == []
    live = {**VALUES, "namespaces": [], "qemu_uid": 0, "seccomp_sandbox": False}
    del live["max_core"]
    found = _agreement.mismatches(agreed, live, {"max_core": "nobody can tell"})
    assert found == [
        Mismatch("qemu_uid", 64055, 0),
        Mismatch("namespaces", ["mount"], []),
        Mismatch("seccomp_sandbox", True, False),
        Mismatch("max_core", "0", "nobody can tell", known=False),
    ]
    assert [str(one) for one in found] == [
        "qemu_uid is 0 here, agreed is 64055",
        "namespaces is none here, agreed is mount",
        "seccomp_sandbox is off here, agreed is on",
        "max_core is not known here (nobody can tell), agreed is 0",
    ]


def test_what_is_not_agreed_on_is_not_compared() -> None:
    agreed = _agreement.make("web", {"qemu_uid": 64055})
    assert _agreement.mismatches(agreed, {"qemu_uid": 64055, "namespaces": []}, {}) == []
