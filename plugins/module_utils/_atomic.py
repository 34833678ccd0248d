# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The atomic write of Host: the old file or the new one, whole, whatever happens in between."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
import typing as t
from dataclasses import dataclass, field

from ._host import HostError

LOCK_SECONDS = 10.0
TEMPORARY_SUFFIX = ".hypervisor-hardening"

# ioctl_iflags(2): FS_IOC_GETFLAGS, _IOR('f', 1, long), and its flags
_GETFLAGS = 0x80086601
_IMMUTABLE = 0x10
_APPEND_ONLY = 0x20

# evm and ima are digests of the content: a copy would brand the new file as tampered with
_BOUND_TO_CONTENT = ("security.evm", "security.ima")


@dataclass(frozen=True)
class Destination:
    """Where a write ends: symlinks followed, all refusals behind it."""

    path: str
    before: os.stat_result | None
    in_place: bool


def destination(root: str, path: str, unsafe_writes: bool = False) -> Destination:
    """Judge whether ``path`` can be replaced atomically; reads only.

    :raises HostError: dangling symlink, not a regular file, hard links, immutable or append-only (ioctl_iflags(2)),
        a read-only file system, or a file that is itself a mount point (rename(2) gives EBUSY there) unless
        ``unsafe_writes`` allows to write it in place.
    """
    full = _follow(root, path)
    directory = os.path.dirname(full)
    if not os.path.isdir(directory):
        raise HostError(f"{path} cannot be written: the directory {directory} does not exist.")
    _refuse_flags(directory, "directory")
    try:
        before = os.lstat(full)
    except FileNotFoundError:
        before = None
    if before is not None:
        if not stat.S_ISREG(before.st_mode):
            raise HostError(f"{full} is not a regular file; it is left alone.")
        if before.st_nlink > 1:
            raise HostError(
                f"{full} has {before.st_nlink} hard links: replacing it would part it from the others, and they would "
                f"keep the old content. Remove the other links (find -inum {before.st_ino}) first."
            )
        _refuse_flags(full, "file")
    in_place = before is not None and _is_mount_point(full)
    if in_place and not unsafe_writes:
        raise HostError(
            f"{full} is a mount point of its own (a file bind-mounted into a container, for instance), which no rename "
            "can replace. Change the file outside, or allow writing it in place with unsafe_writes."
        )
    if os.statvfs(full if in_place else directory).f_flag & os.ST_RDONLY:
        raise HostError(f"{full} cannot be written: its file system is mounted read-only.")
    return Destination(full, before, in_place)


def write(
    root: str, path: str, data: bytes, *, expected: bytes | None = None, mode: int = 0o600, unsafe_writes: bool = False
) -> None:
    """Replace ``path`` by ``data``, keeping owner, mode, ACL, extended attributes and SELinux context.

    :param expected: what the file must still hold, else HostError: another run changed it after this one read it.
    :param mode: permission bits of a file that did not exist; it belongs to root.
    :raises HostError: whatever ``destination`` refuses, another writer for 10 seconds, or an error of the system.
        The file then is the old one, unless the message says otherwise.
    """
    target = destination(root, path, unsafe_writes)
    directory = os.path.dirname(target.path)
    temporary = _beside(target.path)
    outcome = "was not replaced"
    try:
        fd = _lock(temporary, path)
        try:
            if expected is not None and _content(target.path) != expected:
                raise HostError(
                    f"{path} was changed by someone else while this run was planning. Nothing was written; run again."
                )
            if target.in_place:
                outcome = "may be half written"
                _overwrite(target.path, data)
                os.unlink(temporary)
            else:
                _replace(target, data, mode, temporary, fd)
        except BaseException:
            _unlink(temporary)
            raise
        finally:
            os.close(fd)
        outcome = "was replaced, but may be the old one again after a crash"
        sync_directory(directory)
    except OSError as error:
        raise HostError(
            f"{path} {outcome}: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})."
        ) from error


@dataclass(frozen=True)
class Whole:
    """A file as it is to be, owner and mode included; ``xattrs`` None: those that a new file gets there."""

    path: str
    data: bytes = field(repr=False)
    uid: int
    gid: int
    mode: int
    xattrs: t.Mapping[str, bytes] | None = field(default=None, repr=False)


def write_together(root: str, files: t.Sequence[Whole]) -> None:
    """Replace several files of one directory that belong together: all are ready on disk before the first is renamed.

    Whoever opens them one after the other meets a mixed set only within the few renames.

    :raises HostError: whatever ``destination`` refuses, another writer for 10 seconds, or an error of the system. No
        file is replaced then, unless the message says otherwise.
    """
    outcome = "Nothing was replaced"
    ready: list[tuple[str, str, int]] = []
    try:
        for file in files:
            target = destination(root, file.path)
            temporary = _beside(target.path)
            fd = _lock(temporary, file.path)
            ready.append((temporary, target.path, fd))
            _write_all(fd, file.data)
            _set_metadata(fd, file.uid, file.gid, file.mode, file.xattrs)
            os.fsync(fd)
        for temporary, path, _fd in ready:
            os.rename(temporary, path)
            outcome = "Some files may be the new ones and some the old ones; run again"
        for directory in {os.path.dirname(path) for _temporary, path, _fd in ready}:
            sync_directory(directory)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        names = ", ".join(file.path for file in files)
        raise HostError(f"{names} were not replaced together: {error.strerror} ({code}). {outcome}.") from error
    finally:
        for temporary, _path, fd in ready:
            if _is_still(temporary, fd):
                os.unlink(temporary)
            os.close(fd)


def attributes(path: str) -> dict[str, bytes]:
    """Extended attributes (xattr(7)): ACL, SELinux context, user and trusted ones; not digests of the content."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path) if name not in _BOUND_TO_CONTENT}


def identity(path: str) -> tuple[int, ...] | None:
    """What another content would not share: None where there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sync_directory(path: str) -> None:
    """Make what was created, renamed or removed in a directory survive a crash (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def hold(fd: int, seconds: float) -> bool:
    """Lock an open file or directory against other runs (flock(2)), until it is closed. False: another one held it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)


def refuse_unwritable(directory: str, path: str) -> None:
    """Raise HostError where nothing can be made in a directory.

    :param path: what is to be made there, for the message.
    """
    _refuse_flags(directory, "directory")
    _refuse_read_only(directory, path)


def _refuse_read_only(place: str, path: str) -> None:
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise HostError(f"{path} cannot be written: its file system is mounted read-only.")


def _follow(root: str, path: str) -> str:
    """The file that ``path`` leads to, links taken relative to ``root``; a dangling link is refused."""
    full = root + path
    for _hop in range(40):
        if not os.path.islink(full):
            return os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full))
        link = os.readlink(full)
        full = root + link if link.startswith("/") else os.path.join(os.path.dirname(full), link)
        if not os.path.lexists(full):
            raise HostError(
                f"{path} is a symbolic link to {link}, which does not exist. Remove the link or create its target."
            )
    raise HostError(f"{path} leads through more than 40 symbolic links.")


def _refuse_flags(path: str, noun: str) -> None:
    flags = _flags(path)
    for flag, word, letter in ((_IMMUTABLE, "immutable", "i"), (_APPEND_ONLY, "append-only", "a")):
        if flags & flag:
            raise HostError(f"The {noun} {path} is {word}. If that is not on purpose: chattr -{letter} {path}")


def _flags(path: str) -> int:
    """Inode flags, 0 where the file system has none (ENOTTY and its like)."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(fd, _GETFLAGS, b"\0" * 8)
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int(struct.unpack("=I", answer[:4])[0])


def _is_mount_point(path: str) -> bool:
    """Whether a file is the root of a mount: mountinfo's fifth field (proc(5)), octal escapes undone."""
    with open("/proc/self/mountinfo", "rb") as stream:
        points = (line.split(b" ", 5)[4] for line in stream)
        wanted = os.fsencode(path)
        return any(_unescape(point) == wanted for point in points)


def _unescape(point: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        point = point.replace(code, char)
    return point


def _content(path: str) -> bytes:
    """What the file holds now; a missing file holds nothing."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return b""


def _beside(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}{TEMPORARY_SUFFIX}")


def _lock(temporary: str, path: str) -> int:
    """Make the temporary file and hold it: it is the lock of all writers of a file, which only root can open.

    What a killed run left under that name is removed once nobody holds it.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fresh = True
        except FileExistsError:
            fd = _open_leftover(temporary)
            fresh = False
        if fd < 0:
            continue
        if not hold(fd, deadline - time.monotonic()):
            os.close(fd)
            raise HostError(f"{path} was not written: another run has held {temporary} for {LOCK_SECONDS:g} seconds.")
        # Whoever held it may have renamed or removed it meanwhile.
        ours = _is_still(temporary, fd)
        if ours and fresh:
            return fd
        if ours:
            os.unlink(temporary)
        os.close(fd)


def _open_leftover(temporary: str) -> int:
    """Open what is there to lock it; -1 where it went, or was no file and was removed."""
    try:
        return os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        _unlink(temporary)
        return -1


def _is_still(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _replace(target: Destination, data: bytes, mode: int, temporary: str, fd: int) -> None:
    _write_all(fd, data)
    if target.before is None:
        os.fchmod(fd, mode)
    else:
        before = target.before
        _set_metadata(fd, before.st_uid, before.st_gid, stat.S_IMODE(before.st_mode), attributes(target.path))
    os.fsync(fd)
    os.rename(temporary, target.path)


def _set_metadata(fd: int, uid: int, gid: int, mode: int, wanted: t.Mapping[str, bytes] | None) -> None:
    # chown drops security.capability, and chmod would drop the ACL's mask: hence this order.
    os.fchown(fd, uid, gid)
    if wanted is not None:
        inherited = {name: os.getxattr(fd, name) for name in os.listxattr(fd)}
        for name in inherited.keys() - wanted.keys():
            os.removexattr(fd, name)  # a default ACL of the directory, which this file does not have
        for name, value in wanted.items():
            if inherited.get(name) != value:
                os.setxattr(fd, name, value)
    os.fchmod(fd, mode)


def _overwrite(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _write_all(fd, data)
        os.ftruncate(fd, len(data))
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
