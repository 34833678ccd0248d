# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes are guests, whose they are, what runs beside them, and what nobody cleared away."""

from __future__ import annotations

import errno
import os
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _confinement
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import DAEMON_STATUS, STATUS, QemuHost

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def host(tmp_path: Path) -> QemuHost:
    return QemuHost(tmp_path)


def guests(host: QemuHost) -> list[dict[str, t.Any]]:
    found: list[dict[str, t.Any]] = _confinement.gather(host)["guests"]
    return found


def weak(host: QemuHost, name: str = "web") -> dict[str, str]:
    """Weakness -> what was observed."""
    (guest,) = [guest for guest in guests(host) if guest["name"] == name]
    return {weakness["id"]: weakness["observed"] for weakness in guest["weaknesses"]}


def test_a_confined_guest_has_no_weakness_but_the_kernels(host: QemuHost) -> None:
    host.guest("web", 7)
    (guest,) = guests(host)
    assert (guest["name"], guest["pid"], guest["managed_by"], guest["helpers"]) == ("web", 7, "libvirt", [])
    assert list(weak(host)) == ["no_mac"]


def test_a_host_without_guests(host: QemuHost) -> None:
    assert _confinement.gather(host) == {"guests": [], "leftovers": []}


def test_guests_come_by_name_and_pid(host: QemuHost) -> None:
    for name, pid in (("b", 9), ("a", 11), ("c", 8)):
        host.guest(name, pid)
    host.process(10, QEMU, argv=[QEMU, "-name", "a"])
    assert [(guest["name"], guest["pid"]) for guest in guests(host)] == [("a", 10), ("a", 11), ("b", 9), ("c", 8)]


def test_the_name_of_a_process_makes_no_qemu(host: QemuHost) -> None:
    host.process(7, "/usr/bin/sleep", comm="qemu-system-x86", argv=["qemu-system-x86_64", "-name", "guest=fake"])
    assert guests(host) == []


def test_libvirts_guest_is_one_by_whatever_name_it_is_installed(host: QemuHost) -> None:
    host.guest("web", 7, exe="/opt/emulator")
    assert [guest["managed_by"] for guest in guests(host)] == ["libvirt"]


def test_a_stale_pid_file_makes_no_guest(host: QemuHost) -> None:
    host.guest("web", 7, exe="/usr/bin/bash", argv=["bash"])
    assert guests(host) == []


def test_kernel_threads_and_what_has_ended_are_passed_over(host: QemuHost) -> None:
    host.put("/proc/2/stat", "2 (kthreadd) S 0\n")
    host.guest("gone", 8)
    os.unlink(host.path("/proc/8/exe"))
    assert guests(host) == []


def test_a_qemu_that_libvirt_asks_for_its_capabilities_has_no_guest(host: QemuHost) -> None:
    host.process(7, QEMU, argv=[QEMU, "-S", "-nodefaults", "-machine", "none,accel=kvm:tcg", "-daemonize"])
    assert guests(host) == []


def test_a_child_for_the_teardown_is_no_guest_of_its_own(host: QemuHost) -> None:
    host.guest("web", 7)
    argv = host.text("/proc/7/cmdline").rstrip("\0").split("\0")
    host.process(8, QEMU, argv=argv, status=STATUS.replace("PPid:	1", "PPid:	7"))
    host.process(9, QEMU, argv=argv)
    assert [guest["pid"] for guest in guests(host)] == [7, 9]


def test_who_manages_a_guest(host: QemuHost) -> None:
    host.guest("system", 7)
    for pid, name in ((8, "mine"), (9, "nobodys"), (10, "a/b"), (11, "")):
        host.process(pid, QEMU, argv=[QEMU, "-name", f"guest={name}"], status=STATUS.replace("64055", "1000"))
    host.put("/run/user/1000/libvirt/qemu/run/mine.pid", "8\n")
    host.put("/run/user/1000/libvirt/qemu/run/nobodys.pid", "8888\n")
    host.put("/run/user/1000/libvirt/qemu/run/.pid", "11\n")
    assert {guest["name"]: guest["managed_by"] for guest in guests(host)} == {
        "system": "libvirt",
        "mine": "libvirt-session",
        "nobodys": "other",
        "a/b": "other",
        "": "other",
    }


def test_two_guests_in_one_mount_namespace_have_none_of_their_own(host: QemuHost) -> None:
    same = {"mnt": "mnt:[99]", "user": "user:[4026531837]"}
    host.guest("a", 7, namespaces=same)
    host.guest("b", 8, number=2, namespaces=same)
    host.guest("c", 9, number=3)
    assert [weak(host, name).get("host_mount_namespace", "") != "" for name in "abc"] == [True, True, False]


def test_the_daemons_mount_namespace_is_not_a_guests_own(host: QemuHost) -> None:
    host.daemon(5, namespaces={"mnt": "mnt:[7]", "user": "user:[4026531837]"})
    host.guest("web", 7)
    assert "host_mount_namespace" in weak(host)


@pytest.mark.parametrize("who", ["PID 1", "daemon"])
def test_inherited_filters_are_not_qemus_own(host: QemuHost, who: str) -> None:
    filtered = DAEMON_STATUS.replace("Seccomp:	0", "Seccomp:	2").replace(
        "Seccomp_filters:	0", "Seccomp_filters:	1"
    )
    if who == "daemon":
        host.daemon(5, status=filtered)
    else:
        host.put("/proc/1/status", filtered)
    host.guest("web", 7)
    host.guest("api", 8, number=2, status=STATUS.replace("Seccomp_filters:	1", "Seccomp_filters:	2"))
    assert "no_seccomp" in weak(host)
    assert "no_seccomp" not in weak(host, "api")


def test_a_guest_started_before_the_configuration(host: QemuHost) -> None:
    later = 10**9  # clock ticks: some months from now
    host.guest("early", 7)
    host.guest("late", 8, number=2, ticks=later)
    host.process(9, QEMU, argv=[QEMU, "-name", "other"])
    host.put("/etc/libvirt/qemu.conf", "max_core = 0\n")
    host.put("/usr/sbin/libvirtd", "")
    assert "older_than_configuration" in weak(host, "early")
    assert "older_than_configuration" not in weak(host, "late")
    assert "older_than_configuration" not in weak(host, "other"), "no qemu.conf is meant for it"


def test_a_broken_configuration_breaks_nothing_here(host: QemuHost) -> None:
    host.guest("web", 7)
    host.put("/etc/libvirt/qemu.conf", "namespaces = [\n")
    host.daemon(5, ticks=1)
    assert "older_than_configuration" in weak(host)


def test_a_device_that_nobody_gave(host: QemuHost) -> None:
    host.guest("web", 7)
    host.node("/proc/7/root/dev/sda", "block 8:0", group=6, mode="0660")
    assert weak(host)["unexpected_device"].startswith("/dev/sda (block 8:0: neither in the device list nor")


def test_a_device_of_the_definition(host: QemuHost) -> None:
    host.guest("web", 7)
    host.node("/proc/7/root/dev/sda", "block 8:0", owner=64055, group=6, mode="0660")
    host.node("/dev/sda", "block 8:0", group=6, mode="0660")
    disk = "<disk type='block'><source dev='/dev/sda'/></disk>"
    host.put(
        "/run/libvirt/qemu/web.xml",
        f"<domstatus><domain><name>web</name><devices>{disk}</devices></domain></domstatus>",
    )
    assert list(weak(host)) == ["no_mac"]


@pytest.mark.parametrize("text", ["<domstatus>", "", "<!DOCTYPE x><domain><name>web</name></domain>"])
def test_a_definition_that_cannot_be_read_explains_nothing(host: QemuHost, text: str) -> None:
    host.guest("web", 7)
    host.node("/proc/7/root/dev/sda", "block 8:0")
    host.put("/run/libvirt/qemu/web.xml", text)
    assert "unexpected_device" in weak(host)


def test_the_device_list_of_the_file_counts(host: QemuHost) -> None:
    host.guest("web", 7, ticks=10**9)
    host.put("/etc/libvirt/qemu.conf", 'cgroup_device_acl = [ "/dev/null", "/dev/full", "/dev/zero" ]\n')
    observed = weak(host)["unexpected_device"]
    assert [name in observed for name in ("/dev/kvm", "/dev/random", "/dev/urandom", "/dev/null")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("files", "label", "expected"),
    [
        ({}, None, {"no_mac"}),
        ({"/sys/kernel/security/lsm": "lockdown,capability,apparmor\n"}, "libvirt-x (enforce)\n", set()),
        ({"/sys/module/apparmor/parameters/enabled": "Y\n"}, "libvirt-x (complain)\n", {"mac_not_enforced"}),
        ({"/sys/module/apparmor/parameters/enabled": "N\n"}, None, {"no_mac"}),
        ({"/sys/kernel/security/lsm": "lockdown,capability\n"}, None, {"no_mac"}),
        ({"/sys/fs/selinux/enforce": "1"}, "u:r:svirt_t:s0:c1,c2\0", set()),
        ({"/sys/fs/selinux/enforce": "0"}, "u:r:svirt_t:s0:c1,c2\0", {"mac_not_enforced"}),
        ({"/sys/fs/selinux/enforce": "1"}, "u:r:virtd_t:s0:c1,c2\0", {"no_mac"}),
    ],
)
def test_mandatory_access_control(host: QemuHost, files: dict[str, str], label: str | None, expected: set[str]) -> None:
    for path, text in files.items():
        host.put(path, text)
    host.guest("web", 7, label=label)
    assert set(weak(host)) == expected


def test_helpers_are_found_by_pid_file_parent_and_cgroup(host: QemuHost) -> None:
    host.guest("web", 7, number=3)
    host.guest("web-2", 8, number=4)
    aside = "/system.slice/libvirtd.service"
    host.process(20, "/usr/bin/swtpm", cgroup=aside)
    host.put("/run/libvirt/qemu/swtpm/3-web-swtpm.pid", "20")
    host.process(21, "/usr/bin/passt.avx2", cgroup=aside)
    host.put("/run/libvirt/qemu/passt/4-web-2-net0-passt.pid", "21")
    host.process(22, "/usr/libexec/virtiofsd", status=DAEMON_STATUS, cgroup=aside)
    host.put("/run/libvirt/qemu/3-web-fs0-fs.pid", "22\n")
    host.process(23, "/usr/libexec/virtiofsd", status=DAEMON_STATUS.replace("PPid:	1", "PPid:	22"), cgroup=aside)
    host.process(
        24, "/usr/bin/qemu-pr-helper", cgroup="/machine.slice/machine-qemu\\x2d4\\x2dweb-2.scope/libvirt/emulator"
    )
    host.process(25, "/usr/bin/dbus-daemon", cgroup="/system.slice/dbus.service")
    found = {guest["name"]: [(helper["name"], helper["pid"]) for helper in guest["helpers"]] for guest in guests(host)}
    assert found == {
        "web": [("swtpm", 20), ("virtiofsd", 22), ("virtiofsd", 23)],
        "web-2": [("passt.avx2", 21), ("qemu-pr-helper", 24)],
    }
    (web, _other) = guests(host)
    assert web["helpers"][1]["cap_eff"] == "000001ffffffffff"
    assert {"uids", "no_new_privs", "seccomp", "label", "mount_namespace", "binary_deleted"} <= set(web["helpers"][0])


def old(host: QemuHost, *names: str, age: float = 3600) -> None:
    for name in names:
        path = Path(host.path(f"/run/libvirt/qemu/{name}"))
        path.mkdir(parents=True)
        os.utime(path, (time.time() - age, time.time() - age))


def test_leftovers_of_guests_that_do_not_run(host: QemuHost) -> None:
    host.guest("web", 7, number=4)
    # What libvirt 9.0 and 11.3 left when the child was killed while it built /dev
    old(host, "4-web.dev", "5-lo.dev", "5-lo.hugepages", "5-lo.mqueue", "5-lo.pts", "5-lo.shm", "channel", "slirp")
    # and libvirt 3
    old(host, "vm.dev", "vm.devpts", "vm.devshm")
    host.put("/run/libvirt/qemu/vm.xml", "")
    host.put("/run/libvirt/qemu/5-lo.pid", "")
    assert _confinement.gather(host)["leftovers"] == [
        f"/run/libvirt/qemu/{name}"
        for name in (
            "5-lo.dev", "5-lo.hugepages", "5-lo.mqueue", "5-lo.pts", "5-lo.shm", "vm.dev", "vm.devpts", "vm.devshm"
        )
    ]  # fmt: skip


def test_a_guest_that_is_just_starting_has_left_nothing(host: QemuHost) -> None:
    old(host, "5-lo.dev", age=5)
    assert _confinement.gather(host)["leftovers"] == []


class Denied(QemuHost):
    def readlink(self, path: str) -> str:
        if path == "/proc/7/exe":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return super().readlink(path)


def test_what_may_not_be_looked_at_fails(tmp_path: Path) -> None:
    host = Denied(tmp_path)
    host.guest("web", 7)
    with pytest.raises(_confinement.ConfinementError, match=r"Process 7 may not be looked at.*become: true"):
        _confinement.gather(host)


class Ending(QemuHost):
    """A process whose ``last`` file is read as it ends; with ``heir`` its pid is another's from then on.

    ``gone``: what is not there any more.
    """

    last = ""
    gone = "stat"
    error = errno.ENOENT
    heir = False

    def _end(self, path: str) -> None:
        if path == f"/proc/7/{self.last}":
            if self.heir:
                self.put("/proc/7/stat", "7 (heir) S 1 " + " ".join(["0"] * 17) + " 99999 0\n")
                return
            os.unlink(self.path(f"/proc/7/{self.gone}"))
            if self.error:
                raise OSError(self.error, os.strerror(self.error), path)

    def read(self, path: str, limit: int = 1 << 24) -> bytes:
        self._end(path)
        return super().read(path, limit)

    def readlink(self, path: str) -> str:
        self._end(path)
        return super().readlink(path)

    def list(self, path: str) -> list[str]:
        self._end(path)
        return super().list(path)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESRCH, errno.EINVAL, 0])
@pytest.mark.parametrize("last", ["limits", "mountinfo", "cgroup", "ns/user", "coredump_filter"])
def test_a_guest_that_ends_meanwhile_is_left_out(tmp_path: Path, last: str, error: int) -> None:
    host = Ending(tmp_path)
    host.guest("web", 7)
    host.guest("api", 8, number=2)
    host.last, host.error = last, error
    assert [guest["name"] for guest in guests(host)] == ["api"]


def test_a_guest_whose_memory_is_gone_has_ended_though_it_is_no_zombie_yet(tmp_path: Path) -> None:
    host = Ending(tmp_path)
    host.guest("web", 7)
    host.guest("api", 8, number=2)
    host.last, host.gone, host.error = "cgroup", "exe", errno.ENOENT
    assert [guest["name"] for guest in guests(host)] == ["api"]


@pytest.mark.parametrize("last", ["exe", "cmdline", "ns/mnt"])
@pytest.mark.parametrize("error", [errno.ENOENT, errno.ESRCH])
def test_a_guest_that_ends_while_it_is_found(tmp_path: Path, last: str, error: int) -> None:
    host = Ending(tmp_path)
    host.process(7, QEMU, argv=[QEMU, "-name", "web"])
    host.last, host.error = last, error
    assert guests(host) == []


def test_facts_of_two_processes_are_never_mixed(tmp_path: Path) -> None:
    host = Ending(tmp_path)
    host.guest("web", 7)
    host.last, host.heir = "limits", True
    assert guests(host) == []


def test_a_file_of_a_living_process_that_cannot_be_read_is_an_error(host: QemuHost) -> None:
    host.guest("web", 7)
    os.unlink(host.path("/proc/7/cgroup"))
    with pytest.raises(FileNotFoundError):
        guests(host)
