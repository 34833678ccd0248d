# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures."""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import (
    _agreement,
    _gate,
    _gatehook,
    _migrationgate,
    _runner,
)
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import migration_gate
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, TICKS, LibvirtHost

HOOKS = "/etc/libvirt/hooks"
HOME = f"{HOOKS}/hypervisor-hardening"
IN_DIRECTORY = f"{HOOKS}/qemu.d/zz-hypervisor-hardening"
AGREEMENT = {"version": 1, "group": "web", "values": {"qemu_uid": 64055, "namespaces": ["mount"]}}
NEW, OLD = "/usr/lib64/libvirt.so.0.9000.0", "/usr/lib64/libvirt.so.0.6000.0"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.directory("/var/lib/libvirt/qemu", owner=(64055, 994))
    host.directory(HOOKS)
    host.put("/usr/bin/python3")
    host.put(NEW)
    started(host)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def started(host: LibvirtHost) -> None:
    """The daemon was started after all that is there."""
    time.sleep(3 / TICKS)
    host.daemon(int(host.unit["MainPID"]) + 700)
    time.sleep(3 / TICKS)


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        migration_gate.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def tree(host: LibvirtHost) -> dict[str, tuple[str, int]]:
    """What is below the hooks: where a link leads, or the text of a file, with its mode."""
    root = Path(host.path(HOOKS))
    return {
        str(path.relative_to(root)): (
            os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else "",
            path.lstat().st_mode,
        )
        for path in root.rglob("*")
    }


def test_check_then_change_then_nothing(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(host)
    predicted = run(capsys, _ansible_check_mode=True, agreement=AGREEMENT)
    assert tree(host) == before
    done = run(capsys, agreement=AGREEMENT)
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert done["changed"] is True
    assert (done["armed"], done["restart_required"]) == (False, True)
    assert done["restart_units"] == ["libvirtd.service"]
    assert (done["hook"], done["chained"], done["mismatches"]) == (IN_DIRECTORY, [], [])
    assert done["digest"] == _agreement.of(AGREEMENT).digest
    assert os.readlink(host.path(IN_DIRECTORY)) == "../hypervisor-hardening/hook"
    assert os.access(host.path(IN_DIRECTORY), os.X_OK)
    assert _agreement.parse(host.read(_gate.AGREEMENT)) == _agreement.of(AGREEMENT)
    again = run(capsys, agreement=AGREEMENT)
    assert (again["changed"], again["diff"]) == (False, [])


def test_the_diff_shows_what_is_agreed_on_and_the_mode(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, agreement=AGREEMENT)
    other = {**AGREEMENT, "values": {"qemu_uid": 1}}
    done = run(capsys, agreement=other, mode="enforce")
    shown = {one["after_header"]: one for one in done["diff"]}
    assert set(shown) == {_gate.AGREEMENT, _gatehook.FRONT}
    assert '"qemu_uid": 64055' in shown[_gate.AGREEMENT]["before"]
    assert '"qemu_uid": 1' in shown[_gate.AGREEMENT]["after"]
    assert "mode=warn\n" in shown[_gatehook.FRONT]["before"]
    assert "mode=enforce\n" in shown[_gatehook.FRONT]["after"]


def test_armed_after_a_restart(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, agreement=AGREEMENT)
    started(host)
    done = run(capsys, agreement=AGREEMENT)
    assert (done["armed"], done["restart_required"], done["restart_units"]) == (True, False, [])
    # Another mode and other values are read for each guest, and take no restart.
    assert run(capsys, agreement=AGREEMENT, mode="enforce")["armed"] is True


@pytest.mark.parametrize("name", ["qemu", "qemu.d/10-own"])
def test_armed_at_once_where_the_daemon_found_another_hook(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    host.put(f"{HOOKS}/{name}", "#!/bin/sh\n", 0o755)
    started(host)
    done = run(capsys, agreement=AGREEMENT)
    assert (done["armed"], done["restart_required"]) == (True, False)
    assert done["chained"] == [f"{HOOKS}/{name}"]


def test_what_cannot_be_executed_is_no_hook(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(f"{HOOKS}/qemu", "#!/bin/sh\n", 0o644)
    host.put(f"{HOOKS}/qemu.d/README", "words\n")
    host.directory(f"{HOOKS}/qemu.d/web", 0o755)
    started(host)
    done = run(capsys, agreement=AGREEMENT)
    assert (done["armed"], done["chained"]) == (False, [])
    (warning,) = done["warnings"]
    assert f"{HOOKS}/qemu is there and cannot be executed, so libvirt does not run it." in str(warning)


def test_a_daemon_that_does_not_run_will_look(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.unlink(host.path("/run/libvirtd.pid"))
    run(capsys, agreement=AGREEMENT)
    done = run(capsys, agreement=AGREEMENT)
    assert (done["armed"], done["restart_required"]) == (True, False)


def test_switched_off_it_wants_no_restart(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, agreement=AGREEMENT, mode="off")
    done = run(capsys, agreement=AGREEMENT, mode="off")
    assert (done["changed"], done["armed"], done["restart_required"]) == (False, False, False)


def test_where_the_host_departs(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"qemu_uid": 1, "seccomp_sandbox": False, "namespaces": ["mount"]}
    done = run(capsys, agreement={**AGREEMENT, "values": values})
    assert done["mismatches"] == [
        {"key": "qemu_uid", "agreed": 1, "live": 64055, "reason": ""},
        {"key": "seccomp_sandbox", "agreed": False, "live": True, "reason": ""},
    ]
    host.put(CONF, "seccomp_sandbox = 0\n")
    done = run(capsys, agreement={**AGREEMENT, "values": {"seccomp_sandbox": False}})
    assert done["mismatches"][0]["live"] is None
    assert "was changed after libvirtd started" in done["mismatches"][0]["reason"]


def test_absent_where_nothing_was(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(host)
    run(capsys, agreement=AGREEMENT)
    host.put(f"{HOME}/gate-0/hypervisor_hardening/__pycache__/x.pyc", "x")
    predicted = run(capsys, _ansible_check_mode=True, state="absent")
    done = run(capsys, state="absent")
    assert predicted["changed"] is done["changed"] is True
    assert (done["hook"], done["digest"], done["armed"], done["restart_required"]) == ("", "", False, False)
    assert tree(host) == before
    assert run(capsys, state="absent")["changed"] is False


def test_absent_leaves_the_operators_hooks_and_directory(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(f"{HOOKS}/qemu", "#!/bin/sh\nexit 0\n", 0o750)
    host.directory(f"{HOOKS}/qemu.d")
    host.link(f"{HOOKS}/qemu.d/own", "/opt/own")
    before = tree(host)
    run(capsys, agreement=AGREEMENT)
    assert {name: entry for name, entry in tree(host).items() if name in before} == before
    run(capsys, state="absent")
    assert tree(host) == before


def test_an_older_libvirt_runs_one_hook_alone(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename(host.path(NEW), host.path(OLD))
    before = tree(host)
    done = run(capsys, agreement=AGREEMENT)
    assert (done["hook"], done["chained"]) == (f"{HOOKS}/qemu", [])
    assert os.readlink(host.path(f"{HOOKS}/qemu")) == "hypervisor-hardening/hook"
    assert "next=" not in host.text(_gatehook.FRONT)
    assert run(capsys, agreement=AGREEMENT)["changed"] is False
    run(capsys, state="absent")
    assert tree(host) == before


def test_an_older_libvirt_and_a_hook_of_the_operators(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(f"{HOOKS}/qemu", "#!/bin/sh\nexit 0\n", 0o710)
    inode = host.stat(f"{HOOKS}/qemu").st_ino
    os.rename(host.path(NEW), host.path(OLD))
    before = tree(host)
    predicted = run(capsys, _ansible_check_mode=True, agreement=AGREEMENT)
    assert tree(host) == before
    done = run(capsys, agreement=AGREEMENT)
    assert predicted["hook"] == done["hook"] == f"{HOOKS}/qemu"
    assert done["chained"] == [f"{HOOKS}/qemu.chained"]
    assert host.stat(f"{HOOKS}/qemu.chained").st_ino == inode
    assert f"next={HOOKS}/qemu.chained\n" in host.text(_gatehook.FRONT)
    assert run(capsys, agreement=AGREEMENT)["changed"] is False
    # After an upgrade of libvirt it stays where it is.
    os.rename(host.path(OLD), host.path(NEW))
    assert run(capsys, agreement=AGREEMENT)["changed"] is False
    run(capsys, state="absent")
    assert tree(host) == before
    assert host.stat(f"{HOOKS}/qemu").st_ino == inode


def test_another_release_of_the_code_replaces_it(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, agreement=AGREEMENT)
    (former,) = Path(host.path(HOME)).glob("gate-*")
    source = _gatehook._source
    monkeypatch.setattr(_gatehook, "_source", lambda name: source(name) + b"\n")
    assert run(capsys, agreement=AGREEMENT)["changed"] is True
    (present,) = Path(host.path(HOME)).glob("gate-*")
    assert present != former
    assert f" /{present.relative_to(host.root)} " in host.text(_gatehook.FRONT)


def test_what_python_keeps_beside_the_code_is_no_change(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, agreement=AGREEMENT)
    (code,) = Path(host.path(HOME)).glob("gate-*")
    (code / "hypervisor_hardening/__pycache__").mkdir()
    (code / "hypervisor_hardening/__pycache__/_gate.cpython-311.pyc").write_bytes(b"x")
    assert run(capsys, agreement=AGREEMENT)["changed"] is False


@pytest.mark.parametrize("spoil", ["content", "mode", "gone", "link"])
def test_what_others_did_to_it_is_mended(host: LibvirtHost, capsys: pytest.CaptureFixture[str], spoil: str) -> None:
    run(capsys, agreement=AGREEMENT)
    before = tree(host)
    front = Path(host.path(_gatehook.FRONT))
    if spoil == "content":
        front.write_text("#!/bin/sh\nexit 0\n")
    elif spoil == "mode":
        front.chmod(0o644)
    elif spoil == "gone":
        front.unlink()
    else:
        Path(host.path(IN_DIRECTORY)).unlink()
    assert run(capsys, agreement=AGREEMENT)["changed"] is True
    assert tree(host) == before


@pytest.mark.parametrize("path", [HOOKS, f"{HOOKS}/qemu.d", HOME])
def test_a_place_where_others_can_write_is_refused(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    host.directory(path, 0o775)
    failed = run(capsys, agreement=AGREEMENT)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert f"chown root {path}; chmod go-w {path}" in failed["msg"]
    host.directory(path, 0o755, owner=(64055, 0))
    assert f"{path} belongs to uid 64055" in run(capsys, agreement=AGREEMENT)["msg"]


def test_what_was_is_in_the_journal(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put(f"{HOOKS}/qemu", "#!/bin/sh\n", 0o755)
    os.rename(host.path(NEW), host.path(OLD))
    run(capsys, agreement=AGREEMENT)
    targets = [entry.target for entry in Journal(host, by="").entries()]
    assert targets[0] == f"directory:{HOME}"
    assert targets[-2:] == [f"rename:{HOOKS}/qemu", f"link:{HOOKS}/qemu"], "libvirt must not find half of it"
    run(capsys, agreement=AGREEMENT, mode="enforce")
    assert Journal(host, by="").entries()[-1].target == _gatehook.FRONT
    number = len(targets) + 1
    run(capsys, state="absent")
    targets = [entry.target for entry in Journal(host, by="").entries()][number:]
    assert targets[0] == f"rename:{HOOKS}/qemu.chained"
    assert _gatehook.FRONT in targets


def test_refusals(host: LibvirtHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(host)
    assert "state is present but all of the following are missing: agreement" in run(capsys)["msg"]
    failed = run(capsys, agreement={**AGREEMENT, "values": {"user": "root"}})
    assert "user is nothing that can be agreed on" in failed["msg"]
    monkeypatch.setattr(_migrationgate, "_interpreter", lambda _host: "")
    assert "No Python of this host can run the hook" in run(capsys, agreement=AGREEMENT)["msg"]
    os.unlink(host.path("/usr/sbin/libvirtd"))
    os.unlink(host.path("/run/libvirtd.pid"))
    failed = run(capsys, agreement=AGREEMENT)
    assert (failed["changed"], failed["msg"]) == (
        False,
        "libvirt is not installed on this host, so no guest can come to it. Nothing was done.",
    )
    assert tree(host) == before
    assert run(capsys, state="absent")["changed"] is False


def test_the_documented_keys_are_those_of_an_agreement() -> None:
    words = " ".join(yaml.safe_load(migration_gate.DOCUMENTATION)["options"]["agreement"]["description"])
    assert [key for key in _agreement.KEYS if f"C({key})" not in words] == []
