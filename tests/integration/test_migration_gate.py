# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""migration_gate in front of real live migrations: what it refuses, what it lets through, and what it never touches."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
import typing as t

import pytest
import rig
from rig import guests, migration, modules

QEMU = (64055, 64055)
ROOT = (0, 0)
CONF = "/etc/libvirt/qemu.conf"
HOOKS = "/etc/libvirt/hooks"
HOME = f"{HOOKS}/hypervisor-hardening"
HOOK = f"{HOOKS}/qemu.d/zz-hypervisor-hardening"
# What Debian 12 and 13 have in common, as their libvirt says (virsh capabilities) or its qemu.conf.
AGREED: dict[str, t.Any] = {
    "qemu_uid": 64055,
    "qemu_gid": 64055,
    "dynamic_ownership": True,
    "remember_owner": True,
    "security_models": ["dac"],
    "namespaces": ["mount"],
    "seccomp_sandbox": True,
    "cgroup_controllers": ["blkio", "cpu", "cpuacct", "cpuset", "devices", "memory"],
    "cgroup_device_acl": [f"/dev/{name}" for name in ("full", "kvm", "null", "ptmx", "random", "urandom", "zero")],
    "sched_core": "none",
    "max_core": "0",
    "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
    "lock_manager": "nop",
    "migrate_tls_force": False,
    "memfd_create": True,
}
CROWD = 20
# A hook of the operator's: it notes what it was called for, and prints nothing.
OPERATOR = '#!/bin/sh\necho "$0 $*" >> /run/operator.log\ncat > /dev/null\nexit 0\n'
TAKE = """
import socket, time
taken = socket.create_server(("0.0.0.0", {port}))
open("/run/taken", "w").close()
time.sleep(3600)
"""


class Pair(t.NamedTuple):
    """A source, and a destination that has the gate."""

    source: rig.Host
    there: rig.Host


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machines(request: pytest.FixtureRequest) -> t.Iterator[Pair]:
    """The source is of the older release, so that every guest can go to both."""
    with (
        rig.host("bookworm", "gate-source", shared=True) as source,
        rig.host(request.param, "gate-there", shared=True) as there,
    ):
        migration.listen(source)
        migration.listen(there)
        # 11.3 has other defaults for these than 9.0, as one group with both would have to settle.
        acl = "".join(f'"{path}", ' for path in AGREED["cgroup_device_acl"])
        there.put(CONF, f"max_core = 0\ncgroup_device_acl = [ {acl}]\n".encode() + there.get(CONF))
        restart(there)
        yield Pair(source, there)


@pytest.fixture
def pair(machines: Pair) -> t.Iterator[Pair]:
    yield machines
    for host in machines:
        guests.stop_all(host)
    machines.source.run(["sh", "-c", f"rm -f {migration.SHARED}/*"])
    gate(machines.there, state="absent")
    machines.there.run(["sh", "-c", f"rm -rf {HOOKS}/* /run/operator.log"])


def restart(host: rig.Host) -> None:
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")


def gate(host: rig.Host, *, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
    """Run the module; a failure fails the test."""
    answer = modules.call(host, "migration_gate", check_mode=check_mode, **options)
    assert not answer.get("failed"), answer
    return answer


def agreement(**values: t.Any) -> dict[str, t.Any]:
    return {"version": 1, "group": "web", "values": values}


def armed(host: rig.Host, mode: str = "enforce", **values: t.Any) -> dict[str, t.Any]:
    """The module's answer once the daemon knows of the gate."""
    if gate(host, agreement=agreement(**values), mode=mode)["restart_required"]:
        restart(host)
    answer = gate(host, agreement=agreement(**values), mode=mode)
    assert answer["armed"] is True
    assert answer["changed"] is False
    return answer


def start(pair: Pair, name: str, **options: t.Any) -> str:
    """A guest that sits in its firmware, on a shared image; the image."""
    path = guests.disk(pair.source, f"{migration.SHARED}/{name}.img")
    guests.start(pair.source, guests.Guest(name, disks=[path], **options))
    return path


def let_through(pair: Pair, name: str) -> None:
    done = migration.migrate(pair.source, pair.there, name)
    assert done.returncode == 0, done.stderr
    assert name in guests.running(pair.there)


def refused(pair: Pair, name: str) -> str:
    """Our line as the operator's virsh shows it; nothing came, and the guest runs on."""
    done = migration.migrate(pair.source, pair.there, name)
    assert done.returncode != 0, f"{name} was let through"
    assert guests.virsh(pair.source, "domstate", name) == "running"
    assert name not in guests.virsh(pair.there, "list", "--all", "--name").split()
    assert "Hook script execution failed" in done.stderr
    _libvirt, ours, line = done.stderr.partition(f"hypervisor.hardening: {name} may not come to {pair.there.name}: ")
    assert ours, done.stderr
    assert line.strip().count("\n") == 0
    return line.strip()


def log(host: rig.Host) -> str:
    return host.run(["journalctl", "-t", "hypervisor-hardening-gate", "-o", "cat", "--no-pager"], check=False).stdout


@contextlib.contextmanager
def configured(host: rig.Host, *lines: str) -> t.Iterator[None]:
    """A host whose daemon has loaded more lines of qemu.conf, before those that are there: the first one counts."""
    before = host.get(CONF)
    host.put(CONF, "".join(f"{line}\n" for line in lines).encode() + before)
    restart(host)
    try:
        yield
    finally:
        host.put(CONF, before)
        restart(host)


def tree(host: rig.Host, place: str = HOOKS) -> str:
    """Every file below a directory with its type, mode, owner, target or digest, but for what Python keeps."""
    listing = "find . -name __pycache__ -prune -o -printf '%P %y %m %u %g %l\\n' | sort"
    digests = "find . -name __pycache__ -prune -o -type f -print | sort | xargs -r md5sum"
    return host.run(["sh", "-c", f"cd {place} && {listing} && {digests}"]).stdout


def test_the_first_hook_is_ignored_until_the_daemon_restarts(pair: Pair) -> None:
    restart(pair.there)
    before = tree(pair.there)
    planned = gate(pair.there, check_mode=True, agreement=agreement(qemu_uid=1), mode="enforce")
    assert tree(pair.there) == before
    first = gate(pair.there, agreement=agreement(qemu_uid=1), mode="enforce")
    assert planned["changed"] is first["changed"] is True
    assert (first["armed"], first["restart_required"]) == (False, True)
    assert first["restart_units"] == ["libvirtd.service"]
    assert first["hook"] == HOOK
    assert first["mismatches"] == [{"key": "qemu_uid", "agreed": 1, "live": 64055, "reason": ""}]
    start(pair, "early")
    let_through(pair, "early")
    guests.stop(pair.there, "early")

    restart(pair.there)
    second = gate(pair.there, agreement=agreement(qemu_uid=1), mode="enforce")
    assert second["changed"] is False
    assert (second["armed"], second["restart_required"], second["restart_units"]) == (True, False, [])
    start(pair, "late")
    assert refused(pair, "late") == "qemu_uid is 64055 here, agreed is 1."


def test_a_host_as_agreed_lets_guests_through(pair: Pair) -> None:
    assert armed(pair.there, **AGREED)["mismatches"] == []
    path = guests.disk(pair.source, f"{migration.SHARED}/welcome.img")
    guests.start(pair.source, guests.linux("welcome", "rig.write", disks=[path]))
    guests.wait_for_console(pair.source, "welcome", "rig: wrote 5")
    with migration.owners(pair.source, path) as seen:
        let_through(pair, "welcome")
    assert seen[0] == QEMU
    migration.verify_pattern(pair.there, "welcome", path)
    assert "welcome may come: this host is as agreed" in log(pair.there)


def test_a_destination_that_runs_qemu_as_root(pair: Pair) -> None:
    with configured(pair.there, 'user = "root"', 'group = "root"'):
        found = armed(pair.there, **AGREED)
        assert [one["key"] for one in found["mismatches"]] == ["qemu_uid", "qemu_gid"]
        path = guests.disk(pair.source, f"{migration.SHARED}/victim.img")
        guests.start(pair.source, guests.linux("victim", "rig.write", disks=[path]))
        guests.wait_for_console(pair.source, "victim", "rig: wrote 5")

        with migration.owners(pair.source, path) as seen:
            line = refused(pair, "victim")
        assert line == "qemu_uid is 0 here, agreed is 64055; qemu_gid is 0 here, agreed is 64055."
        assert seen == [QEMU]
        migration.verify_pattern(pair.source, "victim", path)

        gate(pair.there, agreement=agreement(**AGREED), mode="warn")
        with migration.owners(pair.source, path) as seen:
            let_through(pair, "victim")
        assert seen[:2] == [QEMU, ROOT]
        assert "victim may not come" in log(pair.there)
        assert "It is let through all the same: the mode is warn." in log(pair.there)
        guests.stop(pair.there, "victim")

        gate(pair.there, agreement=agreement(**AGREED), mode="off")
        start(pair, "unseen")
        before = log(pair.there)
        let_through(pair, "unseen")
        assert log(pair.there) == before
        guests.stop(pair.there, "unseen")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("dynamic_ownership = 0", "dynamic_ownership is off here, agreed is on."),
        ("remember_owner = 0", "remember_owner is off here, agreed is on."),
        ("seccomp_sandbox = 0", "seccomp_sandbox is off here, agreed is on."),
        ("namespaces = []", "namespaces is none here, agreed is mount."),
        ('cgroup_controllers = [ "cpu", "memory" ]', "cgroup_controllers is cpu, memory here, agreed is blkio, cpu,"),
        ('cgroup_device_acl = [ "/dev/null", "/dev/zero" ]', "cgroup_device_acl is /dev/null, /dev/zero here, agreed"),
        ("max_core = 4096", "max_core is 4096 here, agreed is 0."),
        (
            'memory_backing_dir = "/var/tmp"',
            "memory_backing_dir is /var/tmp here, agreed is /var/lib/libvirt/qemu/ram.",
        ),
    ],
)
def test_what_libvirt_does_not_compare(pair: Pair, setting: str, line: str) -> None:
    with configured(pair.there, setting):
        armed(pair.there, **AGREED)
        path = start(pair, "web")
        with migration.owners(pair.source, path) as seen:
            assert refused(pair, "web").startswith(line)
        assert seen == [QEMU]


def test_another_lock_manager(pair: Pair) -> None:
    # That of the agreement is the other one: not each release brings one that the daemon could be told to use.
    armed(pair.there, **{**AGREED, "lock_manager": "lockd"})
    start(pair, "web")
    assert refused(pair, "web").startswith("lock_manager is nop here, agreed is lockd.")


def test_a_file_that_is_newer_than_the_daemon_is_not_known(pair: Pair) -> None:
    armed(pair.there, **AGREED)
    before = pair.there.get(CONF)
    pair.there.put(CONF, b"seccomp_sandbox = 0\n" + before)
    start(pair, "web")
    line = refused(pair, "web")
    assert "seccomp_sandbox is not known here (/etc/libvirt/qemu.conf was changed after libvirtd started" in line
    gate(pair.there, agreement=agreement(**AGREED), mode="warn")
    let_through(pair, "web")
    assert "is not known here" in log(pair.there)
    pair.there.put(CONF, before)
    restart(pair.there)


def test_memfd_create_that_the_daemon_may_not_call(pair: Pair) -> None:
    """A filter of the unit is one of its children's as well, so only the hook sees it, as QEMU would."""
    drop_in = "/etc/systemd/system/libvirtd.service.d/filter.conf"
    pair.there.run(["mkdir", "-p", drop_in.rpartition("/")[0]])
    pair.there.put(drop_in, b"[Service]\nSystemCallFilter=~memfd_create\nSystemCallErrorNumber=EPERM\n")
    pair.there.run(["systemctl", "daemon-reload"])
    try:
        restart(pair.there)
        armed(pair.there, **AGREED)
        start(pair, "web")
        assert refused(pair, "web") == "memfd_create is off here, agreed is on."
    finally:
        pair.there.run(["rm", drop_in])
        # What libvirt has learnt of QEMU meanwhile it keeps: that this QEMU has no memory-backend-memfd.
        pair.there.run(["rm", "-rf", "/var/cache/libvirt/qemu/capabilities"])
        pair.there.run(["systemctl", "daemon-reload"])
        restart(pair.there)


def test_what_the_guest_needs(pair: Pair) -> None:
    armed(pair.there, qemu_uid=64055)
    display = "<graphics type='vnc' port='5999' autoport='no' listen='0.0.0.0'/>"
    path = start(pair, "display", extra_devices=[display])
    pair.there.run(
        ["systemd-run", "--quiet", "--collect", "--unit=taker", "/usr/bin/python3", "-c", TAKE.format(port=5999)]
    )
    pair.there.run(["timeout", "30", "sh", "-c", "until [ -e /run/taken ]; do sleep 0.05; done"])
    with migration.owners(pair.source, path) as seen:
        assert refused(pair, "display") == "port 5999 of its vnc display is taken."
    assert seen == [QEMU]
    pair.there.run(["systemctl", "stop", "taker.service"])
    let_through(pair, "display")

    start(pair, "net", interfaces=[guests.ethernet("web0")])
    pair.there.run(["ip", "tuntap", "add", "dev", "web0", "mode", "tap"])
    assert refused(pair, "net").startswith("network device web0 (stale): It is a persistent TAP")
    assert pair.there.run(["test", "-e", "/sys/class/net/web0"], check=False).returncode == 0, "libvirt took it away"
    pair.there.run(["ip", "link", "delete", "web0"])
    let_through(pair, "net")

    local = guests.disk(pair.source, "/srv/local.img")
    guests.start(pair.source, guests.Guest("local", disks=[local]))
    assert refused(pair, "local") == "/srv/local.img is not there."

    memfd = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    start(pair, "shared", extra=[memfd])
    let_through(pair, "shared")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "The agreement is missing"),
        (b"", "The agreement is no JSON; it may be cut off"),
        (b'{"version": 1, "group": "web", "values": {"qemu_uid"', "The agreement is no JSON; it may be cut off"),
        (b'{"version": 2, "group": "web", "values": {}, "digest": ""}', "The agreement is of version 2"),
        (b'{"version": 1, "group": "web", "values": {"qemu_uid": 0}, "digest": "0"}', "altered after it was made"),
    ],
)
def test_an_agreement_that_cannot_be_used(pair: Pair, content: bytes | None, words: str) -> None:
    path = f"{HOME}/agreement.json"
    armed(pair.there, **AGREED)
    good = pair.there.get(path)

    def spoil() -> None:
        if content is None:
            pair.there.run(["rm", path])
        else:
            pair.there.put(path, content)

    spoil()
    start(pair, "web")
    assert words in refused(pair, "web")
    assert gate(pair.there, agreement=agreement(**AGREED), mode="warn")["changed"] is True
    assert pair.there.get(path) == good
    spoil()
    let_through(pair, "web")
    assert words in log(pair.there)


# tee: a shell expands no pattern after its own ">".
BROKEN = {
    "no code": "rm -rf {home}/gate-*",
    "no modules": "rm {home}/gate-*/hypervisor_hardening/_gate.py",
    "nonsense": "echo 'this is no Python' | tee {home}/gate-*/__main__.py",
    "killed": "printf 'import os\\nos.kill(os.getpid(), 9)\\n' | tee {home}/gate-*/__main__.py",
    "killed on its way": "printf '\\nos.kill(os.getpid(), 9)\\n' | tee -a {home}/gate-*/hypervisor_hardening/_proc.py",
    "no interpreter": "sed -i s,/usr/bin/python3,/usr/bin/python4, {home}/hook",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_gate_hinders_nothing_but_migrations(pair: Pair, how: str) -> None:
    armed(pair.there, **AGREED)
    pair.there.run(["sh", "-c", BROKEN[how].format(home=HOME)])
    process = guests.start(pair.there, guests.Guest("resident"))
    restart(pair.there)
    assert guests.pid(pair.there, "resident") == process, "reconnecting to it failed"
    assert "resident" in guests.running(pair.there)
    guests.virsh(pair.there, "save", "resident", "/run/resident.save")
    guests.virsh(pair.there, "restore", "/run/resident.save")
    guests.virsh(pair.there, "destroy", "resident")

    start(pair, "web")
    done = migration.migrate(pair.source, pair.there, "web")
    assert "hypervisor.hardening: the migration gate of gate-there does not work (status " in done.stderr, done.stderr
    assert guests.virsh(pair.source, "domstate", "web") == "running"
    pair.there.run(["sed", "-i", "s/^mode=enforce/mode=warn/", f"{HOME}/hook"])
    let_through(pair, "web")

    assert gate(pair.there, agreement=agreement(**AGREED), mode="enforce")["changed"] is True
    assert gate(pair.there, agreement=agreement(**AGREED), mode="enforce")["changed"] is False


@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("def live(*words):\n    import time\n    time.sleep(600)", id="while it judges"),
        pytest.param("import time\ntime.sleep(600)", id="before it judges"),
    ],
)
def test_a_gate_that_hangs_is_bounded(pair: Pair, hang: str) -> None:
    armed(pair.there, **AGREED)
    code = pair.there.run(["sh", "-c", f"echo {HOME}/gate-*/hypervisor_hardening/_gatevalues.py"]).stdout.strip()
    pair.there.put(code, pair.there.get(code) + f"\n{hang}\n".encode())
    start(pair, "web")
    begun = time.monotonic()
    done = migration.migrate(pair.source, pair.there, "web")
    assert 1 < time.monotonic() - begun < 60
    assert "came to no judgement: No answer within" in done.stderr or "does not work (status 142" in done.stderr
    assert guests.virsh(pair.source, "domstate", "web") == "running"
    pair.there.run(["sed", "-i", "s/^mode=enforce/mode=warn/", f"{HOME}/hook"])
    let_through(pair, "web")


def test_hooks_of_the_operator_run_as_before(pair: Pair) -> None:
    own = {f"{HOOKS}/qemu": 0o755, f"{HOOKS}/qemu.d/10-own": 0o750, f"{HOOKS}/qemu.d/README": 0o644}
    pair.there.run(["mkdir", "-p", f"{HOOKS}/qemu.d"])
    for path, mode in own.items():
        pair.there.put(path, OPERATOR.encode(), mode=mode)
    restart(pair.there)
    before = tree(pair.there)
    answer = gate(pair.there, agreement=agreement(**AGREED), mode="enforce")
    assert answer["chained"] == [f"{HOOKS}/qemu", f"{HOOKS}/qemu.d/10-own"]
    assert (answer["armed"], answer["restart_required"]) == (True, False), "the daemon found hooks when it started"
    start(pair, "web")
    let_through(pair, "web")
    noted = pair.there.get("/run/operator.log").decode()
    assert f"{HOOKS}/qemu web migrate begin -\n{HOOKS}/qemu.d/10-own web migrate begin -\n" in noted
    gate(pair.there, agreement=agreement(qemu_uid=0), mode="enforce")
    guests.stop(pair.there, "web")
    start(pair, "web")
    assert refused(pair, "web") == "qemu_uid is 64055 here, agreed is 0."

    gone = gate(pair.there, state="absent")
    assert (gone["changed"], gone["hook"], gone["armed"]) == (True, "", False)
    assert tree(pair.there) == before
    assert gate(pair.there, state="absent")["changed"] is False


def test_nothing_is_left_where_nothing_was(pair: Pair) -> None:
    before = tree(pair.there)
    gate(pair.there, agreement=agreement(**AGREED))
    assert tree(pair.there) != before
    gate(pair.there, state="absent")
    assert tree(pair.there) == before


def test_a_read_only_file_system(pair: Pair) -> None:
    before = tree(pair.there)
    pair.there.run(["mount", "--bind", "/etc/libvirt", "/etc/libvirt"])
    pair.there.run(["mount", "-o", "remount,bind,ro", "/etc/libvirt"])
    try:
        answer = modules.call(pair.there, "migration_gate", agreement=agreement(**AGREED))
    finally:
        pair.there.run(["umount", "/etc/libvirt"])
    assert answer["failed"] is True
    assert answer["changed"] is False
    assert "its file system is mounted read-only" in answer["msg"]
    assert tree(pair.there) == before


def test_files_that_others_can_write_are_refused(pair: Pair) -> None:
    gate(pair.there, agreement=agreement(**AGREED))
    pair.there.run(["chmod", "g+w", HOME])
    answer = modules.call(pair.there, "migration_gate", agreement=agreement(**AGREED))
    assert answer["failed"] is True
    assert f"chown root {HOME}; chmod go-w {HOME}" in answer["msg"]
    pair.there.run(["chmod", "g-w", HOME])


def test_twenty_guests_at_once(pair: Pair) -> None:
    armed(pair.there, qemu_uid=0)
    names = [f"crowd{number}" for number in range(CROWD)]
    for name in names:
        start(pair, name)

    def attempt(name: str) -> str:
        return migration.migrate(pair.source, pair.there, name, timeout=480).stderr

    with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
        said = list(pool.map(attempt, names))
    assert [words for words in said if "hypervisor.hardening: " not in words] == []
    assert sorted(guests.running(pair.source)) == sorted(names)
    assert guests.running(pair.there) == []

    gate(pair.there, agreement=agreement(**AGREED), mode="enforce")

    def insist(name: str) -> str:
        """On a machine without time to spare, two seconds can be over before the gate has judged."""
        for _attempt in range(CROWD):
            said = attempt(name)
            if "came to no judgement: No answer within" not in said and "does not work (status 142" not in said:
                return said
        return said

    with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
        assert list(pool.map(insist, names)) == [""] * CROWD
    assert sorted(guests.running(pair.there)) == sorted(names)
