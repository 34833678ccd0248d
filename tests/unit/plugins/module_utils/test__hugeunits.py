# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _hugeunits, _units
from ansible_collections.hypervisor.hardening.plugins.module_utils._hugepages import PoolError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PlayedHost

OPTIONS = "pagesize=1G,uid=0,gid=0,mode=0755"
VENDOR = "/usr/lib/systemd/system/dev-hugepages.mount"
DROP_IN = "/etc/systemd/system/dev-hugepages.mount.d/zz-hypervisor-hardening.conf"


@pytest.fixture
def host(tmp_path: Path) -> PlayedHost:
    return PlayedHost(tmp_path)


def lines(file: _units.File) -> list[str]:
    return (file.text or "").splitlines()


def test_a_service_for_the_machine(host: PlayedHost) -> None:
    (file,) = _hugeunits.reservations(host, 2048, {None: 64}, all_or_fail=True)
    nr = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    assert file.path == "/etc/systemd/system/hypervisor-hardening-hugepages-2048kB.service"
    assert f"ExecStart=/bin/sh -c 'echo 64 > {nr} && read got < {nr} && test \"$$got\" -ge 64'" in lines(file)
    assert {"DefaultDependencies=no", "Before=sysinit.target", "WantedBy=sysinit.target"} <= set(lines(file))
    assert file.wanted_by == "sysinit.target"


def test_a_service_for_each_node_and_none_for_those_of_a_former_wish(host: PlayedHost) -> None:
    for name in ("2048kB", "2048kB-node1", "2048kB-node7", "1048576kB"):
        host.put(f"/etc/systemd/system/hypervisor-hardening-hugepages-{name}.service", "old")
    host.put("/etc/systemd/system/hypervisor-hardening-hugepages-2048kB.service.d/override.conf", "an operator's")
    files = list(_hugeunits.reservations(host, 2048, {0: 4, 1: 2}, all_or_fail=False))
    assert {file.unit[len("hypervisor-hardening-hugepages-") :]: file.text is not None for file in files} == {
        "2048kB.service": False,
        "2048kB-node0.service": True,
        "2048kB-node1.service": True,
        "2048kB-node7.service": False,
    }
    node1 = next(file for file in files if "node1" in file.path)
    path = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    assert f"ExecStart=/bin/sh -c 'echo 2 > {path}'" in lines(node1)


def test_a_mount_unit(host: PlayedHost) -> None:
    file = _hugeunits.mount(host, "/srv/huge-1G", OPTIONS)
    assert file.path == "/etc/systemd/system/srv-huge\\x2d1G.mount"
    assert {"Where=/srv/huge-1G", "Type=hugetlbfs", f"Options=nosuid,nodev,{OPTIONS}"} <= set(lines(file))
    assert file.wanted_by == "local-fs.target"
    host.put(file.path, file.text or "")
    assert _hugeunits.mount(host, "/srv/huge-1G", OPTIONS) == file, "our own unit is not somebody else's"


def test_a_drop_in_keeps_what_it_does_not_speak_of(host: PlayedHost) -> None:
    host.put(VENDOR, "[Mount]\nOptions=nosuid,nodev\n")
    file = _hugeunits.mount(host, "/dev/hugepages", OPTIONS)
    assert (file.path, file.wanted_by) == (DROP_IN, "")
    assert lines(file)[1:] == ["[Mount]", f"Options=nosuid,nodev,{OPTIONS}"]
    host.put(DROP_IN, file.text or "")
    assert _hugeunits.mount(host, "/dev/hugepages", OPTIONS) == file
    host.put("/etc/systemd/system/dev-hugepages.mount.d/override.conf", "[Mount]\nOptions=pagesize=2M,size=4G\n")
    file = _hugeunits.mount(host, "/dev/hugepages", OPTIONS)
    assert lines(file)[2] == f"Options=size=4G,{OPTIONS}"
    host.put(DROP_IN, file.text or "")
    assert _units.last_value(host, "dev-hugepages.mount", "Options") == f"size=4G,{OPTIONS}", "the last name wins"


def test_a_line_of_fstab_and_a_unit_of_the_administrator_get_a_drop_in(host: PlayedHost) -> None:
    host.put("/run/systemd/generator/srv.mount", "[Mount]\nOptions=pagesize=2M,nofail\n")
    file = _hugeunits.mount(host, "/srv", OPTIONS)
    assert file.path.endswith("srv.mount.d/zz-hypervisor-hardening.conf")
    assert lines(file)[2] == f"Options=nofail,{OPTIONS}"
    host.put("/etc/systemd/system/srv.mount", "[Mount]\nWhat=x\n")
    assert lines(_hugeunits.mount(host, "/srv", OPTIONS))[2] == f"Options={OPTIONS}"


def test_masked(host: PlayedHost) -> None:
    host.put(VENDOR, "[Mount]\n")
    host.link("/etc/systemd/system/dev-hugepages.mount", "/dev/null")
    with pytest.raises(PoolError, match=r"dev-hugepages\.mount is masked"):
        _hugeunits.mount(host, "/dev/hugepages", OPTIONS)
    assert all(file.text is None for file in _hugeunits.no_mount(host, "/dev/hugepages"))


def test_what_others_would_mount_again(host: PlayedHost) -> None:
    host.put(VENDOR, "[Mount]\n")
    with pytest.raises(PoolError, match=f"{VENDOR} would mount it again.*systemctl mask 'dev-hugepages.mount'"):
        list(_hugeunits.no_mount(host, "/dev/hugepages"))
    host.put("/run/systemd/generator/srv.mount", "[Mount]\n")
    with pytest.raises(PoolError, match="Remove its line from /etc/fstab"):
        list(_hugeunits.no_mount(host, "/srv"))
    ours = _hugeunits.mount(host, "/h", OPTIONS)
    host.put(ours.path, ours.text or "")
    assert [(file.path, file.text) for file in _hugeunits.no_mount(host, "/h")] == [
        ("/etc/systemd/system/h.mount", None),
        ("/etc/systemd/system/h.mount.d/zz-hypervisor-hardening.conf", None),
    ]
    host.put("/run/systemd/generator/h.mount", "[Mount]\n")
    with pytest.raises(PoolError, match="/etc/fstab"):
        list(_hugeunits.no_mount(host, "/h"))


def test_the_directories_of_users() -> None:
    file = _hugeunits.delegate("/dev/hugepages", ("alice", "bob"))
    assert file.path == "/etc/tmpfiles.d/hypervisor-hardening-hugetlbfs-dev-hugepages.conf"
    # tmpfiles.d(5): type, path, mode, user, group, age
    assert lines(file)[1:] == ["d /dev/hugepages/alice 0700 alice - -", "d /dev/hugepages/bob 0700 bob - -"]
    assert _hugeunits.delegate("/dev/hugepages", ()).text is None
