# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that are let in, and clients that look at nobody's key."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_ssh
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

KEYS = "/root/.ssh/authorized_keys"
# A key that was made for this test, and what ssh-keygen -l prints of it.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF1NC+jTbs2fblx9TW1/sFHn4AehOu8Ny7TJrRF/WaKY"
FINGERPRINT = "SHA256:h41/nusDd11nF5m8BWAEf48Q28u3PImNm+3TfgLVWX4"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def facts(host: TreeHost) -> dict[str, t.Any]:
    found = _info_ssh.facts(Context(host))
    assert mismatches("ssh", found) == []
    return found


def test_none(host: TreeHost) -> None:
    assert facts(host) == {"keys": [], "unchecked": [], "known_hosts": [], "unread": []}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", set()),
        ('from="10.0.0.0/8" ', {"from"}),
        ('restrict,command="/usr/bin/nova-rootwrap \\"from=x\\"",no-pty ', {"restrict", "command"}),
        ('no-pty,From="10.0.0.1,10.0.0.2" ', {"from"}),
        ('environment="X=from=1" ', set()),
    ],
)
def test_what_a_key_may(host: TreeHost, options: str, expected: set[str]) -> None:
    host.put(KEYS, f"# ssh-ed25519 AAAA\n\n{options}{KEY} root@other\n")
    (key,) = facts(host)["keys"]
    assert {name for name in ("from", "command", "restrict") if key[name]} == expected
    assert (key["name"], key["fingerprint"]) == (f"{KEYS}:3", FINGERPRINT)


def test_too_many_keys_are_none(host: TreeHost) -> None:
    host.put(KEYS, f"{KEY}\n" * 51)
    assert facts(host)["keys"] is None


def test_what_cannot_be_read_is_not_empty(host: TreeHost) -> None:
    host.directory(KEYS)
    found = facts(host)
    assert (found["keys"], found["unchecked"], found["unread"][0]["path"]) == (None, None, KEYS)


def test_clients_that_look_at_no_key(host: TreeHost) -> None:
    host.put("/etc/ssh/ssh_config", "Host *\n  UserKnownHostsFile=/dev/null\n# StrictHostKeyChecking no\n")
    host.put(
        "/root/.ssh/config", "Host unix\\* vsock/*\n StrictHostKeyChecking no\nMatch all\nstricthostkeychecking   OFF\n"
    )
    # as systemd 257 ships it
    host.put(
        "/etc/ssh/ssh_config.d/20-systemd-ssh-proxy.conf",
        "Host unix/* unix%* vsock/* vsock%* machine/*\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n",
    )
    host.put("/etc/ssh/ssh_known_hosts", "h13 ssh-ed25519 AAAA\n")
    host.put("/root/.ssh/known_hosts")
    found = facts(host)
    assert [(entry["name"], entry["setting"]) for entry in found["unchecked"]] == [
        ("/etc/ssh/ssh_config", "UserKnownHostsFile=/dev/null"),
        ("/root/.ssh/config", "StrictHostKeyChecking no"),
        ("/root/.ssh/config", "stricthostkeychecking OFF"),
    ]
    assert found["known_hosts"] == ["/etc/ssh/ssh_known_hosts"]
