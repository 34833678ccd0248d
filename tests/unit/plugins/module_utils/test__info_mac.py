# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mandatory access control. Kernels with AppArmor or SELinux are played by fixtures; test_hypervisor_info_guests meets
the one that there is."""

from __future__ import annotations

import errno
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_mac
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import QemuHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.selinuxes import SelinuxHost

LINK = "/etc/systemd/system/sysinit.target.wants/apparmor.service"
# As Debian 13 shows it, cut down.
PROFILES = """\
virtiofsd (unconfined)
virt-aa-helper (enforce)
libvirtd (enforce)
libvirtd//qemu_bridge_helper (enforce)
/usr/bin/man (enforce)
libvirt-3f77186c-5d70-46fe-8543-411ebb6bdde8 (enforce)
libvirt-3f77186c-5d70-46fe-8543-411ebb6bdde9 (complain)
libvirt-3f77186c-5d70-46fe-8543-411ebb6bdde8//passt (enforce)
"""
TEMPLATE = "profile LIBVIRT_TEMPLATE flags=(attach_disconnected) {\n  #include <abstractions/libvirt-qemu>\n}\n"
ABSTRACTION = "  #include <abstractions/base>\n  capability chown,\n  /dev/kvm rw,\n"


def facts(host: QemuHost) -> dict[str, t.Any]:
    found = _info_mac.facts(Context(host))
    assert mismatches("mac", found) == []
    return found


@pytest.fixture
def apparmor(tmp_path: Path) -> QemuHost:
    """A host with AppArmor, as Debian has it."""
    host = QemuHost(tmp_path)
    host.put("/proc/1/comm", "systemd\n")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    host.put("/sys/kernel/security/lsm", "capability,landlock,yama,apparmor\n")
    host.put("/sys/module/apparmor/parameters/enabled", "Y\n")
    host.put("/sys/kernel/security/apparmor/profiles", PROFILES)
    host.put("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 security=apparmor quiet\n")
    host.link(LINK, "/usr/lib/systemd/system/apparmor.service")
    host.put("/etc/apparmor.d/abstractions/libvirt-qemu", ABSTRACTION)
    host.put("/etc/apparmor.d/libvirt/TEMPLATE.qemu", TEMPLATE)
    return host


def test_a_kernel_without_any_says_so(tmp_path: Path) -> None:
    host = QemuHost(tmp_path)
    host.daemon(5)
    host.put("/sys/kernel/security/lsm", "capability,yama\n")
    found = facts(host)
    assert (found["model"], found["mode"], found["enforcing"]) == ("", "", False)
    assert found["lsm"] == ["capability", "yama"]
    assert found["configured"]["enforcing"] is False
    assert found["apparmor"]["profiles"] == found["selinux"]["types"] == []
    (daemon,) = found["daemons"]
    assert (daemon["name"], daemon["label"], daemon["confined"]) == ("libvirtd", "", False)


def test_the_list_of_modules_needs_securityfs(tmp_path: Path) -> None:
    found = facts(QemuHost(tmp_path))
    assert found["lsm"] is None
    assert found["unread"] == [{"path": "/sys/kernel/security/lsm", "reason": "securityfs is not mounted here"}]


def test_apparmor_on_a_played_kernel(apparmor: QemuHost) -> None:
    apparmor.daemon(5, label="libvirtd (enforce)\n")
    found = facts(apparmor)
    assert (found["model"], found["mode"], found["enforcing"]) == ("apparmor", "enabled", True)
    assert found["boot_arguments"] == ["security=apparmor"]
    assert (found["configured"]["enforcing"], found["configured"]["source"]) == (True, LINK)
    assert found["daemons"] == [
        {"name": "libvirtd", "pid": 5, "label": "libvirtd", "mode": "enforce", "confined": True}
    ]
    policy = found["apparmor"]
    assert policy["profiles"] == [
        {"name": "virtiofsd", "mode": "unconfined"},
        {"name": "virt-aa-helper", "mode": "enforce"},
        {"name": "libvirtd", "mode": "enforce"},
        {"name": "libvirtd//qemu_bridge_helper", "mode": "enforce"},
        {"name": "libvirt-3f77186c-5d70-46fe-8543-411ebb6bdde8//passt", "mode": "enforce"},
    ]
    assert policy["guest_profiles"] == 2
    assert policy["guest_profiles_not_enforced"] == [
        {"name": "libvirt-3f77186c-5d70-46fe-8543-411ebb6bdde9", "mode": "complain"}
    ]
    assert policy["files"] == [f"{_info_mac.ETC}/abstractions/libvirt-qemu", f"{_info_mac.ETC}/libvirt/TEMPLATE.qemu"]
    assert policy["disabled"] == policy["force_complain"] == policy["not_enforced_in"] == policy["broad_grants"] == []
    assert policy["denies_sound"] is False
    assert found["unread"] == []


def test_an_unconfined_daemon(apparmor: QemuHost) -> None:
    apparmor.daemon(5, label="unconfined\n")
    (daemon,) = facts(apparmor)["daemons"]
    assert (daemon["label"], daemon["confined"]) == ("unconfined", False)


def test_profiles_that_nobody_loads_at_boot(apparmor: QemuHost, tmp_path: Path) -> None:
    (tmp_path / LINK[1:]).unlink()
    assert facts(apparmor)["configured"]["enforcing"] is False
    (tmp_path / "run/systemd/system").rmdir()  # another init, whose way nobody here knows
    apparmor.put("/proc/1/comm", "init\n")
    assert facts(apparmor)["configured"]["enforcing"] is None


def test_profiles_that_cannot_be_read(apparmor: QemuHost, tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/security/apparmor/profiles").unlink()
    found = facts(apparmor)
    policy = found["apparmor"]
    assert policy["profiles"] is policy["guest_profiles"] is policy["guest_profiles_not_enforced"] is None
    assert [entry["path"] for entry in found["unread"]] == [_info_mac.PROFILES]


def test_what_switches_profiles_off(apparmor: QemuHost) -> None:
    apparmor.link("/etc/apparmor.d/disable/usr.sbin.libvirtd", "../usr.sbin.libvirtd")
    apparmor.link("/etc/apparmor.d/disable/usr.bin.man", "../usr.bin.man")
    apparmor.link("/etc/apparmor.d/force-complain/usr.lib.libvirt.virt-aa-helper", "../x")
    apparmor.put("/etc/apparmor.d/libvirt/TEMPLATE.qemu", TEMPLATE.replace("attach_disconnected", "complain"))
    apparmor.put(
        "/etc/apparmor.d/usr.sbin.libvirtd",
        "# flags=(complain)\nprofile libvirtd /usr/sbin/libvirtd {\n  /** rwmkl,\n}\n",
    )
    policy = facts(apparmor)["apparmor"]
    assert policy["disabled"] == ["/etc/apparmor.d/disable/usr.sbin.libvirtd"]
    assert policy["force_complain"] == ["/etc/apparmor.d/force-complain/usr.lib.libvirt.virt-aa-helper"]
    (flag,) = policy["not_enforced_in"]
    assert (flag["path"], flag["line"], flag["reason"]) == ("/etc/apparmor.d/libvirt/TEMPLATE.qemu", 1, "complain")
    # a daemon's own profile is broad by need
    assert policy["broad_grants"] == []


@pytest.mark.parametrize(
    "name",
    [
        "local/abstractions/libvirt-qemu",
        "local/usr.lib.libvirt.virt-aa-helper",
        "abstractions/libvirt-qemu.d/site",
        "abstractions/libvirt-qemu",
        "libvirt/TEMPLATE.qemu",
    ],
)
def test_broad_grants_in_each_file_that_is_for_all_guests(apparmor: QemuHost, name: str) -> None:
    path = f"/etc/apparmor.d/{name}"
    apparmor.put(path, "# for that one guest\n/srv/one/guest.img rw,\n/** rw,\ndeny /dev/snd/* rw,\n")
    policy = facts(apparmor)["apparmor"]
    assert policy["broad_grants"] == [
        {
            "name": f"{path}:3",
            "path": path,
            "line": 3,
            "rule": "/** rw",
            "reason": "it can write to all of /",
        }
    ]
    assert policy["denies_sound"] is True
    assert path in policy["files"]


def test_a_file_that_cannot_be_read_is_told(apparmor: QemuHost, tmp_path: Path) -> None:
    (tmp_path / "etc/apparmor.d/local/abstractions/libvirt-qemu").mkdir(parents=True)
    apparmor.put("/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper", "#" * (1 << 21))
    assert [entry["path"] for entry in facts(apparmor)["unread"]] == [
        "/etc/apparmor.d/local/abstractions/libvirt-qemu",
        "/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper",
    ]


def test_selinux_on_a_played_kernel(tmp_path: Path) -> None:
    host = SelinuxHost(tmp_path)
    host.daemon(5, label="system_u:system_r:virtqemud_t:s0-s0:c0.c1023\0")
    host.boolean("virt_use_nfs", running=True)
    host.types = {"svirt_t": 1}
    found = facts(host)
    assert (found["model"], found["mode"], found["enforcing"]) == ("selinux", "enforcing", True)
    assert found["configured"]["enforcing"] is True
    assert (found["configured"]["selinux"], found["configured"]["selinux_policy"]) == ("enforcing", "targeted")
    assert found["selinux"] == {
        "enforcing": True,
        "booleans": [{"name": "virt_use_nfs", "running": True, "configured": ""}],
        "types": [{"name": "svirt_t", "permissive": True}],
    }
    (daemon,) = found["daemons"]
    assert (daemon["mode"], daemon["confined"]) == ("enforcing", True)


def test_selinux_that_is_permissive_now_and_after_the_boot(tmp_path: Path) -> None:
    host = SelinuxHost(tmp_path)
    host.daemon(5, label="system_u:system_r:unconfined_service_t:s0\0")
    host.put("/sys/fs/selinux/enforce", "0")
    assert (facts(host)["enforcing"], facts(host)["configured"]["enforcing"]) == (False, True)
    host.put("/etc/selinux/config", "SELINUX=permissive\n")
    assert facts(host)["configured"]["enforcing"] is False
    assert facts(host)["daemons"][0]["confined"] is False


def test_selinux_that_does_not_answer(tmp_path: Path) -> None:
    host = SelinuxHost(tmp_path)
    host.refusal = errno.EACCES
    found = facts(host)
    assert found["selinux"]["types"] is None
    assert {"path": "/sys/fs/selinux/access", "reason": "Permission denied"} in found["unread"]
