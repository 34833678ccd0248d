# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules on values, against what libvirt 9.0 and 11.3 do with the same values (see tests/integration)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _confrules
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemuconf_host import make


def judged(host: Host, wanted: dict[str, t.Any], text: bytes = b"") -> list[str]:
    document = Document.parse(text)
    for key, value in wanted.items():
        document.set(key, value)
    return _confrules.problems(wanted, document, _confrules.lacking(host, wanted))


@pytest.mark.parametrize(
    "wanted",
    [
        {"user": "libvirt-qemu", "group": "kvm"},
        {"user": "root"},
        {"user": "+0", "group": "+0"},
        {"user": "107", "group": "4294967294"},
        {"swtpm_user": "root", "swtpm_group": "root"},
        {"security_driver": "apparmor"},
        {"security_driver": ["selinux", "apparmor"]},
        {"security_driver": []},
        {"namespaces": ["mount"]},
        {"namespaces": []},
        {"cgroup_controllers": ["cpu", "devices", "net_cls", "perf_event"]},
        {"seccomp_sandbox": -1},
        {"cgroup_device_acl": ["/dev/null", "/dev/vfio/1"]},
        {"stdio_handler": "logd", "lock_manager": "lockd", "sched_core": "none", "deprecation_behavior": "reject"},
        {"save_image_format": "zstd"},
        {"auto_shutdown_try_shutdown": "all", "auto_shutdown_try_save": "persistent"},
        {"allow_disk_format_probing": False},
        {"vnc_tls_x509_cert_dir": "/srv/pki"},
        {"auto_dump_path": "/srv/dump/a/b", "memory_backing_dir": "/srv"},
        {"hugetlbfs_mount": []},
        {"migration_port_min": 49152, "migration_port_max": 49152},
        {"migration_port_max": 65535},
        {"remote_display_port_min": 5900},
        {"vnc_listen": "anything, libvirt does not look"},
    ],
)
def test_values_that_libvirt_takes(tmp_path: Path, wanted: dict[str, t.Any]) -> None:
    assert judged(make(tmp_path), wanted) == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"user": "nosuch"}, "no user 'nosuch'"),
        ({"group": "root "}, "no group 'root '"),
        ({"user": ""}, "no user ''"),
        ({"user": "+root"}, "no user '+root'"),
        ({"swtpm_user": "tss"}, "no user 'tss'"),
        ({"swtpm_group": "tss"}, "no group 'tss'"),
        ({"user": "-1"}, "run as root"),
        ({"user": "+-1"}, "run as root"),
        ({"user": "4294967295"}, "run as root"),
        ({"group": "+4294967295"}, "no group; libvirt takes -1"),
        ({"user": "99999999999"}, "run as root"),
        ({"security_driver": "dac"}, "selinux, apparmor, none"),
        ({"security_driver": ""}, "selinux, apparmor, none"),
        ({"security_driver": "SELinux"}, "'SELinux'"),
        ({"security_driver": ["apparmor", "apparmor"]}, "once"),
        ({"namespaces": ["mount", "pid"]}, "'pid' is not one of mount"),
        ({"namespaces": [""]}, "'' is not one of mount"),
        ({"cgroup_controllers": ["cpus"]}, "'cpus' is not one of cpu, cpuacct"),
        ({"seccomp_sandbox": 5}, "5 is not one of -1, 0, 1"),
        ({"cgroup_device_acl": []}, "null goes back"),
        ({"cgroup_device_acl": ["null"]}, "'null' is not an absolute path"),
        ({"stdio_handler": "syslog"}, "logd, file"),
        ({"lock_manager": "virtlockd"}, "lockd, sanlock"),
        ({"sched_core": "all"}, "none, vcpus, emulator, full"),
        ({"deprecation_behavior": "warn"}, "none, omit, reject, crash"),
        ({"dump_image_format": "zip"}, "raw, gzip"),
        ({"auto_shutdown_try_save": "all"}, "none, persistent"),
        ({"default_cpu_deprecated_features": "default"}, "off, on, none"),
        ({"allow_disk_format_probing": True}, "not one of 0"),
        ({"default_tls_x509_cert_dir": "/etc/pki/qemu"}, "/etc/pki/qemu does not exist"),
        ({"auto_dump_path": "dump"}, "not an absolute path"),
        ({"auto_dump_path": "/etc/passwd/dump"}, "no directory and cannot become one"),
        ({"memory_backing_dir": "/etc/passwd"}, "no directory and cannot become one"),
        ({"hugetlbfs_mount": ""}, "[] turns huge pages off"),
        ({"hugetlbfs_mount": "/srv"}, "not on a hugetlbfs"),
        ({"hugetlbfs_mount": ["/srv", "/nosuch"]}, "not on a hugetlbfs"),
        ({"hugetlbfs_mount": "hugepages"}, "not an absolute path"),
        ({"migration_port_min": 0}, "0 is below 1"),
        ({"migration_port_min": 50000}, "above migration_port_max (49215)"),
        ({"migration_port_max": 65536}, "above 65535"),
        ({"remote_display_port_min": 5899}, "5899 is below 5900"),
        ({"remote_websocket_port_max": 5000}, "remote_websocket_port_min (5700)"),
        ({"backup_port_min": 20000}, "above backup_port_max (10872)"),
    ],
)
def test_values_that_libvirt_refuses_or_misreads(tmp_path: Path, wanted: dict[str, t.Any], words: str) -> None:
    problems = judged(make(tmp_path), wanted)
    assert problems
    (key,) = wanted
    for problem in problems:
        assert key in problem
        assert words in problem


def test_a_range_of_ports_is_judged_with_what_the_file_has(tmp_path: Path) -> None:
    host = make(tmp_path)
    assert judged(host, {"migration_port_min": 50000}, b"migration_port_max = 51000\n") == []
    assert judged(host, {"migration_port_max": 49160}, b"migration_port_min = 49170\n")
    # Whoever asks for something else is not bothered with it.
    assert judged(host, {"user": "root"}, b"migration_port_min = 50000\n") == []


def test_every_wrong_word_of_a_list_is_named(tmp_path: Path) -> None:
    assert len(judged(make(tmp_path), {"namespaces": ["pid", "mount", "net"]})) == 2


def test_values_of_the_wrong_type_do_not_disturb_the_search(tmp_path: Path) -> None:
    wanted = {"user": 0, "hugetlbfs_mount": {"a": "b"}, "auto_dump_path": None, "group": ["root", 1, "nosuch"]}
    assert _confrules.lacking(make(tmp_path), wanted) == {("group", "nosuch")}


def test_what_has_no_effect_is_told() -> None:
    wanted: dict[str, t.Any] = {
        "security_driver": [],
        "vnc_tls_priority": "NORMAL",
        "vxhs_tls": True,
        "chardev_tls_priority": "NORMAL",
    }
    told = _confrules.doubts(wanted)
    assert sorted(line.split(":")[0] for line in told) == ["security_driver", "vnc_tls_priority", "vxhs_tls"]
    assert _confrules.doubts({"security_driver": ["none"]}) == []


@pytest.mark.parametrize("key", ["user", "swtpm_user"])
@pytest.mark.parametrize(
    ("value", "doubtful"), [("root", True), ("0", True), ("+0", True), ("qemu", False), ("+107", False)]
)
def test_guests_as_root_are_doubtful(key: str, value: str, doubtful: bool) -> None:
    assert any("the whole host" in line for line in _confrules.doubts({key: value})) is doubtful


def test_a_number_of_the_right_file_system_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = make(tmp_path)
    (tmp_path / "pages").mkdir()
    monkeypatch.setattr(host, "filesystem", lambda path: {"/pages": 0x958458F6, "/srv": 0x01021994}[path])
    assert judged(host, {"hugetlbfs_mount": "/pages"}) == []
    assert judged(host, {"hugetlbfs_mount": "/srv"})
