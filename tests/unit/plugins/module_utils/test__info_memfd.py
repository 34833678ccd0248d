# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe of memfd_create: a real call in a real child, as whoever runs the tests."""

from __future__ import annotations

import errno
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_memfd
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put(
        "/etc/passwd", "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/false\n1234:x:77:77::/:/bin/sh\n"
    )
    host.put("/etc/group", "root:x:0:\nkvm:x:994:\n")
    return host


def facts(host: LibvirtHost) -> dict[str, t.Any]:
    found = _info_memfd.facts(Context(host))
    assert mismatches("memfd", found) == []
    return found


def user(host: LibvirtHost, text: str) -> tuple[int | None, int | None, str]:
    host.put("/etc/libvirt/qemu.conf", text)
    found = facts(host)
    return found["uid"], found["gid"], found["user_from"]


def test_the_call_works_on_this_kernel(host: LibvirtHost) -> None:
    assert _info_memfd.probe(host, os.geteuid(), os.getegid()) == (True, "")


def test_a_call_that_the_kernel_refuses(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str, _flags: int) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert _info_memfd.probe(host, os.geteuid(), os.getegid()) == (False, "memfd_create: Permission denied")


def test_a_user_that_cannot_be_taken_on_is_no_answer(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_groups: list[int]) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "setgroups", refuse)
    works, reason = _info_memfd.probe(host, 64055, 64055)
    assert (works, reason) == (None, "it could not be tried as uid 64055: Operation not permitted")


def test_the_call_asks_for_what_qemu_asks(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_name: str, flags: int) -> int:
        # qemu's util/memfd.c
        raise OSError(0, f"{flags == os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING}")

    monkeypatch.setattr(os, "memfd_create", check)
    assert _info_memfd.probe(host, os.geteuid(), os.getegid()) == (False, "memfd_create: True")


def test_a_host_without_libvirt(host: LibvirtHost) -> None:
    found = facts(host)
    assert (found["works"], found["uid"], found["gid"], found["user_from"]) == (None, None, None, "")
    assert "nobody knows as which user QEMU runs" in found["reason"]
    assert found["unread"] == [{"path": "memfd_create(2)", "reason": found["reason"]}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('user = "libvirt-qemu"\ngroup = "kvm"\n', (64055, 994)),
        ('user = "+107"\ngroup = "+108"\n', (107, 108)),
        ('user = "107"\ngroup = "108"\n', (107, 108)),
        ('user = "1234"\ngroup = "0"\n', (77, 0)),
        ('user = "+1234"\ngroup = "0"\n', (1234, 0)),
        ('user = "root"\ngroup = "root"\n', (0, 0)),
    ],
)
def test_the_user_that_the_configuration_names(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(_info_memfd, "probe", lambda _host, _uid, _gid: (True, ""))
    assert user(host, text) == (*expected, "/etc/libvirt/qemu.conf")


def test_otherwise_the_owner_of_libvirts_directory(
    host: LibvirtHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_info_memfd, "probe", lambda _host, _uid, _gid: (True, ""))
    (tmp_path / "var/lib/libvirt/qemu").mkdir(parents=True)
    own = (tmp_path / "var/lib/libvirt/qemu").stat()
    assert user(host, "") == (own.st_uid, own.st_gid, "/var/lib/libvirt/qemu")
    assert user(host, 'user = "nobody-here"\n') == (own.st_uid, own.st_gid, "/var/lib/libvirt/qemu")


def test_where_qemu_falls_back_to(host: LibvirtHost, tmp_path: Path) -> None:
    assert facts(host)["fallback"] == {"directory": "/tmp", "exists": False, "mode": "", "world_writable": False}
    (tmp_path / "srv/tmp").mkdir(parents=True)
    (tmp_path / "srv/tmp").chmod(0o1777)
    host.daemon(5)
    host.put("/proc/5/environ", "LANG=C\0TMPDIR=/srv/tmp\0")
    assert facts(host)["fallback"] == {"directory": "/srv/tmp", "exists": True, "mode": "1777", "world_writable": True}


def test_the_kernels_setting_is_told_and_decides_nothing(host: LibvirtHost) -> None:
    assert facts(host)["memfd_noexec"] is None
    host.put("/proc/sys/vm/memfd_noexec", "2\n")
    assert facts(host)["memfd_noexec"] == 2
