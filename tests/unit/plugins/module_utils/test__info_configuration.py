# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's configuration files as libvirt reads them, and who reads which."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_configuration, _libvirtd
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost, ticks_now
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemuconf_host import LENS_TEXT

LENSES = "/usr/share/augeas/lenses"
# A miniature in the manner of libvirt's; the real ones are read by tests/integration.
DAEMON_LENS = """
module Libvirtd =
   let a = bool_entry "listen_tls" | str_entry "unix_sock_group" | int_entry "keepalive_interval"
         | str_array_entry "access_drivers" | int_entry "max_clients"
"""


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put(f"{LENSES}/libvirtd_qemu.aug", LENS_TEXT)
    host.put(f"{LENSES}/libvirtd.aug", DAEMON_LENS)
    host.put("/usr/lib/systemd/system/libvirtd.service", "")
    return host


def look(host: LibvirtHost, name: str) -> dict[str, t.Any]:
    return t.cast("dict[str, t.Any]", _info_configuration.facts(Context(host))[name])


def test_settings_are_what_libvirt_takes_and_passwords_are_not_shown(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/qemu.conf", 'user = "a"\nvnc_password = "secret"\nuser = "b"\nmax_files = 5\n')
    found = look(host, "qemu.conf")
    assert found["settings"] == {"user": "a", "vnc_password": "(set)", "max_files": 5}
    assert found["duplicates"] == [{"key": "user", "count": 2}]
    assert (found["read_by"], found["error"], found["keys_from"]) == ("libvirtd", "", "lens")


def test_misspelt_keys_with_the_nearest(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/qemu.conf", "security_default_confied = 0\ncolour = 1\n")
    host.put("/etc/libvirt/libvirtd.conf", 'unix_socket_group = "virt"\n')
    assert look(host, "qemu.conf")["unknown"] == [
        {"key": "security_default_confied", "nearest": "security_default_confined"},
        {"key": "colour", "nearest": ""},
    ]
    assert look(host, "libvirtd.conf")["unknown"] == [{"key": "unix_socket_group", "nearest": "unix_sock_group"}]


def test_a_type_that_keeps_the_daemon_from_starting(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/libvirtd.conf", 'access_drivers = "polkit"\nkeepalive_interval = -1\nlisten_tls = 1\n')
    found = look(host, "libvirtd.conf")
    # libvirt reads keepalive_interval with a sign (remote_daemon_config.c), though the lens writes int for it
    assert found["wrong_type"] == [{"key": "access_drivers", "expected": "a list of strings"}]


def test_a_file_that_libvirt_refuses_has_no_settings(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/libvirtd.conf", "max_clients = 5\nuser = root\n")
    found = look(host, "libvirtd.conf")
    # libvirt's own words: "libvirtd.conf:2: expecting a value"
    assert (found["error"].partition(":")[0], found["settings"]) == ("line 2", None)


def test_no_list_of_keys_is_told(host: LibvirtHost) -> None:
    host.put("/etc/libvirt/network.conf", 'firewal_backend = "nftables"\n')
    found = look(host, "network.conf")
    assert (found["keys_from"], found["unknown"], found["settings"]) == (None, [], {"firewal_backend": "nftables"})


def test_a_file_that_is_not_there(host: LibvirtHost) -> None:
    found = look(host, "secret.conf")
    assert (found["exists"], found["settings"], found["read_by"]) == (False, {}, "libvirtd")


def test_with_modular_daemons_nobody_reads_libvirtd_conf(host: LibvirtHost) -> None:
    for name in ("virtqemud", "virtsecretd"):
        host.put(f"/usr/sbin/{name}", "")
    host.put("/etc/systemd/system/sockets.target.wants/virtqemud.socket", "")
    facts = _info_configuration.facts(Context(host))
    readers = {name: found["read_by"] for name, found in facts.items() if found["read_by"]}
    assert readers == {
        "qemu.conf": "virtqemud",
        "qemu-lockd.conf": "virtqemud",
        "qemu-sanlock.conf": "virtqemud",
        "network.conf": "virtnetworkd",
        "secret.conf": "virtsecretd",
        "virtqemud.conf": "virtqemud",
        "virtsecretd.conf": "virtsecretd",
    }


def test_without_libvirt_nobody_reads_anything(tmp_path: Path) -> None:
    host = LibvirtHost(tmp_path)
    Path(host.path("/usr/sbin/libvirtd")).unlink()
    facts = _info_configuration.facts(Context(host))
    assert {found["read_by"] for found in facts.values()} == {""}


@pytest.mark.parametrize(("ticks", "newer"), [(1, True), (2**40, False), (None, None)])
def test_newer_than_the_daemon(host: LibvirtHost, ticks: int | None, newer: bool | None) -> None:
    host.put("/etc/libvirt/libvirtd.conf", "max_clients = 5\n")
    if ticks is not None:
        host.daemon(77, ticks)
    assert look(host, "libvirtd.conf")["newer_than_daemon"] is newer


def test_qemu_conf_goes_by_its_meaning(host: LibvirtHost) -> None:
    host.daemon(77, ticks_now() + 10**6)
    assert look(host, "qemu.conf")["newer_than_daemon"] is False


def test_what_a_daemon_has_loaded_that_executed_itself_anew(host: LibvirtHost) -> None:
    """Its process is older than the file, whatever it has loaded since."""
    path = "/etc/libvirt/virtlogd.conf"
    host.put("/usr/sbin/virtlogd")
    host.daemon(90, 400, name="virtlogd")
    host.put(path, "max_size = 5\n")
    assert look(host, "virtlogd.conf")["newer_than_daemon"] is True
    loaded = _libvirtd.meaning_digest(Document.parse(b"max_size = 5\n"))
    process = _libvirtd.daemon(host, "virtlogd").process
    Journal(host, by="test").mark_loaded(path, loaded, process=process)
    assert look(host, "virtlogd.conf")["newer_than_daemon"] is False
    host.put(path, "max_size = 6\n")
    assert look(host, "virtlogd.conf")["newer_than_daemon"] is True
