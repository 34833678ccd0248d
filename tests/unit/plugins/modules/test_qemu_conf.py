# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of the module's main() on a tree of fixtures."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.modules import qemu_conf
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemuconf_host import CONF, make

PASSWORD = "tr0ub4dor"
KEYS = {
    *("changed", "changes", "keys_from", "checked_by", "restart_required", "restart_units", "guests_pending"),
    *("backup_file", "left_out", "left_alone", "diff", "invocation"),
}


class Run:
    """What a run answered, what it left in the file, and what it logged."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.conf = root / "etc/libvirt/qemu.conf"
        self.logged: list[str] = []
        self._capsys = capsys
        monkeypatch.setattr(_runner, "Host", lambda: Host(str(root)))
        monkeypatch.setattr(AnsibleModule, "_log_to_syslog", lambda _module, text: self.logged.append(text))
        monkeypatch.setattr("ansible.module_utils.basic.has_journal", False)

    def __call__(self, **options: t.Any) -> dict[str, t.Any]:
        with patch_module_args({"_ansible_no_log": False, "_ansible_diff": True, **options}), pytest.raises(SystemExit):
            qemu_conf.main()
        self.output = self._capsys.readouterr().out
        answer: dict[str, t.Any] = json.loads(self.output)
        return answer


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    make(tmp_path)
    return Run(tmp_path, capsys, monkeypatch)


def test_a_first_run_changes_and_a_second_does_not(run: Run) -> None:
    options = {"settings": {"user": "libvirt-qemu", "vnc_tls": "false", "migration_port_min": "49160"}}
    first = run(**options)
    assert first["changed"]
    assert first["changes"] == [
        {"key": "user", "before": "root", "after": "libvirt-qemu"},
        {"key": "vnc_tls", "before": None, "after": 0},
        {"key": "migration_port_min", "before": None, "after": 49160},
    ]
    assert first["keys_from"] == "lens"
    assert first["checked_by"] == "rules only"
    assert set(first) - {"warnings"} == KEYS
    assert run.conf.read_bytes() == CONF.replace(b'"root"   ', b'"libvirt-qemu"   ', 1) + (
        b"vnc_tls = 0\nmigration_port_min = 49160\n"
    )
    second = run(**options)
    assert not second["changed"]
    assert second["changes"] == []


def test_check_mode_says_the_same_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    checked = run(settings={"user": None}, backup=True, _ansible_check_mode=True)
    assert run.conf.read_bytes() == CONF
    assert sorted(tmp_path.rglob("*")) == before
    real = run(settings={"user": None})
    same = ("changed", "changes", "diff", "checked_by", "restart_required", "restart_units", "guests_pending")
    assert {key: checked[key] for key in same} == {key: real[key] for key in same}
    assert checked["backup_file"] is None


def test_the_diff_is_one_that_ansible_shows(run: Run) -> None:
    diff = run(settings={"user": None})["diff"]
    assert diff["before"] == CONF.decode().replace('"XYZ12345"', "(not shown)")
    assert diff["after"] == diff["before"].replace('user = "root"   # for now\n', "")
    assert diff["before_header"] == diff["after_header"] == "/etc/libvirt/qemu.conf"


def test_a_refusal_changes_nothing_and_names_every_key(run: Run) -> None:
    answer = run(settings={"user": 0, "security_default_confied": False})
    assert answer["failed"]
    assert "user: 0 is a number" in answer["msg"]
    assert "security_default_confied" in answer["msg"]
    assert "security_default_confined" in answer["msg"]
    assert not answer["changed"]
    assert run.conf.read_bytes() == CONF


def test_keys_managed_elsewhere_are_told(run: Run) -> None:
    answer = run(settings={"user": None, "max_files": 5}, managed_elsewhere="user,group")
    assert (answer["changed"], answer["left_alone"]) == (True, ["user"])
    assert b'user = "root"' in run.conf.read_bytes()
    answer = run(settings={"user": None}, managed_elsewhere=["usr"])
    assert (answer["failed"], answer["changed"]) == (True, False)
    assert "Did you mean user?" in answer["msg"]


def test_a_password_is_nowhere_but_in_the_file(run: Run) -> None:
    answer = run(secret_settings={"vnc_password": PASSWORD})
    assert answer["changed"]
    assert PASSWORD in run.conf.read_text()
    assert PASSWORD not in run.output
    assert not [line for line in run.logged if PASSWORD in line]
    assert "Invoked with" in run.logged[0]
    # Another change, later, by a run that does not know the password.
    assert run(settings={"user": None})["changed"]
    assert PASSWORD not in run.output


@pytest.mark.parametrize("value", [PASSWORD, [PASSWORD], {"a": {"b": PASSWORD}}])
def test_a_password_in_settings_is_refused_without_being_shown_or_logged(run: Run, value: t.Any) -> None:
    answer = run(settings={"vnc_password": value, "user": "root"})
    assert answer["failed"]
    assert "secret_settings" in answer["msg"]
    assert PASSWORD not in run.output
    assert run.logged
    assert not [line for line in run.logged if PASSWORD in line]


def test_without_a_lens_the_result_says_so(run: Run, tmp_path: Path) -> None:
    for lens in (tmp_path / "usr/share/augeas/lenses").rglob("*.aug"):
        lens.unlink()
    answer = run(settings={"vnc_sasl": True})
    assert answer["keys_from"] == "fallback"
    answer = run(extend={"cgroup_device_acl": ["/dev/vfio/1"]})
    assert answer["failed"]
    assert "test_libvirtd_qemu.aug" in answer["msg"]


def test_the_backup_is_named(run: Run) -> None:
    answer = run(settings={"user": None}, backup=True)
    assert answer["backup_file"].startswith("/etc/libvirt/qemu.conf.")
    assert (run.conf.parent / Path(answer["backup_file"]).name).read_bytes() == CONF
