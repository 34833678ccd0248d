# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every weakness from facts that show it, and none from those of a confined guest."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _weakness
from ansible_collections.hypervisor.hardening.plugins.module_utils._guestdevices import Node
from ansible_collections.hypervisor.hardening.plugins.module_utils._qemuproc import (
    Cgroup,
    CoreDump,
    Guest,
    Ids,
    Label,
    Limit,
    Limits,
    Namespace,
    Seccomp,
)

QEMU = Ids(64055, 64055, 64055, 64055)
ALL = "000001ffffffffff"
NONE = "0000000000000000"
UUID = "3f77186c-5d70-46fe-8543-411ebb6bdde8"
APPARMOR = Label("apparmor", f"libvirt-{UUID}", "enforce")
SVIRT = "system_u:system_r:svirt_t:s0:c392,c662"
CONFINED = Guest(
    pid=4242,
    start_time=1700000000.0,
    uid=64055,
    gid=64055,
    uids=QEMU,
    gids=QEMU,
    groups=(993,),
    cap_eff=NONE,
    cap_prm=NONE,
    no_new_privs=True,
    seccomp=Seccomp(2, 1),
    user_namespace=Namespace("user:[1]", False),
    mount_namespace=Namespace("mnt:[2]", True),
    label=APPARMOR,
    cgroup=Cgroup("/machine.slice/web.scope/libvirt", ["BPF program 7 on /machine.slice/web.scope/libvirt"]),
    binary="/usr/bin/qemu-system-x86_64",
    binary_deleted=False,
    name="web",
    short_name="1-web",
    uuid=UUID,
    managed_by="libvirt",
    private_dev=True,
    dev=(Node("/dev/null", "char", "1:3", 0, 0, "0666"),),
    dev_incomplete="",
    propagation="slave",
    limits=Limits(core=Limit(0, 0), memlock=Limit(8388608, -1), nofile=Limit(20000, 20000)),
    core_dump=CoreDump("00000033", False),
)
HOST = _weakness.HostFacts(
    seccomp_mode=0, seccomp_filters=0, mac="apparmor", pending=frozenset(), in_force_since=1690000000.0
)
DISK = Node("/dev/sda", "block", "8:0", 0, 6, "0660", "neither in the device list nor in the guest's definition")


def unlimited(**changes: t.Any) -> dict[str, t.Any]:
    return {"limits": replace(CONFINED.limits, core=Limit(-1, -1)), **changes}


def selinux(value: str, mode: str = "enforcing") -> tuple[dict[str, t.Any], dict[str, t.Any]]:
    return {"label": Label("selinux", value, mode)}, {"mac": "selinux"}


# What is different about the guest, about the host, and what is to be found: id -> a part of what was observed.
TABLE: list[tuple[dict[str, t.Any], dict[str, t.Any], dict[str, str]]] = [
    ({}, {}, {}),
    ({"uids": Ids(0, 0, 0, 0)}, {}, {"runs_as_root": "real uid, effective uid, saved uid, filesystem uid 0"}),
    ({"uids": Ids(64055, 64055, 0, 64055)}, {}, {"runs_as_root": "saved uid 0"}),
    ({"gids": Ids(64055, 64055, 64055, 0)}, {}, {"runs_as_root": "filesystem gid 0"}),
    ({"cap_eff": ALL, "cap_prm": ALL}, {}, {"capabilities": f"CapEff {ALL}, CapPrm {ALL} (41 capabilities)"}),
    # Bits 12 and 21 of linux/capability.h
    ({"cap_prm": "0000000000201000"}, {}, {"capabilities": "CapPrm 0000000000201000 (net_admin, sys_admin)"}),
    # user_namespaces(7): capabilities in a namespace of one's own are none in the host's
    ({"cap_eff": ALL, "cap_prm": ALL, "user_namespace": Namespace("user:[9]", True)}, {}, {}),
    ({"no_new_privs": False}, {}, {"new_privileges": "NoNewPrivs 0"}),
    ({"seccomp": Seccomp(0, 0)}, {}, {"no_seccomp": "mode 0 (disabled)"}),
    ({"seccomp": Seccomp(1, 0)}, {}, {"no_seccomp": "mode 1 (strict)"}),
    ({"seccomp": Seccomp(2, 1)}, {"seccomp_mode": 2, "seccomp_filters": 1}, {"no_seccomp": "1 filters, all inherited"}),
    ({"seccomp": Seccomp(2, 2)}, {"seccomp_mode": 2, "seccomp_filters": 1}, {}),
    ({"seccomp": Seccomp(2, None)}, {"seccomp_mode": 0, "seccomp_filters": None}, {}),
    ({"seccomp": Seccomp(2, None)}, {"seccomp_mode": 2, "seccomp_filters": None}, {"no_seccomp": "does not count"}),
    (
        {"mount_namespace": Namespace("mnt:[1]", False), "private_dev": False, "propagation": "private"},
        {},
        {"host_mount_namespace": "mnt:[1], in which the host", "host_dev": "the host's /dev"},
    ),
    ({"dev": (*CONFINED.dev, DISK)}, {}, {"unexpected_device": "/dev/sda (block 8:0: neither in the device list"}),
    ({"dev": (DISK,) * 12}, {}, {"unexpected_device": " and 2 more"}),
    ({"dev_incomplete": "it is on fuse"}, {}, {"unexpected_device": "not all of it was looked at: it is on fuse"}),
    ({"propagation": "private"}, {}, {"no_mount_propagation": "/ is private"}),
    ({"propagation": "unbindable"}, {}, {"no_mount_propagation": "/ is unbindable"}),
    ({"propagation": "shared,slave"}, {}, {}),
    ({"propagation": ""}, {}, {}),
    ({"label": Label("", "", "")}, {"mac": ""}, {"no_mac": "this kernel has no mandatory access control"}),
    ({"label": Label("apparmor", "unconfined", "")}, {}, {"no_mac": "profile unconfined"}),
    ({"label": Label("apparmor", "libvirtd", "enforce")}, {}, {"no_mac": "profile libvirtd"}),
    ({"label": Label("apparmor", "", "")}, {}, {"no_mac": "profile none"}),
    ({"label": replace(APPARMOR, mode="complain")}, {}, {"mac_not_enforced": f"libvirt-{UUID} (complain)"}),
    ({"label": replace(APPARMOR, mode="unconfined")}, {}, {"mac_not_enforced": "(unconfined)"}),
    ({"label": replace(APPARMOR, mode="kill")}, {}, {}),
    (*selinux(SVIRT), {}),
    (*selinux("system_u:system_r:svirt_tcg_t:s0:c1,c2"), {}),
    (*selinux(SVIRT, "permissive"), {"mac_not_enforced": f"{SVIRT} (permissive)"}),
    (*selinux("system_u:system_r:virtd_t:s0-s0:c0.c1023"), {"no_mac": "virtd_t"}),
    (*selinux("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"), {"no_mac": "unconfined_t"}),
    (*selinux("system_u:system_r:svirt_t:s0"), {"no_mac": "without categories"}),
    (*selinux("kernel"), {"no_mac": "context kernel"}),
    (*selinux(""), {"no_mac": "context none"}),
    ({"cgroup": Cgroup("/a.slice/b", [])}, {}, {"no_device_cgroup": "no device filter on /a.slice/b or above it"}),
    ({"cgroup": Cgroup("/a", None)}, {}, {"no_device_cgroup": "the kernel does not tell"}),
    ({"cgroup": Cgroup("", None)}, {}, {"no_device_cgroup": "(none)"}),
    (
        unlimited(),
        {},
        {"core_dumps": "core file size unlimited, without the guest's memory (coredump_filter 00000033)"},
    ),
    (unlimited(core_dump=CoreDump("00000033", True)), {}, {"core_dumps": "unlimited, with the guest's memory"}),
    (unlimited(core_dump=CoreDump("00000000", True)), {}, {}),
    # core(5): bit 4 dumps ELF headers
    (unlimited(core_dump=CoreDump("00000010", True)), {}, {}),
    ({"limits": replace(CONFINED.limits, core=Limit(4096, -1))}, {}, {"core_dumps": "4096 bytes"}),
    ({"limits": replace(CONFINED.limits, core=Limit(0, -1))}, {}, {}),
    ({"binary_deleted": True}, {}, {"deleted_binary": "/usr/bin/qemu-system-x86_64 was deleted or replaced"}),
    ({}, {"pending": frozenset({4242})}, {"older_than_configuration": "started at 2023-11-14T22:13:20Z"}),
    ({}, {"pending": frozenset({4243})}, {}),
]


@pytest.mark.parametrize(("guest", "host", "expected"), TABLE)
def test_weaknesses(guest: dict[str, t.Any], host: dict[str, t.Any], expected: dict[str, str]) -> None:
    found = _weakness.weaknesses(replace(CONFINED, **guest), replace(HOST, **host))
    assert [weakness.id for weakness in found] == list(expected)
    for weakness in found:
        assert expected[weakness.id] in weakness.observed
        assert weakness.expected


def test_every_id_of_the_contract_is_in_the_table() -> None:
    assert {name for _guest, _host, expected in TABLE for name in expected} == {
        "runs_as_root",
        "capabilities",
        "new_privileges",
        "no_seccomp",
        "host_mount_namespace",
        "host_dev",
        "unexpected_device",
        "no_mount_propagation",
        "no_mac",
        "mac_not_enforced",
        "no_device_cgroup",
        "core_dumps",
        "deleted_binary",
        "older_than_configuration",
    }


@pytest.mark.parametrize(
    ("since", "expected"),
    [(1690000000.0, "started after 2023-07-22T04:26:40Z"), (None, "restart the daemon first")],
)
def test_what_a_pending_guest_waits_for(since: float | None, expected: str) -> None:
    host = replace(HOST, pending=frozenset({4242}), in_force_since=since)
    assert expected in _weakness.weaknesses(CONFINED, host)[0].expected
