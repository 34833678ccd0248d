# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""hugetlbfs against the kernel's pools and mounts, libvirt's guests and systemd's boot.

The pools are the whole machine's: each test puts them back, and what else has pages there keeps them.
"""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import rig
from rig import guests, modules

NR = "/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"
SIZES = (2048, 1048576)
MORE = 40  # pages of 2 MiB: a guest of 64 MiB, and some to spare
# Pools, mounts, what is in them, and each file below /etc and /var/lib: all that the module could change.
STATE = r"""
cat /sys/kernel/mm/hugepages/*/nr_hugepages /proc/1/mountinfo
find / -xdev -maxdepth 1
find $(findmnt -n -l -t hugetlbfs -o TARGET) -ls
find /etc /var/lib -xdev -type f -exec cksum {} +
find /etc /var/lib -xdev -printf '%p %m %U %G %C@\n'
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.run(["useradd", "--create-home", "--shell", "/bin/sh", "alice"])
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    before = {size: reserved(machine, size) for size in SIZES}
    yield machine
    for name in guests.virsh(machine, "list", "--name").split():
        guests.stop(machine, name)
    for size, pages in before.items():
        pathlib.Path(NR.format(size)).write_text(str(pages), encoding="ascii")


def reserved(host: rig.Host, size: int = 2048) -> int:
    return int(host.get(NR.format(size)))


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE]).stdout


def seen(host: rig.Host, path: str) -> str:
    """Owner, group and mode, from the kernel."""
    return host.run(["stat", "-c", "%u %g %a", path]).stdout.strip()


def call(host: rig.Host, *pools: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """A run that must succeed and hold; a check before it must change nothing, and a second run neither."""
    before = state(host)
    predicted = modules.call(host, "hugetlbfs", check_mode=True, pools=list(pools), **options)
    assert not predicted.get("failed"), predicted["msg"]
    assert state(host) == before
    done = modules.call(host, "hugetlbfs", pools=list(pools), **options)
    assert not done.get("failed"), done["msg"]
    assert done["changed"] is predicted["changed"]
    assert done["restart_required"] is predicted["restart_required"]
    after = state(host)
    again = modules.call(host, "hugetlbfs", pools=list(pools), **options)
    assert again["changed"] is False
    lasting = ("pools", "reboot_required", "restart_required", "restart_units", "guests_pending")
    assert {key: done[key] for key in lasting} == {key: again[key] for key in lasting}
    assert state(host) == after
    return done


def refused(host: rig.Host, *pools: dict[str, t.Any], **options: t.Any) -> str:
    """The message of a run that must fail, and leave everything as it is."""
    before = state(host)
    failed = modules.call(host, "hugetlbfs", pools=list(pools), **options)
    assert failed.get("failed") is True
    assert state(host) == before
    return str(failed["msg"])


def gone(host: rig.Host, path: str, size: str = "2M") -> None:
    done = call(host, {"size": size, "path": path, "state": "absent"})
    assert host.run(["findmnt", "--mountpoint", path], check=False).returncode != 0
    assert done["pools"][0]["mounted"] is False


def test_what_the_kernel_shows(host: rig.Host) -> None:
    pages = reserved(host) + MORE
    kvm = host.run(["getent", "group", "kvm"]).stdout.split(":")[2]
    alice = host.run(["id", "-u", "alice"]).stdout.strip()
    pool = {"size": "2M", "path": "/srv/huge-2M", "pages": pages, "group": "kvm", "mode": "1771", "delegate": "alice"}
    done = call(host, pool)
    assert reserved(host) == done["pools"][0]["pages"] == pages
    # statfs(2): the type of hugetlbfs in linux/magic.h, and its block size
    assert host.run(["stat", "-f", "-c", "%t %s", "/srv/huge-2M"]).stdout.split() == ["958458f6", str(2 << 20)]
    assert seen(host, "/srv/huge-2M") == f"0 {kvm} 1771"
    assert seen(host, "/srv/huge-2M/libvirt") == seen(host, "/srv/huge-2M/libvirt/qemu") == "0 0 755"
    assert seen(host, "/srv/huge-2M/alice") == f"{alice} 0 700"
    assert host.run(["ls", "/srv/huge-2M/libvirt/qemu"]).stdout == ""
    as_alice = ["setpriv", f"--reuid={alice}", "--regid=65534", "--clear-groups"]
    host.run([*as_alice, "mkdir", "/srv/huge-2M/alice/works"])
    assert host.run([*as_alice, "mkdir", "/srv/huge-2M/does-not"], check=False).returncode != 0
    call(host, {"size": "2M", "path": "/srv/huge-2M", "owner": "alice", "group": "0", "mode": "0755"})
    assert seen(host, "/srv/huge-2M") == f"{alice} 0 755"
    gone(host, "/srv/huge-2M")
    assert reserved(host) == pages


def test_a_guest_on_huge_pages(host: rig.Host) -> None:
    before = reserved(host)
    pool = {"size": "2M", "path": "/dev/hugepages", "pages": before + MORE}
    call(host, pool)
    pid = guests.start(host, guests.Guest("huge", hugepages_kib=2048))
    status = guests.status(host, pid)
    assert status["HugetlbPages"] == "65536 kB"
    (directory,) = host.run(["sh", "-c", "ls -d /dev/hugepages/libvirt/qemu/*-huge"]).stdout.split()
    uid, gid = status["Uid"].split()[0], status["Gid"].split()[0]
    assert seen(host, directory) == f"{uid} {gid} 700", "libvirt made it, with its owner and mode"
    ticks = host.run(["cut", "-d ", "-f22", f"/proc/{pid}/stat"]).stdout
    # 32 pages are in use, by the guest alone or not
    message = refused(host, {"size": "2M", "pages": before + 31 - int(host.get(free()))})
    assert "in use or promised" in message
    assert "Guests with huge pages: huge." in message
    message = refused(host, {"size": "2M", "path": "/dev/hugepages", "state": "absent"}, persist=False)
    assert f"is in use and stays mounted: {directory}" in message
    call(host, {"size": "2M", "path": "/dev/hugepages", "mode": "0711"})
    call(host, {"size": "2M", "path": "/dev/hugepages", "mode": "0755", "pages": before + MORE - 4})
    assert guests.pid(host, "huge") == pid
    assert host.run(["cut", "-d ", "-f22", f"/proc/{pid}/stat"]).stdout == ticks
    assert guests.status(host, pid)["HugetlbPages"] == "65536 kB"
    guests.stop(host, "huge")


def free() -> str:
    return NR.format(2048).replace("nr_", "free_")


def test_what_something_has_open_is_not_unmounted(host: rig.Host) -> None:
    call(host, {"size": "2M", "path": "/held", "pages": reserved(host) + 2}, persist=False)
    # An open file that has no name any more, as QEMU has them: only the kernel knows of it.
    hold = "import os, time; f = os.open('/held/x', os.O_RDWR | os.O_CREAT); os.unlink('/held/x'); time.sleep(600)"
    host.run(["systemd-run", "--quiet", "--unit=holder", "/usr/bin/python3", "-c", hold])
    host.run(["sh", "-c", "until ls -l /proc/*/fd 2>/dev/null | grep -q '/held/x (deleted)'; do sleep 0.05; done"])
    failed = modules.call(
        host, "hugetlbfs", persist=False, pools=[{"size": "2M", "path": "/held", "state": "absent", "pages": 0}]
    )
    assert failed.get("failed") is True
    assert "busy" in failed["msg"]
    host.run(["systemctl", "stop", "holder"])
    call(host, {"size": "2M", "path": "/held", "state": "absent"}, persist=False)


def test_the_daemon_learns_of_a_mount_when_it_starts(host: rig.Host) -> None:
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    pool = {"size": "2M", "path": "/later"}
    done = call(host, pool)
    assert (done["restart_required"], done["restart_units"]) == (True, ["libvirtd.service"])
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    assert call(host, pool)["restart_required"] is False
    gone(host, "/later")
    assert call(host, {"size": "2M", "path": "/later", "state": "absent"})["restart_required"] is True
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    assert call(host, {"size": "2M", "path": "/dev/hugepages"})["restart_required"] is False
    # A mount that somebody else made meanwhile, which the daemon has not seen either.
    host.run(["mkdir", "/by-hand"])
    host.run(["mount", "-t", "hugetlbfs", "none", "/by-hand"])
    assert call(host, {"size": "2M", "path": "/by-hand"}, persist=False)["restart_required"] is True
    call(host, {"size": "2M", "path": "/by-hand", "state": "absent"}, persist=False)


def test_a_user_runs_a_guest_in_the_directory_that_was_delegated(host: rig.Host) -> None:
    call(host, {"size": "2M", "path": "/dev/hugepages", "pages": reserved(host) + MORE, "delegate": "alice"})
    host.run(
        [
            "sh",
            "-c",
            "mkdir -p /home/alice/.config/libvirt /run/user/alice; chown -R alice: /home/alice /run/user/alice",
        ]
    )
    host.put("/home/alice/.config/libvirt/qemu.conf", b'hugetlbfs_mount = [ "/dev/hugepages/alice" ]\n')
    definition = guests.Guest("mine", hugepages_kib=2048).xml().replace("/var/log/libvirt/qemu", "/home/alice")
    host.put("/home/alice/mine.xml", definition.encode())
    virsh = ["setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "env", "HOME=/home/alice"]
    virsh += ["XDG_RUNTIME_DIR=/run/user/alice", "virsh", "-q", "-c", "qemu:///session"]
    host.run([*virsh, "create", "/home/alice/mine.xml"])
    try:
        pid = int(host.run(["pgrep", "-u", "alice", "-f", "guest=mine,"]).stdout)
        assert guests.status(host, pid)["HugetlbPages"] == "65536 kB"
        message = refused(host, {"size": "2M", "path": "/dev/hugepages", "state": "absent"}, persist=False)
        assert "/dev/hugepages/alice/libvirt/qemu/1-mine" in message
    finally:
        host.run([*virsh, "destroy", "mine"], check=False)
        host.run(["pkill", "-u", "alice"], check=False)
    call(host, {"size": "2M", "path": "/dev/hugepages"})


def test_pages_of_a_gibibyte_and_by_node(host: rig.Host) -> None:
    if not pathlib.Path(NR.format(1048576)).exists():
        message = refused(host, {"size": "1G", "pages": 1})
        assert "this kernel has no huge pages of 1G here" in message
        return
    call(host, {"size": "1G", "path": "/hugepages1G"})
    assert host.run(["stat", "-f", "-c", "%s", "/hugepages1G"]).stdout.strip() == str(1 << 30)
    message = refused(host, {"size": "2M", "path": "/hugepages1G"})
    assert "has pages of 1G, not of 2M" in message
    smaller = ({"size": "1G", "path": "/hugepages1G", "state": "absent"}, {"size": "2M", "path": "/hugepages1G"})
    call(host, *smaller)
    assert host.run(["stat", "-f", "-c", "%s", "/hugepages1G"]).stdout.strip() == str(2 << 20)
    assert "pagesize=2M" in host.run(["systemctl", "cat", "hugepages1G.mount"]).stdout
    gone(host, "/hugepages1G")
    before = reserved(host)
    done = call(host, {"size": "2M", "pages_per_node": {"0": before + 3}})
    node = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    assert int(host.get(node)) == done["pools"][0]["pages_per_node"]["0"] == before + 3


def test_what_the_machine_cannot_give(host: rig.Host) -> None:
    before = reserved(host)
    many = 1 << 20  # 2 TiB
    message = refused(host, {"size": "2M", "pages": many, "path": "/never"})
    assert "MemAvailable" in message
    done = call(host, {"size": "2M", "pages": many}, allow_partial=True)
    assert reserved(host) == before
    assert done["reboot_required"] is True
    assert f"{before} pages of 2M instead of {many}" in done["reboot_reason"]
    call(host, {"size": "2M", "pages": before})
    assert refused(host, {"size": "3M", "pages": 1}).startswith("size: this kernel has no huge pages of 3M here")
    assert "no node 77 has memory" in refused(host, {"size": "2M", "pages_per_node": {"77": 1}})


def test_the_kernel_gives_fewer_than_wanted(host: rig.Host) -> None:
    """There is never a gibibyte of memory in one piece for each that is available: the kernel's own lies in between."""
    before = reserved(host, 1048576)
    available = int(host.run(["awk", "/^MemAvailable:/ {print $2}", "/proc/meminfo"]).stdout) >> 20
    for more in (available // 2, available):
        pool = {"size": "1G", "pages": before + more}
        failed = modules.call(host, "hugetlbfs", pools=[pool], persist=False)
        assert reserved(host, 1048576) == (before if failed.get("failed") else before + more)
        if failed.get("failed"):
            break
        pathlib.Path(NR.format(1048576)).write_text(str(before), encoding="ascii")
    assert failed["msg"].startswith(
        f"The kernel gave {failed['got']} of {before + more} pages of 1G, so the pool is put"
    )
    assert before <= failed["got"] < failed["wanted"] == before + more
    done = call(host, pool, allow_partial=True)
    got = reserved(host, 1048576)
    assert before <= got < before + more
    assert done["reboot_required"] is True
    assert done["reboot_reason"].startswith(
        f"{got} pages of 1G instead of {before + more}: the kernel could not give more"
    )
    unit = host.get("/etc/systemd/system/hypervisor-hardening-hugepages-1048576kB.service").decode()
    assert f"echo {before + more} > " in unit
    call(host, {"size": "1G", "pages": before})


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"path": "/x", "mode": "0700"}, "0700 lacks execute"),
        ({"path": "/x", "mode": "0750"}, "0750 lacks execute"),
        ({"path": "/etc"}, "the directory is not empty"),
        ({"path": "/lib/huge"}, "/lib is a symbolic link"),
        ({"path": "/etc/passwd"}, "no directory"),
        ({"path": "/run"}, "tmpfs is mounted there"),
        ({"path": "/x", "owner": "mallory"}, "no user 'mallory'"),
        ({"path": "/dev/hugepages", "state": "absent"}, "systemctl mask 'dev-hugepages.mount'"),
    ],
)
def test_refusals_leave_no_trace(host: rig.Host, pool: dict[str, t.Any], message: str) -> None:
    assert message in refused(
        host, {"size": "2M", "pages": reserved(host), **pool} if "state" not in pool else {"size": "2M", **pool}
    )


def test_libvirt_forces_the_mode_that_we_ask_for(host: rig.Host) -> None:
    """Why a mode without 0011 is refused: libvirtd gives it these bits, and no second run would ever find it right."""
    call(host, {"size": "2M", "path": "/dev/hugepages"})
    host.run(["chmod", "0700", "/dev/hugepages"])
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    assert seen(host, "/dev/hugepages") == "0 0 711"
    call(host, {"size": "2M", "path": "/dev/hugepages", "mode": "0755"})


def test_all_of_it_is_back_after_a_reboot(host: rig.Host) -> None:
    pages = reserved(host) + MORE
    kvm = host.run(["getent", "group", "kvm"]).stdout.split(":")[2]
    alice = host.run(["id", "-u", "alice"]).stdout.strip()
    pools: list[dict[str, t.Any]] = [
        {"size": "2M", "pages": pages, "path": "/dev/hugepages", "group": "kvm", "mode": "0775", "delegate": "alice"},
        {"size": "2M", "path": "/srv/huge-2M", "owner": "alice"},
    ]
    call(host, *pools)
    pathlib.Path(NR.format(2048)).write_text(str(pages - MORE), encoding="ascii")
    host.reboot()
    assert reserved(host) == pages
    assert seen(host, "/dev/hugepages") == f"0 {kvm} 775"
    assert seen(host, "/dev/hugepages/alice") == f"{alice} 0 700"
    assert seen(host, "/srv/huge-2M") == f"{alice} 0 755"
    options = host.run(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "/srv/huge-2M"]).stdout
    assert options.startswith("hugetlbfs rw,nosuid,nodev,relatime") and "pagesize=2M" in options
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    guests.virsh(host, "uri")
    done = modules.call(host, "hugetlbfs", pools=pools)
    assert not done.get("failed"), done["msg"]
    assert (done["changed"], done["restart_required"]) == (False, False)
    # What a boot cannot do shows as a failed unit.
    unit = "hypervisor-hardening-hugepages-2048kB.service"
    host.put(f"/etc/systemd/system/{unit}", host.get(f"/etc/systemd/system/{unit}").replace(b"-ge ", b"-ge 9"))
    host.run(["systemctl", "daemon-reload"])
    assert host.run(["systemctl", "restart", unit], check=False).returncode != 0
    host.run(["systemctl", "reset-failed", unit])
    call(
        host,
        {"size": "2M", "path": "/srv/huge-2M", "state": "absent"},
        {"size": "2M", "path": "/dev/hugepages", "group": "0", "mode": "0755"},
    )
