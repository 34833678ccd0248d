# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._hugepages import PoolError
from ansible_collections.hypervisor.hardening.plugins.module_utils._hugewanted import Entry, Wanted


def entries(*pools: dict[str, t.Any]) -> tuple[Entry, ...]:
    return Wanted([{"size": "2M", "state": "present", "owner": None, **pool} for pool in pools]).entries


@pytest.mark.parametrize(
    ("pool", "entry"),
    [
        ({"pages": 64}, Entry(2048, {None: 64})),
        ({"size": "1G", "pages": 0}, Entry(1048576, {None: 0})),
        ({"pages_per_node": {"0": "4", 1: 2}}, Entry(2048, {0: 4, 1: 2})),
        ({"path": "//hugepages2m/"}, Entry(2048, {}, "/hugepages2m")),
        (
            {"path": "/h", "owner": "root", "group": "kvm", "mode": "1771", "delegate": ["alice"]},
            Entry(2048, {}, "/h", "root", "kvm", 0o1771, ("alice",)),
        ),
        ({"path": "/h", "delegate": []}, Entry(2048, {}, "/h", delegate=())),
        ({"path": "/h", "mode": 0o755}, Entry(2048, {}, "/h", mode=0o755)),  # as YAML reads 0755 without quotes
        ({"path": "/h", "state": "absent"}, Entry(2048, {}, "/h", absent=True)),
        ({"path": "/h", "state": "absent", "pages": 0}, Entry(2048, {None: 0}, "/h", absent=True)),
    ],
)
def test_what_is_meant(pool: dict[str, t.Any], entry: Entry) -> None:
    assert entries(pool) == (entry,)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"size": "2048"}, "is no page size"),
        ({}, "nothing is asked for"),
        ({"state": "absent"}, "nothing is asked for"),
        ({"pages": -1}, "'?-1'? is no number of 0 or more"),
        ({"pages": 1, "pages_per_node": {0: 1}}, "exclude each other"),
        ({"pages_per_node": {"node0": 1}}, "'node0' is no number"),
        ({"pages_per_node": {"0": "many"}}, "'many' is no number"),
        ({"path": "hugepages"}, "is no absolute path"),
        ({"path": "/"}, "cannot be mounted over /"),
        ({"path": "/a,b"}, "cannot be used"),
        ({"pages": 1, "mode": "0755"}, "mode only mean something with path"),
        ({"pages": 1, "delegate": ["alice"]}, "delegate only mean something with path"),
        (
            {"path": "/h", "state": "absent", "mode": "0755"},
            "mode only mean something with path, and with state present",
        ),
        ({"path": "/h", "state": "absent", "pages": 1}, "state absent goes with pages 0"),
        ({"path": "/h", "mode": "0700"}, "0700 lacks execute.*Use 0711"),
        ({"path": "/h", "mode": "0750"}, "0750 lacks execute.*Use 0751"),
        ({"path": "/h", "mode": "0701"}, "0701 lacks execute.*Use 0711"),
        ({"path": "/h", "mode": "493"}, "is not octal"),
        ({"path": "/h", "mode": "rwx"}, "is not octal"),
        ({"path": "/h", "mode": True}, "is not octal"),
        ({"path": "/h", "mode": "2775"}, "no bits beyond 1777"),
        ({"path": "/h", "delegate": ["libvirt"]}, "cannot be the name of a directory beside"),
        ({"path": "/h", "delegate": ["../x"]}, "cannot be the name of a directory beside"),
    ],
)
def test_what_makes_no_sense(pool: dict[str, t.Any], message: str) -> None:
    with pytest.raises(PoolError, match=rf"^pools, number 2: .*{message}"):
        entries({"pages": 1}, pool)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"pages": 1}, {"size": "2048kB", "pages": 1}, "the pages of 2M are asked for twice"),
        ({"pages": 1}, {"pages_per_node": {0: 1}}, "the pages of 2M are asked for twice"),
        ({"path": "/h"}, {"size": "1G", "path": "/h/"}, "/h is named twice"),
        ({"path": "/h"}, {"path": "/h", "state": "absent"}, "/h with pages of 2M is to be present and absent"),
    ],
)
def test_what_contradicts_itself(first: dict[str, t.Any], second: dict[str, t.Any], message: str) -> None:
    with pytest.raises(PoolError, match=f"^pools: {message}"):
        entries(first, second)


def test_what_does_not() -> None:
    assert len(entries({"pages": 1, "path": "/h"}, {"path": "/i"}, {"size": "1G", "pages": 1, "path": "/j"})) == 3
    assert len(entries({"path": "/h", "state": "absent"}, {"size": "1G", "path": "/h"})) == 2
