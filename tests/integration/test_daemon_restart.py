# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon_restart on real libvirtd with a real guest: what it refuses and survives, and what is in force afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import typing as t

import pytest
import rig
from rig import guests, modules
from rig.confinement import start_ticks

CONF = "/etc/libvirt/qemu.conf"
UNITS = ("libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")
STATE = "/var/lib/libvirt/qemu"
# The driver makes directories there when it starts. libvirt's own check passes: it makes them elsewhere.
FROZEN = "/srv/frozen"
LOCK = "/var/lib/hypervisor-hardening"
DROP_IN = "/run/systemd/system/libvirtd.service.d/test.conf"
CLEAN = f"""
systemctl stop tracer
chattr -i {STATE} {FROZEN}
rm -rf {FROZEN}
chown -R libvirt-qemu:libvirt-qemu {STATE}
cp -p /root/qemu.conf {CONF}
cp -p /root/libvirtd.conf /etc/libvirt/libvirtd.conf
rm -rf {LOCK} {DROP_IN} /run/held
systemctl unmask libvirtd.service
systemctl daemon-reload
systemctl kill --signal=KILL --kill-who=main libvirtd.service
systemctl reset-failed
systemctl restart libvirtd.service
virsh uri
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.run(["cp", "-p", CONF, "/root/qemu.conf"])
        fresh.run(["cp", "-p", "/etc/libvirt/libvirtd.conf", "/root/libvirtd.conf"])
        fresh.run(["useradd", "--system", "other"])
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    yield machine
    machine.run(["sh", "-c", CLEAN], check=False)
    for name in guests.virsh(machine, "list", "--name").split():
        stop(machine, name)


@pytest.fixture
def guest(host: rig.Host) -> t.Iterator[int]:
    """The pid of a running guest g1, which must be the same process when the test is over."""
    pid = guests.start(host, guests.Guest("g1"))
    ticks = start_ticks(host, pid)
    yield pid
    assert (guests.pid(host, "g1"), start_ticks(host, pid)) == (pid, ticks)


def stop(host: rig.Host, name: str) -> None:
    """libvirt 11.3 takes 30 seconds to end ("Make forcefull daemon shutdown") if it has just destroyed a guest."""
    guests.stop(host, name)
    time.sleep(0.5)


def daemon(host: rig.Host) -> str:
    return host.run(["systemctl", "show", "--property=MainPID", "--value", "libvirtd.service"]).stdout.strip()


def active(host: rig.Host) -> dict[str, str]:
    answer = host.run(["systemctl", "is-active", *UNITS], check=False).stdout.split()
    return dict(zip(UNITS, answer, strict=True))


def restart(host: rig.Host, **options: t.Any) -> dict[str, t.Any]:
    """The module's result, with the seconds it took."""
    begun = time.monotonic()
    result = modules.call(host, "daemon_restart", **options)
    return {**result, "seconds": time.monotonic() - begun}


def configure(host: rig.Host, **settings: t.Any) -> dict[str, t.Any]:
    return modules.call(host, "qemu_conf", settings=settings)


def drop_in(host: rig.Host, text: str) -> None:
    """Something more in the unit of libvirtd."""
    host.run(["mkdir", "-p", DROP_IN.rpartition("/")[0]])
    host.put(DROP_IN, f"[Service]\n{text}\n".encode())
    host.run(["systemctl", "daemon-reload"])


def together(host: rig.Host, count: int) -> list[dict[str, t.Any]]:
    """The results of that many runs at the same time: all have begun before the first of them does anything."""
    words, arguments = modules.prepare(host, "daemon_restart")
    host.put("/run/arguments", arguments)
    runs = f'for n in $(seq {count}); do "$@" </run/arguments >/run/out$n 2>&1 & done; wait'
    with holding(host), subprocess.Popen([*inside(host), "sh", "-c", runs, "runs", *words]) as running:
        waiting = f"ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '{LOCK}$'"
        deadline = time.monotonic() + 60
        # flock and its child hold it, too
        while int(host.run(["sh", "-c", waiting]).stdout) < count + 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        host.run(["pkill", "-x", "flock"])
        host.run(["pkill", "-x", "sleep"])
        running.wait(timeout=120)
    return [json.loads(host.get(f"/run/out{number}")) for number in range(1, count + 1)]


def inside(host: rig.Host) -> list[str]:
    """What a command is begun with to run in the host, as rig.Host.run does it."""
    return ["nsenter", "-t", str(host.pid1), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]


@contextlib.contextmanager
def holding(host: rig.Host) -> t.Iterator[None]:
    """Another run that hangs. (There has been one, so that there is something to hold.)"""
    held = subprocess.Popen([*inside(host), "flock", LOCK, "sleep", "1000"])
    try:
        time.sleep(0.5)
        yield
    finally:
        host.run(["sh", "-c", "pkill -x flock; pkill -x sleep; true"])
        held.wait()


def pending(host: rig.Host) -> tuple[bool, list[str]]:
    """What qemu_conf says of the file as it is."""
    result = configure(host)
    assert result["changed"] is False
    return result["restart_required"], result["guests_pending"]


def edit(host: rig.Host, line: str) -> None:
    host.put(CONF, host.get("/root/qemu.conf") + f"\n{line}\n".encode(), mode=0o600)


def listing(host: rig.Host) -> str:
    """All below /etc/libvirt and /var/lib, with times and content, and the daemon."""
    files = (
        "find /etc/libvirt /var/lib -xdev -printf '%p %m %U %G %l %C@\\n' ; find /etc/libvirt /var/lib -xdev -type f"
    )
    return host.run(["sh", "-c", f"{files} -exec sha256sum {{}} +"]).stdout + daemon(host)


def test_a_guest_lives_through_it(host: rig.Host, guest: int) -> None:
    written = configure(host, max_core=0)
    assert (written["restart_required"], written["restart_units"]) == (True, ["libvirtd.service"])
    assert written["guests_pending"] == ["g1"]
    before, sockets = listing(host), active(host)
    checked = restart(host, check_mode=True)
    assert (checked["changed"], checked["restarted"], checked["rolled_back"]) == (True, ["libvirtd.service"], False)
    assert listing(host) == before

    was = daemon(host)
    done = restart(host)
    assert (done["changed"], done["restarted"], done["rolled_back"]) == (True, ["libvirtd.service"], False)
    assert [(one["name"], one["pid"], one["same"]) for one in done["guests"]] == [("g1", guest, True)]
    elapsed = host.run(["ps", "-o", "etimes=", "-p", str(guest)]).stdout
    assert done["guests"][0]["start_time"] == pytest.approx(time.time() - int(elapsed), abs=2.5)
    assert daemon(host) != was
    assert active(host) == sockets == dict.fromkeys(UNITS, "active")
    assert pending(host) == (False, ["g1"])
    guests.start(host, guests.Guest("g2"))
    assert pending(host) == (False, ["g1"]), "what was started with the new configuration is not pending"


def freeze(host: rig.Host) -> None:
    host.run(["sh", "-c", f"mkdir {FROZEN} && chattr +i {FROZEN}"])


def test_what_keeps_the_daemon_down_is_rolled_back(host: rig.Host, guest: int) -> None:
    before = host.get(CONF)
    freeze(host)
    written = configure(host, memory_backing_dir=FROZEN)
    assert (written["checked_by"].split()[0], written["restart_required"]) == ("libvirt", True)
    failed = restart(host)
    assert (failed["failed"], failed["rolled_back"], failed["restarted"]) == (True, True, ["libvirtd.service"])
    # the words are those of libvirt's own log
    assert f"Failed to create memory backing dir {FROZEN}/libvirt/qemu: Operation not permitted" in failed["msg"]
    assert f"Put back: {CONF} (as it was before " in failed["msg"]
    assert [one["same"] for one in failed["guests"]] == [True]
    assert failed["seconds"] < 30
    assert host.get(CONF) == before
    assert guests.virsh(host, "list", "--name").split() == ["g1"]
    assert active(host) == dict.fromkeys(UNITS, "active")
    assert pending(host) == (False, []), "g1 was started under the meaning that is in force again"

    host.run(["chattr", "-i", FROZEN])
    assert configure(host, memory_backing_dir=FROZEN)["changed"] is True
    again = restart(host)
    assert again.get("msg") is None
    assert pending(host) == (False, ["g1"])


def test_only_what_came_after_the_last_good_start_is_undone(host: rig.Host, guest: int) -> None:
    assert configure(host, max_core=0)["restart_required"] is True
    host.run(["systemctl", "restart", "libvirtd.service"])
    assert pending(host) == (False, ["g1"])
    good = host.get(CONF)
    freeze(host)
    configure(host, auto_dump_path=FROZEN)
    failed = restart(host)
    assert failed["rolled_back"] is True
    assert f"unable to set ownership of '{FROZEN}'" in failed["msg"]
    assert host.get(CONF) == good
    assert pending(host) == (False, ["g1"])


@pytest.mark.parametrize(
    ("path", "line", "words"),
    [
        (CONF, 'namespaces = [ "mount", "pid" ]', "Unknown namespace: pid"),
        (CONF, 'namespaces = [ "mount"', "expected ',' or ']' in a list"),
        ("/etc/libvirt/libvirtd.conf", "log_level = [ 1", "expected ',' or ']' in a list"),
    ],
)
def test_a_file_that_libvirt_refuses_stops_it(host: rig.Host, guest: int, path: str, line: str, words: str) -> None:
    host.put(path, host.get(path) + f"\n{line}\n".encode(), mode=0o600)
    before = listing(host)
    for check_mode in (True, False):
        failed = restart(host, check_mode=check_mode)
        assert (failed["failed"], failed["changed"]) == (True, False)
        assert path in failed["msg"]
        assert words in failed["msg"]
    assert listing(host) == before


def test_the_operators_own_edit_is_left_to_the_operator(host: rig.Host, guest: int) -> None:
    freeze(host)
    edit(host, f'memory_backing_dir = "{FROZEN}"')
    edited = host.get(CONF)
    failed = restart(host)
    assert (failed["failed"], failed["rolled_back"]) == (True, False)
    assert f"Failed to create memory backing dir {FROZEN}" in failed["msg"]
    assert "nothing to undo" in failed["msg"]
    assert failed["seconds"] < 30
    assert host.get(CONF) == edited


def test_a_host_on_which_no_configuration_helps(host: rig.Host, guest: int) -> None:
    # chown(2) of an immutable directory fails even if it changes nothing, so the former user does not help
    before = host.get(CONF)
    host.run(["chattr", "+i", STATE])
    assert configure(host, user="other")["restart_required"] is True
    failed = restart(host)
    assert (failed["failed"], failed["rolled_back"]) == (True, True)
    words = f"unable to set ownership of '{STATE}' to user "
    first, second = failed["msg"].split("It does not come up with that either: ")
    assert words in first
    assert f"{words}64055:" in second
    assert "systemctl reset-failed libvirtd.service; systemctl restart libvirtd.service" in second
    assert [one["same"] for one in failed["guests"]] == [True]
    assert failed["seconds"] < 30
    assert host.get(CONF) == before


def test_a_unit_that_cannot_start(host: rig.Host, guest: int) -> None:
    drop_in(host, "ExecStartPre=/bin/false")
    failed = restart(host, timeout=5)
    assert (failed["failed"], failed["rolled_back"]) == (True, False)
    assert "nothing to undo" in failed["msg"]
    assert failed["seconds"] < 20


def test_a_unit_that_was_started_too_often(host: rig.Host, guest: int) -> None:
    edit(host, "user = 0")
    host.run(["sh", "-c", "systemctl restart libvirtd; timeout 5 virsh uri; sleep 1"], check=False)
    assert "start-limit-hit" in host.run(["systemctl", "show", "--property=Result", "libvirtd.service"]).stdout
    assert active(host) == dict.fromkeys(UNITS, "failed")
    edit(host, "max_core = 0")
    done = restart(host)
    assert done.get("msg") is None
    assert active(host) == dict.fromkeys(UNITS, "active")
    assert pending(host) == (False, ["g1"])


def test_a_daemon_that_is_stopped_by_a_signal(host: rig.Host, guest: int) -> None:
    configure(host, max_core=0)
    host.run(["kill", "-STOP", daemon(host)])
    checked = restart(host, check_mode=True)
    assert "SIGSTOP" in str(checked["warnings"])
    done = restart(host)
    assert done.get("msg") is None
    assert done["seconds"] < 20
    assert guests.virsh(host, "list", "--name").split() == ["g1"]


def test_a_daemon_that_does_not_end_is_killed(host: rig.Host, guest: int) -> None:
    drop_in(host, "KillSignal=SIGCONT")
    held = daemon(host)
    done = restart(host, timeout=4)
    assert done.get("msg") is None
    assert 4 < done["seconds"] < 20
    assert daemon(host) != held
    ended = host.run(["journalctl", "--quiet", "--output=cat", "--unit=libvirtd.service", "--since=-20s"]).stdout
    assert "Main process exited, code=killed, status=9/KILL" in ended


def test_a_daemon_under_a_debugger_is_left_alone(host: rig.Host, guest: int) -> None:
    held = daemon(host)
    host.run(["systemd-run", "--quiet", "--collect", "--unit=tracer", "strace", "-f", "-o", "/dev/null", "-p", held])
    deadline = time.monotonic() + 20
    while "TracerPid:\t0" in (host.root / f"proc/{held}/status").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for check_mode in (True, False):
        failed = restart(host, check_mode=check_mode)
        assert (failed["failed"], failed["changed"]) == (True, False)
        assert f"is attached to libvirtd (process {held})" in failed["msg"]
    host.run(["systemctl", "stop", "tracer"])
    assert daemon(host) == held


def test_a_job_of_a_guest_is_not_broken(host: rig.Host, guest: int) -> None:
    was = daemon(host)
    # the dump fills the pipe and waits for its reader
    held = host.run(
        ["sh", "-c", "mkfifo /run/held; (exec 3</run/held; sleep 1000) >/dev/null 2>&1 & echo $!"]
    ).stdout.strip()
    host.run(["systemd-run", "--quiet", "--collect", "virsh", "dump", "--memory-only", "g1", "/run/held"])
    deadline = time.monotonic() + 20
    while b"async='dump'" not in host.get("/run/libvirt/qemu/g1.xml"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    failed = restart(host)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "g1 (dump)" in failed["msg"]
    assert daemon(host) == was
    host.run(["kill", held])
    while b"async='dump'" in host.get("/run/libvirt/qemu/g1.xml"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert restart(host).get("msg") is None
    assert guests.virsh(host, "domstate", "g1").split() == ["running"]


def test_a_unit_that_would_take_guests_along(host: rig.Host, guest: int) -> None:
    drop_in(host, "KillMode=control-group")
    was = daemon(host)
    failed = restart(host)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "KillMode=control-group" in failed["msg"]
    assert "(g1)" in failed["msg"]
    assert daemon(host) == was


def test_a_masked_unit(host: rig.Host) -> None:
    host.run(["systemctl", "mask", "libvirtd.service"])
    failed = restart(host)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "systemctl unmask libvirtd.service" in failed["msg"]


def test_a_daemon_that_systemd_did_not_start(host: rig.Host, guest: int) -> None:
    host.run(["systemctl", "stop", *UNITS])
    host.run(["/usr/sbin/libvirtd", "--daemon"])
    try:
        failed = restart(host)
        assert (failed["failed"], failed["changed"]) == (True, False)
        assert "which systemd does not know as libvirtd.service" in failed["msg"]
        assert guests.virsh(host, "list", "--name").split() == ["g1"]
    finally:
        host.run(["sh", "-c", "kill $(cat /run/libvirtd.pid); sleep 1"])


def test_a_daemon_that_is_down(host: rig.Host, guest: int) -> None:
    host.run(["systemctl", "stop", *UNITS])
    assert pending(host) == (False, []), "nothing of ours waits to be loaded"
    done = restart(host)
    assert done.get("msg") is None
    assert "the restart starts it" in str(done["warnings"])
    assert active(host) == dict.fromkeys(UNITS, "active")


def test_a_lost_guest_is_named(host: rig.Host) -> None:
    pid = guests.start(host, guests.Guest("unlucky"))
    guests.start(host, guests.Guest("lucky"))
    drop_in(host, f"ExecStartPre=-/bin/kill -KILL {pid}")
    failed = restart(host)
    assert (failed["failed"], failed["changed"], failed["rolled_back"]) == (True, True, False)
    assert f"these guests are gone: unlucky (was process {pid})." in failed["msg"]
    assert {one["name"]: one["same"] for one in failed["guests"]} == {"lucky": True, "unlucky": False}


def test_a_daemon_that_wants_a_password_of_root(host: rig.Host) -> None:
    path = "/etc/libvirt/libvirtd.conf"
    host.put(path, host.get(path) + b'\nauth_unix_rw = "sasl"\n')
    assert restart(host).get("msg") is None
    assert "authentication failed" in host.run(["virsh", "uri"], check=False).stderr
    freeze(host)
    configure(host, memory_backing_dir=FROZEN)
    failed = restart(host)
    assert failed["rolled_back"] is True
    assert f"Failed to create memory backing dir {FROZEN}" in failed["msg"]
    assert host.run(["virsh", "--readonly", "uri"]).stdout.strip() == "qemu:///system"


def test_runs_at_once_restart_once(host: rig.Host, guest: int) -> None:
    restart(host)
    configure(host, max_core=0)
    mark = host.run(["date", "+%s.%N"]).stdout.strip()
    results = together(host, 3)
    assert [result.get("msg") for result in results] == [None] * 3
    assert [result["guests"][0]["same"] for result in results] == [True] * 3
    started = host.run(["journalctl", "--quiet", "--output=cat", f"--since=@{mark}", "--unit=libvirtd.service"]).stdout
    assert started.count("Started libvirtd.service") == 1
    assert pending(host) == (False, ["g1"])


def test_runs_at_once_over_what_keeps_it_down(host: rig.Host, guest: int) -> None:
    restart(host)
    before = host.get(CONF)
    freeze(host)
    configure(host, memory_backing_dir=FROZEN)
    results = together(host, 2)
    assert sorted(bool(result.get("failed")) for result in results) == [False, True]
    assert host.get(CONF) == before
    assert guests.virsh(host, "list", "--name").split() == ["g1"]


def test_what_is_in_force_through_the_life_of_a_host(host: rig.Host) -> None:
    guests.start(host, guests.Guest("g1"))
    assert pending(host) == (False, []), "never touched"
    edit(host, "# a comment")
    assert pending(host) == (True, ["g1"]), "changed by hand, and nobody knows what the daemon had read"
    host.run(["systemctl", "restart", "libvirtd.service"])
    assert pending(host) == (False, ["g1"]), "restarted by hand: g1 is older than the change"
    stop(host, "g1")
    guests.start(host, guests.Guest("g2"))
    restart(host)
    assert pending(host) == (False, []), "proven, and g2 was started with it"
    edit(host, "# another comment")
    assert pending(host) == (False, []), "touched with the same meaning"
    edit(host, "max_core = 0")
    assert pending(host) == (True, ["g2"])
    host.run(["systemctl", "restart", "libvirtd.service"])
    assert pending(host) == (False, ["g2"])
    edit(host, "# the meaning of the last proof, but not that of the running daemon")
    assert pending(host) == (True, ["g2"])
    restart(host)
    assert pending(host) == (False, ["g2"]), "started under one of both, nobody knows which"
    stop(host, "g2")

    assert configure(host, max_core=0)["restart_required"] is True, "ours, and then the run is killed"
    assert pending(host) == (True, []), "the next run finishes it"
    restart(host)
    assert pending(host) == (False, [])

    host.run(["systemctl", "stop", "libvirtd.service"])
    assert active(host)["libvirtd.socket"] == "active"
    assert pending(host) == (False, []), "idle"
    edit(host, "# touched while idle, with another meaning: the next client has it loaded")
    assert pending(host) == (False, [])
    assert configure(host, max_core=0)["restart_required"] is False, "the meaning that was proven to load"
    assert configure(host, max_core=1024)["restart_required"] is True, "ours is to be proven"
    assert active(host)["libvirtd.service"] == "inactive", "and nothing woke it"
    restart(host)
    assert pending(host) == (False, [])
    host.run(["systemctl", "stop", "libvirtd.service"])
    assert pending(host) == (False, [])
    guests.virsh(host, "uri")
    assert pending(host) == (False, [])
    host.reboot()
    assert pending(host) == (False, [])


def test_a_host_without_libvirt(host: rig.Host) -> None:
    host.run(["systemctl", "stop", *UNITS])
    moved = [("/usr/sbin/libvirtd", "/root/libvirtd")]
    unit = host.run(["systemctl", "show", "--property=FragmentPath", "--value", "libvirtd.service"]).stdout.strip()
    moved.append((unit, "/root/libvirtd.service"))
    try:
        for here, there in moved:
            host.run(["mv", here, there])
        failed = restart(host)
        assert (failed["failed"], failed["changed"]) == (True, False)
        assert "neither libvirtd nor virtqemud is installed" in failed["msg"]
    finally:
        for here, there in moved:
            host.run(["mv", there, here])
