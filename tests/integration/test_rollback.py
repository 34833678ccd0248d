# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rollback after the playbook harden, on real hypervisors with a guest that runs throughout."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, modules, playbooks

CONF = "/etc/libvirt/qemu.conf"
WEAK = b'\nuser = "root"\nnamespaces = []\nseccomp_sandbox = 0\n'
SWITCHES: dict[str, t.Any] = {
    "hypervisor_level": "strict",
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    # No pages, which are the whole machine's: a mount of this host's own.
    "hypervisor_hugepages_pools": [
        {"size": "2M", "path": "/huge2M"},
        {"size": "2M", "path": "/dev/hugepages", "mode": "0775"},
    ],
}
# Every file and directory of the host that is not the journal's, the boot's or the guest's.
FILES = r"""
find /etc -xdev -type f -exec sha256sum {} +
find /etc -xdev -printf '%p %y %m %U %G %l\n' | sort
getfattr -R -d -m - /etc 2>/dev/null | grep -v '^$'
find / -xdev -maxdepth 1 -printf '%p %y %m %U %G\n' | sort
findmnt -rn -o TARGET,SOURCE,FSTYPE,PROPAGATION,OPTIONS | grep -vE '^/run/(user|credentials)/' | sort
stat -c '%n %u %g %a' /dev/hugepages
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}'
"""


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.put(CONF, fresh.get(CONF) + WEAK, mode=0o640)
        fresh.run(["chown", "root:kvm", CONF])
        fresh.run(["setfattr", "-n", "user.note", "-v", "kept", CONF], check=False)
        fresh.run(["mount", "--make-rprivate", "/"])
        guests.restart_libvirtd(fresh)
        yield fresh


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", FILES]).stdout


def daemon(host: rig.Host) -> str:
    return host.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout


def start_ticks(host: rig.Host, pid: int) -> str:
    """Field 22 of /proc/PID/stat (proc(5)): with the pid it tells one process from all others."""
    return host.get(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()[19]


def back(host: rig.Host, *flags: str, **variables: t.Any) -> playbooks.Run:
    named = {f"hypervisor_rollback_{name}": value for name, value in variables.items()}
    run = playbooks.play("rollback", host.inventory, *flags, variables=named)
    assert run.rc == 0, run.text
    return run


def test_there_and_back(host: rig.Host) -> None:
    former = state(host)
    pid = guests.start(host, guests.Guest("throughout"))
    ticks = start_ticks(host, pid)
    hardened = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert hardened.rc == 0, hardened.text
    assert state(host) != former

    before, process = state(host), daemon(host)
    checked = back(host, "--check", "--diff", all=True)
    assert checked.changed
    assert (state(host), daemon(host)) == (before, process)
    assert '+user = "root"' in checked.text

    # One role alone, with the words of a survey.
    one = back(host, roles="hypervisor_qemu", all="false")
    (result,) = one.results("rollback")
    assert [(entry["target"], entry["by"]) for entry in result["put_back"]] == [(CONF, "qemu_conf")]
    assert host.get(CONF).endswith(WEAK)
    assert "/huge2M" in host.run(["findmnt", "-rn", "-o", "TARGET"]).stdout.split()
    assert len(one.results("daemon_restart")) == 1

    everything = back(host, all=True)
    (result,) = everything.results("rollback")
    assert result["left_alone"] == []
    assert len(everything.results("daemon_restart")) == 1
    assert state(host) == former
    guests.virsh(host, "uri")
    assert (guests.pid(host, "throughout"), start_ticks(host, pid)) == (pid, ticks)

    settled = state(host), daemon(host)
    again = back(host, all=True)
    assert (again.changed, again.results("daemon_restart")) == ([], [])
    assert (state(host), daemon(host)) == settled

    # What runs now is what was there before: a new guest is as weak as one was then.
    assert guests.status(host, guests.start(host, guests.Guest("as-before")))["Uid"].split()[0] == "0"
    entries = modules.call(host, "journal_info")["entries"]
    assert {entry["state"] for entry in entries} == {"put_back", "in_force"}
    assert {entry["by"] for entry in entries if entry["state"] == "in_force"} == {"rollback"}

    # And forth again: the rollback itself is in the journal.
    last = next(entry["name"] for entry in entries if entry["by"] == "rollback" and entry["target"] != CONF)
    back(host, since=last)
    assert "/huge2M" in host.run(["findmnt", "-rn", "-o", "TARGET"]).stdout.split()
    assert (guests.pid(host, "throughout"), start_ticks(host, pid)) == (pid, ticks)


def test_drift_is_shown_and_not_overwritten(host: rig.Host) -> None:
    former = host.get(CONF)
    assert playbooks.play("harden", host.inventory, "--tags", "qemu", variables=SWITCHES).rc == 0
    edited = host.get(CONF) + b"max_processes = 4242\n"
    host.put(CONF, edited, mode=0o640)
    run = back(host, all=True)
    assert run.changed == []
    (result,) = run.results("rollback")
    assert [one["target"] for one in result["left_alone"]] == [CONF]
    assert f"{CONF} stays as it is: it is not what qemu_conf made it at " in run.text.replace("\n", " ")
    assert host.get(CONF) == edited
    back(host, all=True, overwrite=CONF)
    assert host.get(CONF) == former
