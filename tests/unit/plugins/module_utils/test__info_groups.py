# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Groups whose members are root by another name."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_groups
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put("/etc/group", "root:x:0:\nlibvirt:x:104:bob,alice\nkvm:x:994:\ndisk:x:6:\nlibvirt2:x:7:eve\n")
    host.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nqemu:x:107:994::/:/bin/false\ncarol:x:1001:104::/:/bin/sh\n")
    return host


def group(host: TreeHost, name: str) -> dict[str, t.Any]:
    found: list[dict[str, t.Any]] = [
        entry for entry in _info_groups.facts(Context(host))["groups"] if entry["name"] == name
    ]
    return found[0]


def test_members_and_those_whose_primary_group_it_is(host: TreeHost) -> None:
    assert group(host, "libvirt") == {
        "name": "libvirt",
        "present": True,
        "gid": 104,
        "members": ["alice", "bob", "carol"],
        "members_total": 3,
        "primary": ["carol"],
    }
    assert group(host, "kvm")["members"] == ["qemu"]


def test_a_group_that_is_not_there(host: TreeHost) -> None:
    assert group(host, "qemu") == {
        "name": "qemu",
        "present": False,
        "gid": None,
        "members": [],
        "members_total": 0,
        "primary": [],
    }


def test_groups_of_a_directory_service(host: TreeHost) -> None:
    host.put("/etc/nsswitch.conf", "passwd: files sss\ngroup: files [SUCCESS=merge] sss systemd\n")
    host.answers["getent group libvirt libvirt-qemu kvm qemu disk"] = "libvirt:*:104:bob,dave\nkvm:x:994:\n"
    found = _info_groups.facts(Context(host))
    assert found["remote"] == ["sss"]
    assert found["groups"][0]["members"] == ["alice", "bob", "carol", "dave"]


def test_a_directory_service_that_cannot_be_asked(host: TreeHost) -> None:
    host.put("/etc/nsswitch.conf", "group: files ldap\n")
    found = _info_groups.facts(Context(host))
    assert found["unread"][0]["path"] == "getent group"
    assert found["groups"][0]["members"] == ["alice", "bob", "carol"]
