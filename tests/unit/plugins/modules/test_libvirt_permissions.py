# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() on a tree of files."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import libvirt_permissions
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


class FilesHost(TreeHost):
    """Whose owners are noted only, so that it takes no root to change them."""

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        super().set_owner(path, -1, -1, mode)
        former = self._owners.get(path, (0, 0))
        self._owners[path] = (uid, former[1] if gid == -1 else gid)

    def shown(self, path: str) -> tuple[int, int, int]:
        status = self.stat(path)
        return status.st_uid, status.st_gid, status.st_mode & 0o7777


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesHost:
    played = FilesHost(tmp_path)
    for directory in ("/etc", "/etc/libvirt", "/etc/libvirt/qemu", "/etc/libvirt/hooks", "/etc/pki/qemu"):
        played.directory(directory, 0o755)
    played.put("/etc/libvirt/qemu.conf", mode=0o664, owner=(1000, 100))
    played.put("/etc/libvirt/libvirtd.conf", mode=0o644)
    played.put("/etc/libvirt/qemu/web1.xml", mode=0o644)
    played.put("/etc/pki/qemu/server-key.pem", mode=0o644, owner=(0, 994))
    played.put("/etc/pki/qemu/cakey.pem", mode=0o600)
    played.put("/etc/libvirt/hooks/qemu", mode=0o757)
    monkeypatch.setattr(_runner, "Host", lambda: played)
    return played


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        libvirt_permissions.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_what_is_too_open_is_closed_and_no_more(host: FilesHost, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = run(capsys, _ansible_check_mode=True)
    assert host.shown("/etc/libvirt/qemu/web1.xml") == (0, 0, 0o644)
    done = run(capsys)
    assert {**done, "checked": 0} == {**predicted, "checked": 0}
    assert set(done) - {"changed", "diff", "invocation", "warnings"} == set(yaml.safe_load(libvirt_permissions.RETURN))
    assert host.shown("/etc/libvirt/qemu.conf") == (0, 100, 0o644)
    assert host.shown("/etc/libvirt/qemu/web1.xml") == (0, 0, 0o600)
    assert host.shown("/etc/pki/qemu/server-key.pem") == (0, 994, 0o640), "QEMU's group reads its keys"
    assert host.shown("/etc/libvirt/hooks/qemu") == (0, 0, 0o755)
    assert [one["path"] for one in done["files"]] == [
        "/etc/libvirt/qemu.conf",
        "/etc/libvirt/qemu/web1.xml",
        "/etc/pki/qemu/server-key.pem",
        "/etc/libvirt/hooks/qemu",
    ]
    assert done["ca_keys"] == ["/etc/pki/qemu/cakey.pem"]
    assert "keep it on another machine" in str(done["warnings"])
    again = run(capsys)
    assert (again["changed"], again["files"]) == (False, [])


def test_the_journal_has_owner_and_mode_and_no_secret(host: FilesHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, classes=["configuration"])
    (entry,) = Journal(host, by="test").entries()
    assert (entry.kind, entry.target) == ("value", "mode:/etc/libvirt/qemu.conf")
    assert (entry.before, entry.after) == ([1000, 0o664], [0, 0o644])
    assert host.shown("/etc/libvirt/qemu/web1.xml") == (0, 0, 0o644), "another class"


def test_a_link_is_told_and_left_alone(host: FilesHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/srv/open.conf", mode=0o666)
    host.link("/etc/libvirt/virtlogd.conf", host.path("/srv/open.conf"))
    done = run(capsys, classes=["configuration"])
    assert "/etc/libvirt/virtlogd.conf is a symbolic link" in str(done["warnings"])
    assert host.shown("/srv/open.conf")[2] == 0o666
