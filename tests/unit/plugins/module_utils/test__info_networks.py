# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks of libvirt, bridges and virtual functions from its files, sysfs and a played ip; what the real ones do is
shown by tests/integration."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_networks
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import NetHost

DEFAULT = "<network><name>default</name><forward mode='nat'/><bridge name='virbr0'/></network>"
ON_DEFAULT = "<interface type='network'><source network='default'/></interface>"
# What ip(8) of Debian 13 prints, less what is not asked for.
ADDRESSES = [
    {
        "ifname": "br0",
        "addr_info": [
            {"family": "inet", "local": "10.0.0.2", "prefixlen": 24, "scope": "global"},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ],
    },
    {
        "ifname": "virbr0",
        "addr_info": [{"family": "inet", "local": "192.168.122.1", "prefixlen": 24, "scope": "global"}],
    },
    {},
]
FUNCTIONS = [
    {
        "ifname": "eth1",
        "vfinfo_list": [
            {"vf": 0, "spoofchk": True, "trust": False, "vlan_list": [{"vlan": 7}], "link_state": "auto"},
            {"vf": 1, "spoofchk": False, "trust": True},
            {"vf": 2},
        ],
    }
]


class Host(NetHost):
    """``shown``: what ip prints, by its first word; None: it fails."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.shown: dict[str, t.Any] = {"address": ADDRESSES, "link": FUNCTIONS}

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        answer = self.shown[argv[2]]
        return Completed(tuple(argv), 0 if answer else 1, json.dumps(answer) if answer else "", "refused")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def facts(host: Host) -> dict[str, t.Any]:
    found = _info_networks.facts(Context(host))
    assert mismatches("networks", found) == []
    return found


def test_a_host_without_any(host: Host) -> None:
    host.shown = {}
    assert facts(host) == {"networks": [], "bridges": [], "virtual_functions": [], "unread": []}


def test_networks(host: Host) -> None:
    host.put("/etc/libvirt/qemu/networks/default.xml", DEFAULT)
    host.put("/etc/libvirt/qemu/networks/autostart/default.xml", DEFAULT)
    host.put("/etc/libvirt/qemu/networks/lone.xml", "<network><name>lone</name><bridge name='virbr1'/></network>")
    host.put("/etc/libvirt/qemu/networks/broken.xml", "<!DOCTYPE network><network/>")
    host.put("/run/libvirt/network/lone.xml", "<networkstatus><network><name>lone</name></network></networkstatus>")
    host.put("/run/libvirt/network/driver.pid", "7")
    host.define("web", ON_DEFAULT)
    host.guest("db", 9, interfaces=[ON_DEFAULT])
    found = facts(host)
    assert found["networks"] == [
        {
            "name": "default",
            "mode": "nat",
            "bridge": "virbr0",
            "active": False,
            "autostart": True,
            "guests": ["db", "web"],
        },
        {"name": "lone", "mode": "isolated", "bridge": "", "active": True, "autostart": False, "guests": []},
    ]
    assert [entry["path"] for entry in found["unread"]] == ["/etc/libvirt/qemu/networks/broken.xml"]


def test_whose_network_it_is_when_a_definition_cannot_be_read(host: Host) -> None:
    host.put("/etc/libvirt/qemu/networks/default.xml", DEFAULT)
    host.put("/etc/libvirt/qemu/web.xml", "<domain><name>")
    assert [network["guests"] for network in facts(host)["networks"]] == [None]


def test_bridges(host: Host) -> None:
    host.put("/etc/libvirt/qemu/networks/default.xml", DEFAULT)
    for name in ("br0", "virbr0", "br1"):
        host.device(name, devtype="bridge")
    host.tap("vnet0", master="br0")
    host.device("eth0", master="br0")
    host.put_all(
        "/proc/sys/net/ipv4/conf/br0", {"accept_redirects": "1\n", "send_redirects": "0\n", "proxy_arp": "0\n"}
    )
    host.put_all("/proc/sys/net/ipv6/conf/br0", {"disable_ipv6": "0\n", "accept_ra": "1\n", "accept_redirects": "0\n"})
    host.put_all("/proc/sys/net/ipv6/conf/br1", {"disable_ipv6": "1\n", "accept_ra": "1\n"})
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    host.put(
        "/proc/net/route", f"{head}br0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\nbr1 0000000A 0 1 0 0 0 00FFFFFF\n"
    )
    host.put("/proc/net/ipv6_route", f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 00000400 1 0 00000003 br1\n")
    found = {bridge["name"]: bridge for bridge in facts(host)["bridges"]}
    assert found["br0"] == {
        "name": "br0",
        "guest_ports": ["vnet0"],
        "network": "",
        "addresses": ["10.0.0.2/24"],
        "default_route": True,
        "speaks": ["net.ipv4.conf.br0.accept_redirects = 1", "net.ipv6.conf.br0.accept_ra = 1"],
    }
    assert (found["virbr0"]["network"], found["virbr0"]["addresses"]) == ("default", ["192.168.122.1/24"])
    assert (found["br1"]["addresses"], found["br1"]["default_route"], found["br1"]["speaks"]) == ([], True, [])
    host.shown["address"] = None
    assert [bridge["addresses"] for bridge in facts(host)["bridges"]] == [None, None, None]


def test_virtual_functions(host: Host) -> None:
    host.device("eth1")
    host.put("/sys/class/net/eth1/device/sriov_numvfs", "3\n")
    host.device("eth2")
    host.put("/sys/class/net/eth2/device/sriov_numvfs", "0\n")
    found = facts(host)["virtual_functions"]
    assert [(one["name"], one["spoofchk"], one["trust"], one["vlan"]) for one in found] == [
        ("eth1 vf 0", True, False, 7),
        ("eth1 vf 1", False, True, 0),
        ("eth1 vf 2", None, None, 0),
    ]
    host.shown["link"] = None
    found_none = facts(host)
    assert (found_none["virtual_functions"], found_none["unread"][0]["path"]) == (None, "ip link show dev eth1")
