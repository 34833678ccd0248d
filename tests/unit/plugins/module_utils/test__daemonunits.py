# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd as their files have them. Expected values are those of systemd.unit(5) and systemd.syntax(7)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonunits
from ansible_collections.hypervisor.hardening.plugins.module_utils._daemonunits import Units, assigned
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

VENDOR = "/usr/lib/systemd/system"
ETC = "/etc/systemd/system"
# As libvirt 11.3 ships it.
SOCKET = "[Unit]\nDescription=x\n\n[Socket]\nListenStream=/run/libvirt/libvirt-sock\nSocketMode=0666\n"


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    return LibvirtHost(tmp_path)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("SocketMode=0660\nSocketMode = 0600\n", {"SocketMode": ["0660", "0600"]}),
        ("ListenStream=1\nListenStream=\nListenStream=2\n", {"ListenStream": ["2"]}),
        ("# SocketMode=0600\n; SocketMode=0600\n", {}),
        ("SystemCallFilter=a \\\n  b\n", {"SystemCallFilter": ["a    b"]}),
        ("[Socket]\nno assignment\n", {}),
    ],
)
def test_assignments(text: str, values: dict[str, list[str]]) -> None:
    assert assigned(text) == values


def test_a_unit_that_is_not_there(host: LibvirtHost) -> None:
    unit = Units(host).unit("libvirtd.socket")
    assert (unit.fragment, unit.enabled, unit.last("SocketMode", "?")) == ("", False, "?")


def test_drop_ins_come_after_the_unit_and_in_the_order_of_their_names(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    host.put(f"{VENDOR}/libvirtd.socket.d/20-mode.conf", "[Socket]\nSocketMode=0620\n")
    host.put(f"{ETC}/libvirtd.socket.d/10-mode.conf", "[Socket]\nSocketMode=0610\n")
    host.put(f"{ETC}/libvirtd.socket.d/notes.txt", "[Socket]\nSocketMode=0777\n")
    unit = Units(host).unit("libvirtd.socket")
    assert unit.values["SocketMode"] == ["0666", "0610", "0620"]
    assert unit.last("SocketMode") == "0620"
    assert unit.drop_ins == (f"{ETC}/libvirtd.socket.d/10-mode.conf", f"{VENDOR}/libvirtd.socket.d/20-mode.conf")


def test_a_drop_in_of_etc_hides_the_vendors_of_the_same_name(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    host.put(f"{VENDOR}/libvirtd.socket.d/mode.conf", "[Socket]\nSocketMode=0620\n")
    host.put(f"{ETC}/libvirtd.socket.d/mode.conf", "[Socket]\nSocketMode=0610\n")
    host.put(f"{VENDOR}/socket.d/all.conf", "[Socket]\nSocketGroup=virt\n")
    unit = Units(host).unit("libvirtd.socket")
    assert (unit.last("SocketMode"), unit.last("SocketGroup")) == ("0610", "virt")


def test_a_unit_in_etc_replaces_the_vendors_and_may_be_masked(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    Path(host.path(ETC)).mkdir(parents=True)
    os.symlink("/dev/null", host.path(f"{ETC}/libvirtd.socket"))
    unit = Units(host).unit("libvirtd.socket")
    assert (unit.fragment, unit.masked, unit.values) == (f"{ETC}/libvirtd.socket", True, {})


def test_a_drop_in_can_be_masked(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    host.put(f"{VENDOR}/libvirtd.socket.d/mode.conf", "[Socket]\nSocketMode=0620\n")
    Path(host.path(f"{ETC}/libvirtd.socket.d")).mkdir(parents=True)
    os.symlink("/dev/null", host.path(f"{ETC}/libvirtd.socket.d/mode.conf"))
    assert Units(host).unit("libvirtd.socket").last("SocketMode") == "0666"


def test_a_unit_is_enabled_by_a_link_of_any_target(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    host.put(f"{VENDOR}/libvirtd-tcp.socket", SOCKET)
    host.put(f"{ETC}/sockets.target.wants/libvirtd.socket", "")
    units = Units(host)
    assert (units.unit("libvirtd.socket").enabled, units.unit("libvirtd-tcp.socket").enabled) == (True, False)


def test_a_running_daemon_tells_whether_systemd_made_its_sockets(host: LibvirtHost) -> None:
    host.daemon(77, 500)
    host.put("/proc/77/environ", "PATH=/bin\0LISTEN_FDS=3\0LISTEN_FDNAMES=libvirtd.socket\0")
    assert _daemonunits.activated(host, "libvirtd")
    host.put("/proc/77/environ", "PATH=/bin\0")
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    host.put(f"{ETC}/sockets.target.wants/libvirtd.socket", "")
    assert not _daemonunits.activated(host, "libvirtd"), "it was started without them, whatever is enabled"


def test_of_a_daemon_that_does_not_run_the_unit_tells(host: LibvirtHost) -> None:
    host.put(f"{VENDOR}/libvirtd.socket", SOCKET)
    assert not _daemonunits.activated(host, "libvirtd")
    host.put(f"{ETC}/sockets.target.wants/libvirtd.socket", "")
    assert _daemonunits.activated(host, "libvirtd")
    host.link(f"{ETC}/libvirtd.socket", "/dev/null")
    assert not _daemonunits.activated(host, "libvirtd"), "masked"


@pytest.mark.parametrize(
    ("kind", "file", "daemon"),
    [
        ("monolithic", "libvirtd.conf", "libvirtd"),
        ("monolithic", "virtqemud.conf", ""),
        ("monolithic", "virtlogd.conf", "virtlogd"),
        ("monolithic", "network.conf", "libvirtd"),
        ("modular", "libvirtd.conf", ""),
        ("modular", "virtproxyd.conf", "virtproxyd"),
        ("modular", "network.conf", "virtnetworkd"),
        ("modular", "qemu-lockd.conf", "virtqemud"),
        ("modular", "libvirt.conf", ""),
        ("modular", "notes", ""),
    ],
)
def test_who_reads_a_file(kind: str, file: str, daemon: str) -> None:
    assert _daemonunits.reader(kind, file) == daemon


@pytest.mark.parametrize(
    ("daemon", "key", "units"),
    [
        ("libvirtd", "unix_sock_rw_perms", ["libvirtd.socket"]),
        ("libvirtd", "unix_sock_group", ["libvirtd.socket", "libvirtd-ro.socket"]),
        ("virtproxyd", "listen_tcp", ["virtproxyd-tcp.socket"]),
        ("virtproxyd", "listen_addr", ["virtproxyd-tcp.socket", "virtproxyd-tls.socket"]),
        ("virtqemud", "listen_tls", []),
        ("libvirtd", "auth_unix_rw", []),
    ],
)
def test_what_socket_units_decide(daemon: str, key: str, units: list[str]) -> None:
    assert _daemonunits.decided_by(daemon, key) == units
