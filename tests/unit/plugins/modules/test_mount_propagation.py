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

from ansible_collections.hypervisor.hardening.plugins.module_utils import _mounts, _runner
from ansible_collections.hypervisor.hardening.plugins.modules import mount_propagation
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PRIVATE, PlayedHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    host = PlayedHost(tmp_path)
    host.put("/proc/1/mountinfo", PRIVATE + "1500 1459 0:166 /pin /pin rw - overlay overlay rw\n")
    host.guest("early", 11, PRIVATE)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        mount_propagation.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_check_then_change_then_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.tree()
    predicted = run(capsys, _ansible_check_mode=True, _ansible_diff=True)
    assert host.tree() == before
    done = run(capsys, _ansible_diff=True)
    assert predicted["changed"] is done["changed"] is True
    assert {key: predicted[key] for key in ("mounts", "excluded", "diff")} == {
        key: done[key] for key in ("mounts", "excluded", "diff")
    }
    assert {"target": "/", "before": "private", "after": "shared"} in done["mounts"]
    assert [entry["target"] for entry in done["excluded"]] == ["/pin", "/run/host"]
    assert done["guests_pending"] == ["early"], "it stays outside, whatever is done to the host now"
    assert ["/pin stays private" in str(warning) for warning in done["warnings"]] == [True]
    again = run(capsys)
    assert again["changed"] is False
    assert again["mounts"] == [{"target": "/", "before": "shared", "after": "shared"}]


def test_a_survey_sends_strings(host: PlayedHost, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").rmdir()
    host.put("/proc/1/comm", "runit\n")
    assert run(capsys, persist="false", mounts="/dev", exclude="")["changed"] is True
    failed = run(capsys, persist="true")
    assert failed["failed"] is True
    assert "PID 1 of this host is runit, not systemd" in failed["msg"]


def test_a_refusal_changes_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = host.tree()
    failed = run(capsys, mounts=["/srv"])
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert failed["msg"].startswith("/srv is no mount point (it does not exist)")
    assert host.tree() == before


def test_what_does_not_hold_is_an_error(
    host: PlayedHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "mount", lambda *words, **options: None)
    failed = run(capsys)
    assert failed["failed"] is True
    assert "/ is private instead of shared" in failed["msg"]


def test_the_documented_defaults_are_those_of_the_room() -> None:
    options = yaml.safe_load(mount_propagation.DOCUMENTATION)["options"]
    assert options["exclude"]["default"] == list(_mounts.DEFAULT_EXCLUDE)
    assert options["propagation"]["choices"] == list(_mounts.PROPAGATIONS)
