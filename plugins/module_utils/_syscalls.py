# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that Python 3.9 does not offer. Numbers are those of the kernel's uapi headers."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import typing as t

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

BPF_CGROUP_DEVICE = 6
_BPF_PROG_QUERY = 16
# __NR_bpf of each architecture's table: the C library has no function for it.
_BPF_NUMBER = {"x86_64": 321, "aarch64": 280, "loongarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    words = [os.fsencode(word) for word in (source, target, fstype)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options)), target)


def umount(target: str, flags: int) -> None:
    """umount2(2). Raises OSError that names the target."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(fd, kind))


def statfs_type(path: str) -> int:
    """f_type of statfs(2), an unsigned 32-bit number; Python's os.statvfs does not tell it."""
    # struct statfs is at most 120 bytes and begins with f_type: a long, but on s390x an unsigned int.
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), path)
    width = 4 if os.uname().machine == "s390x" else ctypes.sizeof(ctypes.c_long)
    return int.from_bytes(buffer.raw[:width], sys.byteorder) & 0xFFFFFFFF


def bpf_cgroup_programs(fd: int, attach_type: int) -> list[int]:
    """The ids of the BPF programs attached to the cgroup whose directory ``fd`` is: bpf(2) with BPF_PROG_QUERY.

    Those of its ancestors, which hold for it as well, are not among them.

    :param attach_type: of enum bpf_attach_type in linux/bpf.h.
    """
    # At most BPF_CGROUP_MAX_PROGS of linux/bpf-cgroup-defs.h. The attr: target_fd, attach_type, query_flags,
    # attach_flags, prog_ids (a pointer in 64 bits), prog_cnt; the kernel wants zeros in what it does not know.
    ids = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(struct.pack("=4IQI", fd, attach_type, 0, 0, ctypes.addressof(ids), len(ids)), 64)
    number = _BPF_NUMBER.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _check(_libc.syscall(ctypes.c_long(number), _BPF_PROG_QUERY, attr, ctypes.c_uint(64)))
    (count,) = struct.unpack_from("=I", attr.raw, 24)
    return list(ids[:count])


def clock_is_synchronized() -> bool:
    """Whether the kernel counts its clock as synchronized: adjtimex(2), which changes nothing with modes 0."""
    # struct timex of linux/timex.h: modes, then four longs, then status; TIME_ERROR is 5, STA_UNSYNC 0x40.
    buffer = ctypes.create_string_buffer(512)
    state = _libc.adjtimex(buffer)
    if state < 0:
        _check(state)
    (status,) = struct.unpack_from("@I4li", buffer.raw)[-1:]
    return state != 5 and not status & 0x40


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def nftables() -> list[tuple[int, str]]:
    """The tables of nftables in this network namespace: NFPROTO (linux/netfilter.h) and name.

    Asked over netlink (linux/netfilter/nfnetlink.h, nf_tables.h), for tools of iptables do not show what is not theirs.

    :raises OSError: the kernel refuses the answer.
    """
    request = struct.pack("=IHHIIBBH", 20, _GET_TABLE, _REQUEST_ALL, 1, 0, 0, 0, 0)
    found: list[tuple[int, str]] = []
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:  # a kernel without netfilter
            return []
        raise
    with connection:
        connection.settimeout(5.0)
        connection.sendto(request, (0, 0))
        while True:
            for kind, payload in _messages(connection.recv(1 << 16)):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    if number in (errno.EINVAL, errno.EOPNOTSUPP):  # one without nftables
                        return []
                    raise OSError(number, os.strerror(number))
                found += [(payload[0], name) for name in _names(payload[4:])]


_NETLINK_NETFILTER = 12
_GET_TABLE = 10 << 8 | 1
_REQUEST_ALL = 0x301
_ERROR, _DONE = 2, 3
_TABLE_NAME = 1


def _messages(data: bytes) -> t.Iterator[tuple[int, bytes]]:
    """The messages of netlink(7) in what was received: type and payload."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[max(16, length + 3 & ~3) :]


def _names(attributes: bytes) -> t.Iterator[str]:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == _TABLE_NAME:
            yield attributes[4:length].rstrip(b"\0").decode("utf-8", "replace")
        attributes = attributes[max(4, length + 3 & ~3) :]
