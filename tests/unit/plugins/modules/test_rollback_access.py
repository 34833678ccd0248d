# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() over sockets and access control lists that were changed before, as the file system has them."""

from __future__ import annotations

import os
import socket
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _acl, _runner
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed, Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.rollbacks import run

GIVEN = "/srv/given.bin"
SOCKET = "/run/s"
UID = 64055


class RealHost(LibvirtHost):
    """One whose files have the owners that they really have, and whose chown and chmod are those of the system."""

    stat = Host.stat

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        if argv[0] in ("chown", "chmod"):
            return Host("").run([argv[0], argv[1], self.path(argv[2])])
        return super().run(argv, stdin=stdin, timeout=timeout)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RealHost:
    host = RealHost(tmp_path)
    host.put(GIVEN, "x")
    os.chmod(host.path(GIVEN), 0o600)

    def untouched() -> Host:
        host.changed = False
        return host

    monkeypatch.setattr(_runner, "Host", untouched)
    return host


def test_a_list_gives_way_to_the_permission_bits_that_were_there(
    host: RealHost, capsys: pytest.CaptureFixture[str]
) -> None:
    former = _acl.Acl.of(0o600, None)
    given = former.with_user(UID, 4)
    Journal(host, by="guest_access").record_value(f"acl:{GIVEN}", former.render().hex(), given.render().hex())
    host.set_attribute(GIVEN, _acl.ATTRIBUTE, given.render())
    predicted = run(capsys, all=True, _ansible_check_mode=True)
    assert "system.posix_acl_access" in os.listxattr(host.path(GIVEN))
    done = run(capsys, all=True)
    assert done["put_back"] == predicted["put_back"]
    assert [(one["target"], one["kind"]) for one in done["put_back"]] == [(f"acl:{GIVEN}", "acl")]
    assert f"user:{UID}:" not in done["diff"][0]["after"]
    assert f"user:{UID}:r--" in done["diff"][0]["before"]
    # acl(5): a list that says no more than the bits is none.
    assert "system.posix_acl_access" not in os.listxattr(host.path(GIVEN))
    assert os.stat(host.path(GIVEN)).st_mode & 0o777 == 0o600
    assert run(capsys, all=True)["changed"] is False


def test_a_list_that_somebody_else_changed_stays(host: RealHost, capsys: pytest.CaptureFixture[str]) -> None:
    former = _acl.Acl.of(0o600, None)
    given = former.with_user(UID, 4)
    Journal(host, by="guest_access").record_value(f"acl:{GIVEN}", former.render().hex(), given.render().hex())
    host.set_attribute(GIVEN, _acl.ATTRIBUTE, given.with_user(1000, 6).render())
    done = run(capsys, all=True)
    assert done["changed"] is False
    assert [one["target"] for one in done["left_alone"]] == [f"acl:{GIVEN}"]
    os.unlink(host.path(GIVEN))
    assert run(capsys, all=True)["left_alone"] == [], "a file that is gone has nothing to return to"


def test_a_socket_that_listens_is_what_it_was(
    host: RealHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(host.path("/run"), exist_ok=True)
    # sun_path ends after 108 bytes (unix(7))
    monkeypatch.chdir(host.path("/run"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        os.chmod("s", 0o660)
        os.chown("s", 0, 107)
        before, after = {"uid": 0, "gid": 0, "mode": 0o666}, {"uid": 0, "gid": 107, "mode": 0o660}
        Journal(host, by="libvirt_sockets").record_value(f"socket:{SOCKET}", before, after)
        run(capsys, all=True, _ansible_check_mode=True)
        assert (os.stat("s").st_mode & 0o777, os.stat("s").st_gid) == (0o660, 107)
        done = run(capsys, all=True)
    assert [one["kind"] for one in done["put_back"]] == ["socket"]
    assert (os.stat("s").st_mode & 0o777, os.stat("s").st_gid) == (0o666, 0)
    assert run(capsys, all=True)["changed"] is False
