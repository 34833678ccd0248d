# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of hugetlbfs, its mounts included, on a tree of fixtures."""

from __future__ import annotations

import errno
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _hugetlb
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HostError
from ansible_collections.hypervisor.hardening.plugins.module_utils._hugepages import PoolError
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._units import NoMechanism
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PRIVATE, SLAVE, PlayedHost

NR = "/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def host(tmp_path: Path) -> PlayedHost:
    host = PlayedHost(tmp_path)
    host.pool("2048kB", 10, nodes=[6, 4])
    host.pool("1048576kB", 0)
    host.put("/usr/lib/systemd/system/dev-hugepages.mount", "[Mount]\nOptions=nosuid,nodev\n")
    (tmp_path / "dev/hugepages/libvirt/qemu").mkdir(parents=True)
    return host


def wanted(*pools: dict[str, t.Any], **options: t.Any) -> _hugetlb.Wanted:
    return _hugetlb.Wanted([{"size": "2M", "state": "present", **pool} for pool in pools], **options)


def plan(host: PlayedHost, *pools: dict[str, t.Any], **options: t.Any) -> _hugetlb.Plan:
    asked = wanted(*pools, **options)
    return _hugetlb.plan(_hugetlb.observe(host, asked), asked)


def apply(host: PlayedHost, *pools: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """Plan, apply, see that it held, and give the result."""
    asked = wanted(*pools, **options)
    found = _hugetlb.plan(_hugetlb.observe(host, asked), asked)
    before = host.tree()
    _hugetlb.check(host, found)
    assert host.tree() == before, "a check leaves no trace"
    _hugetlb.apply(host, found, Journal(host, "test"))
    state = _hugetlb.observe(host, asked)
    assert _hugetlb.plan(state, asked).changes == ()
    return _hugetlb.result(state, found)


def told(host: PlayedHost, *pools: dict[str, t.Any], **options: t.Any) -> list[str]:
    return [str(change) for change in plan(host, *pools, **options).changes]


def test_nothing_to_do(host: PlayedHost) -> None:
    assert told(host, {"pages": 10, "path": "/dev/hugepages"}, persist=False) == []
    assert plan(host, {"path": "/dev/hugepages"}, persist=False).diff == []


def test_reserve_and_mount(host: PlayedHost) -> None:
    host.put("/proc/1/mountinfo", PRIVATE)
    pool = {"pages": 64, "path": "/srv/huge", "group": "kvm", "mode": "1771", "delegate": ["libvirt-qemu"]}
    assert told(host, pool, persist=False) == [
        "10 pages of 2M instead of 64",
        "/srv/huge: no hugetlbfs",
        "/srv/huge/libvirt/qemu: missing, or another's",
        "/srv/huge/libvirt-qemu: missing, or another's",
    ]
    shown = apply(host, pool)["pools"][0]
    assert host.calls[:2] == [
        f"{NR.format(2048)} = 64",
        "mount hugetlbfs /srv/huge pagesize=2M,uid=0,gid=994,mode=1771 0x6",  # MS_NOSUID | MS_NODEV
    ]
    assert shown == {
        "size": "2M",
        "pages": 64,
        "free": 64,
        "in_use": 0,
        "pages_per_node": {"0": 6, "1": 4},
        "path": "/srv/huge",
        "mounted": True,
        "uid": 0,
        "gid": 994,
        "mode": "1771",
        "base": "/srv/huge/libvirt/qemu",
        "delegated": ["/srv/huge/libvirt-qemu"],
    }
    base, delegated = host.stat("/srv/huge/libvirt/qemu"), host.stat("/srv/huge/libvirt-qemu")
    assert (base.st_uid, base.st_mode & 0o7777) == (0, 0o755)
    assert (delegated.st_uid, delegated.st_gid, delegated.st_mode & 0o7777) == (64055, 0, 0o700)
    assert host.list("/srv/huge/libvirt/qemu") == [], "a guest's own directory is libvirt's to make"


def test_the_former_values_are_in_the_journal(host: PlayedHost) -> None:
    apply(host, {"pages": 64, "path": "/srv/huge"})
    entries = {entry.target: entry for entry in Journal(host, "test").entries()}
    assert (entries[NR.format(2048)].before, entries[NR.format(2048)].after) == (10, 64)
    assert entries["hugetlbfs:/srv/huge"].before == {"is": None}
    assert entries["hugetlbfs:/srv/huge"].after["is"] == {"size": 2048, "uid": 0, "gid": 0, "mode": 0o755}
    assert "/etc/systemd/system/srv-huge.mount" in entries


def test_nodes(host: PlayedHost) -> None:
    assert told(host, {"pages_per_node": {1: 7}}, persist=False) == ["4 pages of 2M on node 1 instead of 7"]
    apply(host, {"pages_per_node": {1: 7, 0: 6}})
    assert f"{NODE.format(1)} = 7" in host.calls
    with pytest.raises(PoolError, match=r"no node 2 has memory here; of those, there is \[0, 1\]"):
        plan(host, {"pages_per_node": {2: 1}})


def test_what_this_host_does_not_have(host: PlayedHost) -> None:
    with pytest.raises(PoolError, match="no huge pages of 16M here; it has 2M, 1G"):
        plan(host, {"size": "16M", "pages": 1})
    for pool, message in (
        ({"owner": "nobody-here"}, "no user 'nobody-here'"),
        ({"group": "nobody-here"}, "no group 'nobody-here'"),
        ({"delegate": ["nobody-here"]}, "no user 'nobody-here'"),
    ):
        with pytest.raises(PoolError, match=message):
            plan(host, {"path": "/h", **pool})
    assert plan(host, {"path": "/h", "owner": "4711", "group": "4712"}).steps[0].after is not None


def test_fewer_than_wanted(host: PlayedHost) -> None:
    host.limit[NR.format(2048)] = 40
    found = plan(host, {"size": "1G", "pages": 2}, {"pages": 64, "path": "/h"})
    with pytest.raises(PoolError, match="The kernel gave 40 of 64 pages of 2M, so the pool is put back to 10") as error:
        _hugetlb.apply(host, found, Journal(host, "test"))
    assert error.value.facts == {"got": 40, "wanted": 64, "size": "2M"}
    assert [host.text(NR.format(size)) for size in (2048, 1048576)] == ["10\n", "0\n"], "both pools are as they were"
    assert not [call for call in host.calls if "mount" in call or "systemctl" in call]


def test_fewer_than_wanted_are_good_enough(host: PlayedHost) -> None:
    host.limit[NR.format(1048576)] = 3
    done = apply(host, {"size": "1G", "pages": 5}, allow_partial=True)
    assert host.text(NR.format(1048576)) == "3\n"
    assert done["reboot_required"] is True
    assert done["reboot_reason"].startswith("3 pages of 1G instead of 5: the kernel could not give more")
    assert done["shortages"] == [done["reboot_reason"]]
    host.calls.clear()
    again = apply(host, {"size": "1G", "pages": 5}, allow_partial=True)
    assert again["reboot_required"] is True
    assert not [call for call in host.calls if " = " in call], "it is not asked again"
    assert apply(host, {"size": "1G", "pages": 3}, allow_partial=True)["reboot_required"] is False
    assert told(host, {"size": "1G", "pages": 5}, persist=False) == ["3 pages of 1G instead of 5"]
    # After a reboot it is asked anew.
    host.put("/proc/stat", f"btime {int(time.time()) + 60}\n")
    assert told(host, {"size": "1G", "pages": 5}, allow_partial=True, persist=False) == ["3 pages of 1G instead of 5"]


def test_more_than_there_is_memory(host: PlayedHost) -> None:
    # MemAvailable of the fixture is 8 GiB
    with pytest.raises(
        PoolError, match="0 pages of 1G instead of 9: that takes 9216 MiB more, and MemAvailable is 8192"
    ):
        plan(host, {"size": "1G", "pages": 9})
    with pytest.raises(PoolError, match="MemAvailable is 1024"):
        plan(host, {"size": "1G", "pages": 7}, {"pages": 600})
    done = apply(host, {"size": "1G", "pages": 9}, {"pages": 600}, allow_partial=True)
    assert [pool["pages"] for pool in done["pools"]] == [0, 600]
    assert done["reboot_required"] is True
    assert "echo 9 >" in host.text("/etc/systemd/system/hypervisor-hardening-hugepages-1048576kB.service")


def test_not_less_than_guests_use(host: PlayedHost) -> None:
    host.pool("2048kB", 10, free=2, nodes=[6, 4])
    host.guest("web1", 11, SLAVE)
    host.put("/proc/11/status", "Name:\tqemu\nHugetlbPages:\t   16384 kB\n")
    with pytest.raises(PoolError, match=r"10 pages of 2M instead of 7: 8 are in use.*Guests with huge pages: web1\."):
        plan(host, {"pages": 7})
    apply(host, {"pages": 8}, persist=False)


def test_owner_and_mode_in_place(host: PlayedHost) -> None:
    pool = {"path": "/dev/hugepages", "group": "kvm", "mode": "0775"}
    assert told(host, pool, persist=False) == ["/dev/hugepages: hugetlbfs with pages of 2M, 0:0 0755"]
    apply(host, pool)
    assert [call for call in host.calls if "mount" in call and "systemctl" not in call] == []
    assert "chown 0:994 0775 /dev/hugepages" in host.calls
    # Without a word about them they stay, and the unit keeps them.
    assert told(host, {"path": "/dev/hugepages"}) == []
    drop_in = host.text("/etc/systemd/system/dev-hugepages.mount.d/zz-hypervisor-hardening.conf")
    assert "Options=nosuid,nodev,pagesize=2M,uid=0,gid=994,mode=0775\n" in drop_in


def test_what_libvirt_forces_is_not_left_to_it(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "dev/hugepages").chmod(0o700)
    (step,) = plan(host, {"path": "/dev/hugepages"}, persist=False).steps
    assert step.lines[1] == "/dev/hugepages: hugetlbfs with pages of 2M, 0:0 0711"


def test_another_page_size_is_refused_or_replaced(host: PlayedHost) -> None:
    present = {"size": "1G", "path": "/dev/hugepages"}
    absent = {"path": "/dev/hugepages", "state": "absent"}
    with pytest.raises(PoolError, match=r"/dev/hugepages has pages of 2M, not of 1G.*size 2M and state absent"):
        plan(host, present)
    for pools in ([present, absent], [absent, present]):
        assert told(host, *pools, persist=False) == [
            "/dev/hugepages: hugetlbfs with pages of 2M, 0:0 0755",
            "/dev/hugepages: no hugetlbfs",
            "/dev/hugepages/libvirt/qemu: missing, or another's",
        ]
    apply(host, absent, present)
    assert host.calls[:2] == [
        "umount /dev/hugepages",
        "mount hugetlbfs /dev/hugepages pagesize=1G,uid=0,gid=0,mode=0755 0x6",
    ]


@pytest.mark.parametrize("inside", ["libvirt/qemu/3-web1", "alice/libvirt/qemu/1-x"])
def test_what_a_guest_uses_is_not_unmounted(host: PlayedHost, tmp_path: Path, inside: str) -> None:
    (tmp_path / "dev/hugepages" / inside).mkdir(parents=True)
    with pytest.raises(PoolError, match=f"/dev/hugepages is in use and stays mounted: /dev/hugepages/{inside}"):
        plan(host, {"path": "/dev/hugepages", "state": "absent"}, persist=False)


def test_what_holds_a_file_is_not_unmounted(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "dev/hugepages/dpdk").write_text("")
    with pytest.raises(PoolError, match="stays mounted: /dev/hugepages/dpdk"):
        plan(host, {"path": "/dev/hugepages", "state": "absent"}, persist=False)
    (tmp_path / "dev/hugepages/dpdk").unlink()
    host.busy.add("/dev/hugepages")
    found = plan(host, {"path": "/dev/hugepages", "state": "absent", "pages": 0}, persist=False)
    with pytest.raises(PoolError, match="could not be unmounted: Device or resource busy"):
        _hugetlb.apply(host, found, Journal(host, "test"))
    assert host.text(NR.format(2048)) == "10\n", "the reservation is put back"


def test_absent(host: PlayedHost) -> None:
    pool = {"pages": 12, "path": "/srv/huge", "delegate": ["libvirt-qemu"]}
    apply(host, pool)
    gone = {"path": "/srv/huge", "state": "absent"}
    done = apply(host, gone)
    assert done["pools"][0]["mounted"] is False
    assert host.text(NR.format(2048)) == "12\n", "the reservation stays as it is"
    assert host.text_optional("/etc/systemd/system/srv-huge.mount") is None
    assert host.list("/etc/tmpfiles.d") == []
    assert host.exists("/etc/systemd/system/hypervisor-hardening-hugepages-2048kB.service")
    apply(host, {**gone, "pages": 0})
    assert host.text(NR.format(2048)) == "0\n"
    assert not host.exists("/etc/systemd/system/hypervisor-hardening-hugepages-2048kB.service")
    assert told(host, {"size": "1G", "path": "/dev/hugepages", "state": "absent"}) == [], "another size is there"
    with pytest.raises(PoolError, match=r"systemctl mask 'dev-hugepages\.mount'"):
        plan(host, {"path": "/dev/hugepages", "state": "absent"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev", "/dev: tmpfs is mounted there"),
        ("/full", "/full: the directory is not empty"),
        ("/file", "/file: there is something that is no directory"),
        ("/link", "/link: /link is a symbolic link to full"),
        ("/link/below", "/link/below: /link is a symbolic link to full"),
    ],
)
def test_what_is_in_the_way(host: PlayedHost, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("full")
    with pytest.raises(PoolError, match=message):
        plan(host, {"path": path}, persist=False)


def test_mountinfo_and_statfs_disagree(host: PlayedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "filesystem", lambda path: 0xEF53)
    with pytest.raises(PoolError, match=r"statfs\(2\) finds no hugetlbfs"):
        plan(host, {"path": "/dev/hugepages"}, persist=False)


def test_the_kernel_does_not_mount(host: PlayedHost) -> None:
    host.refused["/srv/huge"] = errno.EPERM
    found = plan(host, {"pages": 12, "path": "/srv/huge"})
    with pytest.raises(PoolError, match=r"/srv/huge: the kernel did not mount hugetlbfs \(pagesize=2M.*not permitted"):
        _hugetlb.apply(host, found, Journal(host, "test"))
    assert host.text(NR.format(2048)) == "10\n"
    assert not host.exists("/srv/huge"), "the mount point was made for nothing"


def test_systemctl_fails(host: PlayedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(host, {"pages": 12, "path": "/srv/huge"}, {"path": "/dev/hugepages", "mode": "0711"})

    def run(argv: t.Sequence[str], **options: t.Any) -> t.NoReturn:
        raise HostError("The command systemctl is not installed on this host.")

    monkeypatch.setattr(host, "run", run)
    with pytest.raises(HostError, match="systemctl"):
        _hugetlb.apply(host, found, Journal(host, "test"))
    assert host.text(NR.format(2048)) == "10\n"
    assert "umount /srv/huge" in host.calls
    assert host.stat("/dev/hugepages").st_mode & 0o7777 == 0o755


def test_another_init(host: PlayedHost, tmp_path: Path) -> None:
    (tmp_path / "run/systemd/system").rmdir()
    host.put("/proc/1/comm", "runit\n")
    with pytest.raises(NoMechanism, match=r"runit.*hugepagesz="):
        plan(host, {"pages": 1})
    apply(host, {"pages": 12, "path": "/srv/huge"}, persist=False)


def test_a_daemon_that_looked_before(host: PlayedHost) -> None:
    host.daemon(77, 4242)
    pool = {"path": "/srv/huge"}
    asked = wanted(pool, persist=False)
    before = _hugetlb.observe(host, asked)
    predicted = _hugetlb.result(before, _hugetlb.plan(before, asked))
    assert (predicted["restart_required"], predicted["restart_units"]) == (True, ["libvirtd.service"])
    for _run in range(2):
        done = apply(host, pool, persist=False)
        assert (done["restart_required"], done["restart_units"]) == (True, ["libvirtd.service"])
    host.daemon(78, 4300)  # restarted
    assert apply(host, pool, persist=False)["restart_required"] is False
    apply(host, pool, {"path": "/dev/hugepages", "mode": "0711"}, persist=False)
    assert apply(host, pool, persist=False)["restart_required"] is False, "owner and mode are no news to it"
    assert apply(host, {**pool, "state": "absent"}, persist=False)["restart_required"] is True


def test_no_daemon_no_restart(host: PlayedHost) -> None:
    done = apply(host, {"path": "/srv/huge"}, persist=False)
    assert (done["restart_required"], done["restart_units"]) == (False, [])


def test_guests_that_cannot_get_there(host: PlayedHost) -> None:
    host.guest("cut-off", 11, PRIVATE)
    host.guest("reached", 12, SLAVE)
    host.guest("no-namespace", 13, None)
    new = wanted({"path": "/srv/huge"}, persist=False)
    assert _hugetlb.observe(host, new).guests_pending == ("cut-off",), "before the mount is there"
    apply(host, {"path": "/srv/huge"}, persist=False)
    assert _hugetlb.observe(host, new).guests_pending == ("cut-off", "reached"), "it did not spread in the fixture"
    mount = host.text("/proc/1/mountinfo").splitlines()[-1]
    host.put("/proc/12/mountinfo", SLAVE + mount.replace("shared:", "master:") + "\n")
    assert _hugetlb.observe(host, new).guests_pending == ("cut-off",)
    old = wanted({"path": "/dev/hugepages"}, persist=False)
    assert _hugetlb.observe(host, old).guests_pending == (), "all of them have had that one since their start"
    host.put("/proc/12/mountinfo", SLAVE.replace("hugetlbfs", "tmpfs").replace("/dev/hugepages", "/dev/other"))
    assert _hugetlb.observe(host, old).guests_pending == (), (
        "libvirt brings what is below /dev to a guest that it reaches"
    )
    assert _hugetlb.observe(host, wanted({"pages": 1})).guests_pending == ()
