# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role hypervisor_daemon on a real hypervisor: each door is seen open first, and shut afterwards."""

from __future__ import annotations

import pathlib
import time
import typing as t

import pytest
import rig
from rig import certificates, guests, migration, playbooks

TCP_PORT, TLS_PORT = 16509, 16514
CONF = "/etc/libvirt/libvirtd.conf"
WEAK = b"""
auth_tcp = "none"
tls_no_verify_certificate = 1
"""
PLACES = {
    "/etc/pki/CA/cacert.pem": "authority",
    "/etc/pki/libvirt/servercert.pem": "certificate",
    "/etc/pki/libvirt/private/serverkey.pem": "key",
}
VARIABLES: dict[str, t.Any] = {
    "hypervisor_daemon_socket_group": "libvirt",
    "hypervisor_daemon_monitor_group": "libvirt",
    "hypervisor_daemon_tls_clients": ["CN=manager*"],
    "hypervisor_daemon_limits": {"max_clients": "200"},
    "hypervisor_daemon_audit": "yes",
    "hypervisor_daemon_operators": "alice",
}
CLIENTS = ("client-list", "libvirtd")
ROLE = "hypervisor.hardening.hypervisor_daemon"
# Where the role could leave something; the rest of a host goes on by itself.
STATE = r"""
find /etc /var/lib/hypervisor-hardening -xdev -type f -exec cksum {} +
find /etc /var/lib/hypervisor-hardening -xdev -printf '%p %l %m %U %G %C@\n'
stat -c '%n %a %U %G' /run/libvirt/*-sock*
cat /run/libvirtd.pid /run/virtlogd.pid
systemctl show -p ActiveState --value 'libvirtd*.socket'
"""


@pytest.fixture(scope="module")
def authority() -> t.Iterator[certificates.Authority]:
    with certificates.authority() as made:
        yield made


@pytest.fixture(scope="module")
def host(authority: certificates.Authority) -> t.Iterator[rig.Host]:
    """As weak as a host can be, and with two users: alice, who is an operator, and mallory."""
    with rig.host("trixie") as fresh:
        pair = authority.issue(fresh.name, names=[f"DNS:{fresh.name}", f"IP:{fresh.address}"])
        texts = {"authority": authority.certificate, "certificate": pair.certificate, "key": pair.key}
        for path, what in PLACES.items():
            fresh.run(["mkdir", "-p", path.rpartition("/")[0]])
            fresh.put(path, texts[what].encode())
        for client in ("manager1", "stranger"):
            pair = authority.issue(client, ["client"])
            fresh.run(["mkdir", "-p", f"/root/{client}"])
            fresh.put(f"/root/{client}/cacert.pem", authority.certificate.encode())
            fresh.put(f"/root/{client}/clientcert.pem", pair.certificate.encode())
            fresh.put(f"/root/{client}/clientkey.pem", pair.key.encode(), mode=0o600)
        fresh.run(["mkdir", "/root/nobody"])
        fresh.put("/root/nobody/cacert.pem", authority.certificate.encode())
        for user in ("alice", "mallory"):
            fresh.run(["useradd", "--system", user])
        fresh.run(["usermod", "-aG", "libvirt", "alice"])
        fresh.put(CONF, fresh.get(CONF) + WEAK)
        fresh.run(["systemctl", "stop", "libvirtd.service"])
        fresh.run(["systemctl", "enable", "--now", "libvirtd-tcp.socket", "libvirtd-tls.socket"])
        fresh.run(["virsh", "uri"])
        yield fresh


def by_tcp(host: rig.Host) -> str:
    """libvirt's words to a client by plain TCP, "" if it is let in."""
    return connect(host, f"qemu+tcp://{host.address}/system")


def by_tls(host: rig.Host, client: str) -> str:
    return connect(host, f"qemu+tls://{host.address}/system?pkipath=/root/{client}")


def connect(host: rig.Host, uri: str) -> str:
    done = host.run(["timeout", "20", "virsh", "--connect", uri, "uri"], check=False)
    assert (done.returncode == 0) == (done.stderr.strip() == ""), done
    return done.stderr


def opens(host: rig.Host, user: str, socket: str) -> bool:
    """Whether connect(2) lets a user in."""
    code = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/libvirt/{socket}')"
    return host.run(["runuser", "-u", user, "--", "python3", "-c", code], check=False).returncode == 0


def listens(host: rig.Host, port: int) -> bool:
    """Whether the kernel has a listener on a port: proc_net(5), 0A is TCP_LISTEN."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in pathlib.Path(f"/proc/{host.pid1}/net/{name}").read_text(encoding="ascii").splitlines()
    ]
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in lines)


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE]).stdout


def play(host: rig.Host, *flags: str, **variables: t.Any) -> playbooks.Run:
    plays = [{"hosts": host.name, "gather_facts": False, "roles": [ROLE]}]
    return playbooks.play(plays, host.inventory, *flags, variables={**VARIABLES, **variables})


def start_ticks(host: rig.Host, pid: int) -> str:
    return (host.root / f"proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


def test_from_open_to_closed(host: rig.Host) -> None:
    pid = guests.start(host, guests.Guest("g1"))
    ticks = start_ticks(host, pid)
    definition = "/etc/libvirt/qemu/g2.xml"
    host.put(definition, guests.Guest("g2").xml().encode(), mode=0o644)
    assert by_tcp(host) == ""
    assert [by_tls(host, client) for client in ("nobody", "stranger", "manager1")] == [""] * 3
    assert [opens(host, "mallory", name) for name in ("libvirt-sock", "libvirt-sock-ro")] == [True, True]

    before = state(host)
    checked = play(host, "--check", "--diff")
    assert checked.rc == 0, checked.text
    assert checked.changed
    assert state(host) == before

    first = play(host)
    assert first.rc == 0, first.text
    assert [result["restarted"] for result in first.results("daemon_restart")] == [["libvirtd.service"]]
    assert "refused" in by_tcp(host)
    assert (listens(host, TCP_PORT), listens(host, TLS_PORT)) == (False, True)
    assert host.run(["systemctl", "is-enabled", "libvirtd-tcp.socket"], check=False).stdout.strip() == "disabled"
    assert [by_tls(host, client) == "" for client in ("nobody", "stranger", "manager1")] == [False, False, True]
    assert [opens(host, "mallory", name) for name in ("libvirt-sock", "libvirt-sock-ro")] == [False, False]
    assert [opens(host, "alice", name) for name in ("libvirt-sock", "libvirt-sock-ro")] == [True, True]
    assert host.run(["stat", "-c", "%a", definition, "/etc/pki/libvirt/private/serverkey.pem"]).stdout.split() == [
        "600",
        "600",
    ]
    limits = host.run(["virt-admin", "--connect", "libvirtd:///system", "srv-clients-info", "libvirtd"]).stdout
    assert "200" in [line.split()[-1] for line in limits.splitlines() if line.startswith("nclients_max")]
    assert (guests.pid(host, "g1"), start_ticks(host, pid)) == (pid, ticks)

    again = play(host)
    assert (again.rc, again.changed) == (0, []), again.text


def test_who_is_connected_is_not_cut_off_unasked(host: rig.Host) -> None:
    """A client by TLS that stays connected."""
    line = f"sleep 1000 | virsh --connect '{tls_uri(host, 'manager1')}'"
    host.run(["systemd-run", "--quiet", "--collect", "--unit=caller", "sh", "-c", line])
    deadline = time.monotonic() + 30
    while " tls " not in host.run(["virt-admin", "--connect", "libvirtd:///system", *CLIENTS]).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    refused = play(host, "--tags", "daemon_tls", hypervisor_daemon_tls_clients=["CN=other"])
    assert refused.rc != 0
    assert "CN=manager1" in refused.text
    assert b"CN=other" not in host.get(CONF)
    others = {"hypervisor_daemon_tls_clients": ["CN=other"], "hypervisor_daemon_cut_off": True}
    asked = play(host, "--check", "--tags", "daemon_tls", **others)
    assert asked.rc == 0, asked.text
    host.run(["systemctl", "stop", "caller"])


def tls_uri(host: rig.Host, client: str) -> str:
    return f"qemu+tls://{host.address}/system?pkipath=/root/{client}"


def test_tcp_stays_where_nobody_tells_who_is_connected() -> None:
    with rig.host("trixie") as host:
        migration.listen(host)
        plays = [{"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_daemon"]}]
        host.run(["mv", "/usr/bin/virt-admin", "/usr/bin/virt-admin.off"])
        refused = playbooks.play(plays, host.inventory, "--tags", "daemon_tcp")
        assert [task.name for task in refused.failed] == ["Refuse to cut off who cannot be seen"]
        assert "16509" in host.run(["ss", "-ltn"]).stdout
        host.run(["mv", "/usr/bin/virt-admin.off", "/usr/bin/virt-admin"])
        done = playbooks.play(plays, host.inventory, "--tags", "daemon_tcp")
        assert done.rc == 0, done.text
        assert "16509" not in host.run(["ss", "-ltn"]).stdout


def test_the_account_that_ansible_comes_in_by_is_not_shut_out() -> None:
    with rig.host("trixie") as host:
        home = "/home/admin"
        host.run(["useradd", "--create-home", "--shell", "/bin/sh", "admin"])
        host.run(["cp", "-r", "/root/.ssh", home])
        host.run(["chown", "-R", "admin:", f"{home}/.ssh"])
        host.run(["chpasswd"], stdin=b"root:let-me-in\n")
        plays = [
            {
                "hosts": host.name,
                "gather_facts": False,
                "become": True,
                "roles": ["hypervisor.hardening.hypervisor_daemon"],
                "vars": {
                    "ansible_user": "admin",
                    "ansible_become_method": "ansible.builtin.su",
                    "ansible_become_password": "let-me-in",
                    "hypervisor_daemon_socket_group": "libvirt",
                },
            }
        ]
        refused = playbooks.play(plays, host.inventory, "--tags", "daemon_sockets")
        assert [task.name for task in refused.failed] == ["Refuse to shut the account out that Ansible comes in by"]
        host.run(["usermod", "--append", "--groups", "libvirt", "admin"])
        done = playbooks.play(plays, host.inventory, "--tags", "daemon_sockets")
        assert done.rc == 0, done.text
