# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access control lists, against the kernel's own: what setxattr(2) makes of the bytes, and whom it lets in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._acl import ATTRIBUTE, Acl, AclError


def stored(path: Path) -> bytes | None:
    return os.getxattr(path, ATTRIBUTE) if ATTRIBUTE in os.listxattr(path) else None


def of(path: Path) -> Acl:
    return Acl.of(path.stat().st_mode, stored(path))


def put(path: Path, acl: Acl) -> None:
    os.setxattr(path, ATTRIBUTE, acl.render())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o640)
    return path


def test_a_user_gets_in_and_is_taken_out_again(file: Path) -> None:
    before = of(file)
    assert before.text == "user::rw-\ngroup::r--\nother::---\n"
    put(file, before.with_user(64055, 6))
    assert stored(file) is not None
    # The text is what getfacl(1) prints with --numeric.
    assert of(file).text == "user::rw-\nuser:64055:rw-\ngroup::r--\nmask::rw-\nother::---\n"
    assert of(file).names(64055)
    put(file, of(file).without_user(64055))
    assert stored(file) is None, "the kernel drops a list that says no more than the permission bits"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_mask_that_has_to_be_wider_gives_nobody_else_more(file: Path) -> None:
    put(file, of(file).with_user(1, 6).with_user(2, 4))
    # chmod changes the mask: now user 1 may no longer write.
    file.chmod(0o640)
    assert of(file).may(1, (), 0, 0) == 4
    put(file, of(file).with_user(64055, 6))
    assert of(file).may(64055, (), 0, 0) == 6
    assert (of(file).may(1, (), 0, 0), of(file).may(2, (), 0, 0)) == (4, 4)


def test_what_a_user_had_already_stays(file: Path) -> None:
    assert of(file).with_user(7, 2).with_user(7, 4).may(7, (), 0, 0) == 6


@pytest.mark.parametrize(
    ("uid", "gids", "may"),
    [(0, (), 6), (5, (0,), 4), (5, (9,), 2), (5, (0, 9), 4), (5, (), 0), (64055, (0,), 1)],
)
def test_who_may_what(uid: int, gids: tuple[int, ...], may: int) -> None:
    # user::rw-, user:64055:--x, group::r--, group:9:-w-, mask::rwx, other::---, of linux/posix_acl_xattr.h
    entries = "01000600ffffffff 0200010037fa0000 04000400ffffffff 0800020009000000 10000700ffffffff 20000000ffffffff"
    acl = Acl.of(0o770, bytes.fromhex("02000000" + entries.replace(" ", "")))
    assert acl.may(uid, gids, 0, 0) == may


@pytest.mark.parametrize("data", [b"", b"\1\0\0\0", b"\2\0\0\0xxx"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(AclError):
        Acl.of(0, data)


def test_the_kernel_lets_in_whom_the_list_names(file: Path) -> None:
    """For real: a child as that user opens the file, from a directory that this process has opened."""
    file.parent.chmod(0o711)
    directory = os.open(file.parent, os.O_RDONLY)

    def opens() -> bool:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(64055, 64055, 64055)
            os.setresuid(64055, 64055, 64055)
            try:
                os.close(os.open(file.name, os.O_RDONLY, dir_fd=directory))
            except OSError:
                os._exit(1)
            os._exit(0)
        return os.waitpid(child, 0)[1] == 0

    assert not opens()
    put(file, of(file).with_user(64055, 4))
    assert opens()
    os.close(directory)
