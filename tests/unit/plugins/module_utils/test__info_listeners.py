# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening TCP sockets. The lines are those of a Linux 6 on x86_64, with sockets bound by hand."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_listeners, _tcp
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
TAIL = "00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"


def line(local: str, inode: int, state: str = "0A") -> str:
    zero = "0" * (len(local) - 5) + ":0000"
    return f"   0: {local} {zero} {state} " + TAIL.format(inode=inode)


TCP = HEAD + "".join(
    [
        line("0100007F:170C", 101),  # 127.0.0.1:5900
        line("00000000:170D", 102),  # 0.0.0.0:5901
        line("0100007F:A000", 103, "01"),  # established
        line("00000000:0016", 104),  # 0.0.0.0:22
        line("017AA8C0:0035", 106),  # 192.168.122.1:53
    ]
)
TCP6 = HEAD + "".join(
    [
        line("00000000000000000000000000000000:407D", 105),  # [::]:16509
        line("00000000000000000000000001000000:170E", 107),  # [::1]:5902
        line("0000000000000000FFFF00000100007F:170F", 108),  # [::ffff:127.0.0.1]:5903
    ]
)


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put("/proc/net/tcp", TCP)
    host.put("/proc/net/tcp6", TCP6)
    return host


def holds(host: LibvirtHost, pid: int, exe: str, *inodes: int, argv: t.Sequence[str] = ()) -> None:
    host.process(pid, exe.rpartition("/")[2], 1, *argv)
    fds = Path(host.path(f"/proc/{pid}/fd"))
    fds.mkdir()
    os.symlink(exe, host.path(f"/proc/{pid}/exe"))
    os.symlink("/dev/null", fds / "0")
    for number, inode in enumerate(inodes, 3):
        os.symlink(f"socket:[{inode}]", fds / str(number))


def test_listening_sockets(host: LibvirtHost) -> None:
    found = {(one.address, one.port): one.loopback for one in _tcp.listeners(host)}
    assert found == {
        ("127.0.0.1", 5900): True,
        ("0.0.0.0", 5901): False,
        ("0.0.0.0", 22): False,
        ("192.168.122.1", 53): False,
        ("::", 16509): False,
        ("::1", 5902): True,
        ("127.0.0.1", 5903): True,
    }


def test_each_listener_with_who_holds_it(host: LibvirtHost) -> None:
    qemu = "/usr/bin/qemu-system-x86_64"
    holds(host, 30, qemu, 101, 103, argv=(qemu, "-name", "guest=web,debug-threads=on"))
    holds(host, 31, qemu, 102, argv=(qemu, "-name", "guest=db"))
    holds(host, 40, "/usr/sbin/sshd", 104)
    holds(host, 50, "/usr/sbin/libvirtd", 105)
    conf = "--conf-file=/var/lib/libvirt/dnsmasq/default.conf"
    holds(host, 60, "/usr/sbin/dnsmasq", 106, argv=("/usr/sbin/dnsmasq", conf))
    found = [(one["name"], one["kind"], one["process"], one["pid"], one["guest"]) for one in look(host)]
    assert found == [
        ("192.168.122.1:53", "helper", "dnsmasq", 60, ""),
        ("127.0.0.1:5900", "qemu", "qemu-system-x86_64", 30, "web"),
        ("0.0.0.0:5901", "qemu", "qemu-system-x86_64", 31, "db"),
        ("[::]:16509", "daemon", "libvirtd", 50, ""),
    ]


def test_what_systemd_holds_for_an_idle_daemon(host: LibvirtHost) -> None:
    host.put("/usr/lib/systemd/system/libvirtd-tcp.socket", "[Socket]\nListenStream=16509\n")
    holds(host, 1, "/usr/lib/systemd/systemd", 104, 105)
    assert [(one["name"], one["kind"], one["process"]) for one in look(host)] == [
        ("[::]:16509", "systemd", "libvirtd-tcp.socket")
    ]


def test_another_dnsmasq_is_none_of_libvirts(host: LibvirtHost) -> None:
    holds(host, 60, "/usr/sbin/dnsmasq", 106, argv=("/usr/sbin/dnsmasq", "-k"))
    assert look(host) == []


def test_without_a_network(tmp_path: Path) -> None:
    assert look(LibvirtHost(tmp_path)) == []


def look(host: LibvirtHost) -> list[dict[str, t.Any]]:
    return _info_listeners.facts(Context(host))
