# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() on a played libvirtd."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import daemon_restart
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, LibvirtHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    played = LibvirtHost(tmp_path)
    played.daemon(77, 500)
    played.guest("web1", 100, 1000)
    monkeypatch.setattr(_runner, "Host", lambda: played)
    return played


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        daemon_restart.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def documented() -> set[str]:
    return set(yaml.safe_load(daemon_restart.RETURN))


def test_check_mode_says_what_a_run_does(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = run(capsys, _ansible_check_mode=True, _ansible_diff=True)
    assert "systemctl restart libvirtd.service" not in host.calls
    done = run(capsys, _ansible_diff=True)
    assert "systemctl restart libvirtd.service" in host.calls
    assert done == predicted
    assert done["changed"] is True
    assert done["restarted"] == ["libvirtd.service"]
    assert done["diff"]["after"] == "restarted\n"
    assert set(done) - {"changed", "diff", "invocation"} == documented()


def test_a_failure_tells_what_was_put_back(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(host, by="test").record_file(CONF, b"user = 'broken'\n")
    host.put(CONF, "user = 'broken'\n")
    failed = run(capsys, timeout=1)
    assert (failed["failed"], failed["changed"], failed["rolled_back"]) == (True, True, True)
    assert f"Put back: {CONF}" in failed["msg"]
    assert set(failed) - {"failed", "changed", "msg", "invocation"} == documented()


def test_a_refusal_changes_nothing(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(CONF, "user = [\n")
    failed = run(capsys)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "systemctl restart libvirtd.service" not in host.calls


@pytest.mark.parametrize("timeout", [0, -3])
def test_no_time_to_wait(host: LibvirtHost, capsys: pytest.CaptureFixture[str], timeout: int) -> None:
    failed = run(capsys, timeout=timeout)
    assert failed["msg"].startswith(f"timeout: {timeout} is no time to wait")
    assert host.calls == []


def test_the_documented_default(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    options = yaml.safe_load(daemon_restart.DOCUMENTATION)["options"]
    result = run(capsys, _ansible_check_mode=True)
    assert result["invocation"]["module_args"] == {name: option.get("default") for name, option in options.items()}
