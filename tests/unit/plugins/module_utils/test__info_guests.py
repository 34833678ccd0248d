# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The short form of guests: what stays of each fact, what their command lines and labels say."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_guests, _weakness
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import HOST_NAMESPACES, STATUS, QemuHost

QEMU = "/usr/bin/qemu-system-x86_64"


@pytest.fixture
def host(tmp_path: Path) -> QemuHost:
    return QemuHost(tmp_path)


def guests(host: QemuHost) -> dict[str, dict[str, t.Any]]:
    found = _info_guests.facts(Context(host))
    assert mismatches("guests", found) == []
    return {guest["name"]: guest for guest in found}


def test_a_host_without_guests(host: QemuHost) -> None:
    assert _info_guests.facts(Context(host)) == []


def test_a_confined_guest(host: QemuHost) -> None:
    host.guest("web", 7)
    guest = guests(host)["web"]
    assert {key: guest[key] for key in _weakness.IDS if guest[key]} == {"no_mac": True}
    assert (guest["uid"], guest["gid"], guest["cap_eff"], guest["no_new_privs"]) == (64055, 64055, "0" * 16, True)
    assert (guest["host_mount_namespace"], guest["propagation"]) == (False, "slave")
    assert guest["limits"] == {"core": 0, "memlock": 8388608, "nofile": 20000}
    assert guest["machine"] == "pc-i440fx-10.0"
    assert guest["dump_guest_core"] is False
    assert guest["device_filter"] is True
    assert (guest["helpers"], guest["control_on_network"], guest["label_shared_with"]) == ([], [], [])


def test_each_weakness_is_a_key(host: QemuHost) -> None:
    host.guest("web", 7, namespaces=HOST_NAMESPACES, status=STATUS.replace("64055\t64055", "0\t0", 1))
    host.guest("fit", 8, number=2)
    found = guests(host)
    for entry in Context(host).confinement["guests"]:
        name, told = entry["name"], {weakness["id"] for weakness in entry["weaknesses"]}
        assert told
        assert {key for key in _weakness.IDS if found[name][key]} == told
    assert found["web"]["runs_as_root"] and found["web"]["host_mount_namespace"]
    assert not found["fit"]["runs_as_root"]


def test_a_filter_that_the_kernel_does_not_tell(host: QemuHost) -> None:
    host.guest("web", 7)
    host.put("/proc/mounts", "proc /proc proc rw 0 0\n")
    guest = guests(host)["web"]
    assert guest["device_filter"] is None
    assert guest["no_device_cgroup"] is True


def test_unexpected_devices_are_named(host: QemuHost) -> None:
    host.guest("web", 7)
    host.node("/proc/7/root/dev/sda", "block 8:0")
    guest = guests(host)["web"]
    assert (guest["unexpected_device"], guest["unexpected_devices"]) == (True, ["/dev/sda"])


def test_an_entry_stays_short(host: QemuHost) -> None:
    host.guest("w" * 20, 7)
    for number in range(300):
        host.node(f"/proc/7/root/dev/disk-with-a-rather-long-name-{number:03}", "block 8:0")
    (guest,) = guests(host).values()
    assert len(guest["unexpected_devices"]) == 20
    host.guest("web", 8, number=2)
    assert len(json.dumps(guests(host)["web"])) < 1500


def test_the_helpers_of_a_guest(host: QemuHost) -> None:
    host.guest("web", 7, number=3)
    host.process(20, "/usr/bin/swtpm")
    host.put("/run/libvirt/qemu/swtpm/3-web-swtpm.pid", "20")
    own = {**HOST_NAMESPACES, "user": "user:[99]"}
    host.process(
        21, "/usr/libexec/virtiofsd (deleted)", argv=["virtiofsd", "-o", "source=/srv,sandbox=chroot"], namespaces=own
    )
    host.put("/run/libvirt/qemu/3-web-fs0-virtiofsd.pid", "21")
    swtpm, virtiofsd = guests(host)["web"]["helpers"]
    assert (swtpm["name"], swtpm["virtiofsd_sandbox"], swtpm["private_user_namespace"]) == ("swtpm", "", False)
    assert (swtpm["uid"], swtpm["seccomp"], swtpm["binary_deleted"]) == (64055, 2, False)
    assert (virtiofsd["virtiofsd_sandbox"], virtiofsd["virtiofsd_seccomp"]) == ("chroot", "kill")
    assert (virtiofsd["private_user_namespace"], virtiofsd["binary_deleted"]) == (True, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("virtiofsd --fd=5 -o source=/srv", ("namespace", "kill")),
        ("virtiofsd --sandbox none --seccomp=log", ("none", "log")),
        ("virtiofsd -o sandbox=chroot,source=/x -o seccomp=trap", ("chroot", "trap")),
        ("virtiofsd --shared-dir /srv --sandbox=chroot", ("chroot", "kill")),
        ("virtiofsd -o", ("namespace", "kill")),
    ],
)
def test_what_virtiofsd_is_told(words: str, expected: tuple[str, str]) -> None:
    assert _info_guests.virtiofsd(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-machine pc-q35-9.2,accel=kvm:tcg,usb=off", "pc-q35-9.2"),
        ("-machine accel=kvm,type=q35", "q35"),
        ("-machine type=q35 -enable-kvm", "q35"),
        ("-M microvm -accel kvm,thread=single", "microvm"),
        ("-accel accel=kvm", ""),
    ],
)
def test_machine(host: QemuHost, words: str, expected: str) -> None:
    host.process(9, QEMU, argv=[QEMU, "-name", "other", *words.split()])
    guest = guests(host)["other"]
    assert guest["machine"] == expected
    assert guest["managed_by"] == "other"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-gdb tcp::1234", ["-gdb tcp::1234"]),
        ("-s", ["-s (gdb on tcp::1234)"]),
        ("-monitor telnet:0.0.0.0:4444,server=on", ["-monitor telnet:0.0.0.0:4444,server=on"]),
        ("-qmp tcp:[::]:4445,server", ["-qmp tcp:[::]:4445,server"]),
        ("-chardev socket,id=m,host=0.0.0.0,port=7 -mon chardev=m,mode=control", ["-mon chardev=m,mode=control"]),
        ("-chardev socket,id=m,host=0.0.0.0,port=7,server=on -monitor chardev:m", ["-monitor chardev:m"]),
        ("-chardev udp,id=g,host=h,port=7 -mon g", ["-mon g"]),
        # libvirt's own monitor, and a serial port of the network, which gives nobody QEMU
        ("-chardev socket,id=charmonitor,fd=22,server=on -mon chardev=charmonitor,id=monitor,mode=control", []),
        ("-monitor unix:/run/m,server", []),
        ("-monitor stdio", []),
        ("-serial tcp::5", []),
    ],
)  # fmt: skip
def test_who_can_control_qemu_through_the_network(words: str, expected: list[str]) -> None:
    assert list(_info_guests.control_on_network(["qemu", *words.split()])) == expected


def selinux(host: QemuHost, **labels: str) -> dict[str, list[str]]:
    host.put("/sys/fs/selinux/enforce", "1")
    for number, (name, label) in enumerate(labels.items(), start=7):
        host.guest(name, number, number=number, label=f"{label}\0")
    return {name: guest["label_shared_with"] for name, guest in guests(host).items()}


def test_selinux_labels_that_cover_others(host: QemuHost) -> None:
    base = "system_u:system_r:svirt"
    shared = selinux(
        host,
        one=f"{base}_t:s0:c1,c2",
        two=f"{base}_t:s0:c1,c3",
        emulated=f"{base}_tcg_t:s0:c1,c2",
        all=f"{base}_t:s0-s0:c0.c1023",
        free="system_u:system_r:unconfined_t:s0",
    )
    assert shared == {
        "one": ["emulated"],
        "two": [],
        "emulated": ["one"],
        "all": ["emulated", "one", "two"],
        "free": [],
    }


def test_apparmor_profiles_that_guests_share(host: QemuHost) -> None:
    host.put("/sys/module/apparmor/parameters/enabled", "Y\n")
    for number, (name, label) in enumerate(
        {"a": "libvirt-1 (enforce)", "b": "libvirt-1 (enforce)", "c": "libvirt-2 (enforce)", "d": "unconfined"}.items(),
        7,
    ):
        host.guest(name, number, number=number, label=f"{label}\n")
    found = guests(host)
    assert {name: guest["label_shared_with"] for name, guest in found.items()} == {
        "a": ["b"],
        "b": ["a"],
        "c": [],
        "d": [],
    }
    assert found["c"]["label"] == {"model": "apparmor", "value": "libvirt-2", "mode": "enforce"}
    assert [name for name, guest in found.items() if guest["no_mac"]] == ["d"]
