# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The atomic write, on real files, with the kernel as the judge. Needs root, as the modules do."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _atomic
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._syscalls import (
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    mount,
    unshare,
)

# linux/posix_acl_xattr.h: version 2, then tag, permission, id: user::rw- user:12:r-- group::r-- mask::r-- other::---
ACL = struct.pack("<I" + "HHI" * 5, 2, 1, 6, 2**32 - 1, 2, 4, 12, 4, 4, 2**32 - 1, 16, 4, 2**32 - 1, 32, 0, 2**32 - 1)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "qemu.conf"
    path.write_bytes(b"old\n")
    return path


def temporaries(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.endswith(_atomic.TEMPORARY_SUFFIX)]


def in_private_namespace(function: t.Callable[[], t.Any]) -> t.Any:
    def inside() -> t.Any:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        return function()

    return Host().in_child(inside)


def test_keeps_owner_mode_acl_and_attributes(conf: Path) -> None:
    os.chown(conf, 12, 34)
    os.chmod(conf, 0o640)
    os.setxattr(conf, "user.note", b"kept")
    os.setxattr(conf, "trusted.note", b"kept too")
    os.setxattr(conf, "system.posix_acl_access", ACL)
    before = os.stat(conf)
    Host().write(str(conf), b"new\n")
    after = os.stat(conf)
    assert conf.read_bytes() == b"new\n"
    assert (after.st_uid, after.st_gid, after.st_mode) == (12, 34, before.st_mode)
    assert os.getxattr(conf, "user.note") == b"kept"
    assert os.getxattr(conf, "trusted.note") == b"kept too"
    assert os.getxattr(conf, "system.posix_acl_access") == ACL
    assert after.st_ino != before.st_ino, "not replaced by a rename"
    assert temporaries(conf.parent) == []


def test_keeps_set_user_id_and_capabilities(conf: Path) -> None:
    os.chown(conf, 12, 34)
    os.chmod(conf, 0o4755)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # linux/capability.h: cap_net_bind_service=ep
    os.setxattr(conf, "security.capability", capability)
    Host().write(str(conf), b"new\n")
    assert os.stat(conf).st_mode & 0o7777 == 0o4755
    assert os.getxattr(conf, "security.capability") == capability


def test_takes_no_default_acl_from_the_directory(conf: Path) -> None:
    os.setxattr(conf.parent, "system.posix_acl_default", ACL)
    Host().write(str(conf), b"new\n")
    assert "system.posix_acl_access" not in os.listxattr(conf)


def test_new_file_is_private_to_root(tmp_path: Path) -> None:
    os.umask(0)
    Host().write(str(tmp_path / "new"), b"secret")
    status = os.stat(tmp_path / "new")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o600)


def test_never_readable_by_others_on_the_way(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chmod(conf, 0o600)
    seen = []

    def spy(source: str, target: str) -> None:
        seen.append(os.stat(source).st_mode & 0o7777)
        os.replace(source, target)

    def spy_on_content(fd: int, data: bytes) -> None:
        seen.append(os.fstat(fd).st_mode & 0o7777)
        os.write(fd, data)

    monkeypatch.setattr(os, "rename", spy)
    monkeypatch.setattr(_atomic, "_write_all", spy_on_content)
    os.umask(0)
    Host().write(str(conf), b"secret")
    assert seen == [0o600, 0o600]


@pytest.mark.parametrize("link", ["target/qemu.conf", "{base}/target/qemu.conf"])
def test_symlink_is_kept_and_its_target_replaced(tmp_path: Path, link: str) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/qemu.conf").write_bytes(b"old\n")
    (tmp_path / "qemu.conf").symlink_to(link.format(base=tmp_path))
    Host().write(str(tmp_path / "qemu.conf"), b"new\n")
    assert (tmp_path / "qemu.conf").is_symlink()
    assert (tmp_path / "target/qemu.conf").read_bytes() == b"new\n"


def test_links_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc/real").mkdir(parents=True)
    (tmp_path / "etc/real/qemu.conf").write_bytes(b"old\n")
    (tmp_path / "etc/qemu.conf").symlink_to("/etc/real/qemu.conf")
    Host(str(tmp_path)).write("/etc/qemu.conf", b"new\n")
    assert (tmp_path / "etc/real/qemu.conf").read_bytes() == b"new\n"


def test_refuses_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "qemu.conf").symlink_to("nowhere")
    with pytest.raises(HostError, match="symbolic link to nowhere, which does not exist"):
        Host().check_writable(str(tmp_path / "qemu.conf"))


def test_refuses_link_loop(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(HostError, match="more than 40 symbolic links"):
        Host().check_writable(str(tmp_path / "a"))


def test_refuses_hard_links(conf: Path) -> None:
    os.link(conf, conf.parent / "twin")
    with pytest.raises(HostError, match="2 hard links"):
        Host().write(str(conf), b"new\n")
    assert conf.read_bytes() == b"old\n"


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_refuses_what_is_no_regular_file(tmp_path: Path, make: t.Callable[[str], None]) -> None:
    make(str(tmp_path / "odd"))
    with pytest.raises(HostError, match="not a regular file"):
        Host().write(str(tmp_path / "odd"), b"new\n")


def test_refuses_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="does not exist"):
        Host().write(str(tmp_path / "no/qemu.conf"), b"new\n")


@pytest.mark.parametrize(("letter", "word"), [("i", "immutable"), ("a", "append-only")])
@pytest.mark.parametrize("noun", ["file", "directory"])
def test_names_the_inode_flag(conf: Path, letter: str, word: str, noun: str) -> None:
    path = conf if noun == "file" else conf.parent
    subprocess.run(["chattr", f"+{letter}", str(path)], check=True)
    try:
        with pytest.raises(HostError, match=f"The {noun} .* is {word}. .*chattr -{letter}"):
            Host().write(str(conf), b"new\n")
    finally:
        subprocess.run(["chattr", f"-{letter}", str(path)], check=True)
    assert conf.read_bytes() == b"old\n"


def test_refuses_bind_mounted_file(conf: Path) -> None:
    other = conf.parent / "outside"
    other.write_bytes(b"outside\n")

    def attempt() -> str:
        mount(str(other), str(conf), "", MS_BIND)
        with pytest.raises(HostError) as refused:
            Host().write(str(conf), b"new\n")
        return str(refused.value)

    assert "mount point of its own" in in_private_namespace(attempt)
    assert other.read_bytes() == b"outside\n"


def test_writes_bind_mounted_file_in_place_when_allowed(conf: Path) -> None:
    other = conf.parent / "outside, with a longer content"
    other.write_bytes(b"outside, with a longer content\n")

    def attempt() -> None:
        mount(str(other), str(conf), "", MS_BIND)
        Host().write(str(conf), b"new\n", unsafe_writes=True)

    in_private_namespace(attempt)
    assert other.read_bytes() == b"new\n"


def test_refuses_read_only_file_system(conf: Path) -> None:
    def attempt() -> str:
        mount("tmpfs", str(conf.parent), "tmpfs", MS_RDONLY)
        with pytest.raises(HostError) as refused:
            Host().check_writable(str(conf.parent / "new"))
        return str(refused.value)

    assert "mounted read-only" in in_private_namespace(attempt)


def test_refuses_a_file_changed_since_it_was_read(conf: Path) -> None:
    with pytest.raises(HostError, match="changed by someone else"):
        Host().write(str(conf), b"new\n", expected=b"older\n")
    assert conf.read_bytes() == b"old\n"


def test_a_file_that_appeared_is_not_overwritten(conf: Path) -> None:
    with pytest.raises(HostError, match="changed by someone else"):
        Host().write(str(conf), b"new\n", expected=b"")


def test_full_disk_leaves_the_old_file(conf: Path) -> None:
    def attempt() -> list[str]:
        mount("tmpfs", str(conf.parent), "tmpfs", 0, "size=8192")
        conf.write_bytes(b"old\n")
        with pytest.raises(HostError) as refused:
            Host().write(str(conf), b"x" * 65536)
        return [str(refused.value), conf.read_text(), *temporaries(conf.parent)]

    message, content, *left = in_private_namespace(attempt)
    assert "ENOSPC" in message
    assert (content, left) == ("old\n", [])


def test_removes_what_a_killed_run_left(conf: Path) -> None:
    leftover = conf.parent / f".qemu.conf{_atomic.TEMPORARY_SUFFIX}"
    leftover.write_bytes(b"half")
    Host().write(str(conf), b"new\n")
    assert temporaries(conf.parent) == []


def test_does_not_follow_a_planted_temporary(conf: Path) -> None:
    victim = conf.parent / "victim"
    victim.write_bytes(b"victim\n")
    (conf.parent / f".qemu.conf{_atomic.TEMPORARY_SUFFIX}").symlink_to(victim)
    Host().write(str(conf), b"new\n")
    assert victim.read_bytes() == b"victim\n"
    assert not conf.is_symlink()


def test_two_writers_wait_for_each_other(conf: Path) -> None:
    temporary = conf.parent / f".qemu.conf{_atomic.TEMPORARY_SUFFIX}"
    lock = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    writer = threading.Thread(target=Host().write, args=(str(conf), b"new\n"))
    writer.start()
    writer.join(0.2)
    assert conf.read_bytes() == b"old\n"
    os.close(lock)
    writer.join(5)
    assert conf.read_bytes() == b"new\n"
    assert temporaries(conf.parent) == []


def test_gives_up_on_a_writer_that_never_ends(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_atomic, "LOCK_SECONDS", 0.1)
    temporary = conf.parent / f".qemu.conf{_atomic.TEMPORARY_SUFFIX}"
    lock = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(HostError, match="another run has held"):
            Host().write(str(conf), b"new\n")
    finally:
        os.close(lock)
    assert conf.read_bytes() == b"old\n"


def test_other_users_cannot_hold_a_writer_up(conf: Path) -> None:
    """A directory that anybody can open can be locked by anybody: flock(2)."""
    os.chmod(conf.parent, 0o755)
    lock = os.open(conf.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        Host().write(str(conf), b"new\n")
    finally:
        os.close(lock)
    assert conf.read_bytes() == b"new\n"


def test_concurrent_increments_are_never_lost(conf: Path) -> None:
    """Compare-and-swap by many processes: each success counts, each loser is told."""
    conf.write_bytes(b"0")
    script = (
        "import sys\n"
        "from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host, HostError\n"
        "done = 0\n"
        "while done < 20:\n"
        "    before = Host().read(sys.argv[1])\n"
        "    try:\n"
        "        Host().write(sys.argv[1], b'%d' % (int(before) + 1), expected=before)\n"
        "        done += 1\n"
        "    except HostError as error:\n"
        "        assert 'changed by someone else' in str(error), error\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen([sys.executable, "-c", script, str(conf)], env=environment) for _worker in range(4)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0, 0]
    assert conf.read_bytes() == b"80"


def test_error_of_the_system_is_named(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(HostError, match=r"Input/output error \(EIO\)"):
        Host().write(str(conf), b"new\n")
    assert conf.read_bytes() == b"old\n"
    assert temporaries(conf.parent) == []


def test_a_replaced_file_that_was_not_made_durable_is_told_as_such(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(_atomic, "sync_directory", broken)
    host = Host()
    with pytest.raises(HostError, match=r"was replaced, but may be the old one again after a crash: .*EIO"):
        host.write(str(conf), b"new\n")
    assert host.changed
    assert conf.read_bytes() == b"new\n"


def test_a_file_written_in_place_may_be_left_half_written(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: some bytes come through."""

    def full(fd: int, data: bytes) -> None:
        os.write(fd, data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def attempt() -> list[object]:
        mount(str(conf), str(conf), "", MS_BIND)
        monkeypatch.setattr(_atomic, "_write_all", full)
        host = Host()
        with pytest.raises(HostError) as failed:
            host.write(str(conf), b"new\n", unsafe_writes=True)
        return [str(failed.value), host.changed]

    message, changed = in_private_namespace(attempt)
    assert "may be half written: No space left on device" in message
    assert changed
    assert conf.read_bytes() == b"ned\n"


def test_a_writer_that_waited_does_not_take_a_lock_for_its_own_that_is_gone(conf: Path) -> None:
    """The first writer renames the file that both hold: the second one must make a new one, not write to that."""
    temporary = conf.parent / f".qemu.conf{_atomic.TEMPORARY_SUFFIX}"
    lock = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    writer = threading.Thread(target=Host().write, args=(str(conf), b"second\n"))
    writer.start()
    writer.join(0.2)
    os.write(lock, b"first\n")
    os.rename(temporary, conf)
    first = os.stat(conf).st_ino
    os.close(lock)
    writer.join(5)
    assert conf.read_bytes() == b"second\n"
    assert os.stat(conf).st_ino != first


def together(directory: Path, *names: str) -> list[_atomic.Whole]:
    return [_atomic.Whole(str(directory / name), b"new " + name.encode(), 12, 34, 0o640) for name in names]


def test_several_files_with_their_owners_and_modes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    host = Host()
    host.write_together(together(tmp_path, "a", "b"))
    assert host.changed
    for name in ("a", "b"):
        status = os.stat(tmp_path / name)
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o640)
        assert (tmp_path / name).read_bytes() == b"new " + name.encode()
    assert temporaries(tmp_path) == []


def test_all_are_ready_before_the_first_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[bytes]] = []
    rename = os.rename

    def spy(source: str, target: str) -> None:
        waiting = sorted(name for name in os.listdir(tmp_path) if name.endswith(_atomic.TEMPORARY_SUFFIX))
        seen.append([(tmp_path / name).read_bytes() for name in waiting])
        rename(source, target)

    monkeypatch.setattr(os, "rename", spy)
    Host().write_together(together(tmp_path, "a", "b"))
    assert seen == [[b"new a", b"new b"], [b"new b"]]


@pytest.mark.parametrize("step", ["_write_all", "fchown", "fchmod", "fsync"])
def test_nothing_is_replaced_when_one_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    calls = []
    owner = _atomic if step == "_write_all" else os
    call = getattr(owner, step)

    def fails(*words: t.Any) -> t.Any:
        calls.append(words)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*words)

    monkeypatch.setattr(owner, step, fails)
    host = Host()
    with pytest.raises(HostError, match=r"No space left on device \(ENOSPC\)\. Nothing was replaced\."):
        host.write_together(together(tmp_path, "a", "b"))
    monkeypatch.undo()
    assert not host.changed
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_refusal_of_the_second_leaves_the_first(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(HostError, match="is not a regular file"):
        Host().write_together(together(tmp_path, "a", "b"))
    assert os.listdir(tmp_path) == ["b"]


def test_half_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def fails(source: str, target: str) -> None:
        if target.endswith("b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    host = Host()
    with pytest.raises(HostError, match="Some files may be the new ones and some the old ones; run again"):
        host.write_together(together(tmp_path, "a", "b"))
    assert host.changed
    assert os.listdir(tmp_path) == ["a"]
