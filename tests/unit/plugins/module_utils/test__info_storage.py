# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on storage."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_storage
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.module_utils.test__imagechain import image, put
from ansible_collections.hypervisor.hardening.tests.unit.plugins.module_utils.test__pools import POOL
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

DEFINITION = """\
<domain type='kvm'><name>a</name><uuid>c7a5fdbd-cdaf-9455-926a-d65c16db1809</uuid><memory>1</memory><os><type>hvm</type>
<nvram>/srv/nvram/a.fd</nvram></os><devices>
<disk type='file' device='disk'><driver type='qcow2'/><source file='/data/a.qcow2'/><target dev='vda'/></disk>
<disk type='file' device='cdrom'><source file='/data/debian.img'/><target dev='sda'/><readonly/></disk>
</devices></domain>
"""


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put("/proc/1/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:50 / /net rw - nfs4 nas:/x rw\n")
    host.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
    host.put("/proc/cpuinfo", "flags\t: vmx\n")
    host.put("/etc/libvirt/qemu/a.xml", DEFINITION, mode=0o600)
    host.put("/etc/libvirt/storage/p.xml", POOL.format(type="dir", name="p", path="/srv/images"))
    host.directory("/srv/images", 0o711)
    for path in ("/data/a.qcow2", "/data/debian.img", "/srv/nvram/a.fd", "/srv/images/b.qcow2"):
        host.put(path, mode=0o600, owner=(64055, 994))
    host.put("/srv/images/install.iso", mode=0o644)
    return host


def facts(host: TreeHost) -> dict[str, t.Any]:
    found = _info_storage.facts(Context(host))
    assert mismatches("storage", found) == []
    return found


def test_private_images(host: TreeHost) -> None:
    found = facts(host)
    # the pool, its image, the guest's disk and its variables; neither of the install media
    assert found["images"] == {"checked": 4, "truncated": False, "deviations": [], "deviations_total": 0}
    assert found["uses"] == []
    assert found["pools"] == [
        {
            "name": "p",
            "type": "dir",
            "path": "/srv/images",
            "active": False,
            "autostart": False,
            "remote": False,
            "mode": "0711",
            "owner": "root",
            "group": "root",
            "mount": None,
            "promised_percent": 0,
            "label": "",
            "label_persistent": None,
        }
    ]
    assert found["layers"] == []


@pytest.mark.parametrize(
    ("path", "mode", "deviates"),
    [
        ("/data/a.qcow2", 0o644, True),
        ("/srv/images/b.qcow2", 0o604, True),
        ("/srv/nvram/a.fd", 0o646, True),
        ("/srv/images/install.iso", 0o666, False),
        ("/data/debian.img", 0o644, False),
        ("/srv/images/b.qcow2", 0o660, False),
    ],
)
def test_open_images(host: TreeHost, path: str, mode: int, deviates: bool) -> None:
    Path(host.path(path)).chmod(mode)
    assert [found["path"] for found in facts(host)["images"]["deviations"]] == [path] * deviates


def test_a_pool_in_a_directory_that_everybody_writes(host: TreeHost) -> None:
    host.directory("/srv/images", 0o1777)
    assert [found["path"] for found in facts(host)["images"]["deviations"]] == ["/srv/images"]


def test_images_below_a_closed_directory(host: TreeHost) -> None:
    host.directory("/srv/images", 0o700)
    Path(host.path("/srv/images/b.qcow2")).chmod(0o644)
    assert facts(host)["images"]["deviations"] == []


def test_a_pool_on_a_network_file_system(host: TreeHost) -> None:
    host.put("/etc/libvirt/storage/n.xml", POOL.format(type="netfs", name="n", path="/net/images"))
    host.put("/net/images/c.qcow2", mode=0o644)
    found = facts(host)
    assert [(pool["name"], pool["remote"], pool["mode"]) for pool in found["pools"]] == [
        ("n", True, None),
        ("p", False, "0711"),
    ]
    assert [entry["path"] for entry in found["images"]["deviations"]] == ["/net/images/c.qcow2"]


def test_a_server_that_does_not_answer(host: TreeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put("/etc/libvirt/storage/n.xml", POOL.format(type="netfs", name="n", path="/net/images"))

    def hang(path: str, *, follow: bool = True) -> t.Any:
        import time

        if path.startswith("/net"):
            time.sleep(60)
        return type(host).stat(host, path, follow=follow)

    monkeypatch.setattr(host, "stat", hang)
    monkeypatch.setattr(_info_storage, "_SECONDS", 0.3)
    found = facts(host)
    assert (found["images"]["truncated"], found["images"]["deviations"]) == (True, None)
    assert "No answer within 0.3 seconds" in found["unread"][0]["reason"]


def test_definitions_that_cannot_be_read(host: TreeHost) -> None:
    host.put("/etc/libvirt/qemu/b.xml", "<!DOCTYPE domain><domain/>", mode=0o600)
    found = facts(host)
    assert [entry["path"] for entry in found["unread"]] == ["/etc/libvirt/qemu/b.xml"]
    # whose disks these are nobody knows
    assert (found["images"]["deviations"], found["uses"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "devices", "wanted"),
    [
        ("devices {\n\t# use_devicesfile = 1\n}\n", False, (False, None)),
        ("devices {\n}\n", True, (True, None)),
        ("devices {\n\tuse_devicesfile = 0\n}\n", True, (False, None)),
        ('devices {\n\tglobal_filter = [ "r|/dev/vg/|" ]\n}\n', False, (False, '[ "r|/dev/vg/|" ]')),
    ],
)
def test_lvm(host: TreeHost, text: str, devices: bool, wanted: tuple[bool, str | None]) -> None:
    host.put("/etc/lvm/lvm.conf", text)
    if devices:
        host.put("/etc/lvm/devices/system.devices", "IDTYPE=sys_wwid IDNAME=x DEVNAME=/dev/sda\n")
    found = facts(host)["lvm"]
    assert (found["installed"], found["devices_file"], found["global_filter"]) == (True, *wanted)


def test_no_lvm(host: TreeHost) -> None:
    assert facts(host)["lvm"] == {"installed": False, "devices_file": False, "global_filter": None}


def test_what_images_hang_on(host: TreeHost) -> None:
    put(host, "/data/a.qcow2", image(backing="/srv/images/b.qcow2"))
    put(host, "/srv/images/b.qcow2", image(backing="/etc/shadow"))
    assert [(layer["name"], layer["source"], layer["in_pool"]) for layer in facts(host)["layers"]] == [
        ("/data/a.qcow2", "/srv/images/b.qcow2", True),
        ("/srv/images/b.qcow2", "/etc/shadow", False),
    ]


@pytest.mark.parametrize("what", ["cut off", "remote", "no definition"])
def test_what_was_not_looked_at_hangs_on_who_knows_what(host: TreeHost, what: str) -> None:
    if what == "cut off":
        put(host, "/data/a.qcow2", image()[:40])
    elif what == "remote":
        host.put("/etc/libvirt/storage/n.xml", POOL.format(type="netfs", name="n", path="/net/images"))
    else:
        host.put("/etc/libvirt/qemu/b.xml", "<!DOCTYPE domain><domain/>", mode=0o600)
    assert facts(host)["layers"] is None


def test_what_a_pool_has_promised(host: TreeHost) -> None:
    host.size = 1 << 30
    put(host, "/srv/images/b.qcow2", image(size=3 << 29))
    put(host, "/srv/images/c.raw", bytes(1 << 20))
    assert [pool["promised_percent"] for pool in facts(host)["pools"]] == [150]
    put(host, "/srv/images/d.qcow2", image()[:40])
    assert [pool["promised_percent"] for pool in facts(host)["pools"]] == [None]


def test_how_a_network_file_system_is_mounted(host: TreeHost) -> None:
    line = "30 22 0:50 / /net rw,nosuid,nodev - nfs4 nas:/x rw,vers=4.2,sec=krb5p,addr=192.0.2.1\n"
    host.put("/proc/1/mountinfo", f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}")
    host.put("/etc/libvirt/storage/n.xml", POOL.format(type="netfs", name="n", path="/net/images"))
    mount = facts(host)["pools"][0]["mount"]
    assert mount == {"type": "nfs4", "security": "krb5p", "nosuid": True, "nodev": True}


@pytest.mark.parametrize(
    ("contexts", "persistent"),
    [
        ("/srv/images(/.*)?\tsystem_u:object_r:virt_image_t:s0\n", True),
        ("/srv/images/x\tsystem_u:object_r:virt_image_t:s0\n", False),
        ("/srv(/.*)?\tsystem_u:object_r:var_t:s0\n", False),
        ("", False),
    ],
)
def test_the_label_of_a_pool(host: TreeHost, contexts: str, persistent: bool) -> None:
    host.put("/sys/fs/selinux/enforce", "1")
    host.put("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    host.put("/etc/selinux/targeted/contexts/files/file_contexts.local", contexts)
    host.labels["/srv/images"] = "system_u:object_r:virt_image_t:s0"
    (pool,) = facts(host)["pools"]
    assert (pool["label"], pool["label_persistent"]) == ("virt_image_t", persistent)
