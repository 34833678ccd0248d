# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices and their holders, on trees with what kernel 6.18 shows of such devices."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _netdev
from ansible_collections.hypervisor.hardening.plugins.module_utils._netdev import Holder, NetdevError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import (
    ELSEWHERE,
    MULTI_QUEUE,
    NO_PI,
    PERSIST,
    PERSISTENT_TAP,
    TAP,
    TUN,
    VNET_HDR,
    NetHost,
)


@pytest.fixture
def host(tmp_path: Path) -> NetHost:
    return NetHost(tmp_path)


def test_every_property_of_a_tap(host: NetHost) -> None:
    host.tap("web0", PERSISTENT_TAP, owner=64055, group=7, master="br0", carrier="0", mtu="9000", address="c2:52:48:98")
    assert _netdev.device(host, "web0") == _netdev.Device(
        "web0", "tap", 3, "c2:52:48:98", 9000, "br0", True, 64055, 7, False, False, False
    )


@pytest.mark.parametrize(
    ("flags", "kind", "persistent", "multi_queue", "vnet_hdr"),
    [
        # As read from the kernel for `ip tuntap add` with mode tun, mode tap, multi_queue vnet_hdr, and from libvirt.
        (0x1801, "tun", True, False, False),
        (0x1802, "tap", True, False, False),
        (0x5902, "tap", True, True, True),
        (0x5002, "tap", False, False, True),
    ],
)
def test_flags(host: NetHost, flags: int, kind: str, persistent: bool, multi_queue: bool, vnet_hdr: bool) -> None:
    assert (TAP | MULTI_QUEUE | PERSIST | NO_PI | VNET_HDR, TUN | PERSIST | NO_PI) == (0x5902, 0x1801)
    host.tap("t", flags)
    found = _netdev.device(host, "t")
    assert found
    assert (found.kind, found.persistent, found.multi_queue, found.vnet_hdr, found.owner, found.attached) == (
        kind,
        persistent,
        multi_queue,
        vnet_hdr,
        None,
        None,
    )


def test_kinds(host: NetHost, tmp_path: Path) -> None:
    host.device("br0", devtype="bridge")
    host.device("vx", devtype="vxlan")
    host.device("v0", iflink="99")
    host.device("ifb0")
    host.device("eth0", carrier="1")
    (tmp_path / "sys/class/net/eth0/device").mkdir()
    host.device("mv0", devtype="macvtap")
    (tmp_path / "sys/class/net/mv0/macvtap").mkdir()
    found = {name: _netdev.device(host, name) for name in _netdev.names(host)}
    assert {name: device.kind for name, device in found.items() if device} == {
        "br0": "bridge",
        "eth0": "physical",
        "ifb0": "other",
        "lo": "loopback",
        "mv0": "macvtap",
        "v0": "veth",
        "vx": "vxlan",
    }
    assert found["bonding_masters"] is None, "a file, not a device"
    assert found["eth0"] and found["eth0"].attached is None, "its carrier is a cable, no process"


@pytest.mark.parametrize(("owner", "expected"), [(-1, None), (4294967295, None), (0, 0), (1000, 1000)])
def test_owner(host: NetHost, owner: int, expected: int | None) -> None:
    host.tap("t", owner=owner)
    found = _netdev.device(host, "t")
    assert found and found.owner == expected


@pytest.mark.parametrize("name", ["", ".", "..", "../lo", "lo/../lo", "a b", "a\tb", "a:b", "a%b", "a\0b", "x" * 5000])
def test_names_that_no_device_can_have_are_not_looked_up(host: NetHost, name: str) -> None:
    assert _netdev.device(host, name) is None


def test_length_is_counted_in_bytes() -> None:
    # IFNAMSIZ is 16 with the closing NUL.
    assert [_netdev.too_long(name) for name in ("a" * 15, "a" * 16, "ä" * 7, "ä" * 8)] == [False, True, False, True]


def test_another_network_namespace_is_refused(host: NetHost) -> None:
    os.unlink(host.path("/proc/self/ns/net"))
    host.link("/proc/self/ns/net", ELSEWHERE)
    with pytest.raises(NetdevError, match="another network namespace than PID 1"):
        _netdev.names(host)


def test_holders(host: NetHost, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "free"):
        host.tap(name)
    host.device("mv0", devtype="macvtap", ifindex="40")
    (tmp_path / "sys/class/net/mv0/macvtap").mkdir()
    host.process(20, "many", "socket:[123]", "/etc/tun", "a", "b", "/dev/tap40", "/dev/tap4")
    host.process(7, "python3", "a", "a")
    host.process(8, "slirp4netns", "c", network=ELSEWHERE)
    host.process(9, "openvpn", "other0")
    # Opened, but without TUNSETIFF: no iff line. And an fd whose process has just gone.
    host.link("/proc/9/fd/9", "/dev/net/tun")
    host.put("/proc/9/fdinfo/9", "pos:\t0\n")
    host.link("/proc/9/fd/10", "/dev/net/tun")
    # In a mount namespace whose /dev is not the host's, the path begins elsewhere.
    host.process(30, "qemu", "c")
    os.unlink(host.path("/proc/30/fd/3"))
    host.link("/proc/30/fd/3", "/net/tun")

    devices = [device for device in (_netdev.device(host, name) for name in _netdev.names(host)) if device]
    found = _netdev.holders(host, devices)

    assert found.pop("lo") == ()
    assert found == {
        "a": (Holder(7, "python3", True), Holder(20, "many", True)),
        "b": (Holder(20, "many", True),),
        "c": (Holder(8, "slirp4netns", False), Holder(30, "qemu", True)),
        "free": (),
        "mv0": (Holder(20, "many", True),),
    }


class ForbiddenHost(NetHost):
    def readlink(self, path: str) -> str:
        if path.startswith("/proc/50/fd/"):
            raise PermissionError(13, "Permission denied", path)
        return super().readlink(path)


def test_whoever_cannot_look_does_not_say_that_nobody_holds_it(tmp_path: Path) -> None:
    host = ForbiddenHost(tmp_path)
    host.tap("a")
    host.process(50, "secret", "a")
    device = _netdev.device(host, "a")
    assert device
    with pytest.raises(NetdevError, match=r"process 50 .*run as root"):
        _netdev.holders(host, [device])


class VanishingHost(NetHost):
    def text(self, path: str) -> str:
        if path == "/proc/60/comm":
            raise ProcessLookupError(3, "No such process", path)
        return super().text(path)


def test_a_process_that_ends_meanwhile(tmp_path: Path) -> None:
    host = VanishingHost(tmp_path)
    host.tap("a")
    host.process(60, "gone", "a")
    host.process(61, "stays", "a")
    device = _netdev.device(host, "a")
    assert device
    assert _netdev.holders(host, [device]) == {"a": (Holder(61, "stays", True),)}


def test_many_processes_cost_linear_time(tmp_path: Path) -> None:
    host = NetHost(tmp_path)
    host.tap("a")
    device = _netdev.device(host, "a")
    assert device
    seconds = []
    for first, last in ((100, 120), (120, 180)):
        for pid in range(first, last):
            host.process(pid, "qemu", *(["/dev/kvm"] * 20), "a")
        begun = time.process_time()
        assert len(_netdev.holders(host, [device])["a"]) == last - 100
        seconds.append(time.process_time() - begun)
    assert seconds[1] < seconds[0] * 4 * 2.5, seconds
