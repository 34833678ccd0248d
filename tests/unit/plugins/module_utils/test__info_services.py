# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What else of a host the network reaches."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_services
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.module_utils.test__info_listeners import (
    HEAD,
    TCP,
    holds,
    line,
)

UDP = HEAD + "".join(
    [
        line("00000000:0043", 201, "07"),  # 0.0.0.0:67
        line("0100007F:0143", 202, "07"),  # 127.0.0.1:323
        line("00000000:9000", 203, "01"),  # connected
    ]
)


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put("/proc/net/tcp", TCP)
    host.put("/proc/net/udp", UDP)
    return host


def facts(host: LibvirtHost) -> dict[str, t.Any]:
    found = _info_services.facts(Context(host))
    assert mismatches("services", found) == []
    return found


def test_other_programs_and_what_nobody_holds(host: LibvirtHost) -> None:
    qemu = "/usr/bin/qemu-system-x86_64"
    holds(host, 31, qemu, 101, 102, argv=(qemu, "-name", "guest=db"))
    holds(host, 40, "/usr/sbin/sshd", 104)
    # two processes, one service
    holds(host, 41, "/usr/sbin/sshd", 104)
    conf = "--conf-file=/var/lib/libvirt/dnsmasq/default.conf"
    holds(host, 60, "/usr/sbin/dnsmasq", 106, argv=("/usr/sbin/dnsmasq", conf))
    holds(host, 61, "/usr/sbin/chronyd", 202, 203)
    found = facts(host)
    assert [entry["name"] for entry in found["open"]] == ["kernel udp 67", "sshd tcp 22"]
    assert found["total"] == 2


def test_without_a_network(tmp_path: Path) -> None:
    assert facts(LibvirtHost(tmp_path)) == {"open": [], "total": 0, "unread": []}


def test_too_many_are_not_shown_in_part(host: LibvirtHost) -> None:
    host.put("/proc/net/tcp", HEAD + "".join(line(f"00000000:{port:04X}", port) for port in range(1, 42)))
    assert facts(host)["open"] is None
