# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's secrets on the disk, told apart by the names of their files (libvirt's conf/virsecretobj.c)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_secrets
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

UUIDS = ("6dd3e4a5-1d76-44ce-961f-f119f5aad935", "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f")


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    for uuid in UUIDS:
        host.put(f"{_info_secrets.DIRECTORY}/{uuid}.xml", "<secret/>")
    return host


def look(host: LibvirtHost) -> dict[str, t.Any]:
    return _info_secrets.facts(Context(host))


def test_values_that_are_only_encoded(host: LibvirtHost) -> None:
    host.put(f"{_info_secrets.DIRECTORY}/{UUIDS[0]}.base64", "c2VjcmV0")
    host.put(f"{_info_secrets.DIRECTORY}/{UUIDS[1]}.aes256cbc", "x")
    found = look(host)
    assert (found["defined"], found["plain"], found["encrypted"]) == (2, 1, 1)
    assert "c2VjcmV0" not in str(found)


@pytest.mark.parametrize(
    ("library", "known"), [("0.11003.0", False), ("0.12000.0", False), ("0.12001.0", True), ("0.13000.0", True)]
)
def test_since_12_1_they_can_be_encrypted(host: LibvirtHost, library: str, known: bool) -> None:
    host.put(f"/usr/lib64/libvirt.so.{library}", "")
    assert look(host)["encryption_known"] is known


def test_what_is_configured(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/secret.conf", 'encrypt_data = 0\nsecrets_encryption_key = "/root/key"\n')
    host.put(_info_secrets.KEY, "sealed")
    found = look(host)
    assert (found["encrypt_data"], found["key_configured"], found["key_exists"]) == (0, "/root/key", True)


def test_a_host_without_secrets(tmp_path: Path) -> None:
    assert look(LibvirtHost(tmp_path)) == {
        "encryption_known": None,
        "encrypt_data": None,
        "key_configured": "",
        "key_exists": False,
        "defined": 0,
        "encrypted": 0,
        "plain": 0,
    }
