# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig itself: its hosts are real hypervisors, and the machine is afterwards what it was before."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

import pytest
import rig
from rig import _base, _cgroups, _image, _recipe, _registry, guests, playbooks

RIG = [sys.executable, os.fspath(pathlib.Path(rig.__file__).parent)]
SCOPE = "rigtest"
# Debian's postinst of libvirt-daemon-system gives libvirt-qemu this number.
LIBVIRT_QEMU = "64055"
# linux/bpf.h
BPF_PROG_QUERY, BPF_CGROUP_DEVICE = 16, 6
SYS_BPF = 321


@pytest.fixture(autouse=True)
def own_scope(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    monkeypatch.setenv("HYPERVISOR_RIG_SCOPE", SCOPE)
    yield
    for name in rig.names():
        rig.down(name, missing_ok=True)


@pytest.fixture
def before() -> rig.Snapshot:
    """The machine before a test. What all hosts share is part of it unless others keep hosts up."""
    for release in _recipe.RELEASES:
        rig.build(release)
    deadline = time.monotonic() + 5
    while _registry.scopes_up() - {SCOPE} and time.monotonic() < deadline:
        time.sleep(1)
    return rig.snapshot(SCOPE)


TAKE_A_LOOP_DEVICE = """
truncate --size 1M /var/tmp/loop
[ -e /dev/loop-control ] || mknod -m 600 /dev/loop-control c 10 237
loop=$(losetup --find)
loop=${loop%% *}  # it adds (lost) where the node is not there
[ -e $loop ] || mknod -m 600 $loop b 7 ${loop#/dev/loop}
losetup $loop /var/tmp/loop
"""


def begin(*words: str, cache: pathlib.Path | None = None) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if cache:
        # As where pam_tmpdir or a runner of tests has chosen a place that no image has.
        temporary = cache / "temporary"
        temporary.mkdir(exist_ok=True)
        environment |= {"HYPERVISOR_RIG_CACHE": os.fspath(cache), "TMPDIR": os.fspath(temporary)}
    return subprocess.Popen(
        [*RIG, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def command(*words: str) -> str:
    process = begin(*words)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    return said


def device_programs(group: pathlib.Path) -> int:
    """How many BPF programs decide on the devices of a cgroup (bpf(2))."""
    descriptor = os.open(group, os.O_RDONLY)
    try:
        # target_fd, attach_type, query_flags, attach_flags, prog_ids (64 bits), prog_cnt, and room to grow
        attributes = (ctypes.c_uint32 * 16)(descriptor, BPF_CGROUP_DEVICE, 0, 0, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        # ENOSPC only says that there was no room for the programs' numbers.
        libc.syscall(SYS_BPF, BPF_PROG_QUERY, ctypes.byref(attributes), ctypes.sizeof(attributes))
        return attributes[6]
    finally:
        os.close(descriptor)


def unified_path(text: str) -> str:
    """The cgroup v2 path in the text of /proc/PID/cgroup, without its first slash."""
    return next(line for line in text.splitlines() if line.startswith("0::")).removeprefix("0::/")


def outer_cgroup(host: rig.Host, process: int) -> pathlib.Path:
    """The cgroup of a process of the host, as the machine sees it."""
    init = unified_path(pathlib.Path(f"/proc/{host.pid1}/cgroup").read_text(encoding="utf-8"))
    inside = unified_path(host.run(["cat", f"/proc/{process}/cgroup"]).stdout)
    return _cgroups.unified() / init.removesuffix("init.scope") / inside


def test_two_hosts_with_confined_guests_and_the_machine_as_before(before: rig.Snapshot) -> None:
    begun = time.monotonic()
    versions = []
    for name, release in (("h12", "bookworm"), ("h13", "trixie")):
        command("up", name, "--release", release)
        host = rig.get(name)
        versions.append(guests.virsh(host, "version", "--daemon").split("Running against daemon: ")[1])

        pid = guests.start(host, guests.Guest("g1", max_memory_mib=512))
        inside, init = guests.status(host, pid), guests.status(host, 1)
        assert (init["Seccomp"], init["Seccomp_filters"]) == ("0", "0"), "a filter of the rig's own would prove nothing"
        assert (inside["Seccomp"], inside["Seccomp_filters"]) == ("2", "1")
        assert inside["Uid"].split() == [LIBVIRT_QEMU] * 4
        assert inside["CapEff"] == "0000000000000000"
        assert inside["NoNewPrivs"] == "1"
        namespaces = host.run(["readlink", "/proc/1/ns/mnt", f"/proc/{pid}/ns/mnt"]).stdout.split()
        assert namespaces[0] != namespaces[1]
        group = outer_cgroup(host, pid)
        assert "machine.slice" in group.parts, "a guest without a cgroup of its own has no device filter"
        assert device_programs(group) + device_programs(group.parent) > 0
        guests.attach(host, "g1", guests.dimm(128))
        assert guests.running(host) == ["g1"]

    one, other = rig.get("h12"), rig.get("h13")
    assert [version[:2] for version in versions] == ["9.", "11"]
    assert one.ssh(["hostname"]).stdout == "h12\n"
    assert one.run(["cat", "/etc/machine-id"]).stdout != other.run(["cat", "/etc/machine-id"]).stdout
    for here, there in ((one, other), (other, one)):
        greeting = here.run(["bash", "-c", f"head -c4 < /dev/tcp/{there.name}/22"])
        assert greeting.stdout == "SSH-", "hosts reach each other by name"

    # What belongs to the machine, changed on purpose: it has to come back.
    pages = int(pathlib.Path("/proc/sys/vm/nr_hugepages").read_text(encoding="ascii"))
    one.run(["sysctl", "-q", "-w", "vm.swappiness=11", f"vm.nr_hugepages={pages + 8}"])
    other.run(["sh", "-ec", TAKE_A_LOOP_DEVICE])

    command("down", "--all")
    assert rig.differences(before, rig.snapshot(SCOPE)) == []
    print(f"two hosts, two guests and back in {time.monotonic() - begun:.1f} s")


def test_a_guest_with_linux_sees_memory_come(before: rig.Snapshot) -> None:
    with rig.host("bookworm") as host:
        image = guests.disk(host, "/var/lib/libvirt/images/l1.img")
        guests.start(host, guests.linux("l1", "rig.write", "rig.dirty=4", disks=[image], max_memory_mib=512))
        guests.wait_for_console(host, "l1", "rig: wrote 3")
        memory = memory_kib(host)
        guests.attach(host, "l1", guests.dimm(128))
        _base.wait_for("the guest to use its new memory", lambda: memory_kib(host) == memory + 128 * 1024, patience=60)
        assert host.get(image)[512:528] == b"%016d" % 1
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


def memory_kib(host: rig.Host) -> int:
    said = guests.console(host, "l1").rpartition("MemTotal:")[2].split()
    return int(said[0]) if len(said) > 1 else 0


def test_the_disk_and_the_guests_cgroup_survive_a_reboot() -> None:
    with rig.host("trixie") as host:
        boot = host.pid1
        host.put("/etc/kept", b"kept\n", mode=0o600)
        host.reboot()
        assert host.pid1 != boot
        assert host.run(["stat", "-c", "%a %s", "/etc/kept"]).stdout == "600 5\n"
        pid = guests.start(host, guests.Guest("g1"))
        assert "machine.slice" in outer_cgroup(host, pid).parts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.6])
def test_a_broken_off_up_leaves_nothing(before: rig.Snapshot, number: int, seconds: float) -> None:
    process = begin("up", "broken", "--release", "bookworm")
    time.sleep(seconds)
    if process.poll() is not None:
        pytest.fail(f"too fast to be broken off: {process.communicate()[0]}")
    process.send_signal(number)
    said = process.communicate(timeout=30)[0]
    if number == signal.SIGKILL:
        assert process.returncode == -number
        # Nobody was left to clean up: the next command does, whichever it is.
        command("list")
    else:
        assert process.returncode == 130, said
    # A killed supervisor's host goes by the death of its init, a moment later.
    _base.wait_for("its processes to go", lambda: not rig.snapshot(SCOPE)["processes"], patience=10)
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


def test_a_host_goes_with_the_process_that_wanted_it(before: rig.Snapshot) -> None:
    code = "import rig, time\nwith rig.host('bookworm', 'owned') as host:\n print('up', flush=True)\n time.sleep(60)\n"
    environment = {**os.environ, "PYTHONPATH": os.fspath(pathlib.Path(rig.__file__).parent.parent)}
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    assert rig.get("owned").run(["true"]).returncode == 0
    owner.kill()
    owner.communicate()
    rig.reap()
    assert rig.names() == []
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_play_that_is_interrupted_ends_and_says_so(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    inventory = tmp_path / "hosts"
    inventory.write_text("localhost ansible_connection=local\n")
    task = {"ansible.builtin.pause": {"seconds": 60}}
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    timer = threading.Timer(4, os.kill, (os.getpid(), number))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        playbooks.play([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}], inventory)
    assert time.monotonic() - begun < 20
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    _base.wait_for("the playbook to go", lambda: not command_lines(os.fspath(inventory)), patience=5)


def command_lines(part: str) -> list[str]:
    """Those of all processes that hold ``part``."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            text = path.read_text(encoding="utf-8", errors="replace")
            found += [text] if part in text else []
    return found


def test_a_taken_name_is_refused_and_its_host_stays() -> None:
    with rig.host("bookworm", "taken") as host:
        with pytest.raises(rig.RigError, match="is up already"), rig.host("trixie", "taken"):
            raise AssertionError("two hosts have one name")
        assert rig.get("taken").pid1 == host.pid1
        assert host.run(["true"]).returncode == 0


def test_a_killed_build_is_repaired_by_the_next(before: rig.Snapshot) -> None:
    moment = random.uniform(1.0, 20.0)
    cache = pathlib.Path(tempfile.mkdtemp(prefix="rebuild-", dir=_base.cache_dir()))
    try:
        # Its own cache, which begins with the packages of the real one.
        shutil.copytree(_base.cache_dir() / "debs/bookworm", cache / "debs/bookworm", copy_function=os.link)
        process = begin("build", "bookworm", cache=cache)
        time.sleep(moment)
        process.kill()
        process.wait()
        _base.wait_for("its processes to go", lambda: not processes_of(cache), patience=5)
        process.communicate()
        assert not list(cache.glob("images/*")), f"half an image after {moment:.1f} s"
        assert len(list(cache.glob("building/*"))) == 1
        assert rig.differences(before, rig.snapshot(SCOPE)) == []

        both = [begin("build", "bookworm", cache=cache) for _build in range(2)]
        said = [process.communicate(timeout=300)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], f"killed after {moment:.1f} s\n" + "\n".join(said)
        assert "removing what a broken-off build left" in "".join(said)
        assert "".join(said).count("is built") == 1, "the second one waits for the first and finds its image"
        assert not list(cache.glob("building/*"))
        real = _image.image_dir("bookworm")
        again = cache / "images" / real.name
        facts = [json.loads((place / "image.json").read_text(encoding="utf-8")) for place in (real, again)]
        assert facts[0] == facts[1]
        print(f"killed after {moment:.1f} s")

        cleaning = begin("clean", cache=cache)
        assert "MB freed" in cleaning.communicate(timeout=60)[0]
        assert not cache.exists()
    finally:
        _base.remove_tree(cache)
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


def processes_of(cache: pathlib.Path) -> list[str]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            root = os.readlink(path / "root")
        except OSError:
            continue
        if os.fspath(cache) in words or os.fspath(cache) in root:
            found.append(words)
    return found


# Runs on a host of the rig, whose PID 1 is systemd on cgroup v2, and has a host of its own there.
NESTED = b"""
import json, pathlib, sys
sys.path.insert(0, "/root/tests")
import rig
from rig import guests
before = rig.snapshot("main")
host = rig.up("inner", "bookworm")
scope = pathlib.Path(f"/proc/{host.pid1}/cgroup").read_text().splitlines()[-1]
process = guests.start(host, guests.Guest("g1"))
status = guests.status(host, process)
host.run(["sysctl", "-q", "-w", "vm.swappiness=13", "vm.nr_overcommit_hugepages=3"])
changed = rig.differences(before, rig.snapshot("main"))
assert len([line for line in changed if "swappiness" in line or "overcommit_hugepages" in line]) >= 2, changed
host.reboot()
name = host.ssh(["hostname"]).stdout
rig.down("inner")
after = rig.snapshot("main")
guest = [status["Seccomp"], status["Uid"].split()[0]]
print(json.dumps([scope, *guest, name, rig.differences(before, after), list(after)]))
"""


def test_the_rig_works_where_systemd_owns_the_cgroups() -> None:
    real = rig.build("bookworm")
    with rig.host("trixie") as host:
        place = _base.cache_dir()
        # An overlay cannot carry another one.
        host.run(["mkdir", "-p", os.fspath(place)])
        host.run(["mount", "-t", "tmpfs", "-o", "size=3G", "tmpfs", os.fspath(place)])
        for source, target in (
            (real, place / "images"),
            (pathlib.Path(rig.__file__).parent, pathlib.Path("/root/tests")),
        ):
            host.run(["mkdir", "-p", os.fspath(target)])
            _base.run(["cp", "-a", source, f"{host.root}{target}/"])
        host.put("/root/nested.py", NESTED)
        environment = [f"HYPERVISOR_RIG_CACHE={place}", "HYPERVISOR_RIG_SCOPE=main"]
        said = host.ssh(["env", *environment, "python3", "/root/nested.py"], timeout=120).stdout
        scope, seccomp, user, name, differences, compared = json.loads(said.splitlines()[-1])
        assert "/system.slice/hypervisor-rig-main-inner.scope/" in scope
        assert (seccomp, user, name) == ("2", LIBVIRT_QEMU, "inner\n")
        # It is alone on its machine, so the values that hosts share are compared as well.
        assert {"sysctls", "hugepages", "links", "cgroups", "processes"} <= set(compared)
        assert differences == []
        units = host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "hypervisor-rig*"]).stdout
        assert units == ""


def test_what_is_missing_is_said_before_anything_starts() -> None:
    nowhere = {**os.environ, "HYPERVISOR_RIG_CACHE": "/proc/nowhere"}
    check = subprocess.run([*RIG, "check"], env=nowhere, capture_output=True, text=True, check=False)
    assert check.returncode == 1
    assert "disk: /proc/nowhere has 0 MB free" in check.stdout
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups", *RIG, "check"]
    check = subprocess.run(as_nobody, capture_output=True, text=True, check=False)
    assert check.returncode == 1
    assert "user: root is needed" in check.stdout
