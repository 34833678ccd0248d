# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for libvirtd.conf and its like on a played host: which file, what changes, what is refused."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonconf as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._confkeys import ConfError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost, ticks_now

LIBVIRTD_CONF = "/etc/libvirt/libvirtd.conf"
CONF = '# Master libvirt daemon configuration file\n#auth_tls = "none"\n\nmax_clients = 5000 # many\n'


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    """systemd makes libvirtd's sockets."""
    played = LibvirtHost(tmp_path)
    played.put(LIBVIRTD_CONF, CONF)
    played.daemon(77, ticks_now() + 2)
    played.put("/proc/77/environ", "LISTEN_FDS=3\0")
    played.put("/lib/systemd/system/libvirtd.socket", "[Socket]\nSocketMode=0666\n")
    played.put("/usr/sbin/virtlogd")
    return played


def modular(host: LibvirtHost) -> None:
    os.unlink(host.path("/run/libvirtd.pid"))
    os.unlink(host.path("/usr/sbin/libvirtd"))
    for name in ("virtqemud", "virtproxyd"):
        host.put(f"/usr/sbin/{name}")
    host.daemon(78, 500, name="virtqemud")


def planned(host: LibvirtHost, settings: dict[str, t.Any], daemon: str | None = "qemu", **options: t.Any) -> room.Plan:
    wanted = room.Wanted(settings, daemon, **options)
    return room.plan(room.observe(host, wanted), wanted)


def refused(host: LibvirtHost, settings: dict[str, t.Any], daemon: str | None = "qemu", **options: t.Any) -> str:
    with pytest.raises(ConfError) as error:
        planned(host, settings, daemon, **options)
    return str(error.value)


def test_only_what_is_meant_changes(host: LibvirtHost) -> None:
    plan = planned(host, {"auth_tls": "sasl", "max_clients": 100})
    assert plan.file.path == LIBVIRTD_CONF
    assert (
        plan.file.after
        == CONF.replace('#auth_tls = "none"\n', '#auth_tls = "none"\nauth_tls = "sasl"\n')
        .replace("5000", "100")
        .encode()
    )
    assert [str(change) for change in plan.changes] == ["auth_tls: None -> 'sasl'", "max_clients: 5000 -> 100"]
    assert ["no lens" in one for one in plan.warnings] == [True]


@pytest.mark.parametrize(
    ("daemon", "is_modular", "file"),
    [
        ("qemu", False, "libvirtd.conf"),
        ("remote", False, "libvirtd.conf"),
        ("virtlogd", False, "virtlogd.conf"),
        ("qemu", True, "virtqemud.conf"),
        ("remote", True, "virtproxyd.conf"),
        ("virtproxyd", True, "virtproxyd.conf"),
    ],
)
def test_the_file_of_this_hosts_layout(host: LibvirtHost, daemon: str, is_modular: bool, file: str) -> None:
    if is_modular:
        modular(host)
    assert planned(host, {}, daemon).file.path == f"/etc/libvirt/{file}"


@pytest.mark.parametrize(
    ("daemon", "is_modular", "words"),
    [
        ("virtqemud", False, "virtqemud.conf is not read on this host, whose layout is monolithic: libvirtd drives"),
        ("libvirtd", True, "libvirtd.conf is not read on this host, whose layout is modular: virtqemud drives QEMU"),
        ("virtnetworkd", True, "virtnetworkd is not installed"),
        ("virtlockd", False, "virtlockd is not installed"),
    ],
)
def test_a_file_that_nobody_reads(host: LibvirtHost, daemon: str, is_modular: bool, words: str) -> None:
    if is_modular:
        modular(host)
    assert words in refused(host, {}, daemon)


def test_two_layouts_at_once(host: LibvirtHost) -> None:
    host.put("/usr/sbin/virtqemud")
    host.daemon(78, 500, name="virtqemud")
    assert "this host has libvirtd and virtqemud in service at the same time" in refused(host, {}, "remote")


def test_a_host_without_libvirt(host: LibvirtHost) -> None:
    os.unlink(host.path("/usr/sbin/libvirtd"))
    os.unlink(host.path("/run/libvirtd.pid"))
    assert "neither libvirtd nor virtqemud is installed" in refused(host, {}, "remote")
    plan = planned(host, {"max_clients": 50}, None, path=LIBVIRTD_CONF)
    assert (len(plan.changes), plan.reader) == (1, None)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/libvirt/qemu.conf", "hypervisor.hardening.qemu_conf"),
        ("etc/libvirt/libvirtd.conf", "is not an absolute path"),
        ("/etc/libvirt/libvirt.conf", "knows the keys of a file of this name"),
    ],
)
def test_paths_that_are_refused(host: LibvirtHost, path: str, words: str) -> None:
    assert words in refused(host, {"max_clients": 50}, None, path=path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_client": 5}, "max_client is no key of libvirtd.conf to any libvirt .*Did you mean max_clients"),
        ({"max_clients": "many"}, "max_clients: 'many' is a string"),
        ({"unix_sock_rw_perms": "0770"}, r"unix_sock_rw_perms: systemd makes .*libvirtd\.socket \(SocketMode= there"),
        ({"unix_sock_group": "kvm"}, r"libvirtd\.socket and libvirtd-ro\.socket \(SocketGroup= there"),
        ({"listen_tcp": True}, r"listen_tcp: .*disable --now, libvirtd-tcp\.socket"),
        ({"listen_addr": "127.0.0.1"}, r"libvirtd-tcp\.socket and libvirtd-tls\.socket \(ListenStream= there"),
        ({"tls_allowed_dn_list": []}, "tls_allowed_dn_list: with an empty list every client .*allow_lockout: true"),
        ({"sasl_allowed_username_list": []}, "sasl_allowed_username_list: with an empty list"),
        ({"auth_unix_rw": "none"}, r"mode 0666, so every local user would be root\. .*systemctl edit libvirtd\.socket"),
    ],
)
def test_what_is_refused(host: LibvirtHost, settings: dict[str, t.Any], words: str) -> None:
    with pytest.raises(ConfError, match=words):
        planned(host, settings)


def test_what_systemd_decides_may_go(host: LibvirtHost) -> None:
    host.put(LIBVIRTD_CONF, "listen_tcp = 1\nlisten_tls = 0\n")
    plan = planned(host, {"listen_tcp": None})
    assert plan.file.after == b"listen_tls = 0\n"
    assert plan.warnings[:1] == (
        f"{LIBVIRTD_CONF} sets listen_tls, which has no effect: libvirtd-tls.socket decides. null removes the line.",
    )


def test_without_systemds_sockets_the_file_decides(host: LibvirtHost) -> None:
    host.put("/proc/77/environ", "PATH=/bin\0")
    plan = planned(host, {"unix_sock_rw_perms": "0770", "unix_sock_group": "kvm", "listen_tcp": False})
    assert len(plan.changes) == 3
    assert "would be root" in refused(host, {"auth_unix_rw": "none", "unix_sock_rw_perms": "0777"})


def test_a_lock_out_that_is_meant(host: LibvirtHost) -> None:
    assert planned(host, {"tls_allowed_dn_list": []}, allow_lockout=True).file.after.endswith(
        b"tls_allowed_dn_list = []\n"
    )


def test_keys_of_others_and_of_newer_libvirts(host: LibvirtHost) -> None:
    plan = planned(host, {"auth_tls": "sasl", "shiny": 1}, optional=["shiny"], managed_elsewhere=["auth_tls"])
    assert (plan.changes, plan.left_out, plan.left_alone) == ((), ("shiny",), ("auth_tls",))
    assert "managed_elsewhere: auth_tsl" in refused(host, {}, managed_elsewhere=["auth_tsl"])


def test_a_change_is_journalled_and_waits_for_a_restart(host: LibvirtHost) -> None:
    wanted = room.Wanted({"max_clients": 100}, "qemu")
    plan = room.plan(room.observe(host, wanted), wanted)
    predicted = room.result(room.observe(host, wanted), plan)
    room.check(host, plan)
    journal = Journal(host, by="test")
    room.apply(host, plan, journal)
    assert [entry.content() for entry in journal.entries()] == [CONF.encode()]
    state = room.observe(host, wanted)
    assert room.plan(state, wanted).changes == ()
    done = room.result(state, plan)
    assert done == predicted
    assert (done["restart_required"], done["restart_units"], done["read_by"]) == (
        True,
        ["libvirtd.service"],
        "libvirtd",
    )
    assert done["socket_activated"] is True


def test_a_host_that_cannot_prove_a_restart(host: LibvirtHost) -> None:
    os.unlink(host.path("/usr/bin/virsh"))
    assert "virsh is not installed" in planned(host, {"max_clients": 100}).warnings[0]
    assert planned(host, {"max_clients": 5000}).warnings == ()


def test_a_broken_file_is_named(host: LibvirtHost) -> None:
    host.put(LIBVIRTD_CONF, "max_clients = [ 1\n")
    assert f"{LIBVIRTD_CONF}, line 2: " in refused(host, {"max_clients": 50})
