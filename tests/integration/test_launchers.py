# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role hypervisor_launchers on real hypervisors: libvirt runs as an ordinary user, over ssh and as a service.

What each preparation is for is seen first: without it libvirt refuses, in its own words. The pools of huge pages are
the whole machine's, and are put back.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import typing as t

import pytest
import rig
from rig import guests, playbooks

NR = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
MORE = 40  # pages of 2 MiB: a guest of 64 MiB, and some to spare
SERVICE = b"""\
[Service]
ExecStart=/usr/sbin/libvirtd
Delegate=yes
KillMode=process
"""
INTERFACE = """\
<interface type='ethernet'>
  <target dev='alice0' managed='no'/><model type='virtio'/><driver queues='2'/>
</interface>
"""
LOCKED = "<memoryBacking><locked/></memoryBacking>"
# Each file below /etc and /var/lib, the devices, and who may open them: all that the role could change.
STATE = r"""
for name in /sys/class/net/*; do
    echo "$name $(cd $name && cat ifindex flags ifalias tun_flags owner group 2>/dev/null) $(readlink $name/master)"
done
getfacl --absolute-names /dev/kvm /dev/net/tun
find /dev/hugepages -ls
cat /sys/kernel/mm/hugepages/*/nr_hugepages
find /etc /var/lib -xdev -type f ! -path '/var/lib/systemd/*' -exec cksum {} +
find /etc /var/lib -xdev ! -path '/var/lib/systemd/*' -printf '%p %m %U %G\n'
ls /var/lib/systemd/linger
"""
# CAP_SYS_RESOURCE of linux/capability.h: without it not even root can raise a limit above the machine's.
RAISES_LIMITS = 1 << 24


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        pages = fresh.get(NR)
        fresh.run(["ip", "link", "add", "br0", "type", "bridge"])
        for user in ("alice", "bob"):
            fresh.run(["useradd", "--create-home", "--shell", "/bin/bash", user])
            fresh.run(["install", "-d", "-m", "700", "-o", user, f"/home/{user}/.ssh"])
            fresh.run(["install", "-o", user, "/root/.ssh/authorized_keys", f"/home/{user}/.ssh"])
        yield fresh
        for user in ("alice", "bob"):
            fresh.run(["loginctl", "terminate-user", user], check=False)
        pathlib.Path(NR).write_bytes(pages)


class User:
    """A user who comes in by ssh, as somebody does."""

    def __init__(self, host: rig.Host, name: str) -> None:
        self.host = host
        self.name = name

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        argv = [word.replace("root@", f"{self.name}@") for word in self.host.ssh_argv(line)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)

    def out(self, line: str) -> str:
        """What a command prints that has to succeed."""
        done = self.run(line)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def put(self, path: str, text: str) -> None:
        self.host.run(["install", "-D", "-o", self.name, "/dev/null", path])
        self.host.put(path, text.encode())
        self.host.run(["sh", "-c", f"chown -R {self.name}: /home/{self.name}"])

    def refusal(self, guest: guests.Guest) -> str:
        """libvirt's words when it does not start a guest; "" if it did, and the guest is stopped again."""
        self.define(guest)
        done = self.run(f"virsh -q -c qemu:///session create {guest.name}.xml")
        self.run(f"virsh -q -c qemu:///session destroy {guest.name}")
        return done.stderr

    def define(self, guest: guests.Guest) -> None:
        xml = guest.xml().replace("/var/log/libvirt/qemu", f"/home/{self.name}")
        self.put(f"/home/{self.name}/{guest.name}.xml", xml)

    def start(self, guest: guests.Guest) -> int:
        """Start a guest, stopped before its first instruction; the pid of its QEMU."""
        self.define(guest)
        self.out(f"virsh -q -c qemu:///session create --paused {guest.name}.xml")
        return int(self.host.run(["pgrep", "-u", self.name, "-f", f"guest={guest.name},"]).stdout)

    def opens(self, device: str) -> bool:
        """Whether open(2) lets the user read and write."""
        return self.run(f": <> {device}").returncode == 0


def exists(host: rig.Host, path: str) -> bool:
    return host.run(["test", "-e", path], check=False).returncode == 0


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE]).stdout


def ticks(host: rig.Host, pid: int) -> str:
    return host.run(["cut", "-d ", "-f22", f"/proc/{pid}/stat"]).stdout


def limit(host: rig.Host, pid: int) -> tuple[str, str]:
    """Soft and hard limit of locked memory of a process, as the kernel says them."""
    found = re.search(r"^Max locked memory +(\S+) +(\S+)", host.get(f"/proc/{pid}/limits").decode(), re.MULTILINE)
    assert found
    return found[1], found[2]


def cgroup(host: rig.Host, process: str) -> str:
    """The cgroup of a process, or of a thread (PID/task/TID)."""
    return host.get(f"/proc/{process}/cgroup").decode().split("0::")[1].strip()


def can_raise(host: rig.Host) -> bool:
    return bool(int(guests.status(host, 1)["CapBnd"], 16) & RAISES_LIMITS)


def play(host: rig.Host, *flags: str, **variables: t.Any) -> playbooks.Run:
    plays = [{"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_launchers"]}]
    done = playbooks.play(
        plays, host.inventory, *flags, variables={f"hypervisor_launchers_{key}": variables[key] for key in variables}
    )
    assert done.rc == 0, done.text
    return done


def apply(host: rig.Host, **variables: t.Any) -> None:
    """A run that must change something; a check before it must change nothing, and a second run neither."""
    before = state(host)
    checked = play(host, "--check", "--diff", **variables)
    assert state(host) == before
    assert checked.changed != []
    play(host, **variables)
    after = state(host)
    again = play(host, **variables)
    assert again.changed == []
    assert state(host) == after


def refused_without(alice: User) -> None:
    """What an ordinary user cannot have without preparation."""
    assert "Process exited prior to exec" in alice.refusal(guests.Guest("locked", extra=[LOCKED]))
    # libvirt does not always find the reason in the guest's log in time to tell it.
    assert "cannot limit locked memory" in alice.out("cat .cache/libvirt/qemu/log/locked.log")
    assert "hugetlbfs filesystem is not mounted" in alice.refusal(guests.Guest("huge", hugepages_kib=2048))
    assert "specified dev doesn't exist" in alice.refusal(guests.Guest("net", interfaces=[INTERFACE]))
    for device in ("/dev/kvm", "/dev/vhost-net"):
        assert not alice.opens(device)


def delegated(host: rig.Host, uid: str) -> set[str]:
    """The controllers that systemd delegates to a user's service manager."""
    shown = host.run(["systemctl", "show", "-p", "DelegateControllers", "--value", f"user@{uid}.service"]).stdout
    return set(shown.split())


def housekeeping(alice: User, pid: int) -> None:
    """What a user does with a delegated cgroup: the threads beside the vCPUs get one of their own."""
    group = f"/sys/fs/cgroup{cgroup(alice.host, str(pid))}"
    alice.out(
        f"mkdir {group}/housekeeping && echo threaded > {group}/housekeeping/cgroup.type && "
        f"for thread in /proc/{pid}/task/*; do case $(cat $thread/comm) in CPU*) ;; "
        f"*) echo ${{thread##*/}} > {group}/housekeeping/cgroup.threads ;; esac || exit; done"
    )
    threads = alice.host.run(["ls", f"/proc/{pid}/task"]).stdout.split()
    names = {thread: alice.host.get(f"/proc/{pid}/task/{thread}/comm").decode() for thread in threads}
    places = {thread: cgroup(alice.host, f"{pid}/task/{thread}").rpartition("/")[2] for thread in threads}
    vcpus = {thread for thread, name in names.items() if name.startswith("CPU ")}
    assert len(vcpus) == 2
    assert {places[thread] for thread in vcpus} == {"libvirtd.service"}
    assert {places[thread] for thread in threads if thread not in vcpus} == {"housekeeping"}


def test_a_user_runs_a_guest_with_all_that_was_prepared(host: rig.Host) -> None:
    alice = User(host, "alice")
    uid = alice.out("id -u")
    refused_without(alice)
    assert "cpuset" not in delegated(host, uid)
    alice.run("pkill libvirtd")

    memlock = "unlimited" if can_raise(host) else "4096"
    pool = {"size": "2M", "path": "/dev/hugepages", "pages": int(host.get(NR)) + MORE}
    tap = {"name": "alice0", "owner": "alice", "multi_queue": True, "bridge": "br0"}
    wanted: dict[str, t.Any] = {"users": "alice, bob", "memlock": memlock, "hugepages": [pool], "taps": [tap]}
    apply(host, **wanted)

    # The role restarts nothing of a user's. Her service manager is from before it, unless she was away for ten seconds
    # (UserStopDelaySec of logind.conf(5)), and has to begin anew to have the limits.
    host.run(["systemctl", "restart", f"user@{uid}.service"])
    # A guest under TCG uses neither KVM nor vhost.
    for device in ("/dev/kvm", "/dev/vhost-net"):
        assert alice.opens(device) is exists(host, device)
    assert "cpuset" in delegated(host, uid)
    alice.put("/home/alice/.config/systemd/user/libvirtd.service", SERVICE.decode())
    alice.put("/home/alice/.config/libvirt/qemu.conf", 'hugetlbfs_mount = [ "/dev/hugepages/alice" ]\n')
    alice.out("systemctl --user daemon-reload && systemctl --user start libvirtd")
    if can_raise(host):
        assert alice.refusal(guests.Guest("locked", extra=[LOCKED])) == ""
    pid = alice.start(guests.Guest("mine", vcpus=2, interfaces=[INTERFACE], hugepages_kib=2048))
    before = ticks(host, pid)
    status = guests.status(host, pid)
    assert status["Uid"].split() == [uid] * 4
    assert status["HugetlbPages"] == "65536 kB"
    bytes_ = "unlimited" if memlock == "unlimited" else str(int(memlock) << 10)
    assert limit(host, pid) == (bytes_, bytes_)
    held = host.run(["sh", "-c", f"grep -h ^iff: /proc/{pid}/fdinfo/*"]).stdout.split()
    assert held == ["iff:", "alice0"] * 2, "two queues"
    assert f"/user-{uid}.slice/user@{uid}.service/" in cgroup(host, str(pid))
    housekeeping(alice, pid)
    alice.out("virsh -q -c qemu:///session resume mine")

    # A run while the guest runs touches neither it nor what it has.
    assert play(host, **wanted).changed == []
    assert (ticks(host, pid), guests.status(host, pid)["HugetlbPages"]) == (before, "65536 kB")
    # Another user got his own, and not hers.
    bob = User(host, "bob")
    assert "Operation not permitted" in bob.refusal(guests.Guest("hers", vcpus=2, interfaces=[INTERFACE]))
    assert bob.run("ls /dev/hugepages/alice").returncode != 0
    assert bob.run("touch /dev/hugepages/bob/x && rm /dev/hugepages/bob/x").returncode == 0
    alice.out("virsh -q -c qemu:///session destroy mine")


def test_it_is_back_after_a_reboot_and_can_be_taken_back(host: rig.Host) -> None:
    fresh = state(host)
    alice = User(host, "alice")
    uid = alice.out("id -u")
    pool = {"size": "2M", "path": "/dev/hugepages"}
    tap = {"name": "alice0", "owner": "alice", "multi_queue": True}
    wanted: dict[str, t.Any] = {"users": ["alice"], "memlock": 4096, "cpus": "0", "hugepages": [pool], "taps": [tap]}
    play(host, **wanted)
    host.run(["ip", "link", "delete", "alice0"])  # a host of the rig keeps its network namespace
    host.reboot()
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert alice.opens("/dev/kvm")
    assert alice.out("ulimit -Hl") == "4096"
    assert host.run(["cat", "/sys/class/net/alice0/owner"]).stdout.strip() == uid
    assert host.run(["stat", "-c", "%u %a", "/dev/hugepages/alice"]).stdout.split() == [uid, "700"]
    assert "cpuset" in delegated(host, uid)
    shown = host.run(["systemctl", "show", "-p", "AllowedCPUs", "--value", f"user-{uid}.slice"]).stdout
    assert shown.strip() == "0"
    assert host.run(["systemctl", "is-active", f"user@{uid}.service"]).stdout.strip() == "active", "lingers"
    assert play(host, **wanted).changed == []

    # What runs keeps its limits, and is named.
    alice.define(guests.Guest("old"))
    alice.out("virsh -q -c qemu:///session create old.xml")
    pid = int(host.run(["pgrep", "-u", "alice", "-f", "guest=old,"]).stdout)
    before = ticks(host, pid)
    said = play(host, "--tags=launchers_memlock,launchers_pending", **{**wanted, "memlock": 2048}).text
    assert f"(process {pid} of alice) may lock 4194304 until it is started anew." in said
    assert limit(host, pid) == ("4194304", "4194304")
    assert alice.out("ulimit -Hl") == "2048"

    apply(host, absent=["alice"], hugepages=[pool], taps=[{"name": "alice0", "state": "absent"}])
    assert ticks(host, pid) == before, "the guest runs on"
    assert not alice.opens("/dev/kvm")
    assert alice.out("ulimit -Hl") != "2048"
    assert "cpuset" not in delegated(host, uid)
    alice.run("virsh -q -c qemu:///session destroy old")
    left = set(state(host).splitlines()) - set(fresh.splitlines())
    # What stays: the journal, the mount, what a guest has in the directory, and lingering, for the guests' sake.
    kept = re.compile(r"/var/lib/hypervisor-hardening|/dev/hugepages|/dev-hugepages.mount.d|^alice$")
    assert [line for line in left if not kept.search(line)] == []


def test_an_unknown_user_is_refused_before_anything_is_done(host: rig.Host) -> None:
    before = state(host)
    plays = [{"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_launchers"]}]
    done = playbooks.play(plays, host.inventory, variables={"hypervisor_launchers_users": ["mallory"]})
    assert (done.rc, len(done.failed)) == (2, 1)
    assert "mallory" in done.text
    assert state(host) == before
