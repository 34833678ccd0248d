# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import DIRECTORY, VERSION, Journal
from ansible_collections.hypervisor.hardening.plugins.modules import journal_info
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

CONF = "/etc/libvirt/qemu.conf"
SECRET = 'vnc_password = "former-secret"\n'
RESTRICT = "/proc/sys/kernel/kptr_restrict"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put(CONF, SECRET, 0o600)
    host.put(RESTRICT, "0\n")
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        journal_info.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_what_was_changed_and_what_became_of_it(host: TreeHost, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(host, "hypervisor.hardening.qemu_conf")
    first = journal.record_file(CONF, b"a = 1\n")
    host.put(CONF, "a = 1\n")
    second = journal.record_file(CONF, b"a = 2\n")
    host.put(CONF, "a = 2\n")
    third = Journal(host, "other").record_value(RESTRICT, "0", "2")
    fourth = Journal(host, "other").record_file("/etc/never", b"made")
    done = run(capsys)
    assert done["changed"] is False
    assert [entry["name"] for entry in done["entries"]] == [first.name, second.name, third.name, fourth.name]
    assert [entry["state"] for entry in done["entries"]] == ["in_force", "in_force", "not_made", "not_made"]
    assert done["entries"][0] == {
        "name": first.name,
        "time": first.time,
        "by": "qemu_conf",
        "version": VERSION,
        "kind": "file",
        "target": CONF,
        "state": "in_force",
        "undoes": "",
    }
    Journal(host, "rollback").restore(second)
    host.put(RESTRICT, "1\n")
    done = run(capsys)
    assert [entry["state"] for entry in done["entries"]] == ["in_force", "put_back", "drifted", "not_made", "in_force"]
    assert done["entries"][-1]["undoes"] == second.name
    assert [entry["name"] for entry in run(capsys, since=third.name)["entries"]][:2] == [third.name, fourth.name]


def test_nothing_of_what_is_kept_is_shown(host: TreeHost, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(host, "qemu_conf").record_file(CONF, SECRET.replace("former", "latter").encode())
    Journal(host, "other").record_value("secret:value", "former-secret", "latter-secret")
    told = json.dumps(run(capsys))
    assert "secret:value" in told
    assert "former-secret" not in told
    assert "latter-secret" not in told
    kept = json.loads(host.read(f"{DIRECTORY}/{host.list(DIRECTORY)[0]}"))
    assert kept["before"]["content"] not in told


def test_it_changes_nothing(host: TreeHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)["entries"] == []
    assert not host.exists(DIRECTORY)


def test_a_journal_that_others_can_write_is_refused(host: TreeHost, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(host, "other").record_value(RESTRICT, "0", "2")
    os.chmod(host.path(DIRECTORY), 0o777)
    assert "others than root can forge what is put back" in run(capsys)["msg"]


def test_the_result_is_documented(host: TreeHost, capsys: pytest.CaptureFixture[str]) -> None:
    Journal(host, "other").record_value(RESTRICT, "0", "2")
    documented = yaml.safe_load(journal_info.RETURN)["entries"]["contains"]
    assert list(run(capsys)["entries"][0]) == list(documented)
