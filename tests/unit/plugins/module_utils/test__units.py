# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _units
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed, HardeningError, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PlayedHost

SERVICE = "[Service]\nType=oneshot\n[Install]\nWantedBy=sysinit.target\n"


@pytest.fixture
def host(tmp_path: Path) -> PlayedHost:
    return PlayedHost(tmp_path)


# Each right side is what systemd-escape --path of systemd 252 prints.
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "-"),
        ("/dev/hugepages", "dev-hugepages"),
        ("//hugepages-1G//", "hugepages\\x2d1G"),
        ("/.hidden/.dot", "\\x2ehidden-.dot"),
        ("/a b:c_d@e+f", "a\\x20b:c_d\\x40e\\x2bf"),
        ("/\u00fc", "\\xc3\\xbc"),
    ],
)
def test_escape(path: str, name: str) -> None:
    assert _units.escape(path) == name


@pytest.mark.parametrize("path", ["/a b", "/a%h", "/a,b", "/a$b", "/a\\b", '/a"b', "a", "", "/\u00fc", "/a\n"])
def test_paths_that_need_quoting_are_refused(path: str) -> None:
    with pytest.raises(HardeningError, match="cannot be used"):
        _units.require_plain(path)


def test_who_boots_this_host(host: PlayedHost, tmp_path: Path) -> None:
    assert _units.boot(host) == _units.Boot("systemd", "")
    host.put("/run/systemd/container", "systemd-nspawn\n")
    assert _units.boot(host) == _units.Boot("systemd", "systemd-nspawn")
    (tmp_path / "run/systemd/system").rmdir()
    host.put("/proc/1/comm", "openrc-init\n")
    with pytest.raises(_units.NoMechanism, match=r"PID 1 of this host is openrc-init, not systemd.* Set persist to"):
        _units.boot(host).require_systemd("do it yourself")


def test_which_file_defines_a_unit(host: PlayedHost) -> None:
    assert _units.fragments(host, "srv.mount") == []
    host.put("/usr/lib/systemd/system/srv.mount", "[Mount]\nOptions=size=1\n")
    host.put("/run/systemd/generator/srv.mount", "[Mount]\nOptions=size=2\n")
    assert _units.fragments(host, "srv.mount")[0] == "/run/systemd/generator/srv.mount"
    assert _units.last_value(host, "srv.mount", "Options") == "size=2"
    host.put("/usr/lib/systemd/system/srv.mount.d/90-last.conf", "[Mount]\nOptions = size=90\n")
    host.put("/etc/systemd/system/srv.mount.d/10-first.conf", "[Mount]\nOptions=size=10\n")
    assert _units.last_value(host, "srv.mount", "Options") == "size=90", "the names count, not the directories"
    host.put("/etc/systemd/system/srv.mount.d/90-last.conf", "[Mount]\nOptions=size=91\n")
    assert _units.last_value(host, "srv.mount", "Options") == "size=91", "/etc covers /usr"
    assert _units.last_value(host, "srv.mount", "What") == ""


def test_masked(host: PlayedHost) -> None:
    host.link("/etc/systemd/system/srv.mount", "/dev/null")
    assert _units.is_masked(host, "/etc/systemd/system/srv.mount")
    assert not _units.is_masked(host, "/proc/1/comm")


def test_write_enable_and_take_away(host: PlayedHost) -> None:
    files = [
        _units.File("/etc/systemd/system/a.service", SERVICE, "sysinit.target"),
        _units.File("/etc/systemd/system/dev-hugepages.mount.d/ours.conf", "[Mount]\n"),
        _units.File("/etc/systemd/system/gone.service", None, "sysinit.target"),
    ]
    host.put("/etc/systemd/system/gone.service", "old")
    host.link("/etc/systemd/system/sysinit.target.wants/gone.service", "/etc/systemd/system/gone.service")
    changes = _units.changes(host, files)
    assert [str(change) for change in changes] == [
        "/etc/systemd/system/a.service is missing",
        "/etc/systemd/system/dev-hugepages.mount.d/ours.conf is missing",
        "/etc/systemd/system/gone.service is still there",
    ]
    before = host.tree()
    _units.check(host, changes)
    assert host.tree() == before
    _units.apply(host, changes, Journal(host, "test"))
    assert host.calls == ["systemctl daemon-reload", "systemctl enable --quiet -- a.service"]
    assert _units.changes(host, files) == ()
    assert host.text("/etc/systemd/system/a.service") == SERVICE
    assert host.stat("/etc/systemd/system/a.service").st_mode & 0o777 == 0o644
    assert host.stat_optional("/etc/systemd/system/sysinit.target.wants/gone.service", follow=False) is None
    place, link = "/etc/systemd/system", "link:/etc/systemd/system/sysinit.target.wants"
    assert [(entry.target, entry.after) for entry in Journal(host, "test").entries() if entry.kind == "value"] == [
        (f"directory:{place}/dev-hugepages.mount.d", "made"),
        (f"{link}/gone.service", None),
        (f"{link}/a.service", f"{place}/a.service"),
    ]
    assert [entry.target for entry in Journal(host, "test").entries() if entry.kind == "file"] == [
        file.path for file in files
    ]


def test_a_unit_that_lost_its_link_is_enabled_again(host: PlayedHost) -> None:
    file = _units.File("/etc/systemd/system/a.service", SERVICE, "sysinit.target")
    host.put(file.path, SERVICE)
    (change,) = _units.changes(host, [file])
    assert str(change) == "a.service is not enabled"
    assert (change.diff["before"], change.diff["after"]) == (SERVICE, SERVICE + "# enabled\n")
    _units.apply(host, [change], Journal(host, "test"))
    assert host.changed
    assert _units.changes(host, [file]) == ()
    assert [(entry.target, entry.before, entry.after) for entry in Journal(host, "test").entries()] == [
        ("directory:/etc/systemd/system/sysinit.target.wants", None, "made"),
        ("link:/etc/systemd/system/sysinit.target.wants/a.service", None, file.path),
    ]


def test_a_directory_that_cannot_be_written_is_found_out_before(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "etc/systemd/system/a.d").symlink_to(tmp_path / "nowhere")
    changes = _units.changes(host, [_units.File("/etc/systemd/system/a.d/ours.conf", "x")])
    with pytest.raises(HostError, match="symbolic link"):
        _units.check(host, changes)


def test_systemctl_refuses(host: PlayedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda argv: Completed(tuple(argv), 1, "", "Failed to connect to bus\n"))
    changes = _units.changes(host, [_units.File("/etc/systemd/system/a.service", SERVICE, "sysinit.target")])
    with pytest.raises(HostError, match="systemctl daemon-reload failed: Failed to connect to bus"):
        _units.apply(host, changes, Journal(host, "test"))
