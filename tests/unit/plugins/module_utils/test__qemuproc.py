# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's command line, and what /proc shows of a process."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _qemuproc
from ansible_collections.hypervisor.hardening.plugins.module_utils._devcgroup import DeviceCgroups
from ansible_collections.hypervisor.hardening.plugins.module_utils._qemuproc import Ids, Label, Limit, Limits, Seccomp
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import (
    GUEST_MOUNTS,
    HOST_MOUNTS,
    STATUS,
    QemuHost,
)


@pytest.fixture
def host(tmp_path: Path) -> QemuHost:
    return QemuHost(tmp_path)


def view(host: QemuHost, **changes: t.Any) -> _qemuproc.View:
    whole = _qemuproc.View(
        user_ns="user:[4026531837]",
        mount_ns="mnt:[4026531841]",
        shared_ns=frozenset(),
        mounts=_qemuproc.root_and_dev(HOST_MOUNTS),
        mac="",
        mac_mode="",
        cgroups=DeviceCgroups(host),
    )
    return replace(whole, **changes)


def look(host: QemuHost, pid: int = 7, **changes: t.Any) -> _qemuproc.Guest:
    argv = host.text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
    return _qemuproc.guest(host, pid, argv, "libvirt", view(host, **changes))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin/qemu-system-x86_64", True),
        ("/usr/bin/qemu-system-aarch64", True),
        ("/usr/libexec/qemu-kvm", True),
        ("/usr/bin/qemu-system-x86_64.dpkg-tmp", True),
        ("/usr/bin/qemu-system-x86_64;65f1c0de", True),
        ("/usr/bin/qemu-img", False),
        ("/usr/bin/qemu-nbd", False),
        ("/usr/bin/qemu-x86_64", False),
        ("/usr/sbin/qemu-ga", False),
        ("/usr/bin/bash", False),
        ("/srv/qemu-system-x86_64/bash", False),
    ],
)
def test_the_executed_file_makes_a_qemu(path: str, expected: bool) -> None:
    assert _qemuproc.is_qemu(path) is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # As libvirt 9.0 and 11.3 probe
        (
            "-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -qmp unix:/x -pidfile /x -daemonize",
            False,
        ),
        ("-M none", False),
        ("-machine help", False),
        ("--version", False),
        ("-help", False),
        ("-machine pc,accel=tcg", True),
        ("-machine nonesuch", True),
        ("-name none", True),
        ("", True),
    ],
)
def test_a_qemu_without_a_guest(words: str, expected: bool) -> None:
    assert _qemuproc.is_guest(["/usr/bin/qemu-system-x86_64", *words.split()]) is expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("guest=web,debug-threads=on", "web"),
        ("debug-threads=on,guest=web", "web"),
        ("guest=a,,b,debug-threads=on", "a,b"),
        ("guest=a,,,debug-threads=on", "a,"),
        ("guest=a b=c", "a b=c"),
        ("web", "web"),
        ("web,process=qemu:web", "web"),
        ("process=qemu:web", ""),
        ("guest=", ""),
    ],
)
def test_the_name(value: str, name: str) -> None:
    assert _qemuproc.guest_name(["qemu", "-name", value]) == name
    assert _qemuproc.guest_name(["qemu", "--name", value]) == name


def test_without_a_name() -> None:
    assert _qemuproc.guest_name(["qemu", "-S"]) == ""
    assert _qemuproc.guest_name(["qemu", "-name"]) == ""


def test_a_confined_guest(host: QemuHost) -> None:
    host.guest("web", 7, number=3)
    guest = look(host)
    assert (guest.name, guest.short_name, guest.uuid) == ("web", "3-web", "3f77186c-5d70-46fe-8543-411ebb6bdde8")
    assert (guest.uid, guest.gid, guest.uids, guest.groups) == (
        64055,
        64055,
        Ids(64055, 64055, 64055, 64055),
        (993, 64055),
    )
    assert (guest.cap_eff, guest.cap_prm, guest.no_new_privs) == ("0" * 16, "0" * 16, True)
    assert guest.seccomp == Seccomp(2, 1)
    assert (guest.user_namespace.private, guest.mount_namespace.private) == (False, True)
    assert (guest.mount_namespace.id, guest.propagation, guest.private_dev) == ("mnt:[7]", "slave", True)
    assert sorted(node.path for node in guest.dev) == [
        f"/dev/{name}" for name in ("full", "kvm", "null", "random", "urandom", "zero")
    ]
    assert guest.limits == Limits(core=Limit(0, 0), memlock=Limit(8388608, -1), nofile=Limit(20000, 20000))
    assert (guest.core_dump.filter, guest.core_dump.guest_memory) == ("00000033", False)
    assert guest.cgroup.path == "/machine.slice/machine-qemu\\x2d3\\x2dweb.scope/libvirt"
    assert guest.cgroup.device_rules == ["c 1:3 rw", "c 10:232 rw"]
    assert (guest.binary, guest.binary_deleted) == ("/usr/bin/qemu-system-x86_64", False)
    assert guest.label == Label("", "", "")


def test_all_four_ids(host: QemuHost) -> None:
    host.guest("web", 7, status=STATUS.replace("Uid:	64055	64055	64055	64055", "Uid:	1	2	0	4"))
    guest = look(host)
    assert (guest.uid, guest.uids) == (2, Ids(1, 2, 0, 4))


def test_a_kernel_that_does_not_count_filters(host: QemuHost) -> None:
    host.guest("web", 7, status=STATUS.replace("Seccomp_filters:	1\n", ""))
    assert look(host).seccomp == Seccomp(2, None)


def test_a_replaced_binary(host: QemuHost) -> None:
    host.guest("web", 7, exe="/usr/bin/qemu-system-x86_64 (deleted)")
    assert (look(host).binary, look(host).binary_deleted) == ("/usr/bin/qemu-system-x86_64", True)


def test_the_hosts_own_dev_is_not_listed(host: QemuHost) -> None:
    host.guest("web", 7, mounts=HOST_MOUNTS)
    guest = look(host)
    assert (guest.private_dev, guest.dev, guest.propagation) == (False, (), "shared")


def test_a_dev_mounted_over_the_hosts(host: QemuHost) -> None:
    # libvirt before 9.0 left the host's below
    below = "901 900 0:115 / /dev rw,nosuid master:210 - devtmpfs udev rw\n"
    host.guest("web", 7, mounts=below + GUEST_MOUNTS.replace("920 900 0:129", "920 901 0:129"))
    assert look(host).private_dev is True


def test_a_private_root(host: QemuHost) -> None:
    host.guest("web", 7, mounts=GUEST_MOUNTS.replace(" master:207", ""))
    assert look(host).propagation == "private"


def test_a_change_root_without_mounts(host: QemuHost) -> None:
    host.guest("web", 7, mounts="905 900 0:117 / /run rw - tmpfs tmpfs rw\n")
    guest = look(host)
    assert (guest.propagation, guest.private_dev) == ("", True)


def test_only_lines_about_root_and_dev_are_read() -> None:
    text = HOST_MOUNTS + "990 802 0:9 / /devices rw - tmpfs tmpfs rw\n991 811 0:8 / /dev/my\\040disk rw - tmpfs x rw\n"
    assert sorted(_qemuproc.root_and_dev(text)) == [
        "/", "/dev", "/dev/hugepages", "/dev/my disk", "/dev/pts", "/dev/shm"
    ]  # fmt: skip


def test_namespaces_of_others_are_not_its_own(host: QemuHost) -> None:
    host.guest("web", 7)
    assert look(host, shared_ns=frozenset({"mnt:[7]"})).mount_namespace.private is False
    assert look(host, mount_ns="mnt:[7]").mount_namespace.private is False
    assert look(host, user_ns="user:[1]").user_namespace.private is True


@pytest.mark.parametrize(
    ("mac", "text", "label"),
    [
        ("apparmor", "libvirt-3f77 (enforce)\n", Label("apparmor", "libvirt-3f77", "enforce")),
        ("apparmor", "/opt/my vm (complain)\n", Label("apparmor", "/opt/my vm", "complain")),
        ("apparmor", "unconfined\n", Label("apparmor", "unconfined", "")),
        ("selinux", "u:r:svirt_t:s0:c1,c2\0", Label("selinux", "u:r:svirt_t:s0:c1,c2", "enforcing")),
        ("", "libvirt-3f77 (enforce)\n", Label("", "", "")),
        ("apparmor", None, Label("apparmor", "", "")),
    ],
)  # fmt: skip
def test_labels(host: QemuHost, mac: str, text: str | None, label: Label) -> None:
    host.guest("web", 7, label=text)
    assert look(host, mac=mac, mac_mode="enforcing").label == label


def test_dump_guest_core(host: QemuHost) -> None:
    host.guest("web", 7, argv=["qemu-system-x86_64", "-machine", "pc,dump-guest-core=on"])
    assert look(host).core_dump.guest_memory is True
    host.guest("old", 8, argv=["qemu-system-x86_64"])
    assert look(host, 8).core_dump.guest_memory is True, "QEMU's own default"


@pytest.mark.parametrize("name", ["stat", "status", "limits"])
def test_a_process_that_is_being_buried(host: QemuHost, name: str) -> None:
    host.guest("web", 7)
    path = Path(host.path(f"/proc/7/{name}"))
    if name == "limits":
        path.write_text("")  # fs/proc/base.c, proc_pid_limits without a sighand
    else:
        path.unlink()
    with pytest.raises(ProcessLookupError):
        look(host)
