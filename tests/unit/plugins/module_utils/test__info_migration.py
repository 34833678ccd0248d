# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts are compared on before guests move: what is effective, and what running guests need."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _cpumap, _info_migration
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, LibvirtHost, ticks_now

ROOT = "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw\n"
NFS = "2 1 0:40 / /srv rw shared:2 - nfs4 store:/images rw\n"
HUGE = "3 1 0:41 / /dev/hugepages rw shared:3 - hugetlbfs hugetlbfs rw\n"
DISK = "<disk type='file' device='disk'><source file='{}'/><target dev='vda'/></disk>"


class Machine(LibvirtHost):
    """File systems have the numbers that ``numbers`` says, those of huge pages pages of 2 MiB."""

    numbers: t.ClassVar[dict[str, int]] = {}

    def filesystem_id(self, path: str) -> int:
        if path.removeprefix("/proc/1/root") == "/gone":
            raise HostError("gave no answer within 5 seconds")
        return self.numbers.get(path.removeprefix("/proc/1/root"), 0)

    def block_size(self, path: str) -> int:
        return 2 << 20


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.put("/proc/sys/kernel/hostname", "kvm1\n")
    found.put("/proc/1/mountinfo", ROOT + NFS + HUGE)
    found.put("/proc/net/tcp", "  sl  local_address rem_address   st\n")
    return found


def look(host: Machine) -> dict[str, t.Any]:
    found = _info_migration.facts(Context(host))
    assert mismatches("migration", found) == []
    return found


def guest(host: Machine, name: str, pid: int, inside: str, *words: str, kind: str = "kvm", cpu: str = "") -> None:
    domain = f"<domain type='{kind}'><name>{name}</name>{cpu}<devices>{inside}</devices></domain>"
    host.guest(name, pid, ticks_now(), status=f"<domstatus pid='{pid}'>{domain}</domstatus>")
    line = ("/usr/bin/qemu-system-x86_64", "-name", f"guest={name}", *words)
    host.put(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in line))


def test_what_the_file_decides(host: Machine) -> None:
    host.put(
        CONF, 'seccomp_sandbox = 0\nnamespaces = []\nmigration_address = "192.0.2.1"\nmigration_port_min = 49200\n'
    )
    found = look(host)
    assert (found["values"]["seccomp_sandbox"], found["values"]["namespaces"]) == (False, [])
    assert found["values"]["dynamic_ownership"] is True
    assert (found["address"], found["host"]) == ("192.0.2.1", None)
    assert (found["first_port"], found["last_port"]) == (49200, 49215)


def test_what_the_daemon_has_not_loaded_is_not_known(host: Machine) -> None:
    host.daemon(7, ticks_now() - 1000)
    host.put(CONF, "seccomp_sandbox = 0\n")
    found = look(host)
    assert found["values"] is None
    assert [entry["path"] for entry in found["unread"]] == ["/etc/libvirt/qemu.conf"]
    assert "libvirtd goes by an older one" in found["unread"][0]["reason"]


def test_a_broken_file_decides_nothing(host: Machine) -> None:
    host.put(CONF, "seccomp_sandbox = \n")
    found = look(host)
    assert found["values"] is None and "refuses the file" in found["unread"][0]["reason"]


def test_ports_that_are_taken(host: Machine) -> None:
    row = "0: 00000000:{:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 0\n"
    host.put("/proc/net/tcp", "head\n" + "".join(row.format(port) for port in (22, 49152, 49215, 49216)))
    found = look(host)
    assert (found["taken_ports"], found["taken_ports_total"]) == ([49152, 49215], 2)


@pytest.mark.parametrize(
    ("hostname", "answer", "name", "addresses"),
    [
        # getent-ahosts(1): the canonical name stands beside the first address of each type
        ("kvm1", "192.0.2.1 STREAM kvm1.example.org\n192.0.2.1 DGRAM\n", "kvm1.example.org", ["192.0.2.1"]),
        ("kvm1", "127.0.0.1 STREAM localhost\n", "kvm1", ["127.0.0.1"]),
        ("kvm1.example.org", "192.0.2.1 STREAM other\n", "kvm1.example.org", ["192.0.2.1"]),
        ("kvm1", 2, "kvm1", []),
    ],
)
def test_the_name_that_libvirt_gives(
    host: Machine, monkeypatch: pytest.MonkeyPatch, hostname: str, answer: str | int, name: str, addresses: list[str]
) -> None:
    host.put("/proc/sys/kernel/hostname", f"{hostname}\n")
    host.answers[f"getent ahosts {hostname}"] = answer
    monkeypatch.setattr(host, "run", lambda argv, **_more: super(LibvirtHost, host).run(argv))
    found = look(host)
    assert (found["hostname"], found["addresses"]) == (name, addresses)


def test_without_guests_nothing_is_needed(host: Machine) -> None:
    found = look(host)
    assert (found["cpus"], found["displays"], found["hugepages"]) == ([], [], [])
    assert [entry["name"] for entry in found["filesystems"]] == ["/srv"]


def test_ports_that_a_definition_fixes(host: Machine) -> None:
    fixed = "<graphics type='vnc' port='5901' autoport='no' websocket='5701'/><graphics type='spice' tlsPort='5902'/>"
    guest(host, "web", 70, fixed + "<graphics type='vnc' port='5900' autoport='yes'/>")
    assert look(host)["displays"] == [
        {"guest": "web", "port": 5901},
        {"guest": "web", "port": 5701},
        {"guest": "web", "port": 5902},
    ]


def test_huge_pages_as_qemu_was_told(host: Machine) -> None:
    old = "memory-backend-file,id=ram-node0,mem-path=/dev/hugepages/libvirt/qemu/1-web,size=4194305"
    new = '{"qom-type":"memory-backend-file","mem-path":"/dev/hugepages/libvirt/qemu/1-web","size":8388608}'
    other = '{"qom-type":"memory-backend-file","mem-path":"/dev/hugepages-1G/x","size":8388608}'
    guest(host, "web", 70, "", "-object", old, "-object", new, "-object", other, "-object", "{broken")
    assert look(host)["hugepages"] == [{"guest": "web", "kib": 2048, "pages": 7}]


def test_file_systems_with_disks(host: Machine) -> None:
    host.put("/proc/1/mountinfo", ROOT + NFS + "4 1 0:50 / /export rw - ext4 /dev/vdb rw\n")
    host.put(CONF, 'shared_filesystems = [ "/export/images" ]\n')
    host.numbers["/export"] = 0xABC
    iso = "<disk type='file' device='cdrom'><source file='/srv/a.iso'/><readonly/></disk>"
    guest(host, "far", 70, DISK.format("/srv/far.img") + iso)
    guest(host, "near", 71, DISK.format("/var/lib/libvirt/images/near.img"))
    guest(host, "told", 72, DISK.format("/export/images/told.img"))
    guest(host, "half", 73, DISK.format("/export/images/a.img") + DISK.format("/export/other.img"))
    found = {entry["name"]: entry for entry in look(host)["filesystems"]}
    assert found["/srv"] == {
        "name": "/srv",
        "fstype": "nfs4",
        "id": "store:/images",
        "recognised": True,
        "listed": False,
        "guests": ["far"],
        "unlisted": ["far"],
    }
    assert (found["/"]["recognised"], found["/"]["listed"], found["/"]["guests"]) == (False, False, ["near"])
    assert (found["/export"]["id"], found["/export"]["listed"], found["/export"]["unlisted"]) == ("abc", True, ["half"])


def test_a_server_that_does_not_answer_is_not_known(host: Machine) -> None:
    host.put("/proc/1/mountinfo", ROOT + "2 1 0:40 / /gone rw - nfs4 store:/images rw\n")
    found = look(host)
    assert found["filesystems"][0]["id"] is None
    assert found["unread"][-1]["path"] == "/gone"


def test_processors(host: Machine) -> None:
    host.put(f"{_cpumap.DIRECTORY}/x86_EPYC.xml", "<cpus><model name='EPYC'><feature name='avx'/></model></cpus>")
    custom = "<cpu mode='custom'><model>EPYC</model><feature policy='require' name='aes'/></cpu>"
    guest(host, "a", 70, "", cpu=custom)
    guest(host, "b", 71, "", cpu=custom)
    guest(host, "c", 72, "", cpu="<cpu mode='host-passthrough'/>")
    guest(host, "tcg", 73, "", cpu=custom, kind="qemu")
    assert look(host)["cpus"] == [
        {"mode": "custom", "model": "EPYC", "lacks": [], "beyond": ["aes", "avx"], "guests": ["a", "b"]},
        {"mode": "host-passthrough", "model": "", "lacks": [], "beyond": [], "guests": ["c"]},
    ]
    guest(host, "d", 74, "", cpu="<cpu mode='custom'><model>Nobody</model></cpu>")
    found = look(host)
    assert found["cpus"] is None and "no such model" in found["unread"][-1]["reason"]


def test_a_guest_that_cannot_be_read_leaves_all_unknown(host: Machine) -> None:
    guest(host, "web", 70, "")
    host.put("/run/libvirt/qemu/web.xml", "<domstatus>")
    found = look(host)
    assert (found["cpus"], found["displays"], found["filesystems"]) == (None, None, None)
    assert found["unread"][-1]["path"] == "/run/libvirt/qemu/web.xml"
