# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_confinement_info on real guests: a confined one, one made weak in each way, and what only looks like one."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import time
import typing as t

import pytest
import rig
import yaml
from rig import guests, modules, playbooks

from ansible_collections.hypervisor.hardening.plugins.modules import guest_confinement_info

CONF = "/etc/libvirt/qemu.conf"
STRONG = "max_core = 0\n"
QEMU = "/usr/bin/qemu-system-x86_64"
# This kernel may have AppArmor or not, and a container may have leave to use it or not: tests of their own.
OF_THE_KERNEL = {"no_mac", "mac_not_enforced"}
# Its guests have no cgroup of the daemon's making, whatever qemu.conf says.
UNMANAGED = {"host_mount_namespace", "host_dev", "no_device_cgroup"}
ENOUGH = 100


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.put("/root/qemu.conf", fresh.get(CONF), mode=0o600)
        fresh.run(["useradd", "--create-home", "bob"])
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    try:
        yield machine
    finally:
        guests.stop_all(machine)


def configure(host: rig.Host, text: str = "") -> None:
    """Debian's qemu.conf with these lines before it (the first of a key counts), loaded."""
    own = {line.partition(" ")[0] for line in text.splitlines()}
    strong = "".join(line + "\n" for line in STRONG.splitlines() if line.partition(" ")[0] not in own)
    wanted = (text + strong).encode() + host.get("/root/qemu.conf")
    if host.get(CONF) == wanted:
        return
    host.put(CONF, wanted, mode=0o600)
    host.run(["systemctl", "reset-failed", "libvirtd"])
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")


def look(host: rig.Host) -> list[dict[str, t.Any]]:
    result = modules.call(host, "guest_confinement_info")
    assert "failed" not in result, result
    assert result["changed"] is False
    found: list[dict[str, t.Any]] = result["guests"]
    return found


def guest(host: rig.Host, name: str) -> dict[str, t.Any]:
    (found,) = [entry for entry in look(host) if entry["name"] == name]
    return found


def weak(host: rig.Host, name: str) -> dict[str, str]:
    """What was observed of each weakness, less those that are the kernel's."""
    found = {weakness["id"]: weakness["observed"] for weakness in guest(host, name)["weaknesses"]}
    return {key: observed for key, observed in found.items() if key not in OF_THE_KERNEL}


def test_the_examples_run(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("web"))
    host.put(CONF, host.get(CONF) + b"\nkeepalive_count = 7\n", mode=0o600)
    done = playbooks.play(
        [{"hosts": host.name, "gather_facts": False, "tasks": yaml.safe_load(guest_confinement_info.EXAMPLES)}],
        host.inventory,
    )
    assert done.rc == 0, done.text
    assert [result["msg"] for result in done.results("ansible.builtin.debug")] == [["web"]]


def inside(host: rig.Host, pid: int, *command: str) -> None:
    """Run a command in the mount namespace of a guest."""
    host.run(["nsenter", "-t", str(pid), "-m", *command])


def test_a_confined_guest(host: rig.Host) -> None:
    configure(host)
    pid = guests.start(host, guests.Guest("web", uuid="3f77186c-5d70-46fe-8543-411ebb6bdde8"))
    found = guest(host, "web")
    assert weak(host, "web") == {}
    status = guests.status(host, pid)
    assert (found["pid"], found["managed_by"]) == (pid, "libvirt")
    assert found["uuid"] == "3f77186c-5d70-46fe-8543-411ebb6bdde8"
    # 64055 is the number that Debian's postinst gives libvirt-qemu.
    assert (found["uid"], found["uids"]) == (64055, dict.fromkeys(("real", "effective", "saved", "filesystem"), 64055))
    assert (found["cap_eff"], found["cap_prm"], found["no_new_privs"]) == ("0" * 16, "0" * 16, True)
    own = int(guests.status(host, int(host.run(["cat", "/run/libvirtd.pid"]).stdout))["Seccomp_filters"])
    assert found["seccomp"] == {"mode": 2, "filters": own + 1} == {"mode": 2, "filters": int(status["Seccomp_filters"])}
    link = host.run(["readlink", f"/proc/{pid}/ns/mnt"]).stdout.strip()
    assert found["mount_namespace"] == {"id": link, "private": True}
    assert (found["private_dev"], found["propagation"]) == (True, "slave")
    # libvirt's qemu_cgroup.c, defaultDeviceACL; userfaultfd where the kernel has it (10.1 and later)
    names = {node["path"].removeprefix("/dev/") for node in found["dev"]}
    assert names - {"userfaultfd"} == {"null", "full", "zero", "random", "urandom", "ptmx", "kvm"}
    (null,) = [node for node in found["dev"] if node["path"] == "/dev/null"]
    assert null == {
        "path": "/dev/null", "type": "char", "device": "1:3", "owner": 0, "group": 0, "mode": "0666", "unexpected": ""
    }  # fmt: skip
    assert found["cgroup"]["path"].startswith("/machine.slice/machine-qemu")
    assert len(found["cgroup"]["device_rules"]) == 1, "libvirt attaches one BPF program"
    assert found["limits"]["core"] == {"soft": 0, "hard": 0}
    assert found["core_dump"] == {"filter": "00000033", "guest_memory": False}
    assert (found["binary"], found["binary_deleted"], found["helpers"]) == (QEMU, False, [])
    assert abs(found["start_time"] - time.time()) < ENOUGH


def test_mandatory_access_control_is_the_kernels(host: rig.Host) -> None:
    pid = guests.start(host, guests.Guest("web"))
    label = host.run(["cat", f"/proc/{pid}/attr/current"], check=False)
    found = guest(host, "web")
    observed = {weakness["id"]: weakness["observed"] for weakness in found["weaknesses"]}
    if "libvirt-" in label.stdout:
        assert found["label"]["value"] == f"libvirt-{found['uuid']}"
        assert ("mac_not_enforced" in observed) is ("(enforce)" not in label.stdout)
    elif label.returncode == 0 and label.stdout.strip("\0\n"):
        assert "profile" in observed["no_mac"]
    else:
        assert observed["no_mac"] == "this kernel has no mandatory access control"
        assert found["label"] == {"model": "", "value": "", "mode": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'user = "root"\ngroup = "root"\n',
            {"runs_as_root": "real uid, effective uid, saved uid, filesystem uid, real gid", "capabilities": " (4"},
        ),
        ("seccomp_sandbox = 0\n", {"no_seccomp": "mode 0 (disabled)", "new_privileges": "NoNewPrivs 0"}),
        ("namespaces = []\n", {"host_mount_namespace": "in which the host, libvirt", "host_dev": "the host's /dev"}),
        ('cgroup_controllers = [ "cpu", "memory" ]\n', {"no_device_cgroup": "no device filter on /"}),
        ('max_core = "unlimited"\n', {"core_dumps": "core file size unlimited, without the guest's memory"}),
        ("max_core = 4096\ndump_guest_core = 1\n", {"core_dumps": "size 4096 bytes, with the guest's memory"}),
    ],
)  # fmt: skip
def test_weak_by_configuration(host: rig.Host, text: str, expected: dict[str, str]) -> None:
    configure(host, text)
    guests.start(host, guests.Guest("weak"))
    observed = weak(host, "weak")
    assert set(observed) == set(expected)
    for name, part in expected.items():
        assert part in observed[name]


def test_a_root_that_was_private_when_the_guest_started(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("before"))
    host.run(["mount", "--make-rprivate", "/"])
    try:
        guests.start(host, guests.Guest("private"))
    finally:
        host.run(["mount", "--make-rshared", "/"])
    guests.start(host, guests.Guest("shared"))
    assert weak(host, "private") == {"no_mount_propagation": "/ is private"}
    assert weak(host, "shared") == {}
    # A slave whose last peer has become private has no master any more (mount_namespaces(7)).
    assert weak(host, "before") == {"no_mount_propagation": "/ is private"}


def test_a_configuration_that_a_guest_does_not_have(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("early"))
    assert weak(host, "early") == {}
    host.put(CONF, host.get(CONF) + b"\nkeepalive_count = 7\n", mode=0o600)
    (weakness,) = [entry for entry in guest(host, "early")["weaknesses"] if entry["id"] == "older_than_configuration"]
    assert "restart the daemon first" in weakness["expected"]
    time.sleep(0.05)  # a start within the tick of the change counts as before it
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    guests.start(host, guests.Guest("late"))
    assert set(weak(host, "early")) == {"older_than_configuration"}
    assert weak(host, "late") == {}


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_a_binary_that_is_gone(host: rig.Host, how: str) -> None:
    configure(host)
    copy = f"{QEMU}-copy"  # beside the original, where QEMU finds its modules
    host.run(["cp", QEMU, copy])
    guests.start(host, guests.Guest("old", extra_devices=[f"<emulator>{copy}</emulator>"]))
    assert weak(host, "old") == {}
    if how == "replaced":
        host.run(["cp", QEMU, f"{copy}.new"])
        host.run(["mv", f"{copy}.new", copy])
    else:
        host.run(["rm", copy])
    assert weak(host, "old") == {"deleted_binary": f"{copy} was deleted or replaced"}
    assert guest(host, "old")["binary_deleted"] is True


def test_nodes_that_nobody_gave(host: rig.Host) -> None:
    configure(host)
    pid = guests.start(host, guests.Guest("more"))
    inside(host, pid, "mknod", "-m", "0660", "/dev/disk", "b", "254", "0")
    assert weak(host, "more") == {
        "unexpected_device": "/dev/disk (block 254:0: neither in the device list nor in the guest's definition)"
    }
    inside(host, pid, "sh", "-c", "rm /dev/disk /dev/zero && mknod -m 0666 /dev/zero c 1 1")
    assert weak(host, "more") == {"unexpected_device": "/dev/zero (char 1:1: the host's is char 1:5)"}
    inside(host, pid, "sh", "-c", "rm /dev/zero && chmod 0666 /dev/kvm")
    mode = host.run(["stat", "-c", "%a", "/dev/kvm"]).stdout.strip()
    reason = f"/dev/kvm (char 10:232: mode 0666, the host's has 0{mode})"
    assert weak(host, "more") == ({} if mode == "666" else {"unexpected_device": reason})
    inside(host, pid, "sh", "-c", f"chmod 0{mode} /dev/kvm; chown 1234 /dev/null; mkdir -p /dev/a/b; mkfifo /dev/a/b/c")
    assert weak(host, "more") == {"unexpected_device": "/dev/null (char 1:3: owned by uid 1234, the host's by 0)"}
    assert [node["type"] for node in guest(host, "more")["dev"] if node["path"] == "/dev/a/b/c"] == ["fifo"]


def test_a_dev_full_of_nodes(host: rig.Host) -> None:
    configure(host)
    pid = guests.start(host, guests.Guest("full"))
    # Twenty nodes at a time: one command for each would take longer than the rest.
    script = "i=0; while [ $i -lt 1100 ]; do echo /dev/n$i; i=$((i+1)); done | xargs -n 20 mkfifo"
    inside(host, pid, "sh", "-c", script)
    found = guest(host, "full")
    assert found["dev_incomplete"] == "it has more than 1024 entries"
    assert len(found["dev"]) <= 1024
    assert "not all of it was looked at" in weak(host, "full")["unexpected_device"]


@pytest.fixture
def block_device(host: rig.Host) -> t.Iterator[str]:
    """A block device of the machine's, lent to the host: a loop device over a file."""
    host.run(["sh", "-c", "[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237"])
    host.run(["truncate", "-s", "4M", "/var/tmp/disk.img"])
    host.run(
        ["sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do [ -e /dev/loop$i ] || mknod -m 0660 /dev/loop$i b 7 $i; done"]
    )
    device = host.run(["losetup", "--find", "--show", "/var/tmp/disk.img"]).stdout.strip()
    try:
        yield device
    finally:
        guests.stop_all(host)
        host.run(["losetup", "--detach", device])


def test_nodes_that_the_definition_gives(host: rig.Host, block_device: str) -> None:
    configure(host)
    host.run(["mkdir", "-p", "/dev/disk/by-id"])
    host.run(["ln", "-sf", f"../..{block_device.removeprefix('/dev')}", "/dev/disk/by-id/own"])
    host.run(["sh", "-c", "[ -e /dev/own-rng ] || mknod -m 0666 /dev/own-rng c 1 9"])
    disk = (
        "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/disk/by-id/own'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    rng = "<rng model='virtio'><backend model='random'>/dev/own-rng</backend></rng>"
    guests.start(host, guests.Guest("given", extra_devices=[disk, rng]))
    assert weak(host, "given") == {}
    nodes = {node["path"]: node for node in guest(host, "given")["dev"]}
    assert nodes["/dev/disk/by-id/own"]["type"] == "symlink"
    assert (nodes[block_device]["type"], nodes[block_device]["owner"]) == ("block", 64055)
    assert nodes["/dev/own-rng"]["device"] == "1:9"
    # Once the definition cannot be read, nothing explains them.
    host.run(["mv", "/run/libvirt/qemu/given.xml", "/run/libvirt/qemu/given.xml.aside"])
    assert block_device in weak(host, "given").get("unexpected_device", "")
    host.run(["mv", "/run/libvirt/qemu/given.xml.aside", "/run/libvirt/qemu/given.xml"])


def test_a_shorter_device_list(host: rig.Host) -> None:
    configure(host, 'cgroup_device_acl = [ "/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom" ]\n')
    guests.start(host, guests.Guest("short"))
    assert weak(host, "short") == {}
    assert "/dev/kvm" not in [node["path"] for node in guest(host, "short")["dev"]]


def test_helpers(host: rig.Host) -> None:
    configure(host)
    tpm = "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"
    share = "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='x'/></filesystem>"
    memory = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    guests.start(host, guests.Guest("plain"))
    guests.start(host, guests.Guest("helped", extra_devices=[tpm, share], extra=[memory]))
    assert guest(host, "plain")["helpers"] == []
    helpers = guest(host, "helped")["helpers"]
    assert [helper["name"] for helper in sorted(helpers, key=lambda helper: str(helper["name"]))] == [
        "swtpm", "virtiofsd", "virtiofsd"
    ]  # fmt: skip
    for helper in helpers:
        status = guests.status(host, helper["pid"])
        assert (str(helper["uid"]), helper["cap_eff"]) == (status["Uid"].split()[1], status["CapEff"])
        assert helper["seccomp"]["mode"] == int(status["Seccomp"])


def test_leftovers_of_a_start_that_broke_off(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("web"))
    host.put("/run/broken.xml", guests.Guest("broken").xml().encode())
    # The child that builds a guest's /dev dies at the last mount that it moves.
    script = """
    strace -f -qq -o /dev/null -p $(cat /run/libvirtd.pid) -e trace=mount -e inject=mount:signal=KILL:when=6 &
    sleep 1
    virsh create /run/broken.xml
    status=$?
    kill $!
    wait
    [ $status -ne 0 ]
    """
    host.run(["sh", "-c", script])
    names = [name for name in host.run(["ls", "/run/libvirt/qemu"]).stdout.split() if "-broken." in name]
    assert len(names) > 1, names
    assert modules.call(host, "guest_confinement_info")["leftovers"] == [], "a start that goes on looks the same"
    paths = [f"/run/libvirt/qemu/{name}" for name in names]
    host.run(["touch", "-d", "5 minutes ago", *paths])
    assert modules.call(host, "guest_confinement_info")["leftovers"] == sorted(paths)
    host.run(["rmdir", *paths])
    assert weak(host, "web") == {}


@contextlib.contextmanager
def process(host: rig.Host, *argv: str) -> collections.abc.Iterator[int]:
    """A process on the host while the block lasts."""
    unit = "rig-process"
    host.run(["systemd-run", "--quiet", f"--unit={unit}", "--property=KillMode=process", *argv])
    time.sleep(0.5)
    try:
        yield int(host.run(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout)
    finally:
        host.run(["systemctl", "stop", unit], check=False)
        host.run(["systemctl", "reset-failed", unit], check=False)


def test_a_qemu_without_libvirt(host: rig.Host) -> None:
    words = [QEMU, "-name", "solo", "-M", "pc", "-accel", "tcg", "-display", "none", "-S", "-nodefaults"]
    with process(host, *words) as pid:
        found = guest(host, "solo")
        assert (found["pid"], found["managed_by"], found["short_name"], found["uuid"]) == (pid, "other", "", "")
        assert set(weak(host, "solo")) >= UNMANAGED - {"no_device_cgroup"} | {
            "runs_as_root", "capabilities", "new_privileges", "no_seccomp"
        }  # fmt: skip
        assert "older_than_configuration" not in weak(host, "solo")
        assert found["core_dump"]["guest_memory"] is True


def test_what_is_called_qemu_and_is_none(host: rig.Host) -> None:
    with process(host, "bash", "-c", "exec -a qemu-system-x86_64 sleep 600"):
        names = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'"]).stdout
        assert "qemu-system-x86_64" in names
        assert look(host) == []


def test_libvirts_questions_to_qemu_are_no_guests(host: rig.Host) -> None:
    """The very command that libvirt runs, found by an emulator that writes down how it is called."""
    spy = '#!/bin/sh\nprintf "%s\\n" "$@" >>/run/asked; echo >>/run/asked\nexec ' + QEMU + ' "$@"\n'
    host.put("/usr/local/bin/qemu-spy", spy.encode(), mode=0o755)
    host.run(["sh", "-c", "rm -rf /run/asked /var/cache/libvirt/qemu/capabilities"])
    guests.virsh(host, "domcapabilities", "--emulatorbin", "/usr/local/bin/qemu-spy", "--virttype", "qemu")
    asked = host.get("/run/asked").decode().split("\n\n")[0].split("\n")
    (directory,) = {str(pathlib.PurePosixPath(word).parent) for word in asked if word.endswith("/qmp.pid")}
    host.run(["mkdir", directory])
    host.run([QEMU, *asked])
    pid = host.run(["cat", f"{directory}/qmp.pid"]).stdout.strip()
    try:
        assert host.run(["readlink", f"/proc/{pid}/exe"]).stdout.strip() == QEMU
        assert look(host) == []
    finally:
        host.run(["sh", "-c", f"kill {pid}; rm -rf {directory}"])


def test_a_users_own_libvirt(host: rig.Host) -> None:
    configure(host)
    uid = host.run(["id", "-u", "bob"]).stdout.strip()
    session = ["runuser", "-u", "bob", "--", "env", f"XDG_RUNTIME_DIR=/run/user/{uid}", "HOME=/home/bob",
               "virsh", "-c", "qemu:///session"]  # fmt: skip
    xml = guests.Guest("mine").xml().replace("/var/log/libvirt/qemu", "/home/bob")
    host.put("/run/mine.xml", xml.encode())
    host.run(["install", "-d", "-o", "bob", "-m", "0700", f"/run/user/{uid}"])
    host.run([*session, "create", "/run/mine.xml"])
    try:
        found = guest(host, "mine")
        assert (found["managed_by"], found["uid"]) == ("libvirt-session", int(uid))
        assert (found["cap_eff"], found["no_new_privs"], found["seccomp"]["mode"]) == ("0" * 16, True, 2)
        # What an unprivileged libvirt has no right to make.
        assert set(weak(host, "mine")) - {"core_dumps"} == UNMANAGED
    finally:
        host.run([*session, "destroy", "mine"])


def test_root_in_a_user_namespace_is_not_the_hosts(host: rig.Host) -> None:
    words = ["-name", "rootless", "-M", "pc", "-accel", "tcg", "-display", "none", "-S", "-nodefaults"]
    with process(host, "runuser", "-u", "bob", "--", "unshare", "--user", "--map-root-user", QEMU, *words):
        found = guest(host, "rootless")
        assert found["user_namespace"]["private"] is True
        assert int(found["cap_eff"], 16) > 0
        assert found["uid"] == int(host.run(["id", "-u", "bob"]).stdout)
        assert {"runs_as_root", "capabilities"}.isdisjoint(weak(host, "rootless"))


@pytest.mark.parametrize("state", ["down", "stopped by SIGSTOP"])
def test_the_daemon_is_not_needed(host: rig.Host, state: str) -> None:
    configure(host)
    guests.start(host, guests.Guest("web"))
    before = look(host)
    daemon = host.run(["cat", "/run/libvirtd.pid"]).stdout.strip()
    if state == "down":
        host.run(["systemctl", "stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"])
    else:
        host.run(["kill", "-STOP", daemon])
    try:
        begun = time.monotonic()
        assert look(host) == before
        assert time.monotonic() - begun < 5
    finally:
        if state == "down":
            host.run(["systemctl", "start", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"])
        else:
            host.run(["kill", "-CONT", daemon])
    assert guests.running(host) == ["web"]


def test_guests_that_come_and_go(host: rig.Host) -> None:
    configure(host)
    guests.start(host, guests.Guest("stays"))
    host.run(["cp", "/bin/sleep", "/run/qemu-system-x86_64"])
    churn = "while :; do for i in 1 2 3 4 5 6 7 8; do /run/qemu-system-x86_64 0.0$i & done; wait; done"
    with process(host, "bash", "-c", churn):
        seen: list[list[dict[str, t.Any]]] = []
        # A busy machine takes longer to meet one.
        while len(seen) < ENOUGH // 10 or (len(seen) < ENOUGH and all(len(found) == 1 for found in seen)):
            seen.append(look(host))
    assert all("stays" in [entry["name"] for entry in found] for found in seen)
    assert any(len(found) > 1 for found in seen), "none of the short-lived ones was met"


def test_no_guest_is_touched(host: rig.Host) -> None:
    configure(host)
    pid = guests.start(host, guests.Guest("web"))
    fields = host.run(["cat", f"/proc/{pid}/stat"]).stdout.rpartition(")")[2].split()
    mounts = host.run(["cat", f"/proc/{pid}/mountinfo"]).stdout
    look(host)
    after = host.run(["cat", f"/proc/{pid}/stat"]).stdout.rpartition(")")[2].split()
    assert (fields[19], fields[0] in "RS") == (after[19], after[0] in "RS")
    assert host.run(["cat", f"/proc/{pid}/mountinfo"]).stdout == mounts
    assert guests.virsh(host, "domstate", "web") == "running"
