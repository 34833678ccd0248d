# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of verdicts. Each row was tried with libvirt 9.0 and 11.3; tests/integration tries most of them again."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._netdev import Device, Holder
from ansible_collections.hypervisor.hardening.plugins.module_utils._tapverdict import CONFLICTS, Claim, Scene, judge

TAP = Device("web0", "tap", 5, "02:00:00:00:00:05", 1500, "", True, None, None, False, False, None)
MULTI = replace(TAP, multi_queue=True)
VNET = replace(TAP, name="vnet3", persistent=False)
BRIDGE = replace(TAP, kind="bridge", persistent=False)
PYTHON = Holder(7, "python3", True)
WEB = Holder(8, "qemu-system-x86", True)
DB = Holder(9, "qemu-system-x86", True)
FAR = Holder(10, "slirp4netns", False)
GUESTS = {8: "web", 9: "db"}


def with_device(device: Device | None, *holders: Holder, wanted: t.Sequence[str] = ()) -> Scene:
    if device is None:
        return Scene(guests=GUESTS, wanted={"web0": tuple(wanted)})
    return Scene({device.name: device}, {device.name: holders}, GUESTS, {device.name: tuple(wanted)})


def claim(**changes: t.Any) -> Claim:
    return replace(Claim("web0", "web", "ethernet"), **changes)


NO = {"managed": False}
INVALID = ("a:b", "a/b", "a b", "a%s", "a%d%d", ".", "..", "", "%", "a\n")

TABLE: list[tuple[str, Claim, Scene, str, str]] = [
    ("nothing there", claim(), with_device(None), "free", "no device"),
    ("one definition wants it", claim(), with_device(None, wanted=["web"]), "free", "no device"),
    # libvirt's answer: "The web0 interface already exists"; with type ethernet the single-queue TAP is gone then.
    ("left over", claim(), with_device(TAP), "stale", "clean-up DELETES"),
    ("left over, two want it", claim(), with_device(TAP, wanted=["web", "db"]), "stale", "clean-up DELETES"),
    ("left over, bridge", claim(type="bridge"), with_device(TAP), "stale", "refuses to start the guest."),
    ("left over, network", claim(type="network"), with_device(TAP), "stale", "refuses to start the guest."),
    ("left over, multi-queue", claim(), with_device(MULTI), "stale", "refuses to start the guest."),
    ("left over, only asked", claim(domain="", type=""), with_device(TAP), "stale", "if the type is ethernet"),
    ("tap held", claim(), with_device(TAP, PYTHON), "foreign", "held by process 7 (python3); libvirt refuses"),
    ("held by another guest", claim(), with_device(TAP, DB), "foreign", "the guest db, process 9 (qemu-system-x86)"),
    ("held out of sight", claim(), with_device(replace(TAP, attached=True)), "foreign", "not show itself"),
    ("another of this name, elsewhere", claim(), with_device(TAP, FAR), "stale", "clean-up DELETES"),
    ("another elsewhere, and fits", claim(**NO), with_device(TAP, FAR), "exempt", "as it is."),
    ("held from elsewhere", claim(**NO), with_device(replace(TAP, attached=True), FAR), "foreign", "slirp4netns"),
    ("no TAP", claim(), with_device(BRIDGE), "foreign", "kind bridge"),
    ("tun", claim(), with_device(replace(TAP, kind="tun")), "foreign", "kind tun"),
    ("own", claim(), with_device(TAP, WEB), "own", "web runs on it"),
    ("own, with a stranger", claim(), with_device(TAP, PYTHON, WEB), "own", "web runs on it"),
    ("own, wanted by others too", claim(), with_device(TAP, WEB, wanted=["web", "db"]), "own", "web runs on it"),
    ("own, made up by libvirt", claim(name="vnet3", live=True), with_device(VNET, WEB), "own", "web runs on it"),
    ("the guest's name, but a stranger's process", claim(domain="db"), with_device(TAP, WEB), "foreign", "guest web"),
    ("lost while running", claim(live=True), with_device(None), "missing", "lost its network"),
    ("made up by libvirt, lost", claim(name="vnet3", live=True), Scene(), "missing", "lost its network"),
    ("two want it", claim(), with_device(None, wanted=["web", "db"]), "duplicate", "(web, db)"),
    ("a guest wants it twice", claim(), with_device(None, wanted=["web", "web"]), "duplicate", "(web, web)"),
    ("asked, and wanted", claim(domain=""), with_device(None, wanted=["", "db"]), "duplicate", "(this task, db)"),
    # managed='no': "target managed='no' but specified dev doesn't exist"
    ("to be there", claim(**NO), with_device(None), "missing", "ip tuntap add dev web0 mode tap)"),
    ("to be there, queues", claim(queues=4, **NO), with_device(None), "missing", "mode tap multi_queue)"),
    ("fits", claim(**NO), with_device(TAP), "exempt", "as it is."),
    ("fits, several queues", claim(queues=2, **NO), with_device(MULTI), "exempt", "as it is."),
    ("owner does not matter", claim(**NO), with_device(replace(TAP, owner=1000)), "exempt", "uid 1000"),
    ("nor does vnet_hdr", claim(**NO), with_device(replace(TAP, vnet_hdr=True)), "exempt", "as it is."),
    ("macvtap", claim(queues=2, **NO), with_device(replace(TAP, kind="macvtap")), "exempt", "as it is."),
    ("reserved, but there", claim(name="vnet3", **NO), with_device(VNET), "exempt", "as it is."),
    # "Unable to create tap device web0: Invalid argument"
    (
        "made without multi_queue",
        claim(queues=2, **NO),
        with_device(TAP),
        "mismatch",
        "queues=2, and the TAP was made w",
    ),
    ("made with multi_queue", claim(**NO), with_device(MULTI), "mismatch", "queues=1, and the TAP was made with multi"),
    ("a tun", claim(**NO), with_device(replace(TAP, kind="tun")), "mismatch", "kind tun"),
    ("a bridge", claim(**NO), with_device(BRIDGE), "mismatch", "kind bridge"),
    # "Device or resource busy" with one queue; with several, the guest starts and both read.
    ("single held", claim(**NO), with_device(TAP, PYTHON), "foreign", "refuses to start"),
    ("multi held", claim(queues=2, **NO), with_device(MULTI, PYTHON), "foreign", "share its traffic"),
    ("two take it along", claim(**NO), with_device(TAP, wanted=["web", "db"]), "duplicate", "(web, db)"),
    # libvirt drops these names and makes up another one.
    ("vnet", claim(name="vnet5"), Scene(), "reserved", "drops them"),
    ("vnetfoo", claim(name="vnetfoo"), Scene(), "reserved", "drops them"),
    ("vnet template", claim(name="vnet%d"), Scene(), "reserved", "drops them"),
    ("macvtap0", claim(name="macvtap0", type="direct"), Scene(), "reserved", "drops them"),
    ("macvlan0", claim(name="macvlan0", domain=""), Scene(), "reserved", "drops them"),
    ("not veth", claim(name="veth0"), Scene(), "free", "no device"),
    # "Network interface name 'abcdefghijklmnop' is too long"
    ("15", claim(name="abcdefghijklmno"), Scene(), "free", "no device"),
    ("16", claim(name="abcdefghijklmnop"), Scene(), "too_long", "15 bytes"),
    ("16 bytes in 8 letters", claim(name="ä" * 8), Scene(), "too_long", "15 bytes"),
    ("template", claim(name="web%d"), Scene(), "free", "puts a number"),
    ("14 and a number", claim(name="abcdefghijklmn%d"), Scene(), "free", "puts a number"),
    ("15 and a number", claim(name="abcdefghijklmno%d"), Scene(), "too_long", "15 bytes"),
    # "Unable to create tap device a:b: Invalid argument"
    *[(repr(name), claim(name=name), Scene(), "invalid", "The kernel takes no") for name in INVALID],
]


@pytest.mark.parametrize(
    ("given", "scene", "verdict", "said"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_verdict(given: Claim, scene: Scene, verdict: str, said: str) -> None:
    found = judge(given, scene)
    assert found.verdict == verdict
    assert said in found.reason


def test_every_verdict_is_in_the_table() -> None:
    assert {row[3] for row in TABLE} == CONFLICTS | {"free", "own", "exempt"}


def test_a_holder_of_another_namespace_counts_only_if_there_is_no_other() -> None:
    attached = replace(TAP, attached=True)
    assert with_device(TAP, FAR, PYTHON).holding(TAP) == (PYTHON,)
    assert with_device(TAP, FAR).holding(TAP) == ()
    assert with_device(attached, FAR).holding(attached) == (FAR,)
