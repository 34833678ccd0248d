# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig's virtual machines: hosts like the others, but with a kernel of their own, and gone without a trace."""

from __future__ import annotations

import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest
import rig
from rig import _base, _image, guests

# The emulated machine takes its time.
pytestmark = pytest.mark.timeout(1800)

RIG = [sys.executable, os.fspath(pathlib.Path(rig.__file__).parent)]
SCOPE = "rigtestvm"


@pytest.fixture(autouse=True)
def own_scope(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    monkeypatch.setenv("HYPERVISOR_RIG_SCOPE", SCOPE)
    yield
    for name in rig.names():
        rig.down(name, missing_ok=True)


@pytest.fixture
def before() -> rig.Snapshot:
    """The machine before a test."""
    rig.build("vm-trixie")
    return rig.snapshot(SCOPE)


def begin(*words: str, cache: pathlib.Path | None = None) -> subprocess.Popen[str]:
    environment = os.environ | ({"HYPERVISOR_RIG_CACHE": os.fspath(cache)} if cache else {})
    return subprocess.Popen(
        [*RIG, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def command(*words: str) -> None:
    process = begin(*words)
    said = process.communicate()[0]
    assert process.returncode == 0, said


def test_a_virtual_machine_confines_guests_with_apparmor_and_goes_without_a_trace(before: rig.Snapshot) -> None:
    begun = time.monotonic()
    command("up", "v13", "--vm", "--words", "lockdown=none")
    host = rig.get("v13")
    print(f"up in {time.monotonic() - begun:.1f} s")

    assert host.run(["uname", "-r"]).stdout.strip() != platform.release()
    assert host.run(["tail", "-c", "14", "/proc/cmdline"]).stdout == "lockdown=none\n"
    # As the other hosts are.
    assert host.ssh(["hostname"]).stdout == "v13\n"
    assert host.address in host.run(["ip", "-4", "address", "show", "host0"]).stdout
    assert host.get("/etc/hosts").decode().endswith(f"{host.address} v13\n")
    assert "v13:" in host.inventory.read_text(encoding="ascii")
    assert host.run(["systemctl", "--failed", "--quiet"]).stdout == ""
    host.put("/root/private", b"\0\xff", mode=0o600)
    assert host.get("/root/private") == b"\0\xff"
    assert host.run(["stat", "-c", "%a", "/root/private"]).stdout == "600\n"
    with pytest.raises(rig.RigError, match="v13: exit status 3 of"):
        host.run(["sh", "-c", "exit 3"])

    uuid = "0d3f6a0c-55b5-4d0e-b5a0-4f31d83c1f6a"
    pid = guests.start(host, guests.Guest("g1", uuid=uuid))
    assert host.get(f"/proc/{pid}/attr/current") == f"libvirt-{uuid} (enforce)\n".encode()
    status = guests.status(host, pid)
    # Debian's postinst of libvirt-daemon-system gives libvirt-qemu this number.
    assert status["Uid"].split() == ["64055"] * 4
    assert (status["Seccomp"], status["Seccomp_filters"]) == ("2", "1")

    with rig.host("trixie", "h13") as other:
        greeting = other.run(["bash", "-c", "head -c4 < /dev/tcp/v13/22"])
        assert greeting.stdout == "SSH-", "hosts reach each other by name"
        assert host.run(["bash", "-c", "head -c4 < /dev/tcp/h13/22"]).stdout == "SSH-"

    command("down", "--all")
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


# Before there is a QEMU, and while the kernel boots.
@pytest.mark.parametrize("seconds", [0.8, 6.0])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_broken_off_up_leaves_nothing(before: rig.Snapshot, number: int, seconds: float) -> None:
    process = begin("up", "broken", "--vm")
    time.sleep(seconds)
    if process.poll() is not None:
        pytest.fail(f"too fast to be broken off: {process.communicate()[0]}")
    process.send_signal(number)
    process.communicate(timeout=30)
    if number == signal.SIGKILL:
        # Nobody was left to clean up: the next command does, whichever it is.
        command("list")
    _base.wait_for("its processes to go", lambda: not rig.snapshot(SCOPE)["processes"], patience=10)
    assert rig.differences(before, rig.snapshot(SCOPE)) == []


def test_a_killed_build_of_the_disk_leaves_nothing_but_its_directory(before: rig.Snapshot) -> None:
    base = _image.image_dir("trixie")
    cache = pathlib.Path(tempfile.mkdtemp(prefix="rebuild-", dir=_base.cache_dir()))
    try:
        (cache / "images").mkdir()
        _base.run(["cp", "--archive", "--link", base, cache / "images"])
        for expected in ("", "removing what a broken-off build left"):
            process = begin("build", "vm-trixie", cache=cache)
            time.sleep(5)
            process.kill()
            assert expected in process.communicate()[0]
            assert [path.name for path in (cache / "images").iterdir()] == [base.name]
            assert len(list((cache / "building").iterdir())) == 1
            assert rig.differences(before, rig.snapshot(SCOPE)) == []
    finally:
        _base.remove_tree(cache)
