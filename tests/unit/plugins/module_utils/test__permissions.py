# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may get at what."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _permissions
from ansible_collections.hypervisor.hardening.plugins.module_utils._permissions import Allowed, Inspection, Reach
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

QEMU = frozenset({0, 994})


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.directory("/d", 0o755)
    return host


def deviations(host: TreeHost, path: str, allowed: Allowed) -> list[dict[str, t.Any]]:
    reader = Reader(host)
    inspection = Inspection(reader, Reach(reader))
    inspection.look(path, allowed)
    found: list[dict[str, t.Any]] = inspection.facts()["deviations"]
    return found


@pytest.mark.parametrize(
    ("mode", "owner", "allowed", "deviates"),
    [
        (0o600, (0, 0), Allowed(0o600), False),
        (0o400, (0, 0), Allowed(0o600), False),
        (0o604, (0, 0), Allowed(0o600), True),
        (0o660, (0, 0), Allowed(0o600), False),  # root's group is root
        (0o640, (0, 100), Allowed(0o600), True),
        (0o600, (64055, 0), Allowed(0o600), True),
        (0o644, (0, 100), Allowed(0o755), False),  # others may read it: so may any group
        (0o664, (0, 100), Allowed(0o755), True),
        (0o640, (0, 994), Allowed(0o640, QEMU, QEMU), False),
        (0o640, (0, 100), Allowed(0o640, QEMU, QEMU), True),
        (0o644, (0, 994), Allowed(0o640, QEMU, QEMU), True),
        (0o640, (1001, 100), Allowed(0o640, None, None), False),
    ],
)
def test_deviations(host: TreeHost, mode: int, owner: tuple[int, int], allowed: Allowed, deviates: bool) -> None:
    host.put("/d/file", mode=mode, owner=owner)
    assert bool(deviations(host, "/d/file", allowed)) is deviates


def test_what_is_told_of_one(host: TreeHost) -> None:
    host.put("/d/key.pem", mode=0o644, owner=(0, 994))
    assert deviations(host, "/d/key.pem", Allowed(0o640, QEMU | {64055}, QEMU)) == [
        {
            "name": "/d/key.pem",
            "path": "/d/key.pem",
            "mode": "0644",
            "owner": "root",
            "group": "kvm",
            "expected": "0640 or less, owner root or 994 or libvirt-qemu, group root or kvm",
        }
    ]


def test_out_of_reach(host: TreeHost) -> None:
    host.directory("/d/private", 0o750)
    host.put("/d/private/sub/file", mode=0o666)
    assert deviations(host, "/d/private/sub/file", Allowed(0o600)) == []
    host.directory("/d/private", 0o751)
    assert deviations(host, "/d/private/sub/file", Allowed(0o600)) != []


def test_walk_follows_no_links_and_has_an_end(host: TreeHost) -> None:
    host.put("/d/a/b/file")
    host.link("/d/a/loop", "..")
    reader = Reader(host)
    assert _permissions.walk(reader, "/d") == (["/d/a/b/file"], ["/d", "/d/a", "/d/a/b"], False)
    assert _permissions.walk(reader, "/d", depth=1)[2] is True
    assert _permissions.walk(reader, "/d", limit=2)[2] is True
    assert _permissions.walk(reader, "/nowhere") == ([], [], False)


def test_nothing_found_in_a_part_is_no_answer(host: TreeHost) -> None:
    reader = Reader(host)
    inspection = Inspection(reader, Reach(reader))
    inspection.truncated = True
    assert inspection.facts()["deviations"] is None
    host.put("/d/file", mode=0o666)
    inspection.look("/d/file", Allowed(0o600))
    assert len(inspection.facts()["deviations"]) == 1
