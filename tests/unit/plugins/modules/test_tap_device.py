# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tap_device from its arguments to its result, on trees of fixtures."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.modules import tap_device
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import NetHost

WEB0 = {"name": "web0", "owner": "1000", "multi_queue": True}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetHost:
    host = NetHost(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def call(capsys: pytest.CaptureFixture[str], *devices: dict[str, t.Any], **arguments: t.Any) -> dict[str, t.Any]:
    arguments = {"_ansible_diff": True, "devices": list(devices), **arguments}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        tap_device.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def tree(host: NetHost) -> list[str]:
    return sorted(str(path) for path in Path(host.root).rglob("*"))


def test_check_mode_says_what_the_run_does(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(host)
    checked = call(capsys, WEB0, _ansible_check_mode=True)
    assert tree(host) == before
    assert checked["devices"][0]["exists"] is False
    done = call(capsys, WEB0)
    again = call(capsys, WEB0)
    assert (checked["changed"], done["changed"], again["changed"]) == (True, True, False)
    assert checked["diff"] == done["diff"]
    assert done["diff"][0]["after"] == "web0 owner 1000 multi_queue up\n"
    assert again["diff"] == []
    assert done["devices"] == again["devices"]
    assert done["devices"] == [
        {
            "name": "web0",
            "exists": True,
            "owner": 1000,
            "group": None,
            "multi_queue": True,
            "vnet_hdr": True,
            "bridge": None,
            "up": True,
            "held_by": [],
        }
    ]


def test_a_refusal_changes_nothing(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("web0", owner=1000)
    before = tree(host)
    result = call(capsys, WEB0)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "was not made by this module" in result["msg"]
    assert tree(host) == before


def test_an_unknown_state(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert "state must be one of: present, absent" in call(capsys, {**WEB0, "state": "gone"})["msg"]
