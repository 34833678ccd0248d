# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _mountinfo
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError, Host
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PRIVATE, SHARED, SLAVE, PlayedHost


def test_the_line_of_the_manual_page() -> None:
    # proc_pid_mountinfo(5)
    (mount,) = _mountinfo.parse("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
    assert (mount.id, mount.parent, mount.device, mount.root, mount.target) == (36, 35, "98:0", "/mnt1", "/mnt2")
    assert (mount.fstype, mount.options) == ("ext3", "rw,errors=continue")
    assert (mount.shared, mount.master, mount.unbindable) == (False, True, False)


@pytest.mark.parametrize(
    ("tags", "propagation"),
    [
        ("", "private"),
        ("shared:1 ", "shared"),
        ("master:2 ", "slave"),
        ("master:2 propagate_from:3 ", "slave"),
        ("shared:1 master:2 ", "shared,slave"),
        ("unbindable ", "unbindable"),
    ],
)
def test_propagation(tags: str, propagation: str) -> None:
    # The tags are those of mount_namespaces(7), "/proc/[pid]/mountinfo and propagation type".
    (mount,) = _mountinfo.parse(f"2 1 0:1 / /a rw {tags}- tmpfs tmpfs rw")
    assert mount.propagation == propagation


def test_escapes_and_odd_characters() -> None:
    # The kernel escapes blank, tab, newline and backslash (fs/proc_namespace.c) and nothing else.
    text = "2 1 0:1 / /a\\040b\\011c\\012d\\134e rw - tmpfs  rw\n3 2 0:2 / /a\x0b\u2028\udcff rw - tmpfs x rw\n"
    assert [mount.target for mount in _mountinfo.parse(text)] == ["/a b\tc\nd\\e", "/a\x0b\u2028\udcff"]


def test_topmost_of_a_stack_and_what_a_later_mount_covers() -> None:
    # /dev/pts and /dev/shm are doubled, as some containers have them.
    text = """\
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw
25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw
26 24 0:24 / /dev/pts rw - devpts devpts rw
27 1 254:0 / / rw - ext4 /dev/vda rw
29 26 0:26 / /dev/pts rw - devpts devpts rw
30 25 0:27 / /dev/shm rw - tmpfs tmpfs rw
40 27 0:40 / /srv/inner rw - tmpfs tmpfs rw
41 27 0:41 / /srv rw - tmpfs tmpfs rw
42 41 0:42 / /srv/other rw - tmpfs tmpfs rw
43 30 0:43 / /dev/shm/deep rw - tmpfs tmpfs rw
44 25 0:44 / /dev/shm/hidden rw - tmpfs tmpfs rw
"""
    found = {target: mount.id for target, mount in _mountinfo.visible(_mountinfo.parse(text)).items()}
    assert found == {
        "/": 27,
        "/dev": 24,
        "/dev/pts": 29,
        "/dev/shm": 30,
        "/dev/shm/deep": 43,
        "/srv": 41,
        "/srv/other": 42,
    }
    assert list(found) == sorted(found), "parents come before what is below them"


def test_siblings_below_a_later_mount_are_hidden() -> None:
    found = _mountinfo.visible(_mountinfo.parse(SHARED))
    assert (found["/run/host/incoming"].id, found["/run/host/os-release"].id) == (1468, 1467)


def test_what_the_kernel_says_of_this_very_host() -> None:
    """open(2) and fdinfo tell which mount a path leads to (proc_pid_fdinfo(5), mnt_id)."""
    compared = 0
    for target, mount in _mountinfo.visible(_mountinfo.parse(Host().text("/proc/self/mountinfo"))).items():
        try:
            fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
        except PermissionError:
            continue
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        os.close(fd)
        assert f"\nmnt_id:\t{mount.id}\n" in info, target
        compared += 1
    assert compared > 2


def test_a_tree_without_a_root_mount() -> None:
    assert list(_mountinfo.visible(_mountinfo.parse("2 1 0:1 / /a/b rw - tmpfs tmpfs rw"))) == ["/a/b"]
    assert _mountinfo.visible(()) == {}


@pytest.mark.parametrize(
    ("path", "normal"), [("/", "/"), ("//", "/"), ("/a/", "/a"), ("//a//./b/..", "/a"), ("/a b", "/a b")]
)
def test_normal(path: str, normal: str) -> None:
    assert _mountinfo.normal(path) == normal


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(HardeningError, match="'dev/hugepages' is no absolute path"):
        _mountinfo.normal("dev/hugepages")


@pytest.mark.parametrize(
    ("path", "directory", "below"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/a", "/", True), ("/", "/a", False)],
)
def test_is_below(path: str, directory: str, below: bool) -> None:
    assert _mountinfo.is_below(path, directory) is below


def test_guests_outside(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    host.guest("reached", 11, SLAVE)
    host.guest("cut-off", 12, PRIVATE)
    host.guest("no-namespace", 13, None)
    assert [_mountinfo.outside(host, pid, ["/"]) for pid in (11, 12, 13)] == [False, True, False]
    assert _mountinfo.outside(host, 11, ["/", "/made/later"]), "a mount point that the guest does not have"
    assert not _mountinfo.outside(host, 99, ["/"]), "a guest that has ended"
