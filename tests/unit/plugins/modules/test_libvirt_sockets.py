# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() on a played host, with real sockets that chmod really changes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.modules import libvirt_sockets
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

RW = "/run/libvirt/libvirt-sock"
DROP_IN = "/etc/systemd/system/libvirtd.socket.d/90-hypervisor-hardening.conf"


class SocketHost(LibvirtHost):
    """Whose sockets are in the file system, and whose chgrp is only noted; ``active``: units that listen."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.active: set[str] = set()
        for unit, mode in (("libvirtd", "0666"), ("libvirtd-ro", "0666"), ("libvirtd-admin", "0600")):
            self.put(f"/lib/systemd/system/{unit}.socket", f"[Socket]\nSocketMode={mode}\n")
            self.put(f"/etc/systemd/system/sockets.target.wants/{unit}.socket")
        for name, bits in (("libvirt-sock", 0o666), ("libvirt-sock-ro", 0o666), ("libvirt-admin-sock", 0o600)):
            self.listener(name, bits)

    def listener(self, name: str, mode: int) -> None:
        # sun_path ends after 108 bytes (unix(7))
        former = os.open(".", os.O_RDONLY)
        os.chdir(self.path("/run/libvirt"))
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(name)
        os.chmod(name, mode)
        os.fchdir(former)
        os.close(former)

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        if argv[0] == "chmod":
            os.chmod(self.path(argv[2]), int(argv[1], 8))
        if argv[0] == "chgrp":
            gid = self.gid(argv[1])
            assert gid is not None
            self._owners[argv[2]] = (0, gid)
        done = super().run(argv, stdin=stdin, timeout=timeout)
        if argv[:2] == ["systemctl", "stop"]:
            self.active.discard(argv[-1])
        if argv[:2] == ["systemctl", "is-active"]:
            return Completed(tuple(argv), 0 if argv[-1] in self.active else 3, "", "")
        return done

    def mode(self, path: str) -> int:
        return os.stat(self.path(path)).st_mode & 0o7777


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SocketHost:
    played = SocketHost(tmp_path)
    monkeypatch.setattr(_runner, "Host", lambda: played)
    return played


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        libvirt_sockets.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_now_and_after_the_next_boot(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"mode": "0660", "group": "kvm", "admin_mode": "0600"}
    predicted = run(capsys, **options, _ansible_check_mode=True)
    assert (host.mode(RW), host.exists(DROP_IN)) == (0o666, False)
    done = run(capsys, **options)
    assert done == predicted
    assert set(done) - {"changed", "diff", "invocation"} == set(yaml.safe_load(libvirt_sockets.RETURN))
    assert (host.mode(RW), host.group_name(host.stat(RW).st_gid)) == (0o660, "kvm")
    assert host.mode("/run/libvirt/libvirt-sock-ro") == 0o666
    assert host.text(DROP_IN).endswith("[Socket]\nSocketMode=0660\nSocketGroup=kvm\n")
    assert "systemctl daemon-reload" in host.calls
    assert not [call for call in host.calls if "restart" in call]
    entries = Journal(host, by="test").entries()
    assert [entry.target for entry in entries] == [f"directory:{os.path.dirname(DROP_IN)}", DROP_IN, f"socket:{RW}"]
    assert (entries[-1].before["mode"], entries[-1].after["mode"]) == (0o666, 0o660)
    assert [one["path"] for one in done["changes"]] == [RW, DROP_IN]
    again = run(capsys, **options)
    assert (again["changed"], again["changes"]) == (False, [])
    assert [(one["kind"], one["mode"], one["group"]) for one in again["sockets"]] == [
        ("rw", "0660", "kvm"),
        ("ro", "0666", "root"),
        ("admin", "0600", "root"),
    ]


def test_what_is_not_given_stays(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, mode="0660")
    run(capsys, group="kvm")
    assert host.text(DROP_IN).endswith("[Socket]\nSocketMode=0660\nSocketGroup=kvm\n")
    assert host.mode(RW) == 0o660


def test_the_units_own_values_need_no_drop_in(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, mode="0660")
    assert run(capsys, mode="0666", admin_mode="0600")["changed"]
    assert (host.mode(RW), host.exists(DROP_IN)) == (0o666, False)


def test_a_socket_that_somebody_opened_by_hand(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, mode="0660")
    os.chmod(host.path(RW), 0o777)
    assert [one["path"] for one in run(capsys, mode="0660")["changes"]] == [RW]
    assert host.mode(RW) == 0o660


def test_a_later_drop_in_that_takes_it_back_is_named(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.put("/etc/systemd/system/libvirtd.socket.d/99-theirs.conf", "[Socket]\nSocketMode=0666\n")
    failed = run(capsys, mode="0660")
    assert failed["failed"]
    assert DROP_IN in failed["msg"]


def test_a_daemon_that_makes_its_sockets_itself(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.daemon(77, 500)
    host.put("/proc/77/environ", "PATH=/bin\0")
    done = run(capsys, mode="0660")
    assert (done["changed"], done["not_activated"], done["sockets"]) == (False, ["libvirtd"], [])
    assert "unix_sock_rw_perms" in str(done["warnings"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "nosuch"}, "this host has no group 'nosuch'"),
        ({"mode": "432"}, None),
        ({"mode": "rw"}, "'rw' is no octal mode"),
        ({"mode": "0690"}, "'0690' is no octal mode"),
    ],
)
def test_what_no_socket_can_have(
    host: SocketHost, capsys: pytest.CaptureFixture[str], options: dict[str, str], words: str | None
) -> None:
    done = run(capsys, **options, _ansible_check_mode=True)
    assert bool(done.get("failed")) == (words is not None)
    assert words is None or words in done["msg"]
    assert host.mode(RW) == 0o666


TCP, WANTS = "libvirtd-tcp.socket", "/etc/systemd/system/sockets.target.wants/libvirtd-tcp.socket"


def test_a_unit_is_disabled_and_can_be_enabled_again(host: SocketHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.link(WANTS, f"/usr/lib/systemd/system/{TCP}")
    host.active.add(TCP)
    predicted = run(capsys, disabled=[TCP], _ansible_check_mode=True)
    assert os.path.islink(host.path(WANTS))
    assert f"systemctl stop -- {TCP}" not in host.calls
    assert predicted["changes"] == [{"path": TCP, "before": "listening, enabled", "after": "disabled"}]
    assert run(capsys, disabled=[TCP])["changed"] is True
    assert f"systemctl stop -- {TCP}" in host.calls
    assert not os.path.islink(host.path(WANTS))
    (entry,) = Journal(host, by="").entries()
    assert (entry.target, entry.before, entry.after) == (f"link:{WANTS}", f"/usr/lib/systemd/system/{TCP}", None)
    assert run(capsys, disabled=[TCP])["changed"] is False


@pytest.mark.parametrize("unit", ["/etc/passwd", "libvirtd.service", "--now.socket"])
def test_what_is_no_socket_unit_is_refused(host: SocketHost, capsys: pytest.CaptureFixture[str], unit: str) -> None:
    done = run(capsys, disabled=[unit])
    assert (done["failed"], done["changed"]) == (True, False)
    assert f"disabled: {unit!r} is no name of a socket unit" in done["msg"]
