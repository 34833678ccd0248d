# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons: which run, and what has changed below them."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_daemons
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

VENDOR = "/usr/lib/systemd/system"
LATER = 2**40


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put(f"{VENDOR}/libvirtd.service", "[Service]\nLimitMEMLOCK=64M\nEnvironment=X=1\n")
    host.put(f"{VENDOR}/libvirtd.socket", "[Socket]\nListenStream=/run/libvirt/libvirt-sock\n")
    host.put("/etc/libvirt/libvirtd.conf", 'auth_unix_rw = "none"\n')
    return host


def look(host: LibvirtHost) -> dict[str, dict[str, t.Any]]:
    return {found["name"]: found for found in _info_daemons.facts(Context(host))}


def runs(host: LibvirtHost, name: str, pid: int, ticks: int, *words: str, exe: str = "") -> None:
    host.daemon(pid, ticks, name=name)
    host.process(pid, name, ticks, f"/usr/sbin/{name}", *words)
    os.symlink(exe or f"/usr/sbin/{name}", host.path(f"/proc/{pid}/exe"))


def test_a_daemon_that_runs(host: LibvirtHost) -> None:
    runs(host, "libvirtd", 77, LATER, "--timeout", "120")
    found = look(host)["libvirtd"]
    assert (found["active"], found["idle"], found["pid"], found["suspended"]) == (True, False, 77, False)
    assert (found["binary"], found["binary_deleted"], found["listen_option"]) == ("/usr/sbin/libvirtd", False, False)
    assert (found["settings"], found["confined_by"]) == ({"auth_unix_rw": "none"}, {"LimitMEMLOCK": "64M"})
    assert (found["configuration_newer"], found["units_newer"]) == ([], [])


def test_what_changed_after_it_started(host: LibvirtHost) -> None:
    host.put("/etc/systemd/system/libvirtd.socket.d/mode.conf", "[Socket]\nSocketMode=0660\n")
    runs(host, "libvirtd", 77, 1, "--listen", exe="/usr/sbin/libvirtd (deleted)")
    found = look(host)["libvirtd"]
    assert found["configuration_newer"] == ["/etc/libvirt/qemu.conf", "/etc/libvirt/libvirtd.conf"]
    assert found["units_newer"] == [
        "/etc/systemd/system/libvirtd.socket.d/mode.conf",
        f"{VENDOR}/libvirtd.service",
        f"{VENDOR}/libvirtd.socket",
    ]
    assert (found["binary_deleted"], found["listen_option"]) == (True, True)


def test_an_idle_daemon(host: LibvirtHost) -> None:
    host.listen("/run/libvirt/libvirt-sock")
    host.put("/etc/systemd/system/sockets.target.wants/libvirtd.socket", "")
    found = look(host)["libvirtd"]
    assert (found["active"], found["idle"], found["enabled"], found["pid"], found["started"]) == (
        *(False, True, True),
        *(None, None),
    )
    assert found["configuration_newer"] == []


def test_only_daemons_that_are_there_are_told(host: LibvirtHost) -> None:
    host.put("/usr/sbin/virtlogd", "")
    host.put(f"{VENDOR}/virtlxcd.service", "[Service]\n")
    assert {name: found["installed"] for name, found in look(host).items()} == {
        "libvirtd": True,
        "virtlxcd": False,
        "virtlogd": True,
    }


def test_a_file_that_cannot_be_read_has_no_settings(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/libvirtd.conf", "auth_unix_rw = none\n")
    assert look(host)["libvirtd"]["settings"] is None


def test_a_drop_in_that_confines(host: LibvirtHost) -> None:
    host.put("/etc/systemd/system/libvirtd.service.d/hard.conf", "[Service]\nPrivateDevices=yes\nLimitMEMLOCK=\n")
    found = look(host)["libvirtd"]
    assert found["confined_by"] == {"PrivateDevices": "yes"}
    assert found["drop_ins"] == ["/etc/systemd/system/libvirtd.service.d/hard.conf"]


def test_a_host_without_libvirt(tmp_path: Path) -> None:
    host = LibvirtHost(tmp_path)
    os.unlink(host.path("/usr/sbin/libvirtd"))
    assert look(host) == {}
