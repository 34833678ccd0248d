# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() over TAP devices that the modules made, changed and removed before, with a played ``ip``."""

from __future__ import annotations

import typing as t
from dataclasses import asdict
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _netdev, _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import rollback, tap_device
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import PERSISTENT_TAP, NetHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import call, run

WEB0 = {"name": "web0", "owner": "1000", "multi_queue": True}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetHost:
    host = NetHost(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    host.device("br0", devtype="bridge")
    host.device("br1", devtype="bridge")

    def untouched() -> Host:
        host.changed = False
        return host

    monkeypatch.setattr(_runner, "Host", untouched)
    return host


def make(capsys: pytest.CaptureFixture[str], **device: t.Any) -> None:
    assert call(tap_device, capsys, devices=[{**WEB0, **device}])["changed"] is True


def found(host: NetHost) -> dict[str, t.Any] | None:
    device = _netdev.device(host, "web0")
    return asdict(device) if device else None


def test_what_was_made_is_removed_with_its_unit(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    make(capsys, bridge="br0")
    before = found(host)
    predicted = run(capsys, roles=["hypervisor_launchers"], _ansible_check_mode=True)
    assert found(host) == before
    done = run(capsys, roles=["hypervisor_launchers"])
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert found(host) is None
    assert [path.name for path in Path(host.path("/etc/systemd/system")).rglob("*")] == []
    shown = {one["before_header"]: (one["before"], one["after"]) for one in done["diff"]}
    assert shown["/sys/class/net/web0"] == ("web0 owner 1000 multi_queue bridge br0\n", "")
    again = run(capsys, all=True)
    assert (again["changed"], again["left_alone"]) == (False, [])


def test_another_owner_and_another_bridge_return(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    make(capsys, bridge="br0")
    first = found(host)
    count = len(Journal(host, "").entries())
    make(capsys, bridge="br1")
    make(capsys, bridge="br1", owner="1001")
    since = Journal(host, "").entries()[count].name
    run(capsys, since=since)
    now = found(host)
    assert now is not None
    assert first is not None
    assert {**now, "index": 0} == {**first, "index": 0}
    assert run(capsys, since=since)["changed"] is False


def test_one_that_was_removed_is_made_again(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("old0", PERSISTENT_TAP, owner=7, mtu="9000", address="02:00:00:00:00:77", carrier="0")
    device = _netdev.device(host, "old0")
    assert device is not None
    _netdev.remove(host, device, Journal(host, "tap_guard"))
    run(capsys, roles=["hypervisor_taps"])
    again = _netdev.device(host, "old0")
    assert again is not None
    assert (again.owner, again.mtu, again.mac) == (7, 9000, "02:00:00:00:00:77")
    assert ["ip", "tuntap", "add", "dev", "old0", "mode", "tap", "user", "7"] in host.calls
    assert run(capsys, all=True)["changed"] is False


def test_one_that_a_guest_holds_stays(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    make(capsys)
    host.guest("web", 11, "web0")
    before = found(host)
    failed = call(rollback, capsys, all=True)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "web0 is held by guest web and stays as it is" in failed["msg"]
    assert found(host) == before


def test_a_bridge_that_is_gone_is_named(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("old0", PERSISTENT_TAP, owner=7)
    host.link("/sys/class/net/old0/master", "../br9")
    device = _netdev.device(host, "old0")
    assert device is not None
    _netdev.remove(host, device, Journal(host, "tap_guard"))
    assert "old0 was a port of br9, which this host does not have" in call(rollback, capsys, all=True)["msg"]


def test_one_that_somebody_else_made_anew_stays(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    make(capsys)
    host.run(["ip", "tuntap", "del", "dev", "web0", "mode", "tap"])
    host.tap("web0", PERSISTENT_TAP, owner=5)
    done = run(capsys, all=True)
    assert [one["target"] for one in done["left_alone"]] == ["/sys/class/net/web0"]
    device = _netdev.device(host, "web0")
    assert device is not None
    assert device.owner == 5
