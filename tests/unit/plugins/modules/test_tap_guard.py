# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tap_guard from its arguments to its result, on trees of fixtures."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.modules import tap_guard
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import (
    NO_PI,
    TAP,
    NetHost,
    definition,
    interface,
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NetHost:
    host = NetHost(tmp_path)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def call(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        tap_guard.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def tree(host: NetHost) -> list[str]:
    return sorted(str(path) for path in Path(host.root).rglob("*"))


def test_nothing_asked_for(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys)
    assert (result["changed"], result["interfaces"], result["conflicts"], result["removed"]) == (False, [], [], [])


def test_running_guests_pass_a_second_time(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.define("web", interface("web0"))
    assert call(capsys, domains=["all"])["interfaces"][0]["verdict"] == "free"
    host.tap("web0", TAP | NO_PI)
    host.guest("web", 900, "web0", interfaces=[interface("web0")])
    result = call(capsys, domains=["all"])
    assert (result["changed"], result["interfaces"][0]["verdict"], result["conflicts"]) == (False, "own", [])


def test_failure_has_the_facts(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.define("web", interface("web0"))
    host.tap("web0", owner=1000, master="br0")
    before = tree(host)
    result = call(capsys, domains=["all"])
    assert (result["failed"], result["changed"]) == (True, False)
    assert "web0 of the guest web (stale): It is a persistent TAP device (port of br0, owner uid 1000)" in result["msg"]
    assert "managed='no'" in result["msg"]
    assert result["conflicts"][0]["verdict"] == result["interfaces"][0]["verdict"] == "stale"
    reported = call(capsys, domains=["all"], on_conflict="report")
    assert "failed" not in reported
    assert (reported["conflicts"], reported["interfaces"]) == (result["conflicts"], result["interfaces"])
    assert tree(host) == before


def test_check_mode_says_what_the_run_does(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("lab-1")
    before = tree(host)
    arguments: dict[str, t.Any] = {"remove_stale": "lab-*", "names": "lab-1,new0", "_ansible_diff": True}
    checked = call(capsys, **arguments, _ansible_check_mode=True)
    assert tree(host) == before
    done = call(capsys, **arguments)
    again = call(capsys, **arguments)
    same = ("changed", "removed", "diff", "conflicts")
    assert {key: checked[key] for key in same} == {key: done[key] for key in same}
    assert (checked["changed"], checked["removed"], again["changed"], again["removed"]) == (True, ["lab-1"], False, [])
    assert [entry["verdict"] for entry in checked["interfaces"]] == ["stale", "free"]
    assert [entry["verdict"] for entry in done["interfaces"]] == ["free", "free"]


def test_a_conflict_beside_it_keeps_a_stale_device(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("lab-1")
    host.tap("new0")
    result = call(capsys, names=["new0"], remove_stale=["lab-*"])
    assert result["failed"]
    assert host.exists("/sys/class/net/lab-1")
    assert call(capsys, names=["new0"], remove_stale=["lab-*"], on_conflict="report")["removed"] == ["lab-1"]


def test_definition_as_text(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, domain_xml=definition("web", interface("vnet0")), on_conflict="report")
    assert result["conflicts"][0]["verdict"] == "reserved"


def test_names_that_are_not_utf_8(host: NetHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.tap("web0")
    host.process(70, "placeholder", "web0")
    Path(host.path("/proc/70/comm")).write_bytes(b"caf\xe9\n")
    assert call(capsys, names=["web0"], on_conflict="report")["interfaces"][0]["held_by"][0]["comm"] == "caf\ufffd"


def test_without_lxml_anywhere(
    host: NetHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    monkeypatch.setattr(_runner, "SYSTEM_INTERPRETERS", ())
    host.define("web", interface("web0"))
    result = call(capsys, domains=["all"])
    assert result["failed"]
    assert "Failed to import the required Python library (lxml)" in result["msg"]
    assert "python3-lxml" in result["msg"]
    assert call(capsys, names=["web0"])["interfaces"][0]["verdict"] == "free", "names alone need no library"
