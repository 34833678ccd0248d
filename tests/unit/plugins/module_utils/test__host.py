# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError, Host, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._syscalls import (
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)

# linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572


def test_reads_files_of_proc() -> None:
    assert Host().text("/proc/self/comm").strip() == Path("/proc/self/comm").read_text().strip()


def test_read_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/name").write_bytes(b"fixture \xff")
    host = Host(str(tmp_path))
    assert host.text("/etc/name").encode("utf-8", "surrogateescape") == b"fixture \xff"
    assert host.read_optional("/etc/none") is None
    assert host.read_optional("/etc/name/none") is None
    assert host.list("/etc") == ["name"]
    assert host.list("/none") == []


def test_read_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)
    assert Host().read(str(tmp_path / "big"), limit=11) == b"x" * 11
    with pytest.raises(OSError) as refused:
        Host().read(str(tmp_path / "big"), limit=10)
    assert refused.value.errno == errno.EFBIG


def test_read_never_blocks_on_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as refused:
        Host().read(str(tmp_path / "fifo"))
    assert refused.value.errno == errno.EINVAL
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError) as directory:
        Host(str(tmp_path)).read("/directory")
    assert directory.value.filename == "/directory"


def test_filesystem_type_is_the_kernels_number() -> None:
    assert Host().filesystem("/proc") == PROC_SUPER_MAGIC
    assert Host().filesystem("/sys") == SYSFS_MAGIC


def test_block_size_is_that_of_statfs() -> None:
    assert Host().block_size("/proc") == os.statvfs("/proc").f_bsize


def test_users_of_this_host() -> None:
    assert Host().uid("root") == 0
    assert Host().gid("root") == 0
    assert Host().uid("no-such-user") is None
    assert Host().gid("no-such-group") is None


def test_users_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("kvm:x:104:\n")
    host = Host(str(tmp_path))
    assert (host.uid("libvirt-qemu"), host.gid("kvm"), host.uid("kvm")) == (64055, 104, None)


def test_run_has_a_clean_environment_and_the_c_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LD_PRELOAD", "")
    lines = Host().run(["env"]).out.splitlines()
    assert "LC_ALL=C" in lines
    assert {line.split("=")[0] for line in lines} == {"LC_ALL", "PATH", "HOME"}


def test_run_passes_arguments_literally_and_input() -> None:
    assert Host().run(["printf", "%s", "$(id) `id` ; *"]).out == "$(id) `id` ; *"
    assert Host().run(["cat"], stdin=b"text").out == "text"
    assert Host().run(["sh", "-c", "echo no >&2; exit 3"]).rc == 3


def test_run_names_a_missing_command() -> None:
    with pytest.raises(HostError, match="no-such-command is not installed"):
        Host().run(["no-such-command"])


def test_run_kills_the_whole_session_when_time_is_up() -> None:
    start = time.monotonic()
    with pytest.raises(HostError, match=r"sleep 71.* within 0.2 seconds"):
        Host().run(["sh", "-c", "sleep 71 & sleep 71"], timeout=0.2)
    assert time.monotonic() - start < 5
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and _arguments(pid) == [b"sleep", b"71"]]
    assert left == []


def _arguments(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []


def test_child_answers() -> None:
    assert Host().in_child(lambda: {"pid": os.getpid()})["pid"] != os.getpid()
    assert Host().in_child(lambda: "x" * 10**6) == "x" * 10**6


def test_child_raises_here() -> None:
    def refuse() -> None:
        raise HardeningError("No.", key="user")

    def missing() -> None:
        os.stat("/no/such/file")

    with pytest.raises(HardeningError, match="No") as refused:
        Host().in_child(refuse)
    assert refused.value.facts == {"key": "user"}
    with pytest.raises(FileNotFoundError) as absent:
        Host().in_child(missing)
    assert absent.value.filename == "/no/such/file"
    with pytest.raises(HostError, match="ZeroDivisionError"):
        Host().in_child(lambda: 1 // 0)


def test_child_that_never_answers_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(HostError, match=r"No answer within 0\.2 seconds"):
        Host().in_child(lambda: time.sleep(60), timeout=0.2)
    assert time.monotonic() - start < 5


def test_child_that_dies_is_told() -> None:
    with pytest.raises(HostError, match="without an answer"):
        Host().in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_make_directory_has_exactly_the_mode(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        Host(str(tmp_path)).make_directory("/var/lib/x", 0o700)
        Host(str(tmp_path)).make_directory("/srv/y", 0o1777)
    finally:
        os.umask(old)
    assert os.stat(tmp_path / "var").st_mode & 0o7777 == 0o755
    assert os.stat(tmp_path / "var/lib/x").st_mode & 0o7777 == 0o700
    assert os.stat(tmp_path / "srv/y").st_mode & 0o7777 == 0o1777


def test_remove_is_content_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Host(str(tmp_path)).remove("/file")
    Host(str(tmp_path)).remove("/file")
    assert not (tmp_path / "file").exists()


def test_set_owner_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    host = Host(str(tmp_path))
    host.set_owner("/real", 12, 34, 0o640)
    status = os.stat(tmp_path / "real")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o640)
    with pytest.raises(OSError):
        host.set_owner("/link", 0, 0, 0o600)


CHANGES: dict[str, t.Callable[[Host], object]] = {
    "write": lambda host: host.write("/file", b"new"),
    "write the same": lambda host: host.write("/file", b"old"),
    "write a new one": lambda host: host.write("/fresh", b"new"),
    "remove": lambda host: host.remove("/file"),
    "make_directory": lambda host: host.make_directory("/a/b", 0o755),
    "remove_directory": lambda host: host.remove_directory("/empty"),
    "set_owner": lambda host: host.set_owner("/file", -1, -1, 0o640),
    "write_kernel": lambda host: host.write_kernel("/file", "1"),
}
NO_CHANGES: dict[str, t.Callable[[Host], object]] = {
    "read": lambda host: host.read("/file"),
    "check_writable": lambda host: host.check_writable("/file"),
    "remove what is not there": lambda host: host.remove("/none"),
    "make a directory that is there": lambda host: host.make_directory("/empty", 0o700),
    "write over another writer": lambda host: host.write("/file", b"new", expected=b"older"),
    "write where nothing is": lambda host: host.write("/none/file", b"new"),
    "write to the kernel what is not there": lambda host: host.write_kernel("/none", "1"),
}


@pytest.fixture
def prepared(tmp_path: Path) -> Host:
    (tmp_path / "file").write_text("old")
    (tmp_path / "empty").mkdir()
    return Host(str(tmp_path))


@pytest.mark.parametrize("what", CHANGES)
def test_knows_that_it_changed_something(prepared: Host, what: str) -> None:
    CHANGES[what](prepared)
    assert prepared.changed


@pytest.mark.parametrize("what", NO_CHANGES)
def test_knows_that_it_changed_nothing(prepared: Host, what: str) -> None:
    with contextlib.suppress(HostError, OSError):
        NO_CHANGES[what](prepared)
    assert not prepared.changed


def test_a_mount_counts_as_a_change_and_its_rehearsal_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnt").mkdir()
    target = str(tmp_path / "mnt")

    def attempt() -> list[bool]:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        host = Host()
        # PID 1's mounts are the machine's: those of this child take their place.
        monkeypatch.setattr(host, "in_mount_namespace", lambda _pid, function: function())
        host.mount("tmpfs", target, "tmpfs", 0, rehearse=True)
        seen = [host.changed]
        host.mount("tmpfs", target, "tmpfs", 0)
        seen.append(host.changed)
        other = Host()
        monkeypatch.setattr(other, "in_mount_namespace", lambda _pid, function: function())
        other.unmount(target)
        return [*seen, other.changed]

    assert Host().in_child(attempt) == [False, True, True]


def test_nobody_waits_for_the_output_of_a_child_that_is_still_there(capfd: pytest.CaptureFixture[str]) -> None:
    """A shell reads what a command prints until the last process that could print has ended."""

    def outlive() -> list[str]:
        os.write(1, b"to nobody")
        os.write(2, b"to nobody")
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]

    assert Host().in_child(outlive) == [os.devnull, os.devnull]
    assert capfd.readouterr() == ("", "")


def test_links_and_names(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    (tmp_path / "own").write_text("own")
    host.symlink("own", "/link")
    assert host.changed is True
    assert os.readlink(tmp_path / "link") == "own"
    with pytest.raises(FileExistsError):
        host.symlink("other", "/link")
    host.rename("/link", "/renamed")
    assert os.readlink(tmp_path / "renamed") == "own"
    host.rename("/own", "/renamed")
    assert (tmp_path / "renamed").read_text() == "own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["renamed"]


def test_what_could_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(str(tmp_path))
    host.check_makeable("/a/b/c")
    assert list(tmp_path.iterdir()) == []
    assert host.changed is False
    asked = []

    def statvfs(path: str) -> object:
        asked.append(path)
        return type("Answer", (), {"f_flag": os.ST_RDONLY})

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(HostError, match=r"/a/b/c cannot be written: its file system is mounted read-only"):
        host.check_makeable("/a/b/c")
    assert [path.rstrip("/") for path in asked] == [str(tmp_path)]
