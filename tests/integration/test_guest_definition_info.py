# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_definition_info on definitions that the real libvirt took, and on guests that it runs."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
import rig
import yaml
from rig import guests, modules, playbooks

from ansible_collections.hypervisor.hardening.plugins.modules import guest_definition_info

SECRET = "kreuz0tter"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
IMAGES = "/var/lib/libvirt/images"
# No processor of this machine is passed on: that would be a departure wherever KVM is nested.
PLAIN_CPU = "<cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>"
# Guests of the rig run under TCG, as not every machine has KVM.
ALWAYS = {"not_kvm"}


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.run(["mkdir", "-p", "/srv/share"])
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    try:
        yield machine
    finally:
        guests.stop_all(machine)


def define(host: rig.Host, guest: guests.Guest) -> None:
    host.put("/run/rig-definition.xml", guest.xml().encode())
    guests.virsh(host, "define", "/run/rig-definition.xml")


def look(host: rig.Host, *names: str) -> list[dict[str, t.Any]]:
    result = modules.call(host, "guest_definition_info", names=list(names))
    assert "failed" not in result, result
    assert result["changed"] is False
    assert result["unreadable"] == []
    found: list[dict[str, t.Any]] = result["guests"]
    return found


def departures(entry: dict[str, t.Any]) -> set[tuple[str, str]]:
    return {(one["id"], one["where"]) for one in entry["departures"] if one["id"] not in ALWAYS}


def passed_through(*words: str, **env: str) -> str:
    inner = "".join(f"<q:arg value='{word}'/>" for word in words)
    inner += "".join(f"<q:env name='{name}' value='{value}'/>" for name, value in env.items())
    return f"<q:commandline xmlns:q='{QEMU}'>{inner}</q:commandline>"


def test_a_guest_without_a_departure(host: rig.Host) -> None:
    """Defined for KVM, as users do; whether this machine can start such a guest does not matter to its definition."""
    define(
        host,
        guests.Guest(
            "plain",
            type="kvm",
            machine="q35",
            disks=[guests.disk(host, f"{IMAGES}/plain.raw")],
            extra=[PLAIN_CPU],
            extra_devices=[
                "<graphics type='vnc' listen='127.0.0.1'/>",
                "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
                "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>",
                "<interface type='bridge'><source bridge='br9'/><filterref filter='clean-traffic'/></interface>",
            ],
        ),
    )
    (plain,) = look(host)
    assert plain["departures"] == []
    assert (plain["source"], plain["type"], plain["pid"], plain["transient"]) == ("configured", "kvm", None, False)
    assert re.fullmatch(r"pc-q35-[0-9.]+", plain["machine"])
    assert [(disk["source"], disk["format"]) for disk in plain["disks"]] == [(f"{IMAGES}/plain.raw", "raw")]
    assert [nic["filter"] for nic in plain["interfaces"]] == ["clean-traffic"]
    assert plain["uuid"] == guests.virsh(host, "domuuid", "plain")


def test_configured_running_and_transient(host: rig.Host) -> None:
    """A definition that is changed under a running guest: both are told, and told apart."""
    pid = guests.start(host, guests.Guest("web", extra=[passed_through("-device", "pvpanic")]), persistent=True)
    guests.start(host, guests.Guest("once"))
    guests.virsh(host, "autostart", "web")
    uuid = guests.virsh(host, "domuuid", "web")
    define(host, guests.Guest("web", uuid=uuid))
    found = {(one["name"], one["source"]): one for one in look(host)}
    assert sorted(found) == [("once", "running"), ("web", "configured"), ("web", "running")]
    configured, running, once = found["web", "configured"], found["web", "running"], found["once", "running"]
    assert departures(configured) == set()
    assert {one for one, _where in departures(running)} == {"qemu_arguments"}
    assert running["commandline"]["args"] == ["-device", "pvpanic"]
    assert (running["pid"], configured["pid"]) == (pid, None)
    assert [one["transient"] for one in (configured, running, once)] == [False, False, True]
    assert [one["autostart"] for one in (configured, running, once)] == [True, True, False]
    assert departures(once) == set()
    # What libvirt itself chose for the guest is no departure.
    assert [(one["model"], one["type"]) for one in running["seclabels"]] == [("dac", "dynamic")]
    assert host.run(["readlink", f"/proc/{pid}/exe"]).stdout.strip() == running["emulator"]


def devices(xml: str) -> dict[str, t.Any]:
    return {"extra_devices": [xml]}


# What is added to a guest, the departures that it makes, and whether the guest starts on the rig.
DEPARTURES: dict[str, tuple[dict[str, t.Any], set[tuple[str, str]], bool]] = {
    "no_label": ({"seclabels": ["<seclabel type='none'/>"]}, {("seclabel_none", "domain")}, True),
    "root": (
        {"seclabels": ["<seclabel type='static' model='dac' relabel='yes'><label>root:root</label></seclabel>"]},
        {("dac_root", "domain")},
        True,
    ),
    "numeric_root": (
        {"seclabels": ["<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel>"]},
        {("dac_root", "domain")},
        True,
    ),
    "own_label": (
        {"seclabels": ["<seclabel type='static' model='dac'><label>nobody:nogroup</label></seclabel>"]},
        {("static_label", "domain")},
        False,
    ),
    "disk": (
        devices(
            f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{IMAGES}/d.raw'>"
            "<seclabel model='dac' relabel='no'/></source><target dev='sda' bus='scsi'/></disk>"
        ),
        {("relabel_no", "disk sda")},
        False,
    ),
    "capabilities": (
        {"extra": [f"<q:capabilities xmlns:q='{QEMU}'><q:del capability='usb-host.hostdevice'/></q:capabilities>"]},
        {("qemu_capabilities", "qemu:commandline")},
        True,
    ),
    "arguments": (
        {"extra": [passed_through("-device", "pvpanic", QEMU_AUDIO_DRV="none")]},
        {("qemu_arguments", "qemu:commandline"), ("qemu_environment", "qemu:commandline")},
        True,
    ),
    "gdb": (
        {"extra": [passed_through("-gdb", "tcp:127.0.0.1:6123")]},
        {("qemu_arguments", "qemu:commandline"), ("chardev_network", "qemu:arg -gdb")},
        True,
    ),
    "vnc": (
        devices("<graphics type='vnc' listen='0.0.0.0' port='5907' autoport='no'/>"),
        {("graphics_listen", "graphics vnc")},
        True,
    ),
    "password": (
        devices(f"<graphics type='vnc' listen='127.0.0.1' passwd='{SECRET[:8]}'/>"),
        {("plain_password", "graphics vnc")},
        True,
    ),
    "tcp": (
        devices(
            "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='4555'/><protocol type='raw'/></serial>"
        ),
        {("chardev_network", "serial 0")},
        True,
    ),
    "udp": (
        devices(
            "<parallel type='udp'><source mode='bind' host='127.0.0.1' service='4556'/>"
            "<source mode='connect' host='127.0.0.1' service='4557'/></parallel>"
        ),
        {("chardev_network", "parallel 0")},
        True,
    ),
    "directory": (
        devices(
            "<filesystem type='mount' accessmode='mapped'><source dir='/srv/share'/><target dir='s'/></filesystem>"
        ),
        {("host_directory", "/srv/share")},
        True,
    ),
    "pci": (
        devices(
            "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
            "<address domain='0' bus='0x7f' slot='0x1f' function='0x7'/></source></hostdev>"
        ),
        {("host_device", "pci 0000:7f:1f.7")},
        False,
    ),
    "tpm": (
        devices("<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"),
        {("host_device", "tpm /dev/tpm0")},
        False,
    ),
    "egd": (
        devices(
            "<rng model='virtio'><backend model='egd' type='tcp'>"
            "<source mode='connect' host='127.0.0.1' service='7'/>"
            "</backend></rng>"
        ),
        {("host_device", "rng egd tcp"), ("chardev_network", "rng")},
        False,
    ),
    "machine": ({"machine": "isapc"}, {("machine_type", "machine")}, False),
    "script": (
        devices("<interface type='ethernet'><mac address='52:54:00:00:00:01'/><script path='/bin/true'/></interface>"),
        {("interface_script", "interface 52:54:00:00:00:01")},
        True,
    ),
    "unmanaged": (
        devices(
            "<interface type='ethernet'><mac address='52:54:00:00:00:02'/>"
            "<target dev='made0' managed='no'/></interface>"
        ),
        {("unmanaged_target", "interface 52:54:00:00:00:02")},
        False,
    ),
    "shmem": (
        devices("<shmem name='frames'><model type='ivshmem-plain'/><size unit='M'>2</size></shmem>"),
        {("shared_memory", "shmem frames")},
        True,
    ),
    "lun": (
        devices(
            "<disk type='block' device='lun' rawio='yes'><driver name='qemu' type='raw'/><source dev='/dev/sdz'/>"
            "<target dev='sda' bus='scsi'/></disk>"
        ),
        {("rawio", "disk sda")},
        False,
    ),
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_departure(host: rig.Host, name: str) -> None:
    """Each in the definition as libvirt writes it; and the same in the running guest, where it starts."""
    changes, wanted, starts = DEPARTURES[name]
    guest = guests.Guest(name, **changes)
    if starts:
        guests.start(host, guest, persistent=True)
    else:
        define(host, guest)
    found = look(host)
    assert [one["source"] for one in found] == ["configured", "running"][: 1 + starts]
    for entry in found:
        seen = {(kind, re.sub(r"(?<=^qemu:commandline) [0-9a-f]{16}$", "", where)) for kind, where in departures(entry)}
        assert seen == wanted, entry["source"]
    assert SECRET[:8] not in json.dumps(found)


def test_a_usb_device(host: rig.Host) -> None:
    device = (
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x0951'/><product id='0x1666'/></source></hostdev>"
    )
    text = guests.Guest("usb", extra_devices=[device]).xml().replace('"usb" model="none"', '"usb" model="qemu-xhci"')
    host.put("/run/rig-definition.xml", text.encode())
    guests.virsh(host, "define", "/run/rig-definition.xml")
    (entry,) = look(host)
    assert departures(entry) == {("host_device", "usb 0x0951:0x1666")}


def test_passwords_are_in_the_file_and_nowhere_else(host: rig.Host) -> None:
    guest = guests.Guest(
        "secretive",
        extra_devices=[f"<graphics type='vnc' listen='127.0.0.1' passwd='{SECRET[:8]}'/>"],
        extra=[
            passed_through(
                "-object", f"secret,id=s0,data={SECRET}", "-fw_cfg", f"name=opt/x,string={SECRET}", PW=SECRET
            )
        ],
    )
    guests.start(host, guest, persistent=True)
    for path in ("/etc/libvirt/qemu/secretive.xml", "/run/libvirt/qemu/secretive.xml"):
        assert SECRET in host.get(path).decode()
    found = look(host)
    assert SECRET[:8] not in json.dumps(found)
    for entry in found:
        assert entry["passwords"] == ["graphics vnc", "qemu:arg -object"]
        assert entry["graphics"][0]["password"] is True
        assert entry["commandline"]["env"] == ["PW"]
        assert entry["commandline"]["args"] == [
            "-object",
            "secret,id=s0,data=(hidden)",
            "-fw_cfg",
            "name=opt/x,string=(hidden)",
        ]


def verdicts(entry: dict[str, t.Any], path: str) -> dict[str, bool | None]:
    (opened,) = [one for one in entry["opens"] if one["path"] == path]
    return {layer["layer"]: layer["stops"] for layer in opened["layers"]}


def chardev(path: str) -> str:
    return passed_through("-chardev", f"file,id=extra,path={path}")


@pytest.mark.parametrize(
    ("mode", "group", "stops"),
    # Debian's libvirt-qemu has kvm as its primary group, which qemu.conf's group comes in addition to.
    [("600", "root", True), ("666", "root", False), ("660", "kvm", False), ("660", "disk", True)],
)
def test_what_the_layers_do_to_a_file(host: rig.Host, mode: str, group: str, stops: bool) -> None:
    """What is said to stop a guest does stop it, and what is said to let it through does."""
    host.put("/srv/passed", b"", mode=int(mode, 8))
    host.run(["chgrp", group, "/srv/passed"])
    guest = guests.Guest("through", extra=[chardev("/srv/passed")])
    define(host, guest)
    (entry,) = look(host)
    said = verdicts(entry, "/srv/passed")
    assert said["dac"] is stops
    assert (said["mount_namespace"], said["seccomp"], said["device_cgroup"]) == (False, False, False)
    if stops:
        with pytest.raises(rig.RigError, match="Permission denied"):
            guests.virsh(host, "start", "through")
    elif not said["apparmor"]:
        guests.virsh(host, "start", "through")


def test_the_grant_lets_it_through(host: rig.Host) -> None:
    host.put("/srv/granted", b"", mode=0o600)
    define(host, guests.Guest("through", extra=[chardev("/srv/granted")]))
    (entry,) = look(host)
    (opened,) = entry["opens"]
    (dac,) = [layer for layer in opened["layers"] if layer["layer"] == "dac"]
    command = dac["grant"].partition(" (or ")[0]
    assert command == "setfacl -m u:libvirt-qemu:rw '/srv/granted'"
    host.run(["chown", "libvirt-qemu", "/srv/granted"])  # the image has no setfacl; this is the same to the kernel
    (entry,) = look(host)
    assert verdicts(entry, "/srv/granted")["dac"] is False
    guests.virsh(host, "start", "through")


def test_what_the_layers_do_to_a_device(host: rig.Host) -> None:
    """/dev/fuse is open to all on the host, and neither in the guest's /dev nor in its cgroup's list."""
    host.run(["sh", "-c", "test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229"])
    define(host, guests.Guest("through", extra=[chardev("/dev/fuse")]))
    (entry,) = look(host)
    said = verdicts(entry, "/dev/fuse")
    assert (said["dac"], said["mount_namespace"], said["device_cgroup"]) == (False, True, True)
    with pytest.raises(rig.RigError, match="fuse"):
        guests.virsh(host, "start", "through")


def test_no_daemon_is_needed(host: rig.Host) -> None:
    define(host, guests.Guest("web"))
    before = look(host)
    host.run(["systemctl", "stop", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"])
    try:
        assert look(host) == before
        assert host.run(["systemctl", "is-active", "libvirtd"], check=False).stdout.strip() != "active"
    finally:
        host.run(["systemctl", "start", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"])


def test_the_facts_of_the_audit(host: rig.Host) -> None:
    guests.start(host, guests.Guest("bare", seclabels=["<seclabel type='none'/>"]), persistent=True)
    facts = modules.call(host, "hypervisor_info")["hypervisor"]["definitions"]
    assert facts["unread"] == []
    (bare,) = facts["guests"]
    for source in ("configured", "running"):
        assert [one["where"] for one in bare[source] if one["id"] == "seclabel_none"] == ["domain"]
    assert (bare["persistent"], bare["active"]) == (True, True)
    assert len(json.dumps(bare)) < 1024


def test_the_examples_run(host: rig.Host) -> None:
    define(host, guests.Guest("web"))
    tasks = yaml.safe_load(guest_definition_info.EXAMPLES)
    done = playbooks.play([{"hosts": host.name, "gather_facts": False, "tasks": tasks}], host.inventory)
    assert done.rc == 0, done.text
