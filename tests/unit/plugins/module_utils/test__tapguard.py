# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of tap_guard on trees of fixtures: what it reads, what it removes, and what it leaves alone."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tapguard as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import MissingLibrary
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._netdev import NetdevError
from ansible_collections.hypervisor.hardening.plugins.module_utils._tapguard import TapGuardError, Wanted
from ansible_collections.hypervisor.hardening.tests.unit.plugins.netdevs import (
    ELSEWHERE,
    MULTI_QUEUE,
    NO_PI,
    PERSISTENT_TAP,
    TAP,
    NetHost,
    definition,
    interface,
)


@pytest.fixture
def host(tmp_path: Path) -> NetHost:
    return NetHost(tmp_path)


def look(host: NetHost, **options: t.Any) -> dict[str, t.Any]:
    """The module's result with ``on_conflict: report``, without a change."""
    wanted = Wanted(on_conflict="report", **options)
    state = room.observe(host, wanted)
    return room.result(state, room.plan(state, wanted))


def verdicts(host: NetHost, **options: t.Any) -> list[tuple[str | None, str, str]]:
    return [(entry["domain"], entry["name"], entry["verdict"]) for entry in look(host, **options)["interfaces"]]


def test_nothing_asked_for(tmp_path: Path) -> None:
    """Not even a process table is needed."""
    empty = NetHost(tmp_path)
    (tmp_path / "proc/1/ns/net").unlink()
    assert look(empty) == {"interfaces": [], "conflicts": [], "removed": []}


def test_names_need_no_definition_and_no_lxml(host: NetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    host.define("web", interface("web0"))
    host.tap("web0")
    assert verdicts(host, names=["web0", "new0", "web0"]) == [(None, "web0", "stale"), (None, "new0", "free")]


def test_a_definition_needs_lxml(host: NetHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxml", None)
    assert look(host, domains=["all"])["interfaces"] == [], "a host without guests needs none"
    host.define("web", interface("web0"))
    with pytest.raises(MissingLibrary):
        look(host, domains=["all"])


def test_one_entry_of_the_result(host: NetHost) -> None:
    host.define("web", interface("web0"))
    host.tap("web0", TAP | NO_PI | MULTI_QUEUE, owner=1000, group=100, master="br0")
    host.guest("db", 900, "web0")
    host.process(70, "python3", "web0")
    (entry,) = look(host, domains=["web"])["interfaces"]
    reason = entry.pop("reason")
    assert entry == {
        "name": "web0",
        "domain": "web",
        "exists": True,
        "kind": "tap",
        "persistent": False,
        "owner": 1000,
        "group": 100,
        "multi_queue": True,
        "vnet_hdr": False,
        "bridge": "br0",
        "held_by": [
            {"pid": 70, "comm": "python3", "guest": None},
            {"pid": 900, "comm": "qemu-system-x86", "guest": "db"},
        ],
        "verdict": "foreign",
    }
    assert "process 70 (python3) and the guest db, process 900 (qemu-system-x86)" in reason
    (free,) = look(host, names=["nothing0"])["interfaces"]
    assert (free["domain"], free["exists"], free["kind"], free["owner"], free["bridge"]) == (
        None,
        False,
        None,
        None,
        None,
    )


def test_which_interfaces_count(host: NetHost) -> None:
    """Only those for which libvirt makes or takes a device of the host, and that name it."""
    kinds = ("bridge", "direct", "ethernet", "network", "vhostuser", "user", "hostdev", "vdpa", "udp")
    host.define("web", *(interface(f"{kind}0", kind) for kind in kinds), "<interface type='network'/>")
    assert [name for _domain, name, _verdict in verdicts(host, domains=["web"])] == [
        "bridge0",
        "direct0",
        "ethernet0",
        "network0",
    ]


def test_managed_is_for_ethernet_alone(host: NetHost) -> None:
    host.define("web", interface("web0", "bridge", managed=False))
    assert verdicts(host, domains=["web"]) == [("web", "web0", "free")]


def test_running_guests(host: NetHost) -> None:
    """The definition counts for the next start; what the guest has beside it counts as well."""
    for name in ("web0", "vnet0", "once0"):
        host.tap(name, TAP | NO_PI)
    host.define("web", interface("web0"), interface("next0"), interface("web%d"))
    host.guest("web", 900, "web0", "vnet0", interfaces=[interface("web0"), interface("vnet0", "network")])
    host.guest("transient", 901, "once0", interfaces=[interface("once0", "bridge")])
    host.define("down", interface("down0"))
    assert verdicts(host, domains=["all"]) == [
        ("down", "down0", "free"),
        ("transient", "once0", "own"),
        ("web", "web0", "own"),
        ("web", "next0", "free"),
        ("web", "web%d", "free"),
        ("web", "vnet0", "own"),
    ]
    assert look(host, domains=["all"])["conflicts"] == []
    assert verdicts(host, domains=["transient"]) == [("transient", "once0", "own")]


def test_a_status_file_that_outlived_its_guest(host: NetHost) -> None:
    host.guest("web", 900, interfaces=[interface("web0")])
    host.put("/proc/900/cmdline", "sleep\x001000\0")
    with pytest.raises(TapGuardError, match="web is neither defined on this host nor running; there are: none"):
        look(host, domains=["web"])


def test_two_definitions_want_one_name(host: NetHost) -> None:
    host.define("a", interface("same0"))
    host.define("b", interface("same0", "bridge"), interface("twice0"), interface("twice0"))
    expected = [("a", "same0", "duplicate"), ("b", "same0", "duplicate"), ("b", "twice0", "duplicate")]
    assert [entry for entry in verdicts(host, domains=["all"]) if entry[1:] != ("twice0", "duplicate")] == expected[:2]
    assert verdicts(host, domains=["a"]) == expected[:1], "the other definition counts although it was not asked about"
    assert verdicts(host, domains=["b"]) == [*expected[1:], expected[2]]
    reason = look(host, domains=["a"])["conflicts"][0]["reason"]
    assert "2 interfaces want this name (a, b)" in reason
    host.tap("same0", TAP | NO_PI)
    host.guest("a", 900, "same0", interfaces=[interface("same0")])
    assert verdicts(host, domains=["all"])[:2] == [("a", "same0", "own"), ("b", "same0", "foreign")]


def test_what_a_running_guest_has_lost_is_free_for_others(host: NetHost) -> None:
    host.guest("a", 900, interfaces=[interface("lost0")])
    host.define("b", interface("lost0"))
    assert verdicts(host, domains=["all"]) == [("a", "lost0", "missing"), ("b", "lost0", "free")]


def test_a_name_that_a_chosen_guest_wants_is_judged_once(host: NetHost) -> None:
    host.define("web", interface("web0"))
    host.define("db", interface("db0"))
    assert verdicts(host, names=["web0", "db0"], domains=["web"]) == [
        ("web", "web0", "free"),
        (None, "db0", "duplicate"),
    ]


def test_a_definition_to_be(host: NetHost) -> None:
    host.tap("web0", TAP | NO_PI)
    host.guest("web", 900, "web0", interfaces=[interface("web0")])
    host.define("web", interface("web0"), interface("old0"))
    host.define("db", interface("db0"))
    text = definition("web", interface("web0"), interface("db0"), interface("vnet7"))
    assert verdicts(host, domain_xml=text) == [
        ("web", "web0", "own"),
        ("web", "db0", "duplicate"),
        ("web", "vnet7", "reserved"),
    ]
    assert verdicts(host, domain_xml=definition("new", interface("new0")), domains=["db"]) == [
        ("db", "db0", "free"),
        ("new", "new0", "free"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<domain>", "domain_xml is not well-formed XML"),
        ("<network/>", "root element is <network>"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><domain/>", "<!DOCTYPE"),
        ("<domain><name>\ud800</name></domain>", "domain_xml is not well-formed XML"),
    ],
)
def test_bad_definition_to_be(host: NetHost, text: str, said: str) -> None:
    with pytest.raises(TapGuardError) as refusal:
        look(host, domain_xml=text)
    assert said in str(refusal.value)


def test_unknown_and_unreadable_guests(host: NetHost) -> None:
    host.define("web", interface("web0"))
    host.put("/etc/libvirt/qemu/bad.xml", "<domain>")
    with pytest.raises(
        TapGuardError, match="The guest nix is neither defined on this host nor running; there are: web"
    ):
        look(host, domains=["nix"])
    with pytest.raises(
        TapGuardError, match=r"The definition of the guest bad cannot be read: /etc/libvirt/qemu/bad\.xml"
    ):
        look(host, domains=["bad"])
    wanted = Wanted(domains=["all"])
    state = room.observe(host, wanted)
    assert [claim.name for claim in state.claims] == ["web0"]
    (warning,) = room.plan(state, wanted).warnings
    assert "guest bad are unknown" in warning


def test_failure_lists_all_conflicts(host: NetHost) -> None:
    host.define("web", interface("web0"), interface("vnet1"), interface("fine0"))
    host.tap("web0")
    wanted = Wanted(domains=["all"], names=["x" * 16])
    with pytest.raises(TapGuardError) as refusal:
        room.plan(room.observe(host, wanted), wanted)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "3 network device names are not free:"
    assert [line.split(":")[0] for line in lines[1:4]] == [
        "- web0 of the guest web (stale)",
        "- vnet1 of the guest web (reserved)",
        "- xxxxxxxxxxxxxxxx (too_long)",
    ]
    assert "started by other means" in lines[4]
    assert [entry["verdict"] for entry in refusal.value.facts["interfaces"]] == [
        "stale",
        "reserved",
        "free",
        "too_long",
    ]
    assert [entry["name"] for entry in refusal.value.facts["conflicts"]] == ["web0", "vnet1", "x" * 16]


def test_warnings(host: NetHost) -> None:
    host.define("web", interface("web0"), interface("mine0", managed=False))
    host.tap("web0", PERSISTENT_TAP)
    host.tap("mine0", PERSISTENT_TAP)
    host.guest("web", 900, "web0", "mine0", interfaces=[interface("web0"), interface("mine0", managed=False)])
    host.process(66, "tcpdump", "mine0")
    wanted = Wanted(domains=["all"])
    warnings = room.plan(room.observe(host, wanted), wanted).warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "web0 of the guest web is persistent",
        "mine0 of the guest web is open in process 66 (tcpdump) as well.",
    ]


# What remove_stale does.


def remove(host: NetHost, *patterns: str, **options: t.Any) -> room.Plan:
    """Observe, plan, apply; then nothing is left to do."""
    wanted = Wanted(remove_stale=patterns, **options)
    plan = room.plan(room.observe(host, wanted), wanted)
    room.check(host, plan)
    room.apply(host, plan, Journal(host, "tap_guard"))
    assert host.changed is bool(plan.changes)
    assert room.plan(room.observe(host, wanted), wanted).changes == ()
    return plan


def left(host: NetHost) -> list[str]:
    return [name for name in host.list("/sys/class/net") if name not in ("bonding_masters", "lo")]


def test_removes_what_matches_and_is_stale(host: NetHost) -> None:
    for name in ("lab-1", "lab-2", "Lab-3", "xlab-4", "mylab"):
        host.tap(name)
    host.tap("lab-multi", PERSISTENT_TAP | MULTI_QUEUE)
    host.tap("lab-tun", 0x1801)
    host.device("lab-br", devtype="bridge")
    host.tap("lab-held")
    host.process(70, "python3", "lab-held")
    host.tap("lab-up", carrier="1")
    host.tap("lab-far", carrier="0")
    host.process(71, "slirp4netns", "lab-far", network=ELSEWHERE)
    plan = remove(host, "lab-*", "my?ab")
    assert left(host) == ["Lab-3", "lab-br", "lab-far", "lab-held", "lab-tun", "lab-up", "xlab-4"]
    assert [call for call in host.calls if "del" in call] == [
        ["ip", "tuntap", "del", "dev", "lab-1", "mode", "tap"],
        ["ip", "tuntap", "del", "dev", "lab-2", "mode", "tap"],
        ["ip", "tuntap", "del", "dev", "lab-multi", "mode", "tap", "multi_queue"],
        ["ip", "tuntap", "del", "dev", "mylab", "mode", "tap"],
    ]
    assert plan.diff["before"].splitlines()[0] == "lab-1 persistent mtu 1500 02:00:00:00:00:03"
    assert [warning.split(": ")[1] for warning in plan.warnings] == [
        "it is held by process 71 (slirp4netns).",
        "it is held by process 70 (python3).",
        "it is held by a process that does not show itself.",
    ]


def test_nothing_matches(host: NetHost) -> None:
    host.define("web", "not even XML")
    host.tap("lab-1")
    assert remove(host, "none-*").changes == ()
    assert host.calls == []


def test_a_device_that_a_guest_takes_as_it_is_stays(host: NetHost) -> None:
    host.define("web", interface("lab-1", managed=False))
    host.define("db", interface("lab-2"))
    for name in ("lab-1", "lab-2"):
        host.tap(name)
    plan = remove(host, "lab-*")
    assert left(host) == ["lab-1"]
    assert plan.warnings == ("lab-1 matches remove_stale and stays: the guest web takes it as it is (managed='no').",)


def test_ports_and_addresses_stay_unless_named_in_full(host: NetHost) -> None:
    for name in ("lab-1", "lab-2"):
        host.tap(name, master="br0")
    for name in ("lab-3", "lab-4", "lab-5"):
        host.tap(name)
    host.addresses["lab-3"] = host.addresses["lab-4"] = [{"local": "192.0.2.1", "prefixlen": 24, "scope": "global"}]
    host.addresses["lab-5"] = [{"local": "fe80::1", "prefixlen": 64, "scope": "link"}]
    plan = remove(host, "lab-*", "lab-2", "lab-4")
    assert left(host) == ["lab-1", "lab-3"]
    assert [warning.split(": ")[1].split(";")[0] for warning in plan.warnings] == [
        "it is a port of br0",
        "it has the address 192.0.2.1/24",
    ]


def test_nothing_is_removed_while_a_definition_cannot_be_read(host: NetHost) -> None:
    host.tap("lab-1")
    host.put("/etc/libvirt/qemu/bad.xml", "<domain>")
    with pytest.raises(TapGuardError, match=r"Nothing is removed .*bad\.xml"):
        room.observe(host, Wanted(remove_stale=["lab-*"]))


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "", "[a-z]*", "[!x]?*"])
def test_a_pattern_without_a_letter_is_refused(host: NetHost, pattern: str) -> None:
    with pytest.raises(TapGuardError, match="matches any device"):
        room.observe(host, Wanted(remove_stale=[pattern]))


def test_the_journal_knows_what_it_was(host: NetHost) -> None:
    host.tap("lab-1", owner=1000, group=100, master="br0", mtu="9000")
    remove(host, "lab-1")
    (entry,) = Journal(host, "").entries()
    assert (entry.kind, entry.target, entry.after, entry.by) == ("value", "/sys/class/net/lab-1", None, "tap_guard")
    assert {key: entry.before[key] for key in ("name", "owner", "group", "bridge", "mtu", "mac", "multi_queue")} == {
        "name": "lab-1",
        "owner": 1000,
        "group": 100,
        "bridge": "br0",
        "mtu": 9000,
        "mac": "02:00:00:00:00:03",
        "multi_queue": False,
    }
    assert entry.before["ip"]["ifname"] == "lab-1"


def test_a_stale_device_in_the_way_is_removed_and_no_conflict(host: NetHost) -> None:
    host.define("web", interface("web0"))
    host.tap("web0")
    wanted = Wanted(domains=["all"], remove_stale=["web*"])
    state = room.observe(host, wanted)
    plan = room.plan(state, wanted)
    before = room.result(state, plan)
    assert ([entry["verdict"] for entry in before["interfaces"]], before["conflicts"]) == (["stale"], [])
    room.apply(host, plan, Journal(host, ""))
    after = room.result(room.observe(host, wanted), plan)
    assert ([entry["verdict"] for entry in after["interfaces"]], after["removed"]) == (["free"], ["web0"])


def test_what_is_a_conflict_after_the_removal_stops_it(host: NetHost) -> None:
    """Two definitions want the name of a stale device: without it, they still do."""
    host.define("a", interface("web0"))
    host.define("b", interface("web0"))
    host.tap("web0")
    with pytest.raises(TapGuardError, match="2 interfaces want this name"):
        remove(host, "web0", domains=["all"])
    assert left(host) == ["web0"]


def test_taken_between_the_look_and_the_removal(host: NetHost) -> None:
    host.tap("lab-1")
    wanted = Wanted(remove_stale=["lab-*"])
    plan = room.plan(room.observe(host, wanted), wanted)
    host.process(70, "python3", "lab-1")
    with pytest.raises(NetdevError, match="taken into use"):
        room.apply(host, plan, Journal(host, ""))
    assert (left(host), Journal(host, "").entries()) == (["lab-1"], [])


def test_changed_between_the_look_and_the_removal(host: NetHost) -> None:
    host.tap("lab-1")
    wanted = Wanted(remove_stale=["lab-*"])
    plan = room.plan(room.observe(host, wanted), wanted)
    host.put("/sys/class/net/lab-1/ifindex", "99\n")
    with pytest.raises(NetdevError, match="changed or was taken"):
        room.apply(host, plan, Journal(host, ""))


def test_the_kernel_says_busy(host: NetHost) -> None:
    host.tap("lab-1")
    host.busy.add("lab-1")
    with pytest.raises(NetdevError, match=r"lab-1 could not be removed: .*resource busy"):
        remove(host, "lab-*")
    assert left(host) == ["lab-1"]
