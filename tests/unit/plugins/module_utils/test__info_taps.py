# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TAP devices, bridges and wanted names from sysfs and /proc; what libvirt does is shown by test_tap_guard."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _domainxml, _info_taps
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError, MissingLibrary
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import (
    ELSEWHERE,
    TAP,
    VNET_HDR,
    NetHost,
    interface,
)


@pytest.fixture
def host(tmp_path: Path) -> NetHost:
    return NetHost(tmp_path)


def facts(host: NetHost) -> dict[str, t.Any]:
    found = _info_taps.facts(Context(host))
    assert mismatches("taps", found) == []
    return found


def stale(host: NetHost) -> dict[str, bool]:
    return {entry["name"]: entry["stale"] for entry in facts(host)["interfaces"]}


def test_a_host_without_any(host: NetHost) -> None:
    assert facts(host) == {
        "interfaces": [],
        "interfaces_omitted": 0,
        "bridges": [],
        "wanted": [],
        "wanted_omitted": 0,
        "unread": [],
    }


def test_a_tap_that_nobody_holds(host: NetHost) -> None:
    host.device("br0", devtype="bridge")
    host.tap("mytap0", owner=1000, master="br0")
    found = facts(host)
    assert found["interfaces"] == [
        {
            "name": "mytap0",
            "kind": "tap",
            "persistent": True,
            "owner": 1000,
            "group": None,
            "multi_queue": False,
            "bridge": "br0",
            "held_by": [],
            "reserved_for_guest": False,
            "stale": True,
        }
    ]
    assert found["bridges"] == [{"name": "br0", "ports": ["mytap0"]}]


def test_taps_of_guests_and_of_others(host: NetHost) -> None:
    host.tap("vnet0", TAP | VNET_HDR)
    host.tap("vpn0")
    host.guest("web", 7, "vnet0")
    host.process(8, "openvpn", "vpn0")
    found = {entry["name"]: entry for entry in facts(host)["interfaces"]}
    assert found["vnet0"]["held_by"] == [{"pid": 7, "comm": "qemu-system-x86", "guest": "web"}]
    assert found["vpn0"]["held_by"] == [{"pid": 8, "comm": "openvpn", "guest": ""}]
    assert stale(host) == {"vnet0": False, "vpn0": False}


def test_a_tap_that_a_definition_takes_as_it_is(host: NetHost) -> None:
    host.tap("mine0")
    host.define("web", interface("mine0", managed=False))
    found = facts(host)
    assert (found["interfaces"][0]["reserved_for_guest"], found["interfaces"][0]["stale"]) == (True, False)
    assert [(entry["name"], entry["verdict"], entry["conflict"]) for entry in found["wanted"]] == [
        ("web: mine0", "exempt", False)
    ]


def test_a_holder_in_another_network_namespace_may_be_the_one(host: NetHost) -> None:
    host.tap("mytap0")
    host.process(8, "other", "mytap0", network=ELSEWHERE)
    assert stale(host) == {"mytap0": False}


def test_names_that_definitions_want_conflicts_first(host: NetHost) -> None:
    host.tap("mytap0")
    host.define("api", interface("free0"))
    host.define("web", interface("mytap0"), interface("vnet7", "bridge"))
    found = facts(host)["wanted"]
    assert [(entry["guest"], entry["interface"], entry["verdict"]) for entry in found] == [
        ("web", "mytap0", "stale"),
        ("web", "vnet7", "reserved"),
        ("api", "free0", "free"),
    ]
    assert [bool(entry["reason"]) for entry in found] == [entry["conflict"] for entry in found] == [True, True, False]


def test_long_lists_are_cut_and_say_so(host: NetHost) -> None:
    for number in range(203):
        host.tap(f"t{number}")
    host.define("web", *(interface(f"n{number}") for number in range(201)))
    found = facts(host)
    assert (len(found["interfaces"]), found["interfaces_omitted"]) == (200, 3)
    assert (len(found["wanted"]), found["wanted_omitted"]) == (200, 1)


def test_without_lxml_the_devices_are_told_all_the_same(host: NetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> t.NoReturn:
        raise MissingLibrary("lxml", package="python3-lxml")

    monkeypatch.setattr(_domainxml, "_etree", missing)
    host.tap("mytap0")
    host.define("web", interface("mytap0"))
    found = facts(host)
    assert stale(host) == {"mytap0": True}
    assert found["wanted"] is None
    assert "python3-lxml" in found["unread"][0]["reason"]


def test_another_network_namespace_is_not_the_hosts(host: NetHost, tmp_path: Path) -> None:
    (tmp_path / "proc/self/ns/net").unlink()
    host.link("/proc/self/ns/net", ELSEWHERE)
    with pytest.raises(HardeningError, match="another network namespace"):
        facts(host)
