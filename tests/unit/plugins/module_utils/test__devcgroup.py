# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What filters the devices of a cgroup, version 1 and 2."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._devcgroup import DeviceCgroups
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

V1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/devices cgroup rw,relatime,devices 0 0\n"
V2 = "sysfs /sys sysfs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"
HYBRID = V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"
SCOPE = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope"
MEMBER = f"5:devices:{SCOPE}\n1:name=systemd:/x\n0::{SCOPE}/libvirt/emulator\n"


class BpfHost(Host):
    """``programs``: cgroup -> program ids, or the error number that the kernel gives."""

    def __init__(self, root: Path, mounts: str) -> None:
        super().__init__(str(root))
        self.programs: dict[str, list[int] | int] = {}
        self.asked: list[str] = []
        (root / "proc").mkdir()
        (root / "proc/mounts").write_text(mounts)

    def device_programs(self, cgroup: str) -> list[int]:
        self.asked.append(cgroup)
        answer = self.programs.get(cgroup, [])
        if isinstance(answer, int):
            raise OSError(answer, cgroup)
        return answer


def test_v2_adds_up_the_programs_of_the_cgroups_above(tmp_path: Path) -> None:
    host = BpfHost(tmp_path, V2)
    host.programs = {f"/sys/fs/cgroup{SCOPE}/libvirt": [43], "/sys/fs/cgroup/machine.slice": [7, 8]}
    cgroups = DeviceCgroups(host)
    assert cgroups.path(MEMBER) == f"{SCOPE}/libvirt/emulator"
    assert cgroups.rules(MEMBER) == [
        f"BPF program 43 on {SCOPE}/libvirt",
        "BPF program 7 on /machine.slice",
        "BPF program 8 on /machine.slice",
    ]


def test_each_cgroup_is_asked_once(tmp_path: Path) -> None:
    host = BpfHost(tmp_path, V2)
    cgroups = DeviceCgroups(host)
    for guest in range(3):
        assert cgroups.rules(f"0::/machine.slice/{guest}.scope\n") == []
    assert len(host.asked) == 4
    assert "/sys/fs/cgroup" not in {path.rstrip("/") for path in host.asked}, "the root has no filter of a guest"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOENT])
def test_no_answer_is_not_an_empty_one(tmp_path: Path, number: int) -> None:
    host = BpfHost(tmp_path, V2)
    host.programs = {"/sys/fs/cgroup/machine.slice": number}
    assert DeviceCgroups(host).rules(MEMBER) is None


@pytest.mark.parametrize(
    ("membership", "path", "rules"),
    [
        ("0::/\n", "/", []),
        ("0::/../../system.slice\n", "", None),
        ("1:name=systemd:/x\n", "", None),
        ("", "", None),
    ],
)
def test_v2_at_the_edges(tmp_path: Path, membership: str, path: str, rules: list[str] | None) -> None:
    cgroups = DeviceCgroups(BpfHost(tmp_path, V2))
    assert (cgroups.path(membership), cgroups.rules(membership)) == (path, rules)


def test_without_any_cgroup(tmp_path: Path) -> None:
    assert DeviceCgroups(BpfHost(tmp_path, "sysfs /sys sysfs rw 0 0\n")).rules(MEMBER) is None


@pytest.mark.parametrize("mounts", [V1, HYBRID])
@pytest.mark.parametrize(
    ("lines", "rules"), [("c 1:3 rw\nc 10:232 rw\n", ["c 1:3 rw", "c 10:232 rw"]), ("a *:* rwm\n", [])]
)
def test_v1_shows_its_lines(tmp_path: Path, mounts: str, lines: str, rules: list[str]) -> None:
    host = BpfHost(tmp_path, mounts)
    directory = tmp_path / f"sys/fs/cgroup/devices{SCOPE}"
    directory.mkdir(parents=True)
    (directory / "devices.list").write_text(lines)
    cgroups = DeviceCgroups(host)
    assert (cgroups.path(MEMBER), cgroups.rules(MEMBER)) == (SCOPE, rules)
    assert host.asked == []


def test_v1_of_a_cgroup_that_has_gone(tmp_path: Path) -> None:
    assert DeviceCgroups(BpfHost(tmp_path, V1)).rules(MEMBER) is None


def test_a_directory_that_is_no_cgroup(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        Host(str(tmp_path)).device_programs("/")
    # EPERM for whoever has no right to ask
    assert refused.value.errno in (errno.EBADF, errno.EPERM)
