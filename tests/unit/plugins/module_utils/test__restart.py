# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a restart goes, on a played libvirtd: what is refused, remembered and put back."""

from __future__ import annotations

import os
import shutil
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _libvirtcheck, _libvirtd
from ansible_collections.hypervisor.hardening.plugins.module_utils import _restart as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._libvirtd import LibvirtError
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, LibvirtHost, ticks_now

GOOD = "max_core = 0\n"
BAD = "user = 'broken'\n"


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    played = LibvirtHost(tmp_path)
    played.put(CONF, GOOD)
    # after the file, as a daemon that has loaded it
    played.daemon(77, ticks_now() + 2)
    time.sleep(0.04)
    played.guest("web1", 100, ticks_now())
    return played


@pytest.fixture
def journal(host: LibvirtHost) -> Journal:
    return Journal(host, by="test")


def planned(host: Host, *, timeout: float = 0.2) -> room.Plan:
    wanted = room.Wanted(since=room.now(), timeout=timeout)
    plan = room.plan(room.observe(host, wanted), wanted)
    room.check(host, plan)
    return plan


def write(host: LibvirtHost, journal: Journal, text: str) -> None:
    """A change as qemu_conf makes it."""
    digest = _libvirtd.meaning_digest(Document.parse(host.read(CONF)))
    _libvirtd.prove(host, _libvirtd.layout(host), journal, CONF, digest)
    journal.record_file(CONF, text.encode())
    host.write(CONF, text.encode())


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_restart_is_proven_and_remembered(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, "max_core = 1\n")
    plan = planned(host)
    assert (plan.changes, plan.warnings) == (("libvirtd.service",), ())
    host.calls.clear()
    host.changed = False
    room.apply(host, plan, journal)
    assert host.changed
    assert host.calls == [
        "systemctl reset-failed libvirtd.service",
        "systemctl restart libvirtd.service",
        "virsh --connect qemu:///system?mode=legacy uri",
    ]
    assert journal.unproven(CONF) is None
    after = room.observe(host, plan.wanted)
    assert room.plan(after, plan.wanted).changes == ()
    assert room.result(after, plan) == {
        "restarted": ["libvirtd.service"],
        "rolled_back": False,
        "guests": [{"name": "web1", "pid": 100, "start_time": pytest.approx(time.time(), abs=30), "same": True}],
    }
    layout = _libvirtd.layout(host)
    digest = _libvirtd.meaning_digest(Document.parse(b"max_core = 1"))
    loading = _libvirtd.loading(host, layout, journal, CONF, digest)
    assert (loading.restart_required, loading.guests_pending) == (False, ["web1"])


def test_check_mode_leaves_no_trace(host: LibvirtHost, tmp_path: Path) -> None:
    before = files(tmp_path)
    plan = planned(host)
    assert plan.changes == ("libvirtd.service",)
    assert files(tmp_path) == before
    assert host.calls == ["systemctl show --property=LoadState,KillMode,MainPID libvirtd.service"]
    assert plan.diff["before"] == "process 77\n"


def test_what_does_not_come_up_is_put_back(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, BAD)
    why = "Initialization of QEMU state driver failed: no such user"
    # socket activation starts it again and again; the last start has not come to its end
    host.said = f"hostname: h\n{why}.\nDriver state initialization failed\nlibvirt version: 9.0.0\nhostname: h\n"
    with pytest.raises(LibvirtError) as failed:
        room.apply(host, planned(host), journal)
    assert host.text(CONF) == GOOD
    assert str(failed.value).startswith(
        f"libvirtd did not come up with the new configuration. It said: {why}. Put back: {CONF} (as it was before "
    )
    assert failed.value.facts["rolled_back"] is True
    assert failed.value.facts["restarted"] == ["libvirtd.service"]
    assert failed.value.facts["guests"][0]["same"] is True
    loading = _libvirtd.loading(host, _libvirtd.layout(host), journal, CONF, _digest(GOOD))
    assert (loading.restart_required, loading.guests_pending) == (False, [])
    assert journal.unproven(CONF) is None
    assert BAD.encode() in [entry.content() for entry in journal.entries()], "what was refused is kept"


def _digest(text: str) -> str:
    return _libvirtd.meaning_digest(Document.parse(text.encode()))


def test_all_changes_since_the_last_proof_are_undone_and_no_more(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, "max_core = 1\n")
    room.apply(host, planned(host), journal)
    write(host, journal, "max_core = 2\n")
    write(host, journal, BAD)
    with pytest.raises(LibvirtError, match="Put back"):
        room.apply(host, planned(host), journal)
    assert host.text(CONF) == "max_core = 1\n"


def test_a_restart_by_hand_is_a_proof(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, "max_core = 1\n")
    time.sleep(0.04)
    host.run(["systemctl", "restart", "libvirtd.service"])
    time.sleep(0.04)
    # not ours to put back: the operator's own bad file
    host.put("/etc/libvirt/libvirtd.conf", "log_filters = 'broken'\n")
    with pytest.raises(LibvirtError, match="nothing to undo"):
        room.apply(host, planned(host), journal)
    assert host.text(CONF) == "max_core = 1\n"


def test_what_is_back_already_is_not_put_back_again(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, "max_core = 1\n")
    host.put(CONF, GOOD)
    host.put("/etc/libvirt/libvirtd.conf", "log_filters = 'broken'\n")
    os.unlink(host.path("/run/libvirtd.pid"))
    with pytest.raises(LibvirtError, match="nothing to undo") as failed:
        room.apply(host, planned(host), journal)
    assert failed.value.facts["rolled_back"] is False
    assert len(journal.entries()) == 1


def test_a_file_that_was_not_there_goes_again(host: LibvirtHost, journal: Journal) -> None:
    path = "/etc/libvirt/libvirtd.conf"
    journal.record_file(path, BAD.encode())
    host.put(path, BAD)
    with pytest.raises(LibvirtError, match=f"Put back: {path}"):
        room.apply(host, planned(host), journal)
    assert not host.exists(path)


def test_the_former_file_does_not_help_either(host: LibvirtHost, journal: Journal) -> None:
    write(host, journal, BAD)
    host.put("/etc/libvirt/libvirtd.conf", "log_filters = 'broken'\n")
    with pytest.raises(LibvirtError) as failed:
        room.apply(host, planned(host), journal)
    assert host.text(CONF) == GOOD
    assert "It does not come up with that either: No connection to libvirtd: " in str(failed.value)
    assert failed.value.facts["rolled_back"] is True


def test_a_file_that_cannot_be_put_back(host: LibvirtHost, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    write(host, journal, BAD)

    def refuse(*_words: object, **_options: object) -> None:
        raise HostError(f"{CONF} cannot be written: its file system is mounted read-only.")

    monkeypatch.setattr(journal, "restore", refuse)
    with pytest.raises(LibvirtError, match="mounted read-only") as failed:
        room.apply(host, planned(host), journal)
    assert failed.value.facts["rolled_back"] is False


def test_a_daemon_that_does_not_end_is_killed(host: LibvirtHost, journal: Journal) -> None:
    plan = planned(host)
    host.hangs.add("systemctl restart")
    host.calls.clear()
    room.apply(host, plan, journal)
    assert host.calls == [
        "systemctl reset-failed libvirtd.service",
        "systemctl restart libvirtd.service",
        "systemctl kill --kill-who=main --signal=KILL libvirtd.service",
        "systemctl start libvirtd.service",
        "virsh --connect qemu:///system?mode=legacy uri",
    ]


def test_the_old_process_answering_is_no_restart(host: LibvirtHost, journal: Journal) -> None:
    plan = planned(host)
    host.hangs |= {"systemctl restart", "systemctl start"}
    with pytest.raises(LibvirtError, match=r"still process 77\. systemctl restart did not end within 0\.2 s"):
        room.apply(host, plan, journal)


def test_a_hung_daemon_is_waited_for_in_bounded_time(host: LibvirtHost, journal: Journal) -> None:
    plan = planned(host)
    host.hangs.add("virsh")
    begun = time.monotonic()
    with pytest.raises(LibvirtError, match="gave no answer"):
        room.apply(host, plan, journal)
    assert time.monotonic() - begun < 5


def test_a_run_that_waited_for_another_ones_restart_does_nothing(host: LibvirtHost, journal: Journal) -> None:
    plan = planned(host)
    time.sleep(0.04)
    host.run(["systemctl", "restart", "libvirtd.service"])
    host.calls.clear()
    room.apply(host, plan, journal)
    assert host.calls == []


def test_another_run_that_never_ends(host: LibvirtHost, journal: Journal) -> None:
    plan = planned(host)
    host.make_directory("/var/lib/hypervisor-hardening", 0o700)
    with host.locked("/var/lib/hypervisor-hardening", timeout=1):  # noqa: SIM117 - Python 3.9 has no line for both
        with pytest.raises(HostError, match="Another run has held /var/lib/hypervisor-hardening for 2 seconds"):
            room.apply(host, plan, journal)


def test_lost_and_replaced_guests_are_named(host: LibvirtHost, journal: Journal) -> None:
    host.guest("db1", 101, 1001)
    host.guest("mail1", 102, 1002)

    def take() -> None:
        shutil.rmtree(host.path("/proc/100"))
        host.guest("db1", 101, ticks_now())

    host.took_off = take
    with pytest.raises(LibvirtError) as failed:
        room.apply(host, planned(host), journal)
    message = str(failed.value)
    assert "these guests are gone: db1 (was process 101), web1 (was process 100)." in message
    assert {guest["name"]: guest["same"] for guest in failed.value.facts["guests"]} == {
        "db1": False,
        "mail1": True,
        "web1": False,
    }
    assert failed.value.facts["rolled_back"] is False


def test_a_guest_is_waited_for_until_libvirt_has_taken_it_up(
    host: LibvirtHost, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(host)
    host.takes_up = False
    monkeypatch.setattr(room, "_SETTLE_SECONDS", 0.3)
    begun = time.monotonic()
    room.apply(host, plan, journal)
    assert time.monotonic() - begun > 0.3


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ({"LoadState": "masked"}, "to systemd it is masked. Nothing was done. See: systemctl unmask libvirtd.service"),
        ({"LoadState": "not-found"}, "to systemd it is not-found"),
        ({"KillMode": "control-group"}, "KillMode=control-group: a restart would also end what belongs .*web1"),
        ({"KillMode": "mixed"}, "KillMode=mixed"),
        ({"MainPID": "0"}, "runs as process 77, which systemd does not know as libvirtd.service"),
    ],
)
def test_a_unit_that_is_not_as_libvirt_made_it(host: LibvirtHost, unit: dict[str, str], words: str) -> None:
    host.unit.update(unit)
    with pytest.raises(LibvirtError, match=words):
        planned(host)


def test_a_kill_mode_hurts_nobody_where_no_guest_runs(host: LibvirtHost) -> None:
    shutil.rmtree(host.path("/run/libvirt/qemu"))
    host.unit["KillMode"] = "control-group"
    assert planned(host).changes == ("libvirtd.service",)


# As libvirt 9.0 and 11.3 write it: the job of the guest, and one that only the guest's metadata talk of.
STATUS = """<domstatus state='running' reason='unpaused' pid='100'>
  <monitor path='/var/lib/libvirt/qemu/domain-1-web1/monitor.sock' type='unix'/>
{job}  <domain type='qemu' id='1'>
    <metadata><x xmlns='http://example.org'><job type='none' async='dump'/></x></metadata>
  </domain>
</domstatus>
"""


@pytest.mark.parametrize(
    ("job", "busy"),
    [
        ("", None),
        ("  <job type='none' async='none'/>\n", None),
        ("  <job type='modify' async='none'/>\n", None),
        ("  <job type='none' async='backup' phase='none'/>\n", None),
        ("  <job type='none' async='dump' flags='0x10' asyncStarted='1795233183392'/>\n", "web1 (dump)"),
        ("  <job type='none' async='migration out' phase='perform3' flags='0x0'>\n  </job>\n", "web1 (migration out)"),
    ],
)
def test_jobs_that_a_restart_would_break(host: LibvirtHost, job: str, busy: str | None) -> None:
    host.guest("web1", 100, 1000, status=STATUS.format(job=job))
    if busy is None:
        assert planned(host).changes
        return
    with pytest.raises(LibvirtError) as refused:
        planned(host)
    assert busy in str(refused.value)


def test_a_traced_daemon_is_left_alone(host: LibvirtHost) -> None:
    host.put("/proc/77/status", "Name:\tlibvirtd\nTracerPid:\t4711\n")
    with pytest.raises(LibvirtError, match="Process 4711, a debugger or strace"):
        planned(host)


@pytest.mark.parametrize("command", ["systemctl", "virsh"])
def test_without_the_commands_nothing_is_tried(host: LibvirtHost, command: str) -> None:
    os.unlink(host.path(f"/usr/bin/{command}"))
    with pytest.raises(LibvirtError, match=f"^{command} is not installed"):
        planned(host)


@pytest.mark.parametrize("name", ["qemu.conf", "libvirtd.conf", "network.conf"])
def test_a_file_with_a_mistake_stops_it(host: LibvirtHost, name: str) -> None:
    host.put(f"/etc/libvirt/{name}", "\nkey = [ 1\n")
    with pytest.raises(LibvirtError, match=rf"^/etc/libvirt/{name}: line \d: "):
        planned(host)


def test_libvirts_own_refusal_shows_no_password(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put(CONF, "vnc_password = 'tr0ub4dor'\n")
    asked: list[bytes] = []

    def refuse(_host: Host, path: str, data: bytes) -> t.NoReturn:
        asked.append(data)
        raise _libvirtcheck.CheckError("no user tr0ub4dor")

    monkeypatch.setattr(_libvirtcheck, "version", lambda _host: "9.0.0")
    monkeypatch.setattr(_libvirtcheck, "check", refuse)
    with pytest.raises(LibvirtError) as refused:
        planned(host)
    assert asked == [b"vnc_password = 'tr0ub4dor'\n"]
    assert str(refused.value).endswith("libvirt's words: no user (not shown)")


def test_a_host_without_libvirt(host: LibvirtHost) -> None:
    os.unlink(host.path("/usr/sbin/libvirtd"))
    os.unlink(host.path("/run/libvirtd.pid"))
    with pytest.raises(LibvirtError, match=r"^There is nothing to restart: neither libvirtd nor virtqemud"):
        planned(host)


def test_a_host_without_systemd(host: LibvirtHost) -> None:
    os.rmdir(host.path("/run/systemd/system"))
    with pytest.raises(LibvirtError, match="does not run systemd"):
        planned(host)


def test_a_modular_host(host: LibvirtHost, journal: Journal) -> None:
    os.unlink(host.path("/usr/sbin/libvirtd"))
    os.unlink(host.path("/run/libvirtd.pid"))
    host.daemon(78, 500, name="virtqemud")
    plan = planned(host)
    assert plan.changes == ("virtqemud.service",)
    assert room.files(plan.layout) == ["/etc/libvirt/virtqemud.conf", CONF]


@pytest.mark.parametrize(
    ("case", "warning", "was"),
    [("stopped", "SIGSTOP", "process 77"), ("down", "the restart starts it", "not running"), ("idle", None, "idle")],
)
def test_warnings(host: LibvirtHost, case: str, warning: str | None, was: str) -> None:
    if case == "stopped":
        host.daemon(77, 500, state="T")
    else:
        os.unlink(host.path("/run/libvirtd.pid"))
    if case == "idle":
        host.listen("/run/libvirt/libvirt-sock")
    plan = planned(host)
    assert plan.diff["before"] == f"{was}\n"
    assert [warning in one for one in plan.warnings if warning] == ([True] if warning else [])
    assert len(plan.warnings) == (1 if warning else 0)
