# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers stop what a passed-through argument names: the facts of libvirt's qemu-passthrough-security page."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _definitions
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import (
    UUID,
    DomainHost,
    commandline,
    domain,
    seclabel,
)

SVIRT = "system_u:object_r:svirt_image_t:s0"


class MacHost(DomainHost):
    """``labels``: the SELinux labels of files, ``acls``: those with an ACL, ``owners``: whose are not root's."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.labels: dict[str, str] = {}
        self.acls: set[str] = set()
        self.owners = {"/var/lib/libvirt/qemu": (64055, 64055)}
        self.put("/var/lib/libvirt/qemu/x", "")
        self.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/sh\n")
        self.put("/etc/group", "root:x:0:\nkvm:x:994:\nlibvirt-qemu:x:64055:\ndisk:x:6:alice,libvirt-qemu\n")

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        found = super().stat(path, follow=follow)
        return os.stat_result((*found[:4], *self.owners.get(path, (0, 0)), *found[6:]))

    def attributes(self, path: str) -> dict[str, bytes]:
        found = {"security.selinux": self.labels[path].encode() + b"\0"} if path in self.labels else {}
        return {**found, **({"system.posix_acl_access": b"x"} if path in self.acls else {})}


@pytest.fixture
def host(tmp_path: Path) -> MacHost:
    return MacHost(tmp_path)


def verdicts(host: DomainHost, *args: str, extra: str = "") -> dict[str, dict[str, t.Any]]:
    """The layers for the only path that the arguments name."""
    host.define(domain(extra=commandline(*args) + extra))
    (guest,) = _definitions.gather(host)["guests"]
    (opened,) = guest["opens"]
    layers = {layer["layer"]: layer for layer in opened["layers"]}
    assert list(layers) == ["selinux", "apparmor", "dac", "mount_namespace", "seccomp", "device_cgroup"]
    for layer in layers.values():
        assert layer["why"]
        assert bool(layer["grant"]) is (layer["stops"] is not False), layer
    return layers


def stopping(layers: dict[str, dict[str, t.Any]]) -> list[str]:
    return [name for name, layer in layers.items() if layer["stops"]]


def selinux(host: DomainHost, enforce: str = "1") -> None:
    host.put("/sys/fs/selinux/enforce", enforce)


def test_a_file_of_roots(host: MacHost) -> None:
    host.put("/srv/a", "").chmod(0o600)
    layers = verdicts(host, "-bios", "/srv/a")
    assert stopping(layers) == ["dac"]
    assert layers["dac"]["grant"].startswith("setfacl -m u:libvirt-qemu:rw '/srv/a'")


@pytest.mark.parametrize(("mode", "stops"), [(0o666, False), (0o644, None), (0o600, True), (0o660, True)])
def test_modes(host: MacHost, mode: int, stops: bool | None) -> None:
    host.put("/srv/a", "").chmod(mode)
    assert verdicts(host, "-bios", "/srv/a")["dac"]["stops"] is stops


def test_a_directory_that_nobody_may_enter(host: MacHost) -> None:
    host.put("/srv/a/b", "").chmod(0o666)
    os.chmod(host.path("/srv/a"), 0o700)
    assert verdicts(host, "-bios", "/srv/a/b")["dac"]["why"] == "libvirt-qemu may not enter /srv/a"


@pytest.mark.parametrize(("label", "stops"), [("root:root", False), ("libvirt-qemu:libvirt-qemu", True)])
def test_the_definitions_own_user(host: MacHost, label: str, stops: bool) -> None:
    host.put("/srv/a", "").chmod(0)
    extra = seclabel("type='static' model='dac'", f"<label>{label}</label>")
    assert verdicts(host, "-bios", "/srv/a", extra=extra)["dac"]["stops"] is stops


@pytest.mark.parametrize(("group", "stops"), [("libvirt-qemu", None), ("kvm", None), ("disk", None), ("root", True)])
def test_each_of_its_groups_counts(host: MacHost, group: str, stops: bool | None) -> None:
    """QEMU has its own group, the one that /etc/passwd gives its user, and those that name it."""
    host.put("/srv/a", "").chmod(0o640)
    gid = host.gid(group)
    assert gid is not None
    host.owners["/srv/a"] = (0, gid)
    assert verdicts(host, "-bios", "/srv/a")["dac"]["stops"] is stops


def test_the_user_of_qemu_conf(host: MacHost) -> None:
    host.put("/etc/libvirt/qemu.conf", 'user = "root"\n')
    host.put("/srv/a", "").chmod(0o600)
    assert verdicts(host, "-bios", "/srv/a")["dac"]["stops"] is False


def test_an_acl_depends(host: MacHost) -> None:
    host.put("/srv/a", "").chmod(0o600)
    host.acls.add("/srv/a")
    assert verdicts(host, "-bios", "/srv/a")["dac"]["stops"] is None


@pytest.mark.parametrize(
    ("label", "stops"),
    [
        ("", True),
        ("system_u:object_r:etc_t:s0", True),
        ("system_u:object_r:virt_content_t:s0", None),
        (SVIRT, False),
        (f"{SVIRT}:c1,c2", None),
    ],
)
def test_selinux_labels(host: MacHost, label: str, stops: bool | None) -> None:
    selinux(host)
    host.put("/srv/a", "")
    if label:
        host.labels["/srv/a"] = label
    layers = verdicts(host, "-bios", "/srv/a")
    assert layers["selinux"]["stops"] is stops
    assert layers["apparmor"]["stops"] is False
    if stops is not False:
        for word in ("virt_content_t", "svirt_image_t:s0 without categories", "static label"):
            assert word in layers["selinux"]["grant"]


def test_selinux_that_does_not_act(host: MacHost) -> None:
    host.put("/srv/a", "")
    selinux(host, "0")
    assert verdicts(host, "-bios", "/srv/a")["selinux"]["stops"] is False
    selinux(host)
    extra = seclabel("type='none' model='selinux'")
    assert verdicts(host, "-bios", "/srv/a", extra=extra)["selinux"]["stops"] is False
    assert verdicts(host, "-bios", "/srv/a", extra=seclabel("type='none' model='dac'"))["selinux"]["stops"] is True


def test_apparmor(host: MacHost) -> None:
    host.put("/sys/module/apparmor/parameters/enabled", "Y\n")
    host.put("/srv/a", "").chmod(0o666)
    layers = verdicts(host, "-bios", "/srv/a")
    assert stopping(layers) == ["apparmor"]
    assert f"the profile libvirt-{UUID} alone" in layers["apparmor"]["grant"]


def test_a_device(host: MacHost) -> None:
    layers = verdicts(host, "-drive", "file=/dev/sdb,format=raw")
    assert stopping(layers) == ["mount_namespace", "device_cgroup"]
    assert "cgroup_device_acl" in layers["mount_namespace"]["grant"]


def test_a_device_of_the_list(host: MacHost) -> None:
    host.put("/etc/libvirt/qemu.conf", 'cgroup_device_acl = [ "/dev/null", "/dev/sdb" ]\n')
    assert stopping(verdicts(host, "-drive", "file=/dev/sdb")) == []


def test_a_device_that_the_definition_names_too(host: MacHost) -> None:
    host.define(
        domain(
            "<disk type='block'><driver type='raw'/><source dev='/dev/sdb'/><target dev='vda'/></disk>",
            extra=commandline("-drive", "file=/dev/sdb"),
        )
    )
    (guest,) = _definitions.gather(host)["guests"]
    assert [layer["layer"] for layer in guest["opens"][0]["layers"] if layer["stops"]] == []


@pytest.mark.parametrize(("line", "stops"), [("namespaces = [ ]", False), ('namespaces = [ "mount" ]', True)])
def test_without_namespaces(host: MacHost, line: str, stops: bool) -> None:
    host.put("/etc/libvirt/qemu.conf", line + "\n")
    layers = verdicts(host, "-drive", "file=/dev/sdb")
    assert layers["mount_namespace"]["stops"] is stops
    assert layers["device_cgroup"]["stops"] is True


def test_a_broken_qemu_conf(host: MacHost) -> None:
    host.put("/etc/libvirt/qemu.conf", "namespaces = [\n")
    assert verdicts(host, "-drive", "file=/dev/sdb")["mount_namespace"]["stops"] is None


def test_what_is_mounted_below_dev(host: MacHost) -> None:
    host.put("/dev/shm/frames", "").chmod(0o666)
    assert stopping(verdicts(host, "-object", "memory-backend-file,id=m,mem-path=/dev/shm/frames")) == []


def test_a_program(host: MacHost) -> None:
    layers = verdicts(host, "-netdev", "tap,id=n,script=/etc/up,downscript=no")
    assert layers["seccomp"]["stops"] is True


def test_a_passed_through_device(host: MacHost) -> None:
    link = Path(host.path("/sys/bus/pci/devices/0000:01:00.0/iommu_group"))
    link.parent.mkdir(parents=True)
    link.symlink_to("../../../../kernel/iommu_groups/7")
    host.define(domain(extra=commandline("-device", "vfio-pci,host=01:00.0")))
    (guest,) = _definitions.gather(host)["guests"]
    assert [opened["path"] for opened in guest["opens"]] == ["/dev/iommu", "/dev/vfio/7", "/dev/vfio/vfio"]


@pytest.mark.parametrize("path", ["/" + "a" * 5000, "/srv/loop", "/srv/x/../x/..", "/"])
def test_paths_that_lead_nowhere(host: MacHost, path: str) -> None:
    Path(host.path("/srv")).mkdir()
    Path(host.path("/srv/loop")).symlink_to("loop")
    verdicts(host, "-bios", path)
