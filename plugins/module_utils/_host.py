# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host, and the only place that touches it."""

from __future__ import annotations

import builtins
import contextlib
import errno
import grp
import json
import os
import pwd
import stat
import time
import typing as t
from dataclasses import dataclass

from ._child import answer, kill_session, read_until

if t.TYPE_CHECKING:
    from ._atomic import Whole

READ_LIMIT = 16 * 1024 * 1024
COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HardeningError(Exception):
    """A refusal or a failure: what, where, why, and what to do about it.

    ``facts`` go into the module's result beside the message; no secret may be among them.
    """

    def __init__(self, message: str, **facts: t.Any) -> None:
        super().__init__(message)
        self.facts = facts


class HostError(HardeningError):
    """The system refused what was asked of it."""


class MissingLibrary(HardeningError):
    """A Python library that this interpreter does not have; the runner starts over under one that does.

    To be raised before anything is changed. ``package`` is what the operator installs where no interpreter has it.
    """

    def __init__(self, library: str, *, package: str) -> None:
        super().__init__(f"The Python library {library} is missing: install the package {package}.")
        self.library = library
        self.package = package


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end. Undecodable bytes of its output are surrogates."""

    argv: tuple[str, ...]
    rc: int
    out: str
    err: str


class Host:
    """One Linux host, as root sees it.

    ``root`` puts every path below another directory, a tree of fixtures or a chroot; commands then run chrooted.
    Readers raise OSError, so that callers can tell ENOENT from EACCES; everything else raises HostError.
    ``changed`` tells whether anything was changed through this object; whoever changes it by a command says so there.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")
        self.changed = False

    def path(self, path: str) -> str:
        return self.root + path

    def require_root(self) -> None:
        """Raise HostError for another user: to that one /proc and libvirt's directories look empty, not forbidden."""
        if not self.root and os.geteuid() != 0:
            raise HostError(
                f"This module runs as uid {os.geteuid()}, and the kernel and libvirt show what it goes by to root "
                "alone. Nothing was done. Set become: true."
            )

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """The bytes of a regular file (those of /proc and /sys count as such), at most ``limit``.

        Never blocks: a FIFO or a device in the file's place is OSError EINVAL, a longer file OSError EFBIG.
        """
        fd = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(fd)
            if stat.S_ISDIR(mode):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise OSError(errno.EINVAL, "Not a regular file", path)
        with open(fd, "rb", buffering=0) as stream:
            parts: list[bytes] = []
            left = limit + 1
            while left > 0:
                part = stream.read(min(left, 1 << 20))
                if not part:
                    return b"".join(parts)
                parts.append(part)
                left -= len(part)
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)

    def read_part(self, path: str, size: int, offset: int = 0) -> bytes:
        """What a regular file has of ``size`` bytes from ``offset`` on. Never blocks, as ``read``."""
        fd = os.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file", path)
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def text(self, path: str) -> str:
        """A file as text; bytes that are not UTF-8 become surrogates, which the runner replaces in results."""
        return self.read(path).decode("utf-8", "surrogateescape")

    def read_optional(self, path: str) -> bytes | None:
        """As ``read``; None where there is no such file."""
        try:
            return self.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def text_optional(self, path: str) -> str | None:
        """As ``text``; None where there is no such file."""
        data = self.read_optional(path)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def list(self, path: str) -> builtins.list[str]:
        """The names in a directory, sorted; none where there is no such directory."""
        try:
            return sorted(os.listdir(self.path(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        return os.stat(self.path(path), follow_symlinks=follow)

    def stat_optional(self, path: str, *, follow: bool = True) -> os.stat_result | None:
        """As ``stat``; None where there is nothing."""
        try:
            return self.stat(path, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def attributes(self, path: str) -> dict[str, bytes]:
        """Extended attributes of a file; see ``_atomic.attributes``."""
        from ._atomic import attributes

        return attributes(self.path(path))

    def set_attribute(self, path: str, name: str, value: bytes) -> None:
        """setxattr(2), never through a symlink."""
        os.setxattr(self.path(path), name, value, follow_symlinks=False)
        self.changed = True

    def readlink(self, path: str) -> str:
        return os.readlink(self.path(path))

    def filesystem(self, path: str) -> int:
        """The f_type of the file system that holds ``path`` (statfs(2); linux/magic.h has the numbers)."""
        from ._syscalls import statfs_type

        return statfs_type(self.path(path))

    def device_programs(self, cgroup: str) -> builtins.list[int]:
        """The ids of the BPF programs that a cgroup's own device filter consists of (CAP_SYS_ADMIN needed).

        :param cgroup: the directory of a cgroup of version 2.
        """
        from ._syscalls import BPF_CGROUP_DEVICE, bpf_cgroup_programs

        fd = os.open(self.path(cgroup), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return bpf_cgroup_programs(fd, BPF_CGROUP_DEVICE)
        finally:
            os.close(fd)

    def nftables(self) -> builtins.list[tuple[int, str]]:
        """The tables of nftables; see ``_syscalls.nftables``."""
        from ._syscalls import nftables

        return nftables()

    def clock_synchronized(self) -> bool:
        """Whether the kernel's clock follows a time source (adjtimex(2))."""
        from ._syscalls import clock_is_synchronized

        return clock_is_synchronized()

    def block_size(self, path: str) -> int:
        """f_bsize of statfs(2) in bytes: on hugetlbfs the size of its pages (fs/hugetlbfs/inode.c)."""
        return os.statvfs(self.path(path)).f_bsize

    def filesystem_id(self, path: str) -> int:
        """f_fsid of the file system that holds ``path`` (statfs(2)); 0 where the file system has none, as NFS."""
        return os.statvfs(self.path(path)).f_fsid

    def capacity(self, path: str) -> int:
        """The size in bytes of the file system that holds ``path`` (statvfs(3))."""
        found = os.statvfs(self.path(path))
        return found.f_frsize * found.f_blocks

    def uid(self, name: str) -> int | None:
        """The uid of a user name, None where the host does not know it."""
        if self.root:
            return self._number("/etc/passwd", name)
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def gid(self, name: str) -> int | None:
        """The gid of a group name, None where the host does not know it."""
        if self.root:
            return self._number("/etc/group", name)
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def user_name(self, uid: int) -> str:
        """The name of a user, its number where the host has no name for it."""
        if self.root:
            return self._name("/etc/passwd", uid)
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)

    def group_name(self, gid: int) -> str:
        """The name of a group, its number where the host has no name for it."""
        if self.root:
            return self._name("/etc/group", gid)
        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)

    def _name(self, table: str, number: int) -> str:
        lines = (line.split(":") for line in (self.text_optional(table) or "").splitlines())
        return next((fields[0] for fields in lines if fields[2:3] == [str(number)]), str(number))

    def _number(self, table: str, name: str) -> int | None:
        for line in (self.text_optional(table) or "").splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 2:
                return int(fields[2])
        return None

    def has_command(self, name: str) -> bool:
        return any(os.access(self.path(os.path.join(part, name)), os.X_OK) for part in COMMAND_PATH.split(":"))

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        """Run a command in the C locale with a clean environment, to its end.

        :param timeout: seconds, after which its whole session is killed and HostError raised.
        :raises HostError: not installed, or not done in time. A non-zero exit is the caller's to judge.
        """
        import subprocess  # which costs a hook that runs no command as much as half of this package

        command = ["chroot", self.root, *argv] if self.root else list(argv)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PATH": COMMAND_PATH, "LC_ALL": "C", "HOME": "/root"},
                start_new_session=True,
            )
        except FileNotFoundError:
            raise HostError(f"The command {argv[0]} is not installed on this host.") from None
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException as error:
            kill_session(process.pid)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostError(f"{' '.join(argv)} gave no answer within {timeout:g} seconds and was killed.") from None
            raise
        decoded = [part.decode("utf-8", "surrogateescape") for part in (out, err)]
        return Completed(tuple(argv), process.returncode, *decoded)

    def in_child(self, function: t.Callable[[], t.Any], *, timeout: float = 10.0) -> t.Any:
        """Call ``function`` in a forked child and return what it returned (JSON types only).

        For what must not touch this process (namespaces, another user) or may never come back (libvirt's client hangs
        for ever on a stopped daemon). A HardeningError or OSError of the child is raised here again.

        :param timeout: seconds, after which the child's whole session is killed and HostError raised. A command that
            ``function`` runs has a session of its own: give it a shorter limit.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os._exit(answer(writer, function))
        os.close(writer)
        try:
            told = read_until(reader, time.monotonic() + timeout)
        finally:
            os.close(reader)
            kill_session(pid)
            os.waitpid(pid, 0)
        if told is None:
            raise HostError(f"No answer within {timeout:g} seconds; the attempt was ended.")
        if not told:
            raise HostError("A child process ended without an answer.")
        kind, value = json.loads(told)
        if kind == "oserror":
            raise OSError(*value)
        if kind == "refused":
            raise HostError(value[0], **value[1])
        return value

    def in_mount_namespace(self, pid: int, function: t.Callable[[], t.Any]) -> t.Any:
        """``in_child``, inside the mount namespace of process ``pid`` (setns(2))."""
        from ._syscalls import CLONE_NEWNS, setns

        def inside() -> t.Any:
            fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            setns(fd, CLONE_NEWNS)
            return function()

        return self.in_child(inside)

    def check_writable(self, path: str, *, unsafe_writes: bool = False) -> None:
        """Raise HostError where ``write`` would refuse. Changes nothing."""
        from ._atomic import destination

        destination(self.root, path, unsafe_writes)

    def write(
        self, path: str, data: bytes, *, expected: bytes | None = None, mode: int = 0o600, unsafe_writes: bool = False
    ) -> None:
        """Replace a file whole, or not at all; see ``_atomic.write``."""
        from ._atomic import identity, write

        before = identity(self.path(path))
        try:
            write(self.root, path, data, expected=expected, mode=mode, unsafe_writes=unsafe_writes)
        finally:  # a write that fails may have been done, but for its fsync
            self.changed = self.changed or identity(self.path(path)) != before

    def write_together(self, files: t.Sequence[Whole]) -> None:
        """Replace several files that belong together, owner and mode included; see ``_atomic.write_together``."""
        from ._atomic import identity, write_together

        before = [identity(self.path(file.path)) for file in files]
        try:
            write_together(self.root, files)
        finally:
            self.changed = self.changed or [identity(self.path(file.path)) for file in files] != before

    def remove(self, path: str) -> None:
        """Remove a file and make that durable; nothing happens where there is none."""
        from ._atomic import sync_directory

        try:
            os.unlink(self.path(path))
        except FileNotFoundError:
            return
        self.changed = True
        sync_directory(os.path.dirname(self.path(path)))

    def check_makeable(self, path: str) -> None:
        """Raise HostError where a file or directory of this path could not be made. Changes nothing."""
        from ._atomic import refuse_unwritable

        directory = os.path.dirname(path)
        while not os.path.isdir(self.path(directory)) and directory != "/":
            directory = os.path.dirname(directory)
        refuse_unwritable(self.path(directory), path)

    def symlink(self, target: str, path: str) -> None:
        """Make a symbolic link, and make that durable."""
        from ._atomic import sync_directory

        os.symlink(target, self.path(path))
        self.changed = True
        sync_directory(os.path.dirname(self.path(path)))

    def rename(self, source: str, target: str) -> None:
        """Give a file, or a symbolic link itself, another name in its directory, which replaces what has it."""
        from ._atomic import sync_directory

        os.rename(self.path(source), self.path(target))
        self.changed = True
        sync_directory(os.path.dirname(self.path(target)))

    def make_directory(self, path: str, mode: int) -> None:
        """Make a directory, and its missing parents (0755), exactly with ``mode``; an existing one is left alone."""
        full = self.path(path)
        if os.path.isdir(full):
            return
        if not os.path.isdir(os.path.dirname(full)):
            self.make_directory(os.path.dirname(path), 0o755)
        try:
            os.mkdir(full, 0o700)
        except FileExistsError:
            return
        self.changed = True
        os.chmod(full, mode)

    @contextlib.contextmanager
    def locked(self, directory: str, *, timeout: float) -> t.Iterator[None]:
        """Hold a directory against other runs for the length of a ``with`` block.

        It should be one that only root can open, or any user could keep the runs waiting.

        :raises HostError: another run has held it for ``timeout`` seconds.
        """
        from ._atomic import hold

        fd = os.open(self.path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not hold(fd, timeout):
                raise HostError(f"Another run has held {directory} for {timeout:g} seconds: see 'fuser {directory}'.")
            yield
        finally:
            os.close(fd)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(self.path(path))
        self.changed = True

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Give a file or directory owner, group (-1 = as it is) and permission bits; never through a symlink."""
        fd = os.open(self.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fchown(fd, uid, gid)
            self.changed = True
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def write_kernel(self, path: str, value: str, *, rehearse: bool = False) -> None:
        """Write a running value of /proc or /sys in one write(2), as the kernel wants it; ``rehearse``: only open."""
        fd = os.open(self.path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            if not rehearse:
                os.write(fd, value.encode())
                self.changed = True
        finally:
            os.close(fd)

    def ask_kernel(self, path: str, question: str) -> str:
        """What a file that answers what is written to it says: those of selinuxfs, in one write(2) and one read(2)."""
        fd = os.open(self.path(path), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, question.encode())
            return os.read(fd, 4096).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def mount(
        self, source: str, target: str, fstype: str, flags: int, options: str = "", *, rehearse: bool = False
    ) -> None:
        """mount(2) in the mount namespace of PID 1: what the host sees, whatever this process lives in.

        :param rehearse: do it in a copy of that namespace which goes away at once, to learn whether the kernel would.
        """
        from ._syscalls import CLONE_NEWNS, mount, unshare

        def call() -> None:
            if rehearse:
                unshare(CLONE_NEWNS)
            mount(source, self.path(target), fstype, flags, options)

        self.in_mount_namespace(1, call)
        self.changed = self.changed or not rehearse

    def unmount(self, target: str) -> None:
        """umount2(2) without flags in the mount namespace of PID 1: a busy mount is OSError EBUSY."""
        from ._syscalls import umount

        self.in_mount_namespace(1, lambda: umount(self.path(target), 0))
        self.changed = True
