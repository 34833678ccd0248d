# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which daemon drives QEMU, which guests run, and what of a file is in force."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _libvirtd
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal, Loaded
from ansible_collections.hypervisor.hardening.plugins.module_utils._libvirtd import Guest, Layout, LibvirtError, judge
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, LibvirtHost, ticks_now

LIBVIRT_SOCK = "/run/libvirt/libvirt-sock"
VIRTQEMUD_SOCK = "/run/libvirt/virtqemud-sock"


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    return LibvirtHost(tmp_path)


def enable(host: LibvirtHost, unit: str) -> None:
    wants = "multi-user" if unit.endswith(".service") else "sockets"
    host.put(f"/etc/systemd/system/{wants}.target.wants/{unit}", "")


def test_a_running_libvirtd(host: LibvirtHost) -> None:
    host.daemon(77, 12345)
    enable(host, "libvirtd.service")
    host.listen(LIBVIRT_SOCK)
    found = _libvirtd.layout(host)
    assert (found.kind, found.daemon, found.service) == ("monolithic", "libvirtd", "libvirtd.service")
    assert found.restart_units == ("libvirtd.service",)
    assert (found.pid, found.ticks, found.process) == (77, 12345, "b5b0 77 12345")
    assert (found.active, found.idle, found.enabled, found.listening, found.suspended) == (
        True,
        False,
        True,
        True,
        False,
    )
    assert found.uri == "qemu:///system?mode=legacy"


def test_a_running_virtqemud_beside_an_installed_libvirtd(host: LibvirtHost) -> None:
    # virtproxyd of a modular host listens on libvirtd's socket
    host.put("/usr/lib/systemd/system/libvirtd.service", "")
    host.put("/usr/lib/systemd/system/virtqemud.service", "")
    host.listen(LIBVIRT_SOCK)
    host.daemon(78, 12345, name="virtqemud")
    found = _libvirtd.layout(host)
    assert (found.kind, found.restart_units, found.pid) == ("modular", ("virtqemud.service",), 78)
    assert found.uri == "qemu:///system?mode=direct"


@pytest.mark.parametrize(
    ("enabled", "sockets", "kind"),
    [
        (["virtqemud.socket"], [LIBVIRT_SOCK, VIRTQEMUD_SOCK], "modular"),
        (["libvirtd.socket"], [LIBVIRT_SOCK], "monolithic"),
        (["virtqemud.service"], [], "modular"),
        (["libvirtd.service"], [], "monolithic"),
        ([], [], "monolithic"),
        (["libvirtd.socket", "virtqemud.socket"], [LIBVIRT_SOCK], "monolithic"),
    ],
)
def test_both_are_installed_and_none_runs(host: LibvirtHost, enabled: list[str], sockets: list[str], kind: str) -> None:
    host.put("/usr/sbin/virtqemud", "")
    for unit in enabled:
        enable(host, unit)
    for socket in sockets:
        host.listen(socket)
    found = _libvirtd.layout(host)
    assert (found.kind, found.active, found.idle) == (kind, False, bool(sockets))


@pytest.mark.parametrize(
    ("name", "kind", "uri"),
    [
        ("libvirtd", "monolithic", "qemu:///system?mode=legacy"),
        ("virtqemud", "modular", "qemu:///system?mode=direct"),
        ("virtproxyd", "modular", "qemu:///system?mode=legacy"),
        ("virtnetworkd", "modular", "network:///system?mode=direct"),
        ("virtlogd", "beside", "virtlogd:///system"),
    ],
)
def test_each_daemon_by_its_name(host: LibvirtHost, name: str, kind: str, uri: str) -> None:
    host.put(f"/usr/sbin/{name}", "")
    host.daemon(80, 500, name=name)
    found = _libvirtd.daemon(host, name)
    assert (found.kind, found.uri, found.pid, found.restart_units) == (kind, uri, 80, (f"{name}.service",))
    assert _libvirtd.daemon(host, "virtsecretd") == Layout("none")


def test_a_daemon_that_executes_itself_anew_is_another_process(host: LibvirtHost) -> None:
    host.daemon(80, 500, name="virtlogd")
    before = _libvirtd.daemon(host, "virtlogd").process
    assert _libvirtd.daemon(host, "virtlogd").process == before
    host.put("/proc/80/auxv", "other addresses")
    assert _libvirtd.daemon(host, "virtlogd").process != before


@pytest.mark.parametrize(
    ("enabled", "running", "rivals"),
    [
        (["libvirtd.socket"], [], ["libvirtd"]),
        (["virtqemud.socket", "virtproxyd.socket"], [], ["virtqemud"]),
        (["libvirtd.socket", "virtqemud.socket"], [], ["libvirtd", "virtqemud"]),
        (["virtqemud.socket"], ["libvirtd"], ["libvirtd", "virtqemud"]),
        ([], [], []),
    ],
)
def test_both_layouts_at_once(host: LibvirtHost, enabled: list[str], running: list[str], rivals: list[str]) -> None:
    host.put("/usr/sbin/virtqemud", "")
    host.listen(LIBVIRT_SOCK)
    for unit in enabled:
        enable(host, unit)
    for number, name in enumerate(running):
        host.daemon(80 + number, 500, name=name)
    assert _libvirtd.rivals(host) == rivals


def test_nothing_is_installed(host: LibvirtHost) -> None:
    os.unlink(host.path("/usr/sbin/libvirtd"))
    assert _libvirtd.layout(host) == Layout("none")


@pytest.mark.parametrize("kept", ["", "77", "abc\n", "-5\n"])
def test_a_stale_pid_file_is_no_daemon(host: LibvirtHost, kept: str) -> None:
    host.process(77, "sshd", 1)
    host.put("/run/libvirtd.pid", kept)
    found = _libvirtd.layout(host)
    assert (found.kind, found.active, found.idle) == ("monolithic", False, False)


def test_a_dead_and_a_stopped_daemon(host: LibvirtHost) -> None:
    host.daemon(77, 1, state="Z")
    assert not _libvirtd.layout(host).active
    host.daemon(77, 1, state="T")
    assert _libvirtd.layout(host).suspended


def test_a_socket_that_only_a_client_holds_does_not_listen(host: LibvirtHost) -> None:
    # Flags 0: an accepted connection, which has the server's path, too
    host.put("/proc/net/unix", f"0000: 00000003 00000000 00000000 0001 03 4711 {LIBVIRT_SOCK}\n")
    assert not _libvirtd.layout(host).listening


def test_guests(host: LibvirtHost) -> None:
    host.guest("web1", 100, 1000)
    host.guest("a,b", 101, 1001)
    host.process(101, "qemu-system-x86", 1001, "qemu", "-name", "guest=a,,b,debug-threads=on")
    host.put("/run/libvirt/qemu/driver.pid", "77\n")
    host.guest("stale", 102, 1002)
    host.process(102, "sshd", 1002, "/usr/sbin/sshd", "guest=staler")
    host.guest("gone", 103, 1003)
    os.unlink(host.path("/proc/103/stat"))
    host.put("/run/libvirt/qemu/odd.pid", "\n")
    host.put("/run/libvirt/qemu/odd.xml", "")
    found = _libvirtd.guests(host)
    assert [(guest.name, guest.pid, guest.ticks) for guest in found] == [("a,b", 101, 1001), ("web1", 100, 1000)]


def test_guests_whose_pid_file_has_another_name(host: LibvirtHost) -> None:
    # as libvirt 9.0 and 11.3 named it for a guest <b>&amp;'"
    name = "<b>&amp;'\""
    host.put("/run/libvirt/qemu/&lt;b&gt;&amp;amp;&apos;&quot;.pid", "100\n")
    host.put(f"/run/libvirt/qemu/{name}.xml", "<domstatus/>")
    host.process(100, "qemu-system-x86", 1000, "qemu", "-name", f"guest={name},debug-threads=on")
    assert [(guest.name, guest.pid) for guest in _libvirtd.guests(host)] == [(name, 100)]


# What is in force. Times are seconds; file changes and the daemon's starts are told apart by them.
UP = Layout("monolithic", "libvirtd", "libvirtd.service", ("libvirtd.service",), pid=7, started=100.0, process="P")
DOWN = replace(UP, pid=None, started=None, process="", listening=True)
GUESTS = (Guest("at50", 1, 50.0, 0), Guest("at105", 2, 105.0, 0), Guest("at150", 3, 150.0, 0))
ALL = ["at50", "at105", "at150"]


def mark(digest: str, process: str, since: float = 10.0, ctime: float = 20) -> Loaded:
    return Loaded(digest, since, "", process, int(ctime * 1e9))


@pytest.mark.parametrize(
    ("history", "layout", "ctime", "loaded", "unproven", "required", "pending"),
    [
        ("never touched", UP, 20, None, False, False, []),
        ("no file at all", UP, 0, None, False, False, []),
        ("changed while the daemon runs", UP, 120, None, False, True, ALL),
        ("changed in the tick in which it started", UP, 100, None, False, True, ALL),
        ("a tick before it started", UP, 99.99, None, False, False, ["at50"]),
        ("ours, and the run was killed before the restart", UP, 120, mark("old", "P"), True, True, ALL),
        ("ours, first of all, and killed", UP, 120, None, True, True, ALL),
        ("ours, restarted by hand, never proven", UP, 60, mark("old", "O"), True, False, ["at50"]),
        ("ours at 40, restarted by hand: at50 may have the former", UP, 40, mark("old", "O"), True, False, ["at50"]),
        ("proven since 110", UP, 60, mark("new", "P", 110, 60), False, False, ["at50", "at105"]),
        ("proven since 10", UP, 20, mark("new", "P"), False, False, []),
        ("touched with the same meaning", UP, 120, mark("new", "P"), False, False, []),
        ("edited by hand with the daemon of the proof", UP, 120, mark("old", "P"), False, True, ALL),
        ("and put back by hand", UP, 130, mark("new", "P"), False, False, []),
        ("proven, and restarted by hand since", UP, 20, mark("new", "O"), False, False, []),
        ("another meaning was started by hand, then put back", UP, 120, mark("new", "O"), False, True, ALL),
        ("another meaning, put back, restarted by hand", UP, 60, mark("new", "O", 10, 20), False, False, ["at50"]),
        ("idle, never touched", DOWN, 20, None, False, False, []),
        ("idle, changed by hand", DOWN, 120, None, False, False, ["at50", "at105"]),
        ("idle, changed by us", DOWN, 120, None, True, True, ALL),
        ("idle, changed by us after a proof", DOWN, 120, mark("old", "O"), True, True, ALL),
        ("idle, the same meaning written by us", DOWN, 120, mark("new", "O"), True, False, ["at50", "at105"]),
        ("idle, proven before", DOWN, 20, mark("new", "O"), False, False, []),
        ("no libvirt", Layout("none"), 120, None, True, False, ["at50", "at105"]),
    ],
)
def test_histories(
    history: str,
    layout: Layout,
    ctime: float,
    loaded: Loaded | None,
    unproven: bool,
    required: bool,
    pending: list[str],
) -> None:
    found = judge(layout, GUESTS, "new", ctime=int(ctime * 1e9), loaded=loaded, unproven=unproven)
    assert (found.restart_required, found.guests_pending) == (required, pending), history
    assert found.restart_units == (["libvirtd.service"] if required else [])


@pytest.mark.parametrize(
    ("case", "layout", "ctime", "loaded", "planned", "required"),
    [
        ("another meaning", UP, 20, None, "other", True),
        ("the same meaning, loaded", UP, 20, None, "now", False),
        ("the same meaning, but nobody knows what was loaded", UP, 120, None, "now", True),
        ("back to what the daemon of the proof has", UP, 120, mark("other", "P"), "other", False),
        ("idle, another meaning", DOWN, 20, None, "other", True),
        ("idle, back to what was proven", DOWN, 20, mark("other", "O"), "other", False),
        ("no libvirt", Layout("none"), 20, None, "other", False),
    ],
)
def test_predictions(
    case: str, layout: Layout, ctime: float, loaded: Loaded | None, planned: str, required: bool
) -> None:
    found = judge(layout, GUESTS, "now", ctime=int(ctime * 1e9), loaded=loaded, unproven=False)
    assert found.after(planned).restart_required is required, case


def test_from_files_and_journal(host: LibvirtHost) -> None:
    journal = Journal(host, by="test")
    host.daemon(77, ticks_now() + 1000)
    found = _libvirtd.loading(host, _libvirtd.layout(host), journal, CONF, "now")
    assert (found.restart_required, found.unproven) == (False, False)
    host.daemon(77, ticks_now() - 1000)
    assert _libvirtd.loading(host, _libvirtd.layout(host), journal, CONF, "now").restart_required
    os.unlink(host.path(CONF))
    assert not _libvirtd.loading(host, _libvirtd.layout(host), journal, CONF, "now").restart_required


def prepared(host: LibvirtHost, *, started: int) -> tuple[Layout, Journal]:
    host.daemon(77, ticks_now() + started)
    return _libvirtd.layout(host), Journal(host, by="test")


def test_what_was_loaded_and_answers_is_proven(host: LibvirtHost) -> None:
    layout, journal = prepared(host, started=1000)
    journal.record_file(CONF, b"x")
    _libvirtd.prove(host, layout, journal, CONF, "now")
    assert host.calls == ["virsh --connect qemu:///system?mode=legacy uri"]
    proof = journal.loaded(CONF)
    assert proof is not None
    assert (proof.digest, proof.process) == ("now", layout.process)
    assert proof.ctime == host.stat(CONF).st_ctime_ns
    assert journal.unproven(CONF) is None


@pytest.mark.parametrize("why", ["later", "down", "stopped", "no answer", "gone"])
def test_what_is_not_loaded_or_does_not_answer_is_not(host: LibvirtHost, why: str) -> None:
    layout, journal = prepared(host, started=-1000 if why == "later" else 1000)
    if why == "down":
        os.unlink(host.path("/run/libvirtd.pid"))
        layout = _libvirtd.layout(host)
    elif why == "stopped":
        layout = replace(layout, suspended=True)
    elif why == "no answer":
        host.hangs.add("virsh")
    elif why == "gone":
        os.unlink(host.path("/run/libvirtd.pid"))
    _libvirtd.prove(host, layout, journal, CONF, "now")
    assert journal.loaded(CONF) is None
    assert bool(host.calls) is (why in ("no answer", "gone"))


def test_connect_gives_libvirts_own_words(host: LibvirtHost) -> None:
    layout, _journal = prepared(host, started=0)
    os.unlink(host.path("/run/libvirtd.pid"))
    with pytest.raises(
        LibvirtError, match=r"^No connection to libvirtd: failed to connect to the hypervisor: Cannot recv"
    ):
        _libvirtd.connect(host, layout)
    host.daemon(77)
    # As 9.0 and 11.3 print it with auth_unix_rw = "sasl".
    host.refusal = "error: failed to connect to the hypervisor\nerror: authentication failed: authentication failed\n\n"
    _libvirtd.connect(host, layout)
    host.hangs.add("virsh")
    with pytest.raises(HostError, match="gave no answer within 10 seconds"):
        _libvirtd.connect(host, layout)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"a = 1\nb = 'x'\n", b'# why\nb = "x"  # here\n\na=1', True),
        (b"a = 1\n", b"a = 1\na = 2\n", True),
        (b"a = [ 'x', 'y' ]", b"a = [\n 'x',\n 'y',\n]", True),
        (b"a = [ 'x', 'y' ]", b"a = [ 'y', 'x' ]", False),
        (b"a = 1", b"a = '1'", False),
        (b"a = 1", b"a = 1\nb = 1", False),
        (b"a = 'x'", b"a = [ 'x' ]", False),
        (b"", b"# nothing", True),
        (b"a = '\xff'", b"a = '\xfe'", False),
    ],
)
def test_meaning(one: bytes, other: bytes, same: bool) -> None:
    digests = {_libvirtd.meaning_digest(Document.parse(data)) for data in (one, other)}
    assert (len(digests) == 1) is same


def test_the_time_of_a_judgement_is_that_of_the_wall(host: LibvirtHost) -> None:
    """ctime and the daemon's start are compared, so both have to be read from the same clock."""
    host.daemon(77)
    started = _libvirtd.layout(host).started
    host.put("/tick", "")
    assert started == pytest.approx(host.stat("/tick").st_ctime, abs=0.2)
