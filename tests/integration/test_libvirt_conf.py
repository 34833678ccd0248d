# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt_conf and daemon_restart on real daemons with a real guest: they say what is right, and what holds."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, modules

from ansible_collections.hypervisor.hardening.plugins.module_utils import _confkeys, _confkeys_daemons
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

LIBVIRTD_CONF = "/etc/libvirt/libvirtd.conf"
VIRTLOGD_CONF = "/etc/libvirt/virtlogd.conf"
SOCKET = "/run/libvirt/libvirt-sock"
# The files whose daemons are installed there.
RELEASES = {
    "bookworm": ("libvirtd.conf", "virtlogd.conf", "virtlockd.conf", "qemu-lockd.conf"),
    "trixie": ("libvirtd.conf", "virtlogd.conf", "network.conf"),
}
# Where the modules and the daemons could leave something.
STATE = r"""
find /etc /var/lib/hypervisor-hardening -xdev -type f -exec cksum {} +
find /etc /var/lib/hypervisor-hardening -xdev -printf '%p %m %U %G %C@\n'
stat -c '%n %a %U %G' /run/libvirt/*-sock*
cat /run/libvirtd.pid /run/virtlogd.pid
"""


@pytest.fixture(scope="module")
def host() -> t.Iterator[rig.Host]:
    with rig.host("trixie") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def guest(host: rig.Host) -> t.Iterator[int]:
    """A running guest, which must be the same process when all tests are over."""
    pid = guests.start(host, guests.Guest("g1"))
    ticks = start_ticks(host, pid)
    yield pid
    assert (guests.pid(host, "g1"), start_ticks(host, pid)) == (pid, ticks)


def start_ticks(host: rig.Host, pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)): with the pid it tells one process from all others."""
    return (host.root / f"proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


def daemon(host: rig.Host, name: str) -> str:
    return host.run(["cat", f"/run/{name}.pid"]).stdout.strip()


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE], check=False).stdout


def configure(host: rig.Host, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    return modules.call(host, "libvirt_conf", check_mode=check_mode, **options)


def restart(host: rig.Host, result: dict[str, t.Any]) -> dict[str, t.Any]:
    return modules.call(host, "daemon_restart", units=result["restart_units"])


@pytest.mark.parametrize("release", RELEASES)
def test_the_tables_agree_with_the_lenses(release: str) -> None:
    root = Host(str(rig.build(release) / "root"))
    for file in RELEASES[release]:
        lens = _confkeys.known(root, file)
        assert lens.source == "lens", file
        table = {key for keys in _confkeys_daemons.types(file).values() for key in keys.split()}
        assert lens.types.keys() - {"keepalive_required", "admin_keepalive_required"} <= table, file
        without = _confkeys.known(Host("/nonexistent"), file).types
        assert {key: without[key] for key in lens.types} == dict(lens.types), file


# What the module refuses, by the type and by the rules, and the daemon does not start with.
WRONG_TYPE = {
    'max_clients = "many"': "many",
    "max_queued_clients = -1": -1,
    "audit_logging = 2": 2,
    'tls_allowed_dn_list = "all"': "all",
}
WRONG_VALUE = {
    'auth_unix_rw = "pam"': "pam",
    'access_drivers = [ "nop" ]': ["nop"],
    "tcp_min_ssf = 56": 56,
    'host_uuid_source = "random"': "random",
    'host_uuid = "1234"': "1234",
    "max_clients = 10": 10,
}
# A second libvirtd, in namespaces of its own, ends over the file or would go on for ever (124).
SECOND = r"""
mount -t tmpfs none /run/libvirt && cd /run/libvirt || exit
while read -r line; do
    echo "$line" >candidate.conf
    timeout 2 libvirtd --config $PWD/candidate.conf --pid-file $PWD/second.pid </dev/null >/dev/null 2>&1
    echo $?
done
"""


@pytest.mark.parametrize("release", RELEASES)
def test_the_rules_are_libvirtds(request: pytest.FixtureRequest, release: str) -> None:
    if release == "trixie":
        judge_by_libvirtd(request.getfixturevalue("host"))
    else:
        with rig.host(release) as older:
            judge_by_libvirtd(older)


def judge_by_libvirtd(host: rig.Host) -> None:
    lines = [*WRONG_TYPE, *WRONG_VALUE, "max_clients = 20"]
    asked = ["unshare", "-m", "-n", "sh", "-c", SECOND]
    codes = host.run(asked, stdin="".join(f"{line}\n" for line in lines).encode()).stdout.split()
    started = [line for line, code in zip(lines, codes, strict=True) if code in ("0", "124")]
    assert started == ["max_clients = 20"]
    for wrong in (WRONG_TYPE, WRONG_VALUE):
        settings = {line.partition(" ")[0]: value for line, value in wrong.items()}
        answer = configure(host, daemon="libvirtd", settings=settings, check_mode=True)
        assert answer.get("failed") is True
        assert [message.partition(":")[0] for message in answer["msg"].splitlines()] == [*settings]


def test_what_systemd_decides_is_refused_and_has_no_effect(host: rig.Host, guest: int) -> None:
    answer = configure(host, daemon="qemu", settings={"unix_sock_rw_perms": "0700", "listen_tcp": True})
    assert (answer["failed"], answer["changed"]) == (True, False)
    assert "What decides is libvirtd.socket (SocketMode= there: systemctl edit libvirtd.socket)" in answer["msg"]
    assert "libvirtd-tcp.socket" in answer["msg"]
    # written by hand, and loaded
    before = host.get(LIBVIRTD_CONF)
    host.put(LIBVIRTD_CONF, before + b'unix_sock_rw_perms = "0700"\n')
    guests.restart_libvirtd(host)
    assert host.run(["stat", "-c", "%a", SOCKET]).stdout.strip() == "666"
    answer = configure(host, daemon="qemu", settings={}, check_mode=True)
    assert "unix_sock_rw_perms, which has no effect: libvirtd.socket decides" in str(answer["warnings"])
    assert configure(host, daemon="qemu", settings={"unix_sock_rw_perms": None})["changed"]
    assert host.get(LIBVIRTD_CONF) == before


def test_a_change_is_loaded_and_a_second_run_changes_nothing(host: rig.Host, guest: int) -> None:
    settings = {"max_clients": 77, "audit_logging": "yes"}
    before = state(host)
    predicted = configure(host, daemon="remote", settings=settings, check_mode=True)
    assert state(host) == before
    done = configure(host, daemon="remote", settings=settings)
    assert done == predicted
    assert (done["file"], done["keys_from"], done["socket_activated"]) == (LIBVIRTD_CONF, "lens", True)
    assert (done["restart_required"], done["restart_units"]) == (True, ["libvirtd.service"])
    assert restart(host, done).get("msg") is None
    limits = host.run(["virt-admin", "--connect", "libvirtd:///system", "srv-clients-info", "libvirtd"]).stdout
    assert "77" in [line.split()[-1] for line in limits.splitlines() if line.startswith("nclients_max")]
    again = configure(host, daemon="remote", settings=settings)
    assert (again["changed"], again["restart_required"]) == (False, False)


def test_what_keeps_libvirtd_down_is_rolled_back(host: rig.Host, guest: int) -> None:
    before = host.get(LIBVIRTD_CONF)
    done = configure(host, daemon="qemu", settings={"log_outputs": "3:nowhere"})
    assert done["restart_required"] is True
    failed = restart(host, done)
    assert (failed["failed"], failed["rolled_back"]) == (True, True)
    assert f"Put back: {LIBVIRTD_CONF} (as it was before " in failed["msg"]
    assert [one["same"] for one in failed["guests"]] == [True]
    assert host.get(LIBVIRTD_CONF) == before
    assert guests.virsh(host, "list", "--name").split() == ["g1"]
    assert configure(host, daemon="qemu", settings={})["restart_required"] is False


def pipes(host: rig.Host, pid: str) -> set[str]:
    """The pipes that a process has open."""
    links = host.run(["sh", "-c", f"readlink /proc/{pid}/fd/* || true"], check=False).stdout
    return {link for link in links.split() if link.startswith("pipe:")}


def test_virtlogd_keeps_what_a_guest_writes_to(host: rig.Host, guest: int) -> None:
    written_to = pipes(host, str(guest)) & pipes(host, daemon(host, "virtlogd"))
    assert written_to, "QEMU's output goes through virtlogd"
    done = configure(host, daemon="virtlogd", settings={"max_size": 1048576})
    assert done["restart_units"] == ["virtlogd.service"]
    virtlogd = daemon(host, "virtlogd")
    vector = host.get(f"/proc/{virtlogd}/auxv")
    assert restart(host, done).get("msg") is None
    assert daemon(host, "virtlogd") == virtlogd
    assert host.get(f"/proc/{virtlogd}/auxv") != vector, "it executes itself anew"
    assert written_to <= pipes(host, virtlogd)
    assert configure(host, daemon="virtlogd", settings={"max_size": 1048576})["restart_required"] is False


def test_what_keeps_virtlogd_down_is_rolled_back(host: rig.Host, guest: int) -> None:
    before = host.get(VIRTLOGD_CONF)
    done = configure(host, daemon="virtlogd", settings={"log_outputs": "3:nowhere"})
    failed = restart(host, done)
    assert (failed["failed"], failed["rolled_back"]) == (True, True)
    assert host.get(VIRTLOGD_CONF) == before
    host.run(["virt-admin", "--connect", "virtlogd:///system", "server-list"])


def test_who_may_connect_to_a_socket(host: rig.Host, guest: int) -> None:
    """The other user is refused at once, without a restart, and after one."""
    host.run(["useradd", "--system", "mallory"], check=False)
    connect = ["runuser", "-u", "mallory", "--", "python3", "-c"]
    connect.append(f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})")
    assert host.run(connect, check=False).returncode == 0
    libvirtd = daemon(host, "libvirtd")
    before = state(host)
    modules.call(host, "libvirt_sockets", mode="0660", group="libvirt", check_mode=True)
    assert state(host) == before
    done = modules.call(host, "libvirt_sockets", mode="0660", group="libvirt")
    assert done["changed"] is True
    assert "Permission denied" in host.run(connect, check=False).stderr
    assert daemon(host, "libvirtd") == libvirtd
    host.run(["sh", "-c", "systemctl stop libvirtd.service && systemctl restart 'libvirtd*.socket' && virsh uri"])
    assert "Permission denied" in host.run(connect, check=False).stderr
    assert modules.call(host, "libvirt_sockets", mode="0660", group="libvirt")["changed"] is False
    host.run(["usermod", "-aG", "libvirt", "mallory"])
    assert host.run(connect, check=False).returncode == 0
