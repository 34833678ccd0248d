# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreement, _gatevalues, _libvirtd
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import CONF, TICKS, LibvirtHost, ticks_now

LENS_TEST = """module Test_libvirtd_qemu =
   let conf = "user = \\"libvirt-qemu\\"
#cgroup_device_acl = 1
cgroup_device_acl = [ \\"/dev/null\\", \\"/dev/kvm\\" ]
"
"""


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.directory("/var/lib/libvirt/qemu", owner=(64055, 994))
    host.put("/usr/lib/x86_64-linux-gnu/libvirt.so.0.9000.0")
    host.put("/usr/share/augeas/lenses/tests/test_libvirtd_qemu.aug", LENS_TEST)
    return host


def started_after(host: LibvirtHost) -> None:
    """A daemon that was started after all files were written."""
    time.sleep(3 / TICKS)
    host.daemon(700)


EVERYTHING = set(_agreement.KEYS) - {"memfd_create"}


def test_a_host_as_installed(host: LibvirtHost) -> None:
    started_after(host)
    values, unknown = _gatevalues.live(host, EVERYTHING)
    assert unknown == {}
    assert set(values) == EVERYTHING
    assert (values["qemu_uid"], values["qemu_gid"]) == (64055, 994)
    assert values["security_models"] == ["dac"]
    assert values["max_core"] == "0"
    assert values["cgroup_device_acl"] == ["/dev/kvm", "/dev/null"]
    assert _agreement.make("web", values).values == values


def test_the_owner_of_the_directory_counts_whatever_the_file_says(host: LibvirtHost) -> None:
    host.put(CONF, 'user = "root"\n')
    started_after(host)
    assert _gatevalues.live(host, EVERYTHING)[0]["qemu_uid"] == 64055


def test_without_the_directory_nobody_knows_the_user(host: LibvirtHost) -> None:
    Path(host.path("/var/lib/libvirt/qemu")).rmdir()
    values, unknown = _gatevalues.live(host, {"qemu_uid", "qemu_gid", "memfd_create"})
    assert values == {}
    assert set(unknown) == {"qemu_uid", "qemu_gid", "memfd_create"}
    assert "/var/lib/libvirt/qemu" in unknown["qemu_uid"]


def test_memfd_create_is_tried_as_that_user(host: LibvirtHost, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def probe(_host: object, uid: int, gid: int) -> tuple[bool, str]:
        asked.append((uid, gid))
        return False, "memfd_create: Operation not permitted"

    monkeypatch.setattr(_gatevalues, "probe", probe)
    assert _gatevalues.live(host, {"memfd_create"})[0]["memfd_create"] is False
    assert asked == [(64055, 994)]
    _gatevalues.live(host, {"qemu_uid"})
    assert len(asked) == 1


def test_what_is_set_counts(host: LibvirtHost) -> None:
    host.put(CONF, 'seccomp_sandbox = 0\nnamespaces = []\nmax_core = "unlimited"\nseccomp_sandbox = 1\n')
    started_after(host)
    values, _unknown = _gatevalues.live(host, EVERYTHING)
    assert (values["seccomp_sandbox"], values["namespaces"], values["max_core"]) == (False, [], "unlimited")


def test_a_file_that_was_changed_after_the_start_is_not_known(host: LibvirtHost) -> None:
    host.daemon(700, ticks_now() - 100 * TICKS)
    values, unknown = _gatevalues.live(host, EVERYTHING)
    assert set(values) == {"qemu_uid", "qemu_gid"}
    assert set(unknown) == EVERYTHING - set(values)
    assert unknown["namespaces"] == f"{CONF} was changed after libvirtd started, so what that has loaded is not known"


def test_unless_the_journal_knows_that_it_means_the_same(host: LibvirtHost) -> None:
    """A comment was added; or a change was taken back."""
    host.daemon(700, ticks_now() - 100 * TICKS)
    layout = _libvirtd.layout(host)
    digest = _libvirtd.meaning_digest(Document.parse(b""))
    Journal(host, by="qemu_conf").mark_loaded(CONF, digest, process=layout.process)
    host.put(CONF, "# another comment\n")
    assert _gatevalues.live(host, EVERYTHING)[1] == {}
    host.put(CONF, "seccomp_sandbox = 0\n")
    assert "seccomp_sandbox" in _gatevalues.live(host, EVERYTHING)[1]


def test_a_journal_that_cannot_be_read_knows_nothing(host: LibvirtHost) -> None:
    host.daemon(700, ticks_now() - 100 * TICKS)
    host.put("/var/lib/hypervisor-hardening/journal/loaded.json", "{")
    host.directory("/var/lib/hypervisor-hardening", 0o700)
    assert "namespaces" in _gatevalues.live(host, EVERYTHING)[1]


def test_a_daemon_that_does_not_run_will_read_the_file(host: LibvirtHost) -> None:
    host.put(CONF, "seccomp_sandbox = 0\n")
    values, unknown = _gatevalues.live(host, EVERYTHING)
    assert unknown == {} and values["seccomp_sandbox"] is False


def test_no_file_is_all_defaults(host: LibvirtHost) -> None:
    os.unlink(host.path(CONF))
    started_after(host)
    values, unknown = _gatevalues.live(host, EVERYTHING)
    assert unknown == {} and values["namespaces"] == ["mount"]


def test_a_broken_file(host: LibvirtHost) -> None:
    host.put(CONF, "user = \n")
    started_after(host)
    assert "cannot be read: line 1" in _gatevalues.live(host, EVERYTHING)[1]["namespaces"]


@pytest.mark.parametrize(
    ("setting", "kernel", "label", "models"),
    [
        ("", {}, "", ["dac"]),
        ("", {"/sys/fs/selinux/enforce": "1"}, "system_u:system_r:virtd_t:s0", ["dac", "selinux"]),
        ("", {"/sys/module/apparmor/parameters/enabled": "Y\n"}, "libvirtd (enforce)", ["apparmor", "dac"]),
        ("", {"/sys/module/apparmor/parameters/enabled": "Y\n"}, "unconfined\n", ["dac"]),
        ("security_driver = []", {"/sys/fs/selinux/enforce": "0"}, "x", ["dac", "selinux"]),
        ('security_driver = "none"', {"/sys/fs/selinux/enforce": "1"}, "x", ["dac"]),
        ('security_driver = [ "none" ]', {"/sys/fs/selinux/enforce": "1"}, "x", ["dac"]),
        ('security_driver = "apparmor"', {}, "x", ["apparmor", "dac"]),
        ('security_driver = [ "selinux" ]', {}, "x", ["dac", "selinux"]),
    ],
)
def test_security_models(
    host: LibvirtHost, setting: str, kernel: dict[str, str], label: str, models: list[str]
) -> None:
    host.put(CONF, f"# the driver\n{setting}\n")
    host.put("/proc/700/attr/current", label)
    started_after(host)
    for path, text in kernel.items():
        host.put(path, text)
    assert _gatevalues.live(host, {"security_models"})[0]["security_models"] == models


def test_a_libvirt_that_tells_no_list_of_devices(host: LibvirtHost) -> None:
    os.unlink(host.path("/usr/share/augeas/lenses/tests/test_libvirtd_qemu.aug"))
    os.unlink(host.path("/usr/lib/x86_64-linux-gnu/libvirt.so.0.9000.0"))
    started_after(host)
    values, unknown = _gatevalues.live(host, EVERYTHING)
    assert set(unknown) == {"cgroup_device_acl", "max_core"}
    assert not set(unknown) & set(values)
