# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockets of libvirt's daemons: mode, who listens, and how a client proves who it is."""

from __future__ import annotations

import os
import socket
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_sockets
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

RW = "/run/libvirt/libvirt-sock"
VENDOR = "/usr/lib/systemd/system"
LIBRARY = "/usr/lib/x86_64-linux-gnu/libvirt.so.0.11003.0"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put("/etc/passwd", f"root:x:0:0::/:/bin/sh\nroot:x:{os.getuid()}:0::/:/bin/sh\n")
    host.put("/etc/group", f"root:x:0:\nroot:x:{os.getgid()}:\nvirt:x:4711:\n")
    unit = "[Socket]\nListenStream={}\nSocketMode={}\n"
    host.put(f"{VENDOR}/libvirtd.socket", unit.format(RW, "0666"))
    host.put(f"{VENDOR}/libvirtd-admin.socket", unit.format("/run/libvirt/libvirt-admin-sock", "0600"))
    host.put(f"{VENDOR}/libvirtd-tls.socket", "[Socket]\nListenStream=16514\n")
    host.put("/etc/systemd/system/sockets.target.wants/libvirtd.socket", "")
    host.put(LIBRARY, "")
    return host


def look(host: LibvirtHost) -> dict[str, dict[str, t.Any]]:
    return {found["name"]: found for found in _info_sockets.facts(Context(host))}


def make(host: LibvirtHost, path: str, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of a socket may have 107 bytes: bind a short one, from within."""
    full = Path(host.path(path))
    full.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(full.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(full.name)
    full.chmod(mode)


def test_a_socket_as_it_is_and_as_its_unit_wants_it(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    make(host, RW, 0o660, monkeypatch)
    host.listen(RW)
    found = look(host)[RW]
    assert {key: found[key] for key in ("kind", "daemon", "unit", "enabled", "masked")} == {
        "kind": "rw",
        "daemon": "libvirtd",
        "unit": "libvirtd.socket",
        "enabled": True,
        "masked": False,
    }
    assert (found["unit_mode"], found["unit_group"]) == ("0666", "root")
    assert (found["exists"], found["listening"], found["mode"], found["open_to"]) == (True, True, "0660", "group")
    assert (found["owner"], found["group"]) == ("root", "root")


@pytest.mark.parametrize(
    ("mode", "open_to"), [(0o666, "others"), (0o662, "others"), (0o664, "group"), (0o755, "owner"), (0o600, "owner")]
)
def test_to_connect_takes_write_permission(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch, mode: int, open_to: str
) -> None:
    make(host, RW, mode, monkeypatch)
    assert look(host)[RW]["open_to"] == open_to


def test_a_drop_in_changes_what_the_unit_wants(host: LibvirtHost) -> None:
    host.put("/etc/systemd/system/libvirtd.socket.d/mode.conf", "[Socket]\nSocketMode=0660\nSocketGroup=virt\n")
    found = look(host)[RW]
    assert (found["unit_mode"], found["unit_group"], found["exists"], found["open_to"]) == ("0660", "virt", False, "")


# remote_daemon_config.c, daemonConfigNew: polkit if built with it, else none; TLS has no authentication of its own.
@pytest.mark.parametrize(
    ("conf", "library", "expected"),
    [
        ("", "org.freedesktop.PolicyKit1.Authority", "polkit"),
        ("", "nothing", "none"),
        ("", None, None),
        ('auth_unix_rw = "none"\n', "org.freedesktop.PolicyKit1.Authority", "none"),
        ('auth_unix_rw = "sasl"\n', None, "sasl"),
        ("auth_unix_rw = none\n", "org.freedesktop.PolicyKit1.Authority", None),
    ],
)
def test_authentication(host: LibvirtHost, conf: str, library: str | None, expected: str | None) -> None:
    host.put("/etc/libvirt/libvirtd.conf", conf)
    if library is None:
        os.unlink(host.path(LIBRARY))
    else:
        host.put(LIBRARY, library)
    found = look(host)
    assert found[RW]["authentication"] == expected
    if conf.count('"') or not conf:
        assert found["16514"]["authentication"] == "none"
    assert found["/run/libvirt/libvirt-admin-sock"]["authentication"] == "own-user"


def test_a_socket_for_the_network(host: LibvirtHost) -> None:
    tail = "00000000:00000000 00:00000000 00000000     0        0 9 1 0 100 0 0 10 0\n"
    host.put("/proc/net/tcp", f"head\n 0: 00000000:4082 00000000:0000 0A {tail}")
    found = look(host)["16514"]
    assert (found["kind"], found["unit"], found["enabled"], found["listening"]) == (
        *("tls", "libvirtd-tls.socket"),
        *(False, True),
    )


def test_a_socket_that_no_daemon_is_known_by(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    make(host, "/run/libvirt/strange-sock", 0o666, monkeypatch)
    found = look(host)["/run/libvirt/strange-sock"]
    assert (found["kind"], found["daemon"], found["unit"], found["open_to"]) == ("other", "", "", "others")
    assert found["unit_mode"] is None and found["authentication"] is None


def test_a_host_without_libvirt(tmp_path: Path) -> None:
    host = LibvirtHost(tmp_path)
    os.unlink(host.path("/usr/sbin/libvirtd"))
    assert look(host) == {}
