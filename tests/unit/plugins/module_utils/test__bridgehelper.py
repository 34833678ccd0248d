# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's bridge helper and its list."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _bridgehelper
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

HELPER = "/usr/lib/qemu/qemu-bridge-helper"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def facts(host: TreeHost, configured: t.Any = None) -> dict[str, t.Any]:
    return _bridgehelper.facts(Reader(host), configured)


@pytest.mark.parametrize(
    ("mode", "owner", "privileged"),
    [(0o755, (0, 0), False), (0o4755, (0, 0), True), (0o4750, (0, 994), True), (0o4755, (1001, 0), False)],
)
def test_setuid(host: TreeHost, mode: int, owner: tuple[int, int], privileged: bool) -> None:
    host.put(HELPER, mode=mode, owner=owner)
    (found,) = facts(host)["helpers"]
    assert (found["name"], found["setuid"], found["privileged"]) == (HELPER, bool(mode & 0o4000), privileged)


def test_the_configured_helper(host: TreeHost) -> None:
    host.put("/opt/qemu/helper", mode=0o4755)
    assert [found["name"] for found in facts(host, "/opt/qemu/helper")["helpers"]] == ["/opt/qemu/helper"]


def test_rules(host: TreeHost) -> None:
    # the example of the documentation of the helper: a public list that includes one for a group
    host.put("/etc/qemu/bridge.conf", "# bridges\nallow virbr0\ndeny br1 # no\ninclude /etc/qemu/bob.conf\nallow\n")
    host.put("/etc/qemu/bob.conf", "allow br0\n", mode=0o640, owner=(0, 100))
    assert facts(host) == {
        "helpers": [],
        "rules": [
            {"name": "/etc/qemu/bridge.conf", "action": "allow", "bridge": "virbr0", "group": "root", "others": True},
            {"name": "/etc/qemu/bridge.conf", "action": "deny", "bridge": "br1", "group": "root", "others": True},
            {"name": "/etc/qemu/bob.conf", "action": "allow", "bridge": "br0", "group": "users", "others": False},
        ],
        "allow_all": False,
    }


def test_allow_all(host: TreeHost) -> None:
    host.put("/etc/qemu-kvm/bridge.conf", "allow all\n")
    assert facts(host)["allow_all"] is True


def test_a_list_that_includes_itself(host: TreeHost) -> None:
    host.put("/etc/qemu/bridge.conf", "include /etc/qemu/bridge.conf\nallow br0\n")
    assert {rule["bridge"] for rule in facts(host)["rules"]} == {"br0"}
