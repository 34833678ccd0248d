# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nodes in a guest's /dev somebody asked for. Definitions are as libvirt writes its status files."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from lxml import etree

from ansible_collections.hypervisor.hardening.plugins.module_utils import _guestdevices, _mountinfo
from ansible_collections.hypervisor.hardening.plugins.module_utils._guestdevices import Judge, Node
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import GUEST_MOUNTS, QemuHost

QEMU = 64055
LISTED = ("/dev/null", "/dev/kvm", "/dev/userfaultfd")


@pytest.fixture
def host(tmp_path: Path) -> QemuHost:
    return QemuHost(tmp_path)


def domain(xml: str) -> t.Any:
    return etree.fromstring(f"<domain><name>web</name>{xml}</domain>")


def device(xml: str) -> t.Any:
    return domain(f"<devices>{xml}</devices>")


def judge(host: QemuHost, *nodes: Node, definition: t.Any = None, mounted: t.Container[str] = ()) -> list[str]:
    """Why each node is unexpected."""
    return [node.unexpected for node in Judge(host, LISTED, mounted).judged(nodes, QEMU, lambda: definition)]


def block(path: str, number: str, **how: t.Any) -> Node:
    return Node(path, "block", number, how.get("owner", QEMU), 6, how.get("mode", "0660"))


NULL = Node("/dev/null", "char", "1:3", 0, 0, "0666")


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (NULL, ""),
        (Node("/dev/kvm", "char", "10:232", 0, 993, "0660"), ""),
        (Node("/dev/null", "char", "1:1", 0, 0, "0666"), "the host's is char 1:3"),
        (Node("/dev/null", "block", "1:3", 0, 0, "0666"), "the host's is char 1:3"),
        (Node("/dev/null", "char", "1:3", QEMU, 0, "0666"), ""),
        (Node("/dev/null", "char", "1:3", 1000, 0, "0666"), "owned by uid 1000, the host's by 0"),
        (Node("/dev/kvm", "char", "10:232", 0, 993, "0600"), ""),
        (Node("/dev/userfaultfd", "char", "10:126", 0, 0, "0666"), ""),
        (Node("/dev/mem", "char", "1:1", 0, 9, "0640"), "neither in the device list nor in the guest's definition"),
        (Node("/dev/log", "symlink", "", 0, 0, "0777"), ""),
        (Node("/dev/notes", "file", "", 0, 0, "0644"), ""),
    ],
)
def test_the_device_list(host: QemuHost, node: Node, reason: str) -> None:
    assert judge(host, node) == [reason]


def test_a_node_is_not_more_open_than_the_hosts(host: QemuHost) -> None:
    host.node("/dev/kvm2", "char 10:232", mode="0660")
    xml = device("<rng><backend model='random'>/dev/kvm2</backend></rng>")
    assert judge(host, Node("/dev/kvm2", "char", "10:232", 0, 0, "0666"), definition=xml) == [
        "mode 0666, the host's has 0660"
    ]


def test_the_definition_is_only_read_when_it_is_needed(host: QemuHost) -> None:
    def definition() -> t.Any:
        raise AssertionError("nobody needs it")

    assert [node.unexpected for node in Judge(host, LISTED, ()).judged([NULL], QEMU, definition)] == [""]


def test_without_a_definition_only_the_list_counts(host: QemuHost) -> None:
    assert judge(host, NULL, block("/dev/sda", "8:0")) == [
        "",
        "neither in the device list nor in the guest's definition",
    ]


def test_what_the_host_has_mounted_below_dev_is_carried_over(host: QemuHost) -> None:
    console = Node("/dev/console", "char", "136:0", 0, 5, "0620")
    assert judge(host, console, mounted={"/dev", "/dev/console"}) == [""]
    assert judge(host, console, mounted={"/dev"}) != [""]


@pytest.mark.parametrize(
    ("xml", "paths"),
    [
        ("<disk type='block'><source dev='/dev/sda'/></disk>", {"/dev/sda"}),
        (
            "<disk><source file='/x'/><backingStore type='block'><source dev='/dev/vg/base'/></backingStore></disk>",
            {"/dev/vg/base"},
        ),
        ("<disk><source dev='/dev//sdb/../sdc'/></disk>", {"/dev/sdc"}),
        ("<serial type='dev'><source path='/dev/ttyS1'/></serial>", {"/dev/ttyS1"}),
        ("<rng><backend model='random'>/dev/hwrng</backend></rng>", {"/dev/hwrng"}),
        ("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", {"/dev/tpm0"}),
        ("<graphics><gl rendernode='/dev/dri/renderD128'/></graphics>", {"/dev/dri/renderD128"}),
        ("<input type='evdev'><source dev='/dev/input/event3'/></input>", {"/dev/input/event3"}),
        ("<memory model='nvdimm'><source><path>/dev/dax0.0</path></source></memory>", {"/dev/dax0.0"}),
        ("<memory model='sgx-epc'/>", {"/dev/sgx_vepc", "/dev/sgx_provision"}),
        ("<video><model type='virtio' blob='on'/></video>", {"/dev/udmabuf"}),
        ("<hostdev mode='subsystem' type='scsi_host'/>", {"/dev/vhost-scsi"}),
        (
            "<hostdev type='usb'><source><vendor id='0x1'/><address bus='1' device='4'/></source></hostdev>",
            {"/dev/bus/usb/001/004"},
        ),
        (
            "<disk type='block'><source dev='/dev/sda'><reservations managed='yes'/></source></disk>",
            {"/dev/sda", "/dev/mapper/control"},
        ),
        ("<disk type='file'><source file='/var/lib/x.img'/></disk>", set()),
        ("<hostdev type='usb'><source><address bus='x' device='4'/></source></hostdev>", set()),
        ("<hostdev type='pci'><source><address domain='0x0'/></source></hostdev>", set()),
    ],
)
def test_what_a_device_of_the_definition_gives(host: QemuHost, xml: str, paths: set[str]) -> None:
    assert _guestdevices.from_definition(host, device(xml)) == paths


def test_what_the_firmware_and_launch_security_give(host: QemuHost) -> None:
    xml = domain("<os><nvram>/dev/vg/nvram</nvram></os><launchSecurity type='sev'/><devices/>")
    assert _guestdevices.from_definition(host, xml) == {"/dev/vg/nvram", "/dev/sev"}


def test_what_others_wrote_into_the_definition_gives_nothing(host: QemuHost) -> None:
    xml = domain(
        "<description>/dev/sda</description><metadata><x a='/dev/sdb'>/dev/sdc</x></metadata>"
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='/dev/sdd'/></q:commandline>"
    )
    assert _guestdevices.from_definition(host, xml) == set()


VFIO = {"/dev/vfio/vfio", "/dev/iommu"}
PCI = "<address domain='0x0000' bus='0x03' slot='0x1f' function='0x2'/>"


@pytest.mark.parametrize(
    "xml",
    [
        f"<hostdev mode='subsystem' type='pci'><driver name='vfio'/><source>{PCI}</source></hostdev>",
        f"<interface type='hostdev'><source>{PCI}</source></interface>",
        f"<disk type='nvme'><source type='pci' namespace='1'>{PCI}</source></disk>",
    ],
)
def test_a_pci_device_is_its_vfio_group(host: QemuHost, xml: str) -> None:
    host.link("/sys/bus/pci/devices/0000:03:1f.2/iommu_group", "../../../kernel/iommu_groups/17")
    host.put("/sys/bus/pci/devices/0000:03:1f.2/vfio-dev/vfio4/dev", "511:4")
    assert _guestdevices.from_definition(host, device(xml)) == VFIO | {"/dev/vfio/17", "/dev/vfio/devices/vfio4"}


def test_a_mediated_device_and_a_scsi_one(host: QemuHost) -> None:
    host.link("/sys/bus/mdev/devices/c2177883/iommu_group", "../../../../kernel/iommu_groups/9")
    xml = "<hostdev type='mdev'><source><address uuid='c2177883'/></source></hostdev>"
    assert _guestdevices.from_definition(host, device(xml)) == VFIO | {"/dev/vfio/9"}
    host.put("/sys/bus/scsi/devices/2:0:5:7/scsi_generic/sg3/dev", "21:3")
    xml = (
        "<hostdev type='scsi'><source><adapter name='scsi_host2'/><address bus='0' target='5' unit='7'/></source>"
        "<address type='drive' controller='0' bus='0' target='0' unit='0'/></hostdev>"
    )
    assert _guestdevices.from_definition(host, device(xml)) == {"/dev/sg3"}


def test_symlinks_and_the_device_mapper_are_followed(host: QemuHost) -> None:
    host.link("/dev/vg/root", "../mapper/vg-root")
    host.link("/dev/mapper/vg-root", "../dm-1")
    host.node("/dev/dm-1", "block 253:1", group=6, mode="0660")
    host.put("/sys/dev/block/253:1/slaves/dm-0/dev", "253:0")
    host.node("/dev/dm-0", "block 253:0", group=6, mode="0660")
    host.put("/sys/dev/block/253:0/slaves/cciss!c0d0/dev", "104:0")
    host.node("/dev/cciss/c0d0", "block 104:0", group=6, mode="0660")
    nodes = [
        block("/dev/dm-1", "253:1"),
        block("/dev/dm-0", "253:0"),
        block("/dev/cciss/c0d0", "104:0"),
        block("/dev/dm-2", "253:2"),
    ]
    xml = device("<disk type='block'><source dev='/dev/vg/root'/></disk>")
    reasons = judge(host, *nodes, definition=xml)
    assert [bool(reason) for reason in reasons] == [False, False, False, True]


def test_a_circle_of_symlinks_ends(host: QemuHost) -> None:
    host.link("/dev/a", "b")
    host.link("/dev/b", "a")
    xml = device("<disk><source dev='/dev/a'/></disk>")
    assert judge(host, block("/dev/a", "8:0"), definition=xml) == ["the host's is symlink "]


def test_the_walk_stays_on_the_file_system_of_dev(host: QemuHost) -> None:
    root = "/proc/7/root"
    host.node(f"{root}/dev/null", "char 1:3")
    host.node(f"{root}/dev/bus/usb/001/004", "char 189:3", owner=QEMU)
    host.node(f"{root}/dev/pts/0", "char 136:0")
    host.link(f"{root}/dev/ptmx", "/dev/pts/ptmx")
    host.link(f"{root}/dev/up", "..")
    mounts = _mountinfo.visible(_mountinfo.parse(GUEST_MOUNTS))
    nodes, incomplete = _guestdevices.nodes(host, 7, mounts)
    assert sorted((node.path, node.type, node.device, node.owner, node.mode) for node in nodes) == [
        ("/dev/bus/usb/001/004", "char", "189:3", QEMU, "0666"),
        ("/dev/null", "char", "1:3", 0, "0666"),
        ("/dev/ptmx", "symlink", "", os.getuid(), "0777"),
        ("/dev/up", "symlink", "", os.getuid(), "0777"),
    ]
    assert incomplete == ""


def test_the_walk_is_bounded(host: QemuHost) -> None:
    for number in range(_guestdevices.MOST_NODES + 5):
        host.link(f"/proc/7/root/dev/{number}", "x")
    nodes, incomplete = _guestdevices.nodes(host, 7, {})
    assert (len(nodes), incomplete) == (_guestdevices.MOST_NODES, "it has more than 1024 entries")


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        ("900 890 0:110 / / rw - ext4 /dev/vda rw\n920 900 0:129 / /dev rw - fuse.own own rw\n", "it is on fuse.own"),
        ("900 890 0:110 / / rw - nfs4 server:/ rw\n", "it is on nfs4"),
        ("900 890 0:110 / / rw - nfs4 server:/ rw\n920 900 0:129 / /dev rw - tmpfs devfs rw\n", ""),
    ],
)
def test_a_file_system_that_may_never_answer_is_not_asked(host: QemuHost, mounts: str, reason: str) -> None:
    host.node("/proc/7/root/dev/null", "char 1:3")
    nodes, incomplete = _guestdevices.nodes(host, 7, _mountinfo.visible(_mountinfo.parse(mounts)))
    assert (len(nodes), incomplete) == (0 if reason else 1, reason)


def test_the_walk_of_a_process_that_has_ended_is_empty(host: QemuHost) -> None:
    assert _guestdevices.nodes(host, 8, {}) == ([], "")


LENS = 'module Test_libvirtd_qemu =\n   let conf = "cgroup_device_acl = [ \\"/dev/null\\", \\"/dev/vhost\\" ]\n"\n'


def test_the_list_is_that_of_the_file_then_of_the_lens_then_ours(host: QemuHost) -> None:
    own = Document.parse(b'cgroup_device_acl = [ "/dev/null" ]\n')
    assert _guestdevices.listed(host, own) == ("/dev/null",)
    assert _guestdevices.listed(host, Document.parse(b"cgroup_device_acl = []\n")) == ()
    assert "/dev/userfaultfd" in _guestdevices.listed(host, Document.parse(b"user = 'x'\n"))
    host.put("/usr/share/augeas/lenses/tests/test_libvirtd_qemu.aug", LENS)
    assert _guestdevices.listed(host, None) == ("/dev/null", "/dev/vhost")
    assert _guestdevices.listed(host, own) == ("/dev/null",)
