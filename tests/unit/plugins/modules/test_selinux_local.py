# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures, whose kernel and whose commands for the policy are played."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner, _selinux
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import selinux_local
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import call
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import run as rolled_back
from ansible_collections.hypervisor.hardening.tests.unit.plugins.selinuxes import SelinuxHost

CONTEXTS = "/etc/selinux/targeted/contexts/files/file_contexts.local"
KEPT = "/var/lib/selinux/targeted/active/booleans.local"
POOL = "<pool type='{kind}'><name>{name}</name><target><path>{path}</path></target></pool>"


class PlayedHost(SelinuxHost):
    """Its commands do what setsebool(8), semanage(8) and chcon(1) do to what can be seen of the policy."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.commands: list[str] = []
        for name in ("setsebool", "semanage", "chcon"):
            self.put(f"/usr/sbin/{name}", "", 0o755)

    def pool(self, name: str, path: str, kind: str = "dir") -> None:
        self.put(f"/etc/libvirt/storage/{name}.xml", POOL.format(kind=kind, name=name, path=path))
        self.directory(path)

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        self.commands.append(" ".join(argv))
        if argv[0] == "setsebool":
            name, _equals, word = argv[2].partition("=")
            self.boolean(name, running=word == "on")
            self.put(KEPT, f"{self.text_optional(KEPT) or ''}{name}={int(word == 'on')}\n")
        elif argv[:2] == ("semanage", "permissive"):
            if argv[-1] == "svirt_tcg_t":
                return Completed(tuple(argv), 1, "", "ValueError: svirt_tcg_t is part of the policy\n")
            self.types[argv[-1]] = int(argv[2] == "--add")
        elif argv[:3] == ("semanage", "fcontext", "--delete"):
            self.put(CONTEXTS, "")
        elif argv[0] == "semanage":
            self.put(CONTEXTS, f"{argv[-1]}    system_u:object_r:{argv[4]}:s0\n")
        elif argv[0] == "chcon":
            user, role, _type, level = self.labels[argv[-1]].split(":", 3)
            self.labels[argv[-1]] = f"{user}:{role}:{argv[2]}:{level}"
        return Completed(tuple(argv), 0, "", "")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    host = PlayedHost(tmp_path)
    for name, running in (("virt_use_nfs", False), ("virt_use_usb", True), ("virt_use_execmem", True)):
        host.boolean(name, running=running)
    host.boolean("httpd_can_network_connect", running=True)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        selinux_local.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_there_and_back(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.pool("data", "/data/vm.d")
    host.labels["/data/vm.d"] = "unconfined_u:object_r:default_t:s0"
    host.types.update(svirt_t=1)
    former = dict(host.labels), dict(host.types), [entry["running"] for entry in _selinux.booleans(host, "targeted")]
    wanted = {"booleans": {"virt_use_usb": False}, "enforce_types": True, "pools": True}
    assert call(selinux_local, capsys, **wanted)["changed"] is True
    host.commands.clear()
    predicted = rolled_back(capsys, all=True, _ansible_check_mode=True)
    assert host.commands == []
    done = rolled_back(capsys, all=True)
    assert (done["put_back"], done["left_alone"]) == (predicted["put_back"], [])
    assert {one["kind"] for one in done["put_back"]} == {
        f"selinux_{name}" for name in ("boolean", "permissive", "fcontext", "label")
    }
    assert host.commands == [
        "chcon -t default_t /data/vm.d",
        r"semanage fcontext --delete /data/vm\.d(/.*)?",
        "semanage permissive --add svirt_t",
        "setsebool -P virt_use_usb=on",
    ]
    now = [entry["running"] for entry in _selinux.booleans(host, "targeted")]
    assert (host.labels, host.types, now) == former
    assert rolled_back(capsys, all=True)["changed"] is False

    # Somebody else has switched it since.
    call(selinux_local, capsys, booleans={"virt_use_usb": False})
    host.boolean("virt_use_usb", running=True)
    assert rolled_back(capsys, all=True)["changed"] is False


def test_nothing_is_done_unasked(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys)
    assert (done["changed"], done["model"], done["mode"]) == (False, "selinux", "enforcing")
    assert done["booleans"] == ["virt_use_execmem", "virt_use_usb"]
    assert host.commands == []


def test_check_then_change_then_nothing(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.pool("nfs", "/srv/nfs", "netfs")
    host.pool("data", "/data/vm.d")
    host.labels["/data/vm.d"] = "unconfined_u:object_r:default_t:s0"
    host.types.update(svirt_t=1, virtd_t=0)
    wanted = {"booleans": {"virt_use_usb": "yes"}, "minimal": True, "enforce_types": True, "pools": True}
    predicted = run(capsys, _ansible_check_mode=True, **wanted)
    assert host.commands == []
    assert Journal(host, by="").entries() == []
    done = run(capsys, **wanted)
    assert (predicted["changed"], done["changed"]) == (True, True)
    assert predicted["diff"] == done["diff"]
    assert host.commands == [
        "setsebool -P virt_use_execmem=off",
        "setsebool -P virt_use_nfs=on",
        "semanage permissive --delete svirt_t",
        r"semanage fcontext --add --type virt_image_t /data/vm\.d(/.*)?",
        "chcon -t virt_image_t /data/vm.d",
    ]
    assert done["booleans"] == ["virt_use_nfs", "virt_use_usb"]
    assert done["needed"] == {"virt_use_nfs": "nfs"}
    assert done["permissive"] == []
    assert done["pools"] == [{"name": "data", "path": "/data/vm.d", "label": "virt_image_t"}]
    assert len(Journal(host, by="").entries()) == 5
    assert run(capsys, **wanted)["changed"] is False


def test_what_comes_back_with_a_boot_is_switched_as_well(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(KEPT, "virt_use_nfs=1\n")
    run(capsys, booleans={"virt_use_nfs": False})
    assert host.commands == ["setsebool -P virt_use_nfs=off"]


def test_an_unknown_boolean_is_refused_by_its_name(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, booleans={"virt_use_nsf": True})
    assert (done["failed"], host.commands) == (True, [])
    assert "the loaded policy has no virt_use_nsf. It has: virt_use_execmem, virt_use_nfs, virt_use_usb." in done["msg"]


def test_what_a_pool_needs_may_be_off_and_is_said(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.pool("nfs", "/srv/nfs", "netfs")
    done = run(capsys, booleans={"virt_use_nfs": False})
    assert (done["changed"], host.commands) == (False, [])
    assert "virt_use_nfs is to be off, and the pool nfs needs it." in str(done["warnings"])


def test_a_pool_with_a_blank_in_its_path_is_said(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.pool("data", "/data/v m")
    done = run(capsys, pools=True)
    assert (done["changed"], host.commands) == (False, [])
    assert "The pool data was not labelled" in str(done["warnings"])


def test_a_command_that_is_missing_or_fails(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.types["svirt_tcg_t"] = 1
    done = run(capsys, enforce_types=True)
    assert done["failed"] is True
    assert (
        "semanage permissive --delete svirt_tcg_t failed: ValueError: svirt_tcg_t is part of the policy" in done["msg"]
    )
    os.unlink(host.path("/usr/sbin/semanage"))
    host.changed = False
    for check_mode in (True, False):
        done = run(capsys, enforce_types=True, _ansible_check_mode=check_mode)
        assert "semanage is not installed" in done["msg"]
        assert done["changed"] is False


def test_a_kernel_without_selinux(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.unlink(host.path("/sys/fs/selinux/enforce"))
    done = run(capsys, minimal=True)
    assert (done["changed"], done["model"], done["booleans"]) == (False, "", [])
    assert "it runs no mandatory access control at all" in str(done["warnings"])


def test_every_return_value_is_documented(host: PlayedHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(run(capsys)) - {"changed", "diff", "invocation", "warnings"} == set(yaml.safe_load(selinux_local.RETURN))
