# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook rollback after the playbook harden, on real hypervisors with a guest that runs throughout."""

from __future__ import annotations

import contextlib
import re
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks

CONF = "/etc/libvirt/qemu.conf"
WEAK = b'\nuser = "root"\nnamespaces = []\nseccomp_sandbox = 0\n'
MOUNT = "/huge2M"
SWITCHES: dict[str, t.Any] = {
    "hypervisor_level": "strict",
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    # Mounts, which are this host's own, and no pages, which are the whole machine's.
    "hypervisor_hugepages_pools": [
        {"size": "2M", "path": MOUNT},
        {"size": "2M", "path": "/dev/hugepages", "mode": "0775"},
    ],
}
# Every file, directory and link below /etc and of the root, with all that belongs to it.
TREE = b"""
import hashlib, os, stat
for place, names, files in [("/", os.listdir("/"), []), *os.walk("/etc")]:
    for name in sorted(names) + sorted(files):
        path = os.path.join(place, name)
        status = os.lstat(path)
        said = [path, oct(status.st_mode), status.st_uid, status.st_gid]
        if stat.S_ISLNK(status.st_mode):
            said.append(os.readlink(path))
        elif place != "/":
            said += [(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))]
        if stat.S_ISREG(status.st_mode):
            said.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
        print(*said)
"""
# The running values: mounts, TAP devices, and the units that systemd knows.
RUNNING = r"""
findmnt -rn -o TARGET,SOURCE,FSTYPE,PROPAGATION,OPTIONS | grep -vE '^/run/(user|credentials)/' | sort
stat -c '%n %u %g %a' /dev/hugepages
for path in /sys/class/net/*/tun_flags; do echo "$path"; done
systemctl list-unit-files --no-legend --no-pager | awk '$2 != "transient" && $2 != "generated" {print $1, $2}'
"""


@contextlib.contextmanager
def weak(release: str) -> t.Iterator[rig.Host]:
    with rig.host(release) as fresh:
        fresh.put(CONF, fresh.get(CONF) + WEAK, mode=0o640)
        fresh.run(["chown", "root:kvm", CONF])
        fresh.run(["python3", "-c", f"import os; os.setxattr({CONF!r}, 'user.note', b'kept')"])
        fresh.run(["mount", "--make-rprivate", "/"])
        guests.restart_libvirtd(fresh)
        yield fresh


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with weak(request.param) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def trixie() -> t.Iterator[rig.Host]:
    with weak("trixie") as fresh:
        yield fresh


def state(host: rig.Host) -> str:
    return host.run(["python3", "-"], stdin=TREE).stdout + host.run(["sh", "-c", RUNNING]).stdout


def daemon(host: rig.Host) -> str:
    return host.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout


def mounted(host: rig.Host) -> list[str]:
    return host.run(["findmnt", "-rn", "-o", "TARGET"]).stdout.split()


def process(host: rig.Host, name: str) -> tuple[int, str]:
    """The pid of a guest with field 22 of its /proc/PID/stat (proc(5)), which tell it from all others."""
    pid = guests.pid(host, name)
    return pid, host.get(f"/proc/{pid}/stat").decode().rpartition(")")[2].split()[19]


def call(host: rig.Host, module: str, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    answer = modules.call(host, module, check_mode=check_mode, **options)
    assert not answer.get("failed"), answer["msg"]
    return answer


def back(host: rig.Host, *flags: str, **variables: t.Any) -> playbooks.Run:
    named = {f"hypervisor_rollback_{name}": value for name, value in variables.items()}
    run = playbooks.play("rollback", host.inventory, *flags, variables=named)
    assert run.rc == 0, run.text
    return run


def test_there_and_back(host: rig.Host) -> None:
    former = state(host)
    assert "'user.note', b'kept'" in former
    guests.start(host, guests.Guest("throughout"))
    guest = process(host, "throughout")
    hardened = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert hardened.rc == 0, hardened.text
    assert MOUNT in mounted(host)

    before, running = state(host), daemon(host)
    checked = back(host, "--check", "--diff", all=True)
    assert "Put back what was changed" in checked.changed
    assert (state(host), daemon(host)) == (before, running)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", checked.text).splitlines()
    assert '+user = "root"' in shown
    assert "+propagation:/: private" in shown

    # One role alone, in the words of a survey.
    one = back(host, roles="hypervisor_qemu", all="false")
    (result,) = one.results("rollback")
    assert [(entry["target"], entry["by"]) for entry in result["put_back"]] == [(CONF, "qemu_conf")]
    assert host.get(CONF).endswith(WEAK)
    assert MOUNT in mounted(host)
    assert len(one.results("daemon_restart")) == 1

    everything = back(host, all=True)
    (result,) = everything.results("rollback")
    assert result["left_alone"] == []
    assert len(everything.results("daemon_restart")) == 1
    assert state(host) == former
    guests.virsh(host, "uri")
    assert process(host, "throughout") == guest

    settled = state(host), daemon(host)
    again = call(host, "rollback", all=True)
    assert (again["changed"], again["restart_required"]) == (False, False)
    assert (state(host), daemon(host)) == settled

    # What runs now is what was there before: a new guest is as weak as one was then.
    assert guests.status(host, guests.start(host, guests.Guest("as-before")))["Uid"].split()[0] == "0"
    entries = call(host, "journal_info")["entries"]
    assert {entry["by"] for entry in entries if entry["state"] == "in_force"} == {"rollback"}
    assert {entry["state"] for entry in entries} == {"put_back", "in_force"}

    # And forth again: what the last rollback did is in the journal, too.
    first = next(entry["name"] for entry in entries if entry["by"] == "rollback" and entry["target"] != CONF)
    assert call(host, "rollback", since=first)["restart_required"] is True
    assert MOUNT in mounted(host)
    assert host.get(CONF).endswith(WEAK), "which the rollback before it put back"
    assert process(host, "throughout") == guest


def test_drift_is_shown_and_not_overwritten(trixie: rig.Host) -> None:
    former = state(trixie)
    call(trixie, "qemu_conf", settings={"user": None, "seccomp_sandbox": 1})
    call(trixie, "mount_propagation")
    edited = trixie.get(CONF) + b"max_processes = 4242\n"
    trixie.put(CONF, edited, mode=0o640)
    done = call(trixie, "rollback", all=True)
    assert [one["target"] for one in done["left_alone"]] == [CONF]
    assert "somebody else has changed it since" in done["left_alone"][0]["reason"]
    assert f"{CONF} stays as it is" in str(done["warnings"])
    assert {one["kind"] for one in done["put_back"]} == {"propagation"}, "the rest is put back"
    assert trixie.get(CONF) == edited
    states = {entry["target"]: entry["state"] for entry in call(trixie, "journal_info")["entries"]}
    assert (states[CONF], states["propagation:/"]) == ("drifted", "in_force")
    call(trixie, "rollback", all=True, overwrite=[CONF])
    assert state(trixie) == former


def test_the_daemon_whose_file_returns_is_restarted_and_no_other(trixie: rig.Host) -> None:
    guests.start(trixie, guests.Guest("logged"))  # whose console virtlogd holds
    former, libvirtd = state(trixie), daemon(trixie)
    changed = call(trixie, "libvirt_conf", daemon="virtlogd", settings={"max_size": 4194304})
    call(trixie, "daemon_restart", units=changed["restart_units"])
    done = back(trixie, all=True)
    (result,) = done.results("rollback")
    assert (result["restart_required"], result["restart_units"]) == (True, ["virtlogd.service"])
    assert [run["restarted"] for run in done.results("daemon_restart")] == [["virtlogd.service"]]
    assert (state(trixie), daemon(trixie)) == (former, libvirtd)
    assert call(trixie, "rollback", all=True)["restart_required"] is False
    guests.stop(trixie, "logged")


def test_what_single_modules_changed(trixie: rig.Host) -> None:
    """A TAP device with its unit, and the gate with its directories, links and files."""
    former = state(trixie)
    agreement = {"version": 1, "group": "web", "values": {"qemu_uid": 0}}
    taps = [{"name": "web0", "owner": "root", "group": "kvm"}]
    for module, options in (
        ("tap_device", {"devices": taps}),
        ("migration_gate", {"agreement": agreement, "mode": "warn"}),
        ("migration_gate", {"agreement": agreement, "mode": "enforce"}),
    ):
        assert call(trixie, module, **options)["changed"] is True
    changed = state(trixie)
    checked = call(trixie, "rollback", all=True, check_mode=True)
    assert state(trixie) == changed
    done = call(trixie, "rollback", all=True)
    assert (done["put_back"], done["left_alone"]) == (checked["put_back"], [])
    assert state(trixie) == former
    assert call(trixie, "rollback", all=True)["changed"] is False

    # What a guest holds is not taken away from it.
    assert call(trixie, "tap_device", devices=taps)["changed"] is True
    managed = "<interface type='ethernet'><target dev='web0' managed='no'/><model type='virtio'/></interface>"
    guests.start(trixie, guests.Guest("holder", interfaces=[managed]))
    before = state(trixie), process(trixie, "holder")
    refused = modules.call(trixie, "rollback", all=True)
    assert (refused["failed"], refused["changed"]) == (True, False)
    assert "web0 is held by guest holder" in refused["msg"]
    assert (state(trixie), process(trixie, "holder")) == before
