# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main(), after real runs of the modules whose changes are taken back, against a tree of fixtures."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _rollback, _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import (
    daemon_restart,
    journal_info,
    migration_gate,
    qemu_conf,
    rollback,
)
from ansible_collections.hypervisor.hardening.tests.unit.plugins.killed import killed_at
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, LibvirtHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import call, run

FORMER = b'# keep me \xff\nuser = "root"\nvnc_password = "former-secret"\n'
SETTINGS = {"user": None, "max_files": 4096}
SECRETS = {"vnc_password": "latter-secret"}


class OwnedHost(LibvirtHost):
    """One whose files have the owners that they really have: those return, too."""

    stat = Host.stat


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    host = OwnedHost(tmp_path)
    Path(host.path(CONF)).write_bytes(FORMER)
    os.chmod(host.path(CONF), 0o600)
    host.put("/usr/bin/python3")
    time.sleep(0.03)
    host.daemon(700)
    time.sleep(0.03)

    def untouched() -> Host:
        host.changed = False
        return host

    monkeypatch.setattr(_runner, "Host", untouched)
    return host


def harden(capsys: pytest.CaptureFixture[str], **settings: t.Any) -> None:
    done = call(qemu_conf, capsys, settings={**SETTINGS, **settings}, secret_settings=SECRETS, libvirt_check=False)
    assert done["changed"] is True, done


def tree(host: LibvirtHost, *places: str) -> dict[str, t.Any]:
    """Everything below some places but the journal, byte for byte, with mode and owner."""
    found: dict[str, t.Any] = {}
    for place in places or ("/etc",):
        for path in Path(host.path(place)).rglob("*"):
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path)] = (content, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return found


def states(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    return [(entry["by"], entry["state"]) for entry in call(journal_info, capsys)["entries"]]


def test_check_then_change_then_nothing(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.setxattr(host.path(CONF), "user.note", b"\x00\xff")
    os.chown(host.path(CONF), 12, 34)
    former = tree(host)
    harden(capsys)
    hardened = tree(host, "/etc", "/var")
    predicted = run(capsys, all=True, _ansible_check_mode=True)
    assert tree(host, "/etc", "/var") == hardened
    done = run(capsys, all=True)
    assert {**predicted, "invocation": None} == {**done, "invocation": None}
    assert done["changed"] is True
    assert [(one["target"], one["kind"], one["by"]) for one in done["put_back"]] == [(CONF, "file", "qemu_conf")]
    assert tree(host) == former
    assert os.getxattr(host.path(CONF), "user.note") == b"\x00\xff"
    again = run(capsys, all=True)
    assert (again["changed"], again["put_back"], again["left_alone"]) == (False, [], [])


def test_owner_mode_and_attributes_return_too(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    os.setxattr(host.path(CONF), "user.note", b"kept")
    former = tree(host)
    harden(capsys)
    os.chmod(host.path(CONF), 0o644)
    os.removexattr(host.path(CONF), "user.note")
    done = run(capsys, all=True)
    assert tree(host) == former
    assert os.getxattr(host.path(CONF), "user.note") == b"kept"
    assert "# owner 0:0, mode 0600, user.note\n" in done["diff"][0]["after"]


def test_no_password_is_shown(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    done = run(capsys, all=True)
    assert "former-secret" not in json.dumps(done)
    assert "latter-secret" not in json.dumps(done)
    assert "vnc_password = (changed, not shown)" in done["diff"][0]["after"]
    assert 'user = "root"' in done["diff"][0]["after"]


def test_no_password_is_shown_wherever_the_file_is(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    former = 'vnc_password = "former-secret"\n'
    for path, data in (
        ("/srv/qemu.conf", "max_files = 1\n"),
        ("/etc/libvirt/broken.conf", "vnc_password = 'latter-secret"),
    ):
        host.put(path, former)
        Journal(host, "qemu_conf").record_file(path, data.encode())
        host.put(path, data)
    done = run(capsys, all=True)
    assert host.text("/srv/qemu.conf") == host.text("/etc/libvirt/broken.conf") == former
    assert "secret" not in json.dumps(done["diff"])


def test_what_not_everybody_may_read_is_not_shown(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    for path, head, mode in (("/etc/a-key.pem", "", 0o640), ("/etc/b-key.pem", "-----BEGIN PRIVATE KEY-----", 0o644)):
        host.put(path, f"{head}former key", mode)
        Journal(host, "tls_credentials").record_file(path, f"{head}latter key".encode())
        host.put(path, f"{head}latter key", mode)
    done = run(capsys, roles=["hypervisor_migration"])
    assert host.text("/etc/a-key.pem") == "former key"
    for one in done["diff"]:
        assert (one["before"], one["after"]) == ("(not shown)\n", "(changed, not shown)\n")
    assert "er key" not in json.dumps(done["diff"])


def test_drift_is_shown_and_not_overwritten(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    edited = host.read(CONF) + b"max_processes = 7\n"
    Path(host.path(CONF)).write_bytes(edited)
    done = run(capsys, all=True)
    assert done["changed"] is False
    (left,) = done["left_alone"]
    assert left["target"] == CONF
    assert "it is not what qemu_conf made it at 2" in left["reason"]
    assert "somebody else has changed it since" in left["reason"]
    assert f"{CONF} stays as it is: " in str(done["warnings"])
    assert host.read(CONF) == edited
    assert states(capsys) == [("qemu_conf", "drifted")]
    done = run(capsys, all=True, overwrite=[CONF])
    assert done["changed"] is True
    assert host.read(CONF) == FORMER
    # What was overwritten is not lost.
    assert Journal(host, "").entries()[-1].content() == edited
    assert run(capsys, all=True)["changed"] is False
    assert states(capsys) == [("qemu_conf", "put_back"), ("rollback", "in_force")]


def test_an_edit_between_two_of_our_changes_is_drift_as_well(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str]
) -> None:
    harden(capsys)
    edited = host.read(CONF) + b"max_processes = 7\n"
    Path(host.path(CONF)).write_bytes(edited)
    harden(capsys, max_files=8192)
    done = run(capsys, all=True)
    assert (done["changed"], [one["target"] for one in done["left_alone"]]) == (False, [CONF])
    assert "somebody else has changed it before 2" in done["left_alone"][0]["reason"]
    assert states(capsys) == [("qemu_conf", "drifted"), ("qemu_conf", "in_force")]
    second = call(journal_info, capsys)["entries"][1]["name"]
    assert run(capsys, since=second)["changed"] is True
    assert host.read(CONF) == edited


def test_what_was_put_back_once_does_not_count_any_more(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    run(capsys, all=True)
    edited = FORMER + b"max_processes = 7\n"
    Path(host.path(CONF)).write_bytes(edited)
    harden(capsys)
    assert run(capsys, all=True)["changed"] is True
    assert host.read(CONF) == edited


def test_a_rollback_can_be_rolled_back(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    hardened = tree(host)
    run(capsys, all=True)
    (last,) = [entry["name"] for entry in call(journal_info, capsys)["entries"] if entry["by"] == "rollback"]
    run(capsys, since=last)
    assert tree(host) == hardened
    assert run(capsys, since=last)["changed"] is False
    assert states(capsys) == [("qemu_conf", "in_force"), ("rollback", "put_back"), ("rollback", "in_force")]
    run(capsys, all=True)
    assert host.read(CONF) == FORMER


def test_since_a_moment(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    first = host.read(CONF)
    time.sleep(1.1)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    harden(capsys, max_files=8192)
    harden(capsys, max_files=1024)
    assert run(capsys, since=moment)["changed"] is True
    assert host.read(CONF) == first
    assert run(capsys, since=moment)["changed"] is False
    assert run(capsys, all=True)["changed"] is True
    assert host.read(CONF) == FORMER


def test_one_role_alone(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    agreed = {"version": 1, "group": "web", "values": {"qemu_uid": 0}}
    host.directory("/var/lib/libvirt/qemu")
    host.directory("/etc/libvirt/hooks")
    before = tree(host)
    for mode in ("warn", "enforce"):
        done = call(migration_gate, capsys, agreement={**agreed, "group": mode}, mode=mode)
        assert not done.get("failed"), done["msg"]
    assert run(capsys, roles=["hypervisor_mounts"])["changed"] is False
    done = run(capsys, roles=["hypervisor_migration"])
    assert {one["by"] for one in done["put_back"]} == {"migration_gate"}
    assert tree(host) == before
    again = run(capsys, roles=["hypervisor_migration"])
    assert (again["changed"], again["left_alone"]) == (False, [])
    assert run(capsys, roles=["hypervisor_qemu"])["changed"] is True
    assert host.read(CONF) == FORMER


def test_the_gate_goes_and_returns_as_a_whole(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    agreed = {"version": 1, "group": "web", "values": {"qemu_uid": 0}}
    host.directory("/var/lib/libvirt/qemu")
    host.directory("/etc/libvirt/hooks")
    former = tree(host)
    call(migration_gate, capsys, agreement=agreed)
    gate = tree(host)
    count = len(Journal(host, "").entries())
    run(capsys, all=True)
    assert tree(host) == former
    since = Journal(host, "").entries()[count].name
    assert run(capsys, since=since)["left_alone"] == []
    assert tree(host) == gate
    again = run(capsys, since=since)
    assert (again["changed"], again["left_alone"]) == (False, [])
    run(capsys, all=True)
    assert tree(host) == former


def test_a_file_that_somebody_edited_keeps_its_directory(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    agreed = {"version": 1, "group": "web", "values": {"qemu_uid": 0}}
    place = "/etc/libvirt/hooks/hypervisor-hardening"
    host.directory("/var/lib/libvirt/qemu")
    host.directory("/etc/libvirt/hooks")
    former = tree(host)
    for group in ("web", "other"):
        call(migration_gate, capsys, agreement={**agreed, "group": group})
    host.put(f"{place}/agreement.json", "edited")
    done = run(capsys, all=True)
    left = {one["target"]: one["reason"] for one in done["left_alone"]}
    assert "somebody else has changed it since" in left[f"{place}/agreement.json"]
    assert left[f"directory:{place}"] == f"it holds {place}/agreement.json, which stays"
    assert host.text(f"{place}/agreement.json") == "edited"
    run(capsys, all=True, overwrite=[f"{place}/agreement.json"])
    assert tree(host) == former


def test_what_another_module_changed_later_is_not_lost(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    Journal(host, "hypervisor.hardening.other").record_file(CONF, b"other = 1\n")
    Path(host.path(CONF)).write_bytes(b"other = 1\n")
    done = run(capsys, roles=["hypervisor_qemu"])
    assert (done["changed"], host.read(CONF)) == (False, b"other = 1\n")
    assert done["left_alone"][0]["reason"].startswith("other has changed it as well, at 2")
    assert run(capsys, all=True)["changed"] is True
    assert host.read(CONF) == FORMER


def test_what_fails_half_way_is_named_and_goes_on_later(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    former = tree(host)
    harden(capsys)
    journal = Journal(host, "other")
    journal.make_directory("/etc/new")
    journal.record_file("/etc/new/file", b"new\n")
    host.write("/etc/new/file", b"new\n", mode=0o644)
    with monkeypatch.context() as broken:
        broken.setattr(host, "remove_directory", refuse)
        failed = call(rollback, capsys, all=True)
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert failed["msg"].startswith("directory:/etc/new could not be put back: Device or resource busy. What is before")
    assert not host.exists("/etc/new/file")
    assert run(capsys, all=True)["changed"] is True
    assert tree(host) == former


def refuse(path: str) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)


def test_the_daemon_loads_it_and_goes_back_if_it_cannot(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    call(daemon_restart, capsys)
    done = run(capsys, all=True)
    assert (done["restart_required"], done["restart_units"]) == (True, ["libvirtd.service"])
    assert run(capsys, all=True)["restart_required"] is True, "until it was restarted"
    call(daemon_restart, capsys)
    assert run(capsys, all=True)["restart_required"] is False

    hardened = FORMER + b"max_files = 1\n"
    Journal(host, "qemu_conf").record_file(CONF, hardened)
    Path(host.path(CONF)).write_bytes(hardened)
    call(daemon_restart, capsys)
    # What came back keeps the daemon down: it gets what it had.
    former = b"# broken\n"
    entry = Journal(host, "").entries()[-1]
    path = Path(host.path(f"/var/lib/hypervisor-hardening/journal/{entry.name}"))
    kept = json.loads(path.read_text())
    kept["before"]["content"] = "IyBicm9rZW4K"
    path.write_text(json.dumps(kept))
    run(capsys, since=entry.name)
    assert host.read(CONF) == former
    failed = call(daemon_restart, capsys)
    assert (failed["failed"], failed["rolled_back"]) == (True, True)
    assert host.read(CONF) == hardened
    assert states(capsys)[-3:] == [("qemu_conf", "in_force"), ("rollback", "put_back"), ("daemon_restart", "in_force")]


def test_a_former_file_that_libvirt_would_not_take_is_refused(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str]
) -> None:
    former = tree(host)
    Path(host.path(CONF)).write_bytes(b"vnc_password = 'secret\n")
    entry = Journal(host, "qemu_conf").record_file(CONF, FORMER)
    Path(host.path(CONF)).write_bytes(FORMER)
    before = tree(host, "/etc", "/var")
    failed = call(rollback, capsys, since=entry.name)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "would keep libvirt's daemon from starting. Nothing was changed." in failed["msg"]
    assert "'secret" not in failed["msg"]
    assert tree(host, "/etc", "/var") == before
    assert tree(host) == former


def test_what_the_daemon_runs_with_is_what_it_goes_back_to(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str]
) -> None:
    former = b"# broken\n"
    Path(host.path(CONF)).write_bytes(former)
    harden(capsys)
    hardened = host.read(CONF).replace(b"# broken", b"# sound")
    path = Path(host.path(f"/var/lib/hypervisor-hardening/journal/{Journal(host, '').entries()[0].name}"))
    kept = {**json.loads(path.read_text()), "after": hashlib.sha256(hardened).hexdigest()}
    path.write_text(json.dumps(kept))
    Path(host.path(CONF)).write_bytes(hardened)
    host.run(["systemctl", "restart", "libvirtd.service"])  # by hand
    assert run(capsys, all=True)["changed"] is True
    assert host.read(CONF) == former
    assert call(daemon_restart, capsys)["rolled_back"] is True
    assert host.read(CONF) == hardened


def test_an_edit_at_this_very_moment_is_not_overwritten(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    harden(capsys)
    monkeypatch.setattr(_rollback, "check", lambda host, _plan: Path(host.path(CONF)).write_bytes(b"edited = 1\n"))
    failed = call(rollback, capsys, all=True)
    assert failed["failed"] is True
    assert "was changed by someone else while this run was planning" in failed["msg"]
    assert host.read(CONF) == b"edited = 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Say what to put back"),
        ({"all": True, "roles": ["hypervisor_qemu"]}, "Say what to put back"),
        ({"roles": ["hypervisor_qemo"]}, "hypervisor_qemo is none of hypervisor_daemon, "),
        ({"since": "yesterday"}, "'yesterday' is no moment"),
        ({"all": True, "overwrite": ["/etc/libvirt/qemo.conf"]}, "has no /etc/libvirt/qemo.conf"),
    ],
)
def test_what_makes_no_sense_is_refused(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], arguments: dict[str, t.Any], message: str
) -> None:
    harden(capsys)
    before = tree(host, "/etc", "/var")
    failed = call(rollback, capsys, **arguments)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert message in failed["msg"]
    assert tree(host, "/etc", "/var") == before


def test_a_survey_sends_strings(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    harden(capsys)
    assert run(capsys, all="false", roles="hypervisor_qemu", since="", overwrite="")["changed"] is True


def test_a_host_without_a_journal(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, all=True)["changed"] is False
    assert call(journal_info, capsys)["entries"] == []


def test_a_run_that_was_killed_is_finished_by_the_next(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Killed before each of its changes in turn; no file is ever anything else than what it was or what it is to be."""
    host.put("/etc/own/hook", "#!/bin/sh\n", 0o755)
    host.put("/etc/own/gone", "former\n")
    former = tree(host)
    harden(capsys)
    journal = Journal(host, "other")
    journal.record_value("rename:/etc/own/hook", "/etc/own/hook", "/etc/own/hook.chained")
    host.rename("/etc/own/hook", "/etc/own/hook.chained")
    journal.record_value("link:/etc/own/hook", None, "hypervisor-hardening/hook")
    host.symlink("hypervisor-hardening/hook", "/etc/own/hook")
    journal.make_directory("/etc/own/hypervisor-hardening")
    host.put("/etc/own/hypervisor-hardening/hook", "#!/bin/sh\n", 0o755)
    host.put("/etc/own/hypervisor-hardening/code/more", "code")
    journal.make_directory("/etc/new/deep")
    for path, text in (("/etc/new/deep/file", b"new\n"), ("/etc/own/gone", None)):
        journal.record_file(path, text)
        host.remove(path) if text is None else host.write(path, text)
    hardened = tree(host)
    kept = tmp_path.with_name(f"{tmp_path.name}-kept")
    shutil.copytree(tmp_path, kept, symlinks=True)
    number = 0
    while killed_at(number, lambda: run(capsys, all=True)):
        for path, state in tree(host).items():
            assert not path.endswith(".conf") or state in (former[path], hardened[path])
        done = run(capsys, all=True)
        assert (tree(host), done["left_alone"]) == (former, []), f"killed before change number {number}"
        shutil.rmtree(tmp_path)
        shutil.copytree(kept, tmp_path, symlinks=True)
        number += 1
    assert number > 20
