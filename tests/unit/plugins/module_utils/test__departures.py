# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which a definition leaves the confinement, one case each, and those that look like one."""

from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import (
    CPU,
    DISK,
    SECRET,
    commandline,
    confined,
    domain,
    found,
    parsed,
    seclabel,
)

BAD = "<source mode='bind' host='0.0.0.0' service='4555'/><protocol type='raw'/>"
HOST_PCI = (
    "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
    "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source></hostdev>"
)
LABELLED = "<disk type='file' device='disk'><driver type='raw'/><source file='/a'>{}</source><target dev='vda'/></disk>"
NFS = (
    "<disk type='file'><driver type='qcow2'/><source file='/a'/>"
    "<backingStore type='file'>{}<source file='/b'/><backingStore/></backingStore><target dev='vda'/></disk>"
)


def test_a_confined_guest_has_none() -> None:
    assert found(confined()) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (domain(extra=seclabel("type='none'")), ("seclabel_none", "domain", "type none, model any")),
        (
            domain(extra=seclabel("type='none' model='selinux'")),
            ("seclabel_none", "domain", "type none, model selinux"),
        ),
        (domain(extra=seclabel("model='none'")), ("seclabel_none", "domain", "type none, model none")),
        *(
            (
                domain(extra=seclabel("type='static' model='dac' relabel='yes'", f"<label>{label}</label>")),
                ("dac_root", "domain", f"label {label}"),
            )
            for label in ("root:root", "+0:+0", "0:64055", "libvirt-qemu:root", "toor:libvirt-qemu")
        ),
        (
            domain(extra=seclabel("type='static' model='selinux'", "<label>u:r:svirt_t:s0:c1,c2</label>")),
            ("static_label", "domain", "model selinux, label u:r:svirt_t:s0:c1,c2"),
        ),
        (
            domain(extra=seclabel("type='dynamic' model='selinux'", "<baselabel>u:r:unconfined_t:s0</baselabel>")),
            ("base_label", "domain", "baselabel u:r:unconfined_t:s0"),
        ),
        (
            domain(LABELLED.format("<seclabel model='dac' relabel='no'/>")),
            ("relabel_no", "disk vda", "model dac, relabel no"),
        ),
        (
            domain(LABELLED.format("<seclabel model='dac' relabel='yes'><label>root:root</label></seclabel>")),
            ("dac_root", "disk vda", "label root:root"),
        ),
        (
            domain(extra="<qemu:capabilities><qemu:del capability='seccomp'/></qemu:capabilities>"),
            ("qemu_capabilities", None, "del seccomp"),
        ),
        (
            domain(
                extra="<qemu:override><qemu:device alias='hostdev0'><qemu:frontend><qemu:property name='x-pci'"
                " type='unsigned' value='1'/></qemu:frontend></qemu:device></qemu:override>"
            ),
            ("qemu_override", None, "hostdev0 x-pci"),
        ),
        (domain(extra=commandline("-device", "vmcoreinfo")), ("qemu_arguments", None, "-device vmcoreinfo")),
        (domain(extra=commandline(env={"A": "1"})), ("qemu_environment", None, "A")),
        (domain(extra=commandline("-s")), ("chardev_network", "qemu:arg -s", "-s")),
        (
            domain(extra=commandline("-device", "vfio-pci,host=01:00.0")),
            ("host_device", "pci 0000:01:00.0", "passed through"),
        ),
        (domain(extra=commandline("-vnc", "0.0.0.0:7")), ("graphics_listen", "qemu:arg -vnc", "0.0.0.0:7")),
        (domain(kind="qemu"), ("not_kvm", "type", "qemu")),
        (domain(machine="isapc"), ("machine_type", "machine", "isapc of x86_64")),
        (domain(machine="vexpress-a9", arch="armv7l"), ("machine_type", "machine", "vexpress-a9 of armv7l")),
        (domain(cpu="<cpu mode='host-passthrough'/>"), ("nested_virtualization", "cpu", None)),
        (domain(cpu="<cpu mode='host-model'/>"), ("nested_virtualization", "cpu", "host-model without vmx disabled")),
        (domain(cpu="<cpu mode='maximum'/>"), ("nested_virtualization", "cpu", None)),
        (
            domain(cpu="<cpu mode='custom'><model>Skylake-Client</model><feature policy='require' name='vmx'/></cpu>"),
            ("nested_virtualization", "cpu", "vmx in the features"),
        ),
        (
            domain(os="<loader type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>"),
            ("writable_firmware", "os loader", None),
        ),
        (
            domain(extra="<launchSecurity type='sev'><policy>0x0002</policy></launchSecurity>"),
            ("debug_allowed", "launchSecurity", "sev, policy 0x2"),
        ),
        (
            domain(extra="<launchSecurity type='sev-snp'><policy>0x000b0000</policy></launchSecurity>"),
            ("debug_allowed", "launchSecurity", "sev-snp, policy 0xb0000"),
        ),
        (
            domain("<graphics type='vnc'><listen type='address' address='0.0.0.0'/></graphics>"),
            ("graphics_listen", "graphics vnc", "0.0.0.0"),
        ),
        (domain("<graphics type='vnc' listen='::'/>"), ("graphics_listen", "graphics vnc", "::")),
        (
            domain("<graphics type='spice'><listen type='network' network='lan'/></graphics>"),
            ("graphics_listen", "graphics spice", "network lan"),
        ),
        (
            domain(f"<graphics type='vnc' passwd='{SECRET}' listen='127.0.0.1'/>"),
            ("plain_password", "graphics vnc", None),
        ),
        (domain(f"<serial type='tcp'>{BAD}</serial>"), ("chardev_network", "serial", "tcp, listens on 0.0.0.0:4555")),
        (
            domain(
                "<channel type='udp'><source mode='connect' host='10.0.0.1' service='99'/>"
                "<target type='virtio' name='c.1'/></channel>"
            ),
            ("chardev_network", "channel c.1", "udp, connects to 10.0.0.1:99"),
        ),
        (
            domain(
                f"<serial type='tcp'>{BAD.replace('/>', ' tls=&quot;no&quot;/>', 1)}</serial>".replace("&quot;", '"')
            ),
            ("chardev_network", "serial", "tcp, listens on 0.0.0.0:4555"),
        ),
        (
            domain(
                "<rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='h' service='7'/>"
                "</backend></rng>"
            ),
            ("chardev_network", "rng", "tcp, connects to h:7"),
        ),
        (domain(HOST_PCI), ("host_device", "pci 0000:01:00.1", "pci of the host")),
        (
            domain(
                HOST_PCI.replace("hostdev mode='subsystem' type='pci'", "interface type='hostdev'").replace(
                    "/hostdev", "/interface"
                )
            ),
            ("host_device", "pci 0000:01:00.1", "pci of the host"),
        ),
        (
            domain(
                "<hostdev mode='subsystem' type='usb'><source><vendor id='0x0951'/><product id='0x1666'/></source>"
                "</hostdev>"
            ),
            ("host_device", "usb 0x0951:0x1666", None),
        ),
        (
            domain(
                "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='c2177883'/></source>"
                "</hostdev>"
            ),
            ("host_device", "mdev c2177883", None),
        ),
        (
            domain(
                "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/>"
                "<address bus='0' target='1' unit='2'/></source></hostdev>"
            ),
            ("host_device", "scsi scsi_host0 0:1:2", None),
        ),
        (
            domain("<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"),
            ("host_device", "tpm /dev/tpm0", None),
        ),
        (domain("<redirdev bus='usb' type='spicevmc'/>"), ("host_device", "redirdev usb spicevmc", None)),
        (
            domain("<input type='evdev'><source dev='/dev/input/event3'/></input>"),
            ("host_device", "input /dev/input/event3", None),
        ),
        (
            domain("<serial type='dev'><source path='/dev/ttyS0'/></serial>"),
            ("host_device", "serial /dev/ttyS0", None),
        ),
        (
            domain(
                "<graphics type='spice'><listen type='none'/><gl enable='yes' rendernode='/dev/dri/renderD128'/>"
                "</graphics>"
            ),
            ("host_device", "gl /dev/dri/renderD128", None),
        ),
        (
            domain("<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>"),
            ("host_directory", "/srv", "path, writable"),
        ),
        (
            domain(
                "<filesystem type='mount'><driver type='virtiofs'/><source dir='/srv'/><target dir='s'/><readonly/>"
                "</filesystem>"
            ),
            ("host_directory", "/srv", "virtiofs, read-only"),
        ),
        (domain("<shmem name='frames'><size>32</size></shmem>"), ("shared_memory", "shmem frames", None)),
        (
            domain(
                "<disk type='block' device='lun' rawio='yes'><driver type='raw'/><source dev='/dev/sdb'/>"
                "<target dev='sda'/></disk>"
            ),
            ("rawio", "disk sda", "rawio yes"),
        ),
        (
            domain("<disk type='file'><source file='/a.img'/><target dev='vdb'/></disk>"),
            ("disk_format", "disk vdb", "/a.img without a format"),
        ),
        (
            domain("<disk type='file'><driver type='auto'/><source file='/a.img'/><target dev='vdb'/></disk>"),
            ("disk_format", "disk vdb", None),
        ),
        (domain(NFS.format("")), ("disk_format", "disk vda backing", "/b without a format")),
        (
            domain("<interface type='ethernet'><script path='/etc/up'/><mac address='52:54:00:00:00:01'/></interface>"),
            ("interface_script", "interface 52:54:00:00:00:01", "/etc/up"),
        ),
        (
            domain("<interface type='ethernet'><target dev='web0' managed='no'/></interface>"),
            ("unmanaged_target", "interface web0", "web0, managed no"),
        ),
        (
            domain("<interface type='direct' trustGuestRxFilters='yes'><mac address='52:54:00:00:00:01'/></interface>"),
            ("trusted_rx_filters", "interface 52:54:00:00:00:01", None),
        ),
        (domain(os=f"<cmdline>root=/dev/vda pw.password={SECRET}</cmdline>"), ("plain_password", "os cmdline", None)),
        (
            domain(extra=f"<sysinfo type='fwcfg'><entry name='opt/root_password'>{SECRET}</entry></sysinfo>"),
            ("plain_password", "sysinfo", None),
        ),
        (
            domain(
                "<disk type='network'><driver type='raw'/><source protocol='https' name='a'><cookies>"
                f"<cookie name='c'>{SECRET}</cookie></cookies></source><target dev='vdc'/></disk>"
            ),
            ("plain_password", "disk vdc cookies", None),
        ),
        (
            domain(extra=commandline("-object", f"secret,id=s,data={SECRET}")),
            ("plain_password", "qemu:arg -object", None),
        ),
        (domain(extra=commandline(env={"VNC_PASSWD": SECRET})), ("plain_password", "qemu:env VNC_PASSWD", None)),
    ],
)
def test_departure(text: str, wanted: tuple[str, str | None, str | None]) -> None:
    name, where, observed = wanted
    entries = [entry for entry in found(text) if entry[0] == name]
    assert len(entries) == 1, found(text)
    assert where in (None, entries[0][1])
    assert observed in (None, entries[0][2])
    assert SECRET not in str(parsed(text))


@pytest.mark.parametrize(
    "text",
    [
        domain(extra=seclabel("type='dynamic' model='dac' relabel='yes'", "<label>+64055:+64055</label>")),
        domain(extra=seclabel("type='dynamic' model='selinux' relabel='yes'", "<label>u:r:svirt_t:s0:c1,c2</label>")),
        domain(extra=seclabel("type='dynamic' model='selinux'", "<baselabel>u:r:svirt_tcg_t:s0</baselabel>")),
        domain(machine="pc-i440fx-7.2"),
        domain(machine="pc"),
        domain(machine="q35"),
        domain(machine="rhel6.6.0"),
        domain(machine="microvm", arch="i686"),
        domain(machine="virt-8.2", arch="aarch64"),
        domain(machine="pseries-rhel9.0.0", arch="ppc64le"),
        domain(machine="s390-ccw-virtio-7.2", arch="s390x"),
        domain(cpu=""),
        domain(cpu="<cpu mode='custom'><model>Skylake-Client</model></cpu>"),
        domain(cpu="<cpu mode='host-passthrough'><feature policy='disable' name='vmx'/></cpu>"),
        domain("<graphics type='vnc'/>"),
        domain("<graphics type='vnc' socket='/run/vnc.sock'/>"),
        domain("<graphics type='spice'><listen type='none'/></graphics>"),
        domain("<graphics type='vnc' listen='::1'/>"),
        domain("<graphics type='vnc' listen='127.1.2.3'/>"),
        domain("<graphics type='spice' defaultMode='secure' listen='0.0.0.0'/>"),
        domain("<graphics type='vnc' passwd='' listen='127.0.0.1'/>"),
        domain(f"<serial type='tcp'>{BAD.replace('/>', ' tls=!yes!/>', 1).replace('!', chr(34))}</serial>"),
        domain("<serial type='unix'><source mode='bind' path='/run/x'/></serial>"),
        domain("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"),
        domain("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"),
        domain("<disk type='file' device='cdrom'><target dev='sda'/></disk>"),
        domain(NFS.format("<format type='raw'/>")),
        domain("<interface type='bridge'><source bridge='br0'/><target dev='web0'/></interface>"),
        domain(os="<loader type='pflash' readonly='yes'>/x.fd</loader>"),
        domain(os="<loader type='rom'>/x.bin</loader>"),
        domain(extra="<launchSecurity type='sev'><policy>0x0003</policy></launchSecurity>"),
        domain(extra="<launchSecurity type='sev-snp'><policy>0x00030000</policy></launchSecurity>"),
        domain(os="<cmdline>root=/dev/vda quiet</cmdline>"),
    ],
)
def test_no_departure(text: str) -> None:
    assert found(text) == []


def test_spice_without_tls_in_one_channel() -> None:
    text = domain(
        "<graphics type='spice' defaultMode='secure' listen='0.0.0.0'><channel name='main' mode='insecure'/></graphics>"
    )
    assert found(text) == [("graphics_listen", "graphics spice", "0.0.0.0")]


def test_static_label_without_relabel_is_one_departure() -> None:
    text = domain(extra=seclabel("type='static' model='dac'", "<label>bob:bob</label>"))
    assert found(text) == [("static_label", "domain", "model dac, label bob:bob")]


@pytest.mark.parametrize(("host", "count"), [(("svm",), 1), (("vmx",), 0), (("vmx", "svm"), 1)])
def test_nested_by_what_the_host_has(host: tuple[str, ...], count: int) -> None:
    """Only the vendor's own feature matters; where the host has neither, both have to be off."""
    text = domain(cpu="<cpu mode='host-passthrough'><feature policy='disable' name='vmx'/></cpu>")
    assert len(found(text, host)) == count
    assert found(domain(cpu=CPU), host) == []


def test_many_of_a_kind() -> None:
    text = domain(*("<redirdev bus='usb' type='tcp'/>" for _number in range(40)))
    entries = [entry for entry in found(text) if entry[0] == "host_device"]
    assert len(entries) == 16
    assert entries[-1][1] == "25 more"


def test_what_is_passed_through_has_a_digest() -> None:
    one = parsed(domain(DISK, extra=commandline("-device", "vmcoreinfo"))).passthrough.digest
    same = parsed(domain(extra=commandline("-device", "vmcoreinfo"), name="db")).passthrough.digest
    other = parsed(domain(extra=commandline("-device", "vmcoreinfo,x=y"))).passthrough.digest
    assert one == same != other
    assert parsed(domain()).passthrough.digest == ""


def test_the_name_space_counts_and_not_the_prefix() -> None:
    text = domain(
        extra="<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='-s'/></commandline>"
        "<x:commandline xmlns:x='urn:other'><x:arg value='-gdb'/></x:commandline>"
    )
    assert [argument.shown for argument in parsed(text).passthrough.args] == ["-s"]
