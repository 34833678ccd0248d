# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real live migrations: what they do to a guest and to its shared image, without any gate."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
import rig
from rig import guests, migration

# Debian's postinst of libvirt-daemon-system gives libvirt-qemu this number.
QEMU = (64055, 64055)
ROOT = (0, 0)
CONF = "/etc/libvirt/qemu.conf"
TAKE = """
import socket, time
taken = [socket.create_server(("0.0.0.0", port)) for port in {ports}]
open("/run/taken", "w").close()
time.sleep(3600)
"""


class Fleet(t.NamedTuple):
    """Two hosts of one release, and one of a newer one."""

    a: rig.Host
    b: rig.Host
    new: rig.Host


@pytest.fixture(scope="module")
def machines() -> t.Iterator[Fleet]:
    with (
        rig.host("bookworm", "migration-a", shared=True) as a,
        rig.host("bookworm", "migration-b", shared=True) as b,
        rig.host("trixie", "migration-new", shared=True) as new,
    ):
        for host in (a, b, new):
            migration.listen(host)
        yield Fleet(a, b, new)


@pytest.fixture
def fleet(machines: Fleet) -> t.Iterator[Fleet]:
    yield machines
    for host in machines:
        guests.stop_all(host)
    machines.a.run(["sh", "-c", f"rm -f {migration.SHARED}/*"])


def image(fleet: Fleet, name: str) -> str:
    return guests.disk(fleet.a, f"{migration.SHARED}/{name}.img")


def start_writing(fleet: Fleet, host: rig.Host, name: str) -> str:
    """A guest that writes to a shared image; the image."""
    path = image(fleet, name)
    guests.start(host, guests.linux(name, "rig.write", disks=[path]))
    guests.wait_for_console(host, name, "rig: wrote 5")
    return path


@contextlib.contextmanager
def configured(host: rig.Host, file: str, *lines: str) -> t.Iterator[None]:
    """A host whose daemon has loaded more lines of a file, put before those that are there: the first one counts."""
    before = host.get(file)
    host.put(file, "".join(f"{line}\n" for line in lines).encode() + before)
    guests.restart_libvirtd(host)
    guests.virsh(host, "uri")
    try:
        yield
    finally:
        host.put(file, before)
        guests.restart_libvirtd(host)
        guests.virsh(host, "uri")


@contextlib.contextmanager
def taken(host: rig.Host, *ports: int) -> t.Iterator[None]:
    """A host on which somebody else listens on these ports."""
    host.run(["rm", "-f", "/run/taken"])
    host.run(
        ["systemd-run", "--quiet", "--collect", "--unit=taker", "/usr/bin/python3", "-c", TAKE.format(ports=ports)]
    )
    try:
        host.run(["timeout", "30", "sh", "-c", "until [ -e /run/taken ]; do sleep 0.05; done"])
        yield
    finally:
        host.run(["systemctl", "stop", "taker.service"])


def moved(source: rig.Host, destination: rig.Host, name: str, *flags: str) -> None:
    done = migration.migrate(source, destination, name, *flags)
    assert done.returncode == 0, done.stderr
    assert name in guests.running(destination)
    assert name not in guests.running(source)


def refused(source: rig.Host, destination: rig.Host, name: str, *flags: str) -> str:
    """What the operator's virsh says; the guest runs on where it was."""
    done = migration.migrate(source, destination, name, *flags)
    assert done.returncode != 0, f"{name} was let through"
    assert guests.virsh(source, "domstate", name) == "running"
    assert name not in guests.running(destination)
    return done.stderr


def test_there_and_back_with_every_block_on_the_disk(fleet: Fleet) -> None:
    path = start_writing(fleet, fleet.a, "traveller")
    first = migration.verify_pattern(fleet.a, "traveller", path)
    moved(fleet.a, fleet.b, "traveller")
    second = migration.verify_pattern(fleet.b, "traveller", path)
    moved(fleet.b, fleet.a, "traveller")
    third = migration.verify_pattern(fleet.a, "traveller", path)
    assert first < second < third


def test_a_destination_that_runs_qemu_as_root_takes_the_image(fleet: Fleet) -> None:
    start_writing(fleet, fleet.a, "victim")
    path = f"{migration.SHARED}/victim.img"
    with configured(fleet.b, CONF, 'user = "root"', 'group = "root"'):
        with migration.owners(fleet.a, path) as seen:
            moved(fleet.a, fleet.b, "victim")
        # While the guest still ran on the source. What is left in the end depends on who remembers which owner.
        assert seen[:2] == [QEMU, ROOT]
        assert guests.status(fleet.b, guests.pid(fleet.b, "victim"))["Uid"].split()[0] == "0"
        guests.stop(fleet.b, "victim")


def test_confinement_is_lost_without_a_word(fleet: Fleet) -> None:
    guests.start(fleet.a, guests.Guest("bare", disks=[image(fleet, "bare")]))
    before = guests.pid(fleet.a, "bare")
    assert guests.status(fleet.a, before)["Seccomp"] == "2"
    assert namespace(fleet.a, before) != namespace(fleet.a, 1)
    with configured(fleet.b, CONF, "seccomp_sandbox = 0", "namespaces = []"):
        moved(fleet.a, fleet.b, "bare")
        after = guests.pid(fleet.b, "bare")
        assert guests.status(fleet.b, after)["Seccomp"] == "0"
        assert namespace(fleet.b, after) == namespace(fleet.b, 1)
        guests.stop(fleet.b, "bare")


def namespace(host: rig.Host, pid: int) -> str:
    return host.run(["readlink", f"/proc/{pid}/ns/mnt"]).stdout


def test_a_destination_without_dynamic_ownership_cannot_open_the_image(fleet: Fleet) -> None:
    """It does not take the image, which only goes well as long as it has the right owner already."""
    path = image(fleet, "kept")
    guests.start(fleet.a, guests.Guest("kept", disks=[path]))
    with configured(fleet.b, CONF, "dynamic_ownership = 0"), migration.owners(fleet.a, path) as seen:
        moved(fleet.a, fleet.b, "kept")
        guests.stop(fleet.b, "kept")
    # The source gives the image back to root when its QEMU ends, below the one that runs now.
    assert seen == [QEMU, ROOT]


def test_a_failed_migration_leaves_owner_and_guest_as_they_were(fleet: Fleet) -> None:
    path = image(fleet, "display")
    display = "<graphics type='vnc' port='5999' autoport='no' listen='0.0.0.0'/>"
    words = "rig.write"
    guests.start(fleet.a, guests.linux("display", words, disks=[path], extra_devices=[display]))
    guests.wait_for_console(fleet.a, "display", "rig: wrote 5")
    label = guests.virsh(fleet.a, "dumpxml", "display", "--xpath", "//seclabel")
    with taken(fleet.b, 5999), migration.owners(fleet.a, path) as seen:
        assert "Address already in use" in refused(fleet.a, fleet.b, "display")
    assert seen == [QEMU]
    assert guests.virsh(fleet.a, "dumpxml", "display", "--xpath", "//seclabel") == label
    migration.verify_pattern(fleet.a, "display", path)


def test_no_port_for_the_migration_is_left(fleet: Fleet) -> None:
    path = image(fleet, "portless")
    guests.start(fleet.a, guests.Guest("portless", disks=[path]))
    # libvirt takes no range of one port.
    lines = ("migration_port_min = 49300", "migration_port_max = 49301")
    with configured(fleet.b, CONF, *lines), taken(fleet.b, 49300, 49301), migration.owners(fleet.a, path) as seen:
        assert "Unable to find an unused port in range 'migration'" in refused(fleet.a, fleet.b, "portless")
    assert seen == [QEMU]


def test_two_hosts_with_one_uuid(fleet: Fleet) -> None:
    guests.start(fleet.a, guests.Guest("twin", disks=[image(fleet, "twin")]))
    uuid = fleet.a.get("/etc/machine-id").decode().strip()  # host_uuid_source of the rig's hosts
    with configured(fleet.b, "/etc/libvirt/libvirtd.conf", f'host_uuid = "{uuid}"'):
        assert "Attempt to migrate guest to the same host" in refused(fleet.a, fleet.b, "twin")


def test_to_a_newer_libvirt_and_back(fleet: Fleet) -> None:
    path = start_writing(fleet, fleet.a, "old")
    moved(fleet.a, fleet.new, "old")
    migration.verify_pattern(fleet.new, "old", path)
    moved(fleet.new, fleet.a, "old")
    migration.verify_pattern(fleet.a, "old", path)


def test_a_guest_of_a_newer_machine_type_is_refused_by_libvirt_itself(fleet: Fleet) -> None:
    path = image(fleet, "young")
    guests.start(fleet.new, guests.Guest("young", disks=[path]))
    with migration.owners(fleet.a, path) as seen:
        assert "does not support machine type" in refused(fleet.new, fleet.a, "young")
    assert seen == [QEMU]


def test_an_older_libvirt_needs_no_unsafe_where_the_newer_one_knows_what_is_shared(fleet: Fleet) -> None:
    """shared_filesystems of 11.3: the directory counts as shared there, and as local on 9.0."""
    guests.start(fleet.new, guests.Guest("known", machine="pc-i440fx-7.2", disks=[image(fleet, "known")]))
    words = ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "known"]
    uri = f"qemu+tcp://{fleet.a.name}/system"
    said = fleet.new.run([*words, uri], check=False).stderr
    assert "Migration without shared storage is unsafe" in said
    with configured(fleet.new, CONF, f'shared_filesystems = [ "{migration.SHARED}" ]'):
        fleet.new.run([*words, uri], timeout=180)
    assert "known" in guests.running(fleet.a)
