# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts of the rig; what it does to a machine is shown by tests/integration/test_rig.py."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t
import xml.etree.ElementTree as ET

import pytest

# ansible-test does not read the settings of pytest.
sys.path.insert(0, os.fspath(pathlib.Path(__file__).resolve().parents[2]))

from rig import (
    _base,
    _boot,
    _guestlinux,
    _host,
    _hosts,
    _image,
    _machine,
    _net,
    _otherrecipe,
    _recipe,
    _registry,
    _ssh,
    _vmrecipe,
    guests,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("HYPERVISOR_RIG_CACHE", os.fspath(tmp_path))
    monkeypatch.setenv("HYPERVISOR_RIG_SCOPE", "mine")
    return tmp_path


def facts(scope: str, name: str, **others: t.Any) -> dict[str, t.Any]:
    directory = _registry.scope_dir(scope) / name
    directory.mkdir(parents=True)
    found = {
        "id": name,
        "name": name,
        "scope": scope,
        "slot": 10,
        "address": "198.18.0.10",
        "image": "/image",
        "directory": os.fspath(directory),
        "boot_id": _base.boot_id(),
        "pid": None,
        "pid_start": None,
        "owner": None,
        "owner_start": None,
        **others,
    }
    _registry.save(found)
    return found


@pytest.mark.parametrize("name", ["a", "h12", "a-b", "x" * 32])
def test_a_plain_name_is_taken(name: str) -> None:
    _base.check_name(name)


# Each of these is refused by hostname(7) or would mean something else in a path, a unit or a cgroup.
@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "a b", "ä", "1a", "x" * 33, "a\n"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(_base.RigError, match="is no name for a host"):
        _base.check_name(name)


def test_scopes_share_the_cache_and_not_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    facts("mine", "one", slot=11)
    facts("mine", "two", slot=10)
    facts("theirs", "one")
    assert [found["name"] for found in _registry.everyone()] == ["two", "one"]
    assert _registry.scopes_up() == {"mine", "theirs"}
    monkeypatch.setenv("HYPERVISOR_RIG_SCOPE", "../up")
    with pytest.raises(_base.RigError):
        _registry.scope_dir()


def test_a_host_lives_as_long_as_its_process_its_owner_and_the_boot() -> None:
    me, start = os.getpid(), _base.start_time(os.getpid())
    assert _registry.lives(facts("mine", "kept", pid=me, pid_start=start))
    assert _registry.lives(facts("mine", "owned", pid=me, pid_start=start, owner=me, owner_start=start))
    assert _registry.lives(facts("mine", "starting", owner=me, owner_start=start))
    # The pid was given to another process meanwhile.
    assert not _registry.lives(facts("mine", "reused", pid=me, pid_start=0))
    assert not _registry.lives(facts("mine", "orphan", pid=me, pid_start=start, owner=me, owner_start=0))
    assert not _registry.lives(facts("mine", "rebooted", pid=me, pid_start=start, boot_id="another"))


def test_the_start_time_is_the_kernels_field_22() -> None:
    ticks = _base.start_time(os.getpid())
    assert ticks is not None
    hertz = os.sysconf("SC_CLK_TCK")
    uptime = float(pathlib.Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    assert 0 <= uptime - ticks / hertz < 3600 * 24
    assert _base.start_time(2**22 + 1) is None, "beyond the largest pid there can be (proc(5), pid_max)"


def test_differences_name_what_came_went_and_changed() -> None:
    before = {"links": {"eth0": "plain", "old": "veth"}, "sysctls": {"vm.swappiness": "60"}}
    after = {"links": {"eth0": "bridge", "new": "veth"}, "sysctls": {"vm.swappiness": "60"}}
    assert _machine.differences(before, before) == []
    assert _machine.differences(before, after) == [
        "links: eth0: plain -> bridge",
        "links: new: (absent) -> veth",
        "links: old: veth -> (absent)",
    ]
    # Others had hosts up when the second picture was taken.
    assert _machine.differences(before, {"links": before["links"]}) == []


def test_values_are_put_back_and_only_where_they_differ(tmp_path: pathlib.Path) -> None:
    number, choice, same = (tmp_path / name for name in ("number", "choice", "same"))
    number.write_text("7", encoding="ascii")
    choice.write_text("[always] madvise never", encoding="ascii")
    same.write_text("1", encoding="ascii")
    stamp = same.stat().st_mtime_ns
    now = {os.fspath(path): path.read_text(encoding="ascii") for path in (number, choice, same)}
    before = {**now, os.fspath(number): "0", os.fspath(choice): "always [madvise] never"}
    _machine._put_back({**before, os.fspath(tmp_path / "gone"): "1"}, now)
    assert number.read_text(encoding="ascii") == "0"
    assert choice.read_text(encoding="ascii") == "madvise", "the kernel takes the word without its brackets"
    assert same.stat().st_mtime_ns == stamp
    assert not (tmp_path / "gone").exists()


def test_addresses_are_of_the_subnet_and_slots_are_not_given_twice() -> None:
    net = {"prefix": "hvr12345", "subnet": "198.18.7.0/24"}
    assert _net.address(net, 10) == "198.18.7.10"
    assert _net.free_slot(set()) == 10
    assert _net.free_slot({10, 11, 13}) == 12
    with pytest.raises(_base.RigError, match="too many hosts"):
        _net.free_slot(set(range(256)))


def test_the_inventory_has_each_host_once(cache: pathlib.Path) -> None:
    (cache / "ssh").mkdir()
    (cache / "ssh/id_ed25519.pub").touch()
    hosts = [facts("mine", "one"), facts("mine", "two", slot=11, address="198.18.0.11")]
    lines = _ssh.inventory(hosts).splitlines()
    assert lines[:7] == [
        "---",
        "hypervisors:",
        "  hosts:",
        "    one:",
        "      ansible_host: 198.18.0.10",
        "    two:",
        "      ansible_host: 198.18.0.11",
    ]
    assert "  hosts: {}" in _ssh.inventory([]).splitlines()
    assert f"UserKnownHostsFile={cache}/hosts/mine/known_hosts" in lines[-1]
    assert _ssh.hosts_file(hosts).splitlines()[1:] == ["198.18.0.10 one", "198.18.0.11 two"]


def test_an_init_that_is_out_of_sight_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a third of all boots: nspawn's child belongs to nobody while it is handed on."""
    seen = iter([0, 0, 4711])
    monkeypatch.setattr(_host, "find_init", lambda _supervisor: next(seen, 0))
    monkeypatch.setattr(_host, "_says_ssh", lambda _address: True)
    entered = []
    fake = {"systemctl": "running\n", "virsh": ""}

    def run(host: _host.Host, argv: list[str], **_options: t.Any) -> subprocess.CompletedProcess[str]:
        entered.append(host.pid1)
        return subprocess.CompletedProcess(argv, 0, fake[argv[0]], "")

    monkeypatch.setattr(_host.Host, "run", run)
    host = _host.Host(facts("mine", "a", release="trixie", pid=os.getpid()))
    host.wait_for_boot()
    assert entered == [4711, 4711]


def test_the_digest_of_an_image_is_its_releases_own() -> None:
    digests = {_recipe.digest(release) for release in _recipe.RELEASES}
    assert len(digests) == len(_recipe.RELEASES)
    assert "virtiofsd" in _recipe.packages("trixie")
    assert "virtiofsd" not in _recipe.packages("bookworm")


def test_the_disk_of_virtual_machines_is_another_image_and_changes_with_the_one_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(_image.COMMON) == {*_recipe.RELEASES, "vm-trixie", "vm-bookworm"}
    before = _image.image_dir("vm-trixie")
    # "trixie-*" are the images that a new one of trixie makes superfluous.
    assert not before.match("trixie-*")
    monkeypatch.setattr(_recipe, "digest", lambda _release: "another")
    assert _image.image_dir("vm-trixie") != before
    with pytest.raises(_base.RigError, match="no recipe for 'vm-forky'"):
        _image.image_dir("vm-forky")


def test_images_that_are_built_when_wanted_change_with_the_common_recipe_and_never_change_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = set(_image.NAMES) - set(_image.COMMON)
    assert {"bullseye", "forky", "modular-trixie", "selinux-trixie"} <= others
    before = {name: _image.image_dir(name) for name in others}
    for name, path in before.items():
        others_of_its_kind = [f"{other}-*" for other in _image.NAMES if other != name]
        assert not any(path.match(pattern) for pattern in others_of_its_kind), "one would be taken for the other"
    monkeypatch.setattr(_recipe, "digest", lambda _release: "another")
    assert all(_image.image_dir(name) != path for name, path in before.items())
    # Packages of Debian 12 and later, https://packages.debian.org/search?keywords=swtpm and =passt.
    assert not {"swtpm", "passt", "virtiofsd"} & set(_otherrecipe.packages("bullseye"))
    assert {"swtpm", "passt", "virtiofsd"} <= set(_otherrecipe.packages("forky"))


def test_an_image_is_in_use_by_what_lies_on_it_and_by_what_runs_out_of_it() -> None:
    facts("mine", "container")
    facts("theirs", "vm", image="/base", disk="/disk")
    assert _registry.images_in_use() == {"/image", "/base", "/disk"}


def test_memory_of_a_virtual_machine_is_not_taken_from_the_machines_huge_pages() -> None:
    with pytest.raises(_base.RigError, match="vm has memory of its own"):
        _hosts.up("vm", "trixie", vm=True, hugepages=1)


def test_selinux_is_of_a_kernel_of_ones_own() -> None:
    with pytest.raises(_base.RigError, match="c has the machine's kernel"):
        _hosts.up("c", "trixie", selinux=True)


def test_devices_are_nodes_of_the_hosts_own() -> None:
    for line in _boot._device_lines().splitlines():
        kind, path, _mode, _user, _group, _age, numbers = line.split()
        assert kind == "c", "tmpfiles.d(5): c makes a node, and a bind mount would share the machine's"
        status = os.stat(path)
        assert numbers == f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def parsed(guest: guests.Guest) -> ET.Element:
    return ET.fromstring(guest.xml())


def test_a_guest_is_small_and_runs_without_kvm() -> None:
    domain = parsed(guests.Guest("g1"))
    assert domain.get("type") == "qemu"
    assert domain.findtext("name") == "g1"
    assert [(disk.tag) for disk in domain.findall("devices/disk")] == []
    assert domain.find("memoryBacking") is None
    assert domain.find("maxMemory") is None


def test_a_guest_for_hot_plug_has_slots_a_cell_and_acpi() -> None:
    domain = parsed(guests.Guest("g1", memory_mib=64, vcpus=2, max_memory_mib=512, hugepages_kib=2048))
    maximum = domain.find("maxMemory")
    assert maximum is not None
    assert (maximum.text, maximum.get("unit"), maximum.get("slots")) == ("512", "MiB", "16")
    cell = domain.find("cpu/numa/cell")
    assert cell is not None
    assert cell.attrib == {"id": "0", "cpus": "0-1", "memory": "64", "unit": "MiB"}
    assert domain.find("features/acpi") is not None
    page = domain.find("memoryBacking/hugepages/page")
    assert page is not None
    assert page.attrib == {"size": "2048", "unit": "KiB"}


def test_what_a_guest_is_given_is_in_its_definition() -> None:
    domain = parsed(
        guests.linux(
            "g1",
            "rig.write",
            disks=["/a.img", "/b.img"],
            interfaces=[guests.ethernet("tap0", managed=False), guests.bridged("br0", "tap1")],
            seclabels=["<seclabel type='none' model='dac'/>"],
        )
    )
    assert [target.get("dev") for target in domain.findall("devices/disk/target")] == ["vda", "vdb"]
    assert [source.get("file") for source in domain.findall("devices/disk/source")] == ["/a.img", "/b.img"]
    targets = [target.attrib for target in domain.findall("devices/interface/target")]
    assert targets == [{"dev": "tap0", "managed": "no"}, {"dev": "tap1"}]
    assert [label.get("model") for label in domain.findall("seclabel")] == ["dac"]
    assert domain.findtext("os/kernel") == "/usr/share/rig/vmlinuz"
    assert (domain.findtext("os/cmdline") or "").split()[-1] == "rig.write"


def test_a_memory_device_names_its_page_size() -> None:
    assert ET.fromstring(guests.dimm(128)).find("source") is None
    device = ET.fromstring(guests.dimm(128, hugepages_kib=2048))
    assert (device.findtext("source/pagesize"), device.findtext("target/size")) == ("2048", "128")


def test_the_archive_is_what_the_kernel_unpacks() -> None:
    archive = _guestlinux.cpio([("dir", 0o040755, b""), ("dir/file", 0o100644, b"hello")])
    assert unpacked(archive) == {"dir": (0o040755, b""), "dir/file": (0o100644, b"hello"), "TRAILER!!!": (0, b"")}


def test_what_makes_a_virtual_machine_this_host_comes_after_its_directories() -> None:
    """The kernel makes no directory that an archive does not name before (init/initramfs.c)."""
    archive = _vmrecipe.personal({"etc/a/b": (0o600, "text"), "root/c": (0o444, "")})
    assert list(unpacked(archive).items()) == [
        ("host", (0o040755, b"")),
        ("host/etc", (0o040755, b"")),
        ("host/etc/a", (0o040755, b"")),
        ("host/root", (0o040755, b"")),
        ("host/etc/a/b", (0o100600, b"text")),
        ("host/root/c", (0o100444, b"")),
        ("TRAILER!!!", (0, b"")),
    ]


def unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content of what is in an archive, by name."""
    found = {}
    position = 0
    # Fields and padding: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
    while position < len(archive):
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[position + 110 : position + 110 + name_size]
        assert name.endswith(b"\0")
        start = position + (110 + name_size + 3) // 4 * 4
        found[name[:-1].decode()] = (mode, archive[start : start + size])
        position = start + (size + 3) // 4 * 4
    return found


def test_a_picture_of_the_machine_is_json_and_stays_the_same() -> None:
    first = json.loads(json.dumps(_machine._section("hugepages")))
    assert first == _machine._section("hugepages")
    assert all(value.isdigit() for value in first.values())
