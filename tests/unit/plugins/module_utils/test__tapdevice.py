# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of tap_device on trees of fixtures: what it makes, what it makes anew, and what it leaves alone."""

from __future__ import annotations

import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tapdevice as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._netdev import Device, Holder, NetdevError
from ansible_collections.hypervisor.hardening.plugins.module_utils._tapdevice import (
    Entry,
    Found,
    State,
    TapDeviceError,
    Wanted,
)
from ansible_collections.hypervisor.hardening.plugins.module_utils._units import Boot, NoMechanism
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import NetHost

UNIT = "/etc/systemd/system/hypervisor-hardening-tap-web0.service"
NOTHING = Wanted([], persist=False)
TAP = Device("web0", "tap", 5, "02:00:00:00:00:05", 1500, "br0", True, 1000, None, True, True, False)
ENTRY = Entry("web0", 1000, None, True, True, "br0")
THERE = Found(TAP, ours=True, up=True)


@pytest.fixture
def host(tmp_path: Path) -> NetHost:
    host = NetHost(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    host.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
    host.device("br0", devtype="bridge")
    return host


def planned(entry: Entry, found: Found | None) -> list[str]:
    state = State((entry,), {"web0": found} if found else {}, frozenset({"br0"}))
    return [str(change) for change in room.plan(state, NOTHING).changes]


def run(host: NetHost, *devices: dict[str, t.Any], persist: bool = True) -> list[str]:
    """What a run changed; it must hold."""
    wanted = Wanted(devices, persist)
    plan = room.plan(room.observe(host, wanted), wanted)
    room.check(host, plan)
    room.apply(host, plan, Journal(host, "tap_device"))
    assert room.plan(room.observe(host, wanted), wanted).changes == ()
    return [str(change) for change in plan.changes]


@pytest.mark.parametrize(
    ("entry", "found", "changes"),
    [
        (ENTRY, THERE, []),
        (ENTRY, None, ["web0 is missing"]),
        (replace(ENTRY, absent=True), None, []),
        (replace(ENTRY, absent=True), THERE, ["web0 is still there"]),
        (replace(ENTRY, owner=1001), THERE, ["web0: owner is 1000, not 1001"]),
        (replace(ENTRY, owner=None, group=7), THERE, ["web0: owner is 1000, not anybody; group is anybody, not 7"]),
        (replace(ENTRY, multi_queue=False), THERE, ["web0: multi_queue is yes, not no"]),
        (replace(ENTRY, vnet_hdr=False), THERE, []),
        (replace(ENTRY, bridge=""), THERE, []),
        (ENTRY, replace(THERE, up=False), ["web0: its link is down"]),
        (ENTRY, replace(THERE, device=replace(TAP, bridge="br1")), ["web0: it is no port of br0"]),
    ],
)
def test_plan(entry: Entry, found: Found | None, changes: list[str]) -> None:
    assert planned(entry, found) == changes


def test_only_what_cannot_be_changed_in_place_is_made_anew() -> None:
    for entry, found, remove, make in (
        (replace(ENTRY, owner=1001), THERE, True, True),
        (ENTRY, replace(THERE, up=False), False, False),
        (ENTRY, None, False, True),
        (replace(ENTRY, absent=True), THERE, True, False),
    ):
        state = State((entry,), {"web0": found} if found else {}, frozenset({"br0"}))
        (step,) = room.plan(state, NOTHING).steps
        assert (step.remove, step.make) == (remove, make)


@pytest.mark.parametrize(
    ("entry", "found", "message"),
    [
        (ENTRY, replace(THERE, ours=False), "web0 exists and was not made by this module"),
        (replace(ENTRY, absent=True), replace(THERE, ours=False), "web0 exists and was not made by this module"),
        (replace(ENTRY, owner=7), replace(THERE, held_by=(Holder(70, "qemu", True),)), r"held by process 70 \(qemu\)"),
        (replace(ENTRY, absent=True), replace(THERE, held_by=(Holder(70, "qemu", False),)), "held by process 70"),
        (ENTRY, replace(THERE, up=False, device=replace(TAP, attached=True)), "a process that does not show itself"),
        (replace(ENTRY, bridge="br9"), THERE, "web0: this host has no bridge br9"),
    ],
)
def test_what_is_refused(entry: Entry, found: Found, message: str) -> None:
    with pytest.raises(TapDeviceError, match=message):
        planned(entry, found)


def test_a_device_that_is_held_and_fits_is_fine() -> None:
    assert planned(ENTRY, replace(THERE, held_by=(Holder(70, "qemu", True),))) == []


def test_another_init() -> None:
    state = State((ENTRY,), {}, frozenset({"br0"}), Boot("runit", ""))
    with pytest.raises(NoMechanism, match="PID 1 of this host is runit"):
        room.plan(state, Wanted([]))
    assert room.plan(state, NOTHING).changes


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"name": "web 0", "owner": "alice"}, "'web 0' cannot be the name"),
        ({"name": "", "owner": "alice"}, "'' cannot be the name"),
        ({"name": "sixteen-letters0", "owner": "alice"}, "cannot be the name"),
        ({"name": "web0"}, "give owner or group"),
        ({"name": "web0", "owner": ""}, "give owner or group"),
        ({"name": "web0", "owner": "mallory"}, "no user 'mallory'"),
        ({"name": "web0", "group": "nobody-here"}, "no group 'nobody-here'"),
        ({"name": "web0", "owner": "alice", "bridge": "b r"}, "cannot be the name of a bridge"),
    ],
)
def test_what_makes_no_sense(host: NetHost, device: dict[str, t.Any], message: str) -> None:
    with pytest.raises(TapDeviceError, match=message):
        room.observe(host, Wanted([device]))


def test_a_name_twice(host: NetHost) -> None:
    with pytest.raises(TapDeviceError, match="web0 is named twice"):
        room.observe(host, Wanted([{"name": "web0", "owner": "1"}, {"name": "web0", "state": "absent"}]))


def test_from_nothing_to_a_device_and_back(host: NetHost) -> None:
    device = {"name": "web0", "owner": "alice", "group": "5", "multi_queue": True, "bridge": "br0"}
    assert run(host, device) == ["web0 is missing", f"{UNIT} is missing"]
    assert host.calls[:3] == [
        ["ip", "tuntap", "add", "dev", "web0", "mode", "tap", "user", "1000", "group", "5", "multi_queue", "vnet_hdr"],
        ["ip", "link", "set", "dev", "web0", "alias", "hypervisor.hardening"],
        ["ip", "link", "set", "dev", "web0", "master", "br0", "up"],
    ]
    assert run(host, {**device, "owner": "1001"}) == [
        "web0: owner is 1000, not 1001",
        f"{UNIT} has other content",
    ]
    assert run(host, {"name": "web0", "state": "absent"}) == ["web0 is still there", f"{UNIT} is still there"]
    assert not host.exists("/sys/class/net/web0")
    assert not host.exists(UNIT)
    kept = [entry.before for entry in Journal(host, "").entries() if entry.target == "/sys/class/net/web0"]
    assert [before and before["owner"] for before in kept] == [None, 1000, None, 1001]


def test_the_unit_does_the_same_at_boot(host: NetHost) -> None:
    run(host, {"name": "web0", "owner": "alice"})
    text = host.text(UNIT)
    assert "ip tuntap add dev web0 mode tap user 1000 vnet_hdr && ip link set dev web0 alias" in text
    assert "ip link set dev web0 up" in text
    assert "Before=systemd-user-sessions.service" in text
    assert "Restart=" not in text, "without a bridge there is nothing to wait for"
    run(host, {"name": "web0", "owner": "alice", "bridge": "br0"})
    assert "Restart=on-failure" in host.text(UNIT)


def test_without_persist_units_are_left_alone(host: NetHost) -> None:
    assert run(host, {"name": "web0", "owner": "alice"}, persist=False) == ["web0 is missing"]
    assert not host.exists(UNIT)


def test_a_name_that_is_taken_meanwhile(host: NetHost) -> None:
    host.busy.add("web0")
    with pytest.raises(TapDeviceError, match=r"ip tuntap add dev web0 .* failed: .*resource busy"):
        run(host, {"name": "web0", "owner": "alice"})


def test_a_device_that_is_taken_before_it_is_made_anew(host: NetHost) -> None:
    run(host, {"name": "web0", "owner": "alice"})
    wanted = Wanted([{"name": "web0", "owner": "1001"}])
    plan = room.plan(room.observe(host, wanted), wanted)
    host.process(70, "qemu", "web0")
    with pytest.raises(NetdevError, match="taken into use"):
        room.apply(host, plan, Journal(host, ""))
    assert host.exists("/sys/class/net/web0")
