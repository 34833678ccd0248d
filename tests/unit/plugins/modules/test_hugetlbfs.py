# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.modules import hugetlbfs
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PlayedHost

NR = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    host = PlayedHost(tmp_path)
    host.pool("2048kB", 0)
    host.pool("1048576kB", 0)
    host.daemon(77, 4242)
    host.put("/usr/lib/systemd/system/dev-hugepages.mount", "[Mount]\n")
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        hugetlbfs.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_check_then_change_then_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    pools = [{"size": "2M", "pages": "64", "path": "/dev/hugepages"}, {"size": "1G", "path": "/hugepages1G"}]
    before = host.tree()
    predicted = run(capsys, pools=pools, _ansible_check_mode=True, _ansible_diff=True)
    assert host.tree() == before
    done = run(capsys, pools=pools, _ansible_diff=True)
    same = ("changed", "diff", "restart_required", "restart_units", "reboot_required", "guests_pending")
    assert {key: predicted[key] for key in same} == {key: done[key] for key in same}
    assert done["restart_units"] == ["libvirtd.service"]
    assert [entry["before_header"] for entry in done["diff"]] == [
        "huge pages",
        "hugetlbfs",
        "/etc/systemd/system/hypervisor-hardening-hugepages-2048kB.service",
        "/etc/systemd/system/dev-hugepages.mount.d/zz-hypervisor-hardening.conf",
        "/etc/systemd/system/hugepages1G.mount",
    ]
    assert done["diff"][0]["after"] == "64 pages of 2M\n"
    assert [pool["mounted"] for pool in done["pools"]] == [True, True]
    again = run(capsys, pools=pools)
    assert (again["changed"], again["restart_required"]) == (False, True)


def test_a_shortage_is_told_and_leaves_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.limit[NR] = 5
    failed = run(capsys, pools=[{"size": "2M", "pages": 64, "path": "/h"}])
    assert (failed["failed"], failed["got"], failed["wanted"]) == (True, 5, 64)
    assert host.text(NR) == "0\n"
    assert not host.exists("/h")


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ([{"size": "2M", "path": "/h", "mode": "0700"}], "pools, number 1: mode: 0700 lacks execute"),
        ([{"size": "3M", "pages": 1}], "no huge pages of 3M"),
        ([{"size": "2M", "pages": "many"}], "many"),
        ([{"pages": 1}], "size"),
    ],
)
def test_a_refusal_changes_nothing(
    host: PlayedHost, capsys: pytest.CaptureFixture[str], pools: list[dict[str, t.Any]], message: str
) -> None:
    before = host.tree()
    failed = run(capsys, pools=pools)
    assert failed["failed"] is True
    assert message in failed["msg"]
    assert host.tree() == before


def test_a_mode_without_quotes_is_what_yaml_makes_of_it(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    (pool,) = yaml.safe_load("[{size: 2M, path: /dev/hugepages, mode: 0711}]")
    assert run(capsys, pools=[pool])["pools"][0]["mode"] == "0711"


def test_what_does_not_hold_is_an_error(
    host: PlayedHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "set_owner", lambda *words: None)
    failed = run(capsys, pools=[{"size": "2M", "path": "/dev/hugepages", "mode": "0711"}])
    assert "the host does not show it: /dev/hugepages: hugetlbfs with pages of 2M, 0:0 0755" in failed["msg"]
