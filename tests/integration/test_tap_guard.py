# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tap_guard against real TAP devices, real guests and what libvirt does to both.

Each row of TABLE asks the module first and libvirt afterwards, so that no verdict is a matter of opinion.
"""

from __future__ import annotations

import time
import typing as t

import pytest
import rig
from rig import guests, modules, playbooks

# TUNSETIFF and the flags of include/uapi/linux/if_tun.h; IFF_NO_PI is 0x1000.
HOLD = b"""
import fcntl, struct, sys, time
device = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002 | int(sys.argv[2], 16)))
open("/run/held", "w").close()
time.sleep(3600)
"""
MULTI_QUEUE = "0x100"
CLEAN = """
systemctl stop 'hold*.service'
rm -f /run/held
for path in /sys/class/net/*/tun_flags; do
    name=${path%/tun_flags}
    ip link delete "${name##*/}"
done
ip link delete br0
ip link delete pair0
true
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        fresh.put("/run/hold.py", HOLD)
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    machine.run(["ip", "link", "add", "br0", "type", "bridge"])
    try:
        yield machine
    finally:
        guests.stop_all(machine)
        machine.run(["sh", "-c", CLEAN])


def tap(host: rig.Host, name: str, *options: str, master: str = "") -> None:
    host.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", *options])
    if master:
        host.run(["ip", "link", "set", name, "master", master])


def hold(host: rig.Host, name: str, flags: str = "0", *, unit: str = "hold", inside: t.Sequence[str] = ()) -> int:
    """A process that has a TAP open; its pid."""
    program = [*inside, "/usr/bin/python3", "/run/hold.py", name, flags]
    host.run(["systemd-run", "--quiet", "--collect", f"--unit={unit}", *program])
    deadline = time.monotonic() + 20
    while host.run(["test", "-e", "/run/held"], check=False).returncode:
        assert time.monotonic() < deadline, host.run(["journalctl", "-u", unit], check=False).stdout
        time.sleep(0.05)
    host.run(["rm", "/run/held"])
    return int(host.run(["systemctl", "show", "-p", "MainPID", "--value", unit]).stdout)


def define(host: rig.Host, name: str, *interfaces: str) -> None:
    host.put(f"/run/{name}.xml", guests.Guest(name, interfaces=interfaces).xml().encode())
    guests.virsh(host, "define", f"/run/{name}.xml")


def link(host: rig.Host, name: str) -> str:
    """All that ip says of a device, "" where there is none."""
    return host.run(["ip", "-d", "-o", "link", "show", "dev", name], check=False).stdout


def refusal(host: rig.Host, name: str) -> str:
    """libvirt's words if it refuses to start a guest, "" if the guest runs."""
    try:
        guests.virsh(host, "start", name)
    except rig.RigError as error:
        return str(error)
    return ""


def guard(host: rig.Host, **options: t.Any) -> dict[str, t.Any]:
    return modules.call(host, "tap_guard", **options)


def test_a_hand_made_tap_survives_with_its_bridge_and_the_message_says_whose_it_is(host: rig.Host) -> None:
    tap(host, "mytap0", "user", "1000", master="br0")
    define(host, "web", guests.ethernet("mytap0"))
    before = link(host, "mytap0")
    assert "master br0" in before

    for check_mode in (True, False):
        result = guard(host, domains=["all"], check_mode=check_mode)
        assert (result["failed"], result["changed"]) == (True, False)
        assert "mytap0 of the guest web (stale)" in result["msg"]
        assert "port of br0, owner uid 1000) that no process holds" in result["msg"]
        assert "its clean-up DELETES this device" in result["msg"]
        assert "managed='no'" in result["msg"]
    assert link(host, "mytap0") == before

    # What the guard is for: without it, libvirt's refusal costs the operator the device.
    assert "The mytap0 interface already exists" in refusal(host, "web")
    assert link(host, "mytap0") == ""


def test_a_held_tap_is_named_with_its_holder(host: rig.Host) -> None:
    tap(host, "mytap0")
    pid = hold(host, "mytap0")
    define(host, "web", guests.ethernet("mytap0"))
    result = guard(host, domains=["web"])
    assert (
        f"mytap0 of the guest web (foreign): It is a persistent TAP device, held by process {pid} (python3);"
        in result["msg"]
    )
    assert result["interfaces"][0]["held_by"] == [{"pid": pid, "comm": "python3", "guest": None}]
    assert "already exists" in refusal(host, "web")
    assert link(host, "mytap0"), "libvirt cannot delete what somebody holds"


def test_a_second_run_passes_with_the_guests_running(host: rig.Host) -> None:
    define(host, "web", guests.ethernet("web0"), guests.bridged("br0", "web1"), guests.bridged("br0"))
    play: list[dict[str, t.Any]] = [
        {"hosts": host.name, "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_taps"]}
    ]
    first = playbooks.play(play, host.inventory)
    assert (first.rc, first.changed) == (0, [])
    assert {entry["verdict"] for entry in first.results("tap_guard")[0]["interfaces"]} == {"free"}

    guests.virsh(host, "start", "web")
    pid = guests.start(host, guests.Guest("transient", interfaces=[guests.ethernet("once0")]))
    devices = host.run(["ip", "-d", "-o", "link"]).stdout
    for flags in ((), ("--check",)):
        again = playbooks.play(play, host.inventory, *flags)
        assert (again.rc, again.changed, again.failed) == (0, [], [])
        (result,) = again.results("tap_guard")
        names = {entry["name"]: (entry["domain"], entry["verdict"]) for entry in result["interfaces"]}
        generated = names.keys() - {"once0", "web0", "web1"}
        assert len(generated) == 1, "the interface without a name has got one from libvirt"
        assert names == {
            "once0": ("transient", "own"),
            **dict.fromkeys(["web0", "web1", *generated], ("web", "own")),
        }
        holders = [entry["held_by"] for entry in result["interfaces"] if entry["name"] == "once0"]
        assert [(one["pid"], one["guest"]) for one in holders[0]] == [(pid, "transient")]
    assert host.run(["ip", "-d", "-o", "link"]).stdout == devices
    assert guests.pid(host, "transient") == pid


def ethernet(target: str, *, managed: str = "", queues: int = 0, model: str = "virtio") -> str:
    driver = f"<driver queues='{queues}'/>" if queues else ""
    attribute = f" managed='{managed}'" if managed else ""
    return f"<interface type='ethernet'><target dev='{target}'{attribute}/><model type='{model}'/>{driver}</interface>"


class Row(t.NamedTuple):
    """What is made with ip first (options of ``ip tuntap``; other commands), the interface, and what comes of it."""

    made: str
    interface: str
    verdict: str
    said: str = ""
    held: str | None = None


#: The reason of libvirt, or of the kernel, for each refusal, as 9.0 and 11.3 print it.
EXISTS, BUSY, INVALID = "interface already exists", "Device or resource busy", "Invalid argument"
TABLE = {
    "free": Row("", ethernet("web0"), "free"),
    "ethernet, single queue": Row("tap", ethernet("web0"), "stale", EXISTS),
    "ethernet, multi-queue": Row("tap multi_queue", ethernet("web0"), "stale", EXISTS),
    "ethernet, multi-queue wanted": Row("tap multi_queue", ethernet("web0", queues=2), "stale", EXISTS),
    "bridge": Row("tap", guests.bridged("br0", "web0"), "stale", EXISTS),
    "tun": Row("tun", ethernet("web0"), "foreign", EXISTS),
    "held": Row("tap", ethernet("web0"), "foreign", EXISTS, held="0"),
    "held, multi-queue": Row("tap multi_queue", ethernet("web0", queues=2), "foreign", EXISTS, held=MULTI_QUEUE),
    "a bridge": Row("", ethernet("br0"), "foreign", EXISTS),
    "a veth": Row("", ethernet("pair0"), "foreign", EXISTS),
    "no, missing": Row("", ethernet("web0", managed="no"), "missing", "specified dev doesn't exist"),
    "no, fits": Row("tap", ethernet("web0", managed="no"), "exempt"),
    "no, owned by another": Row("tap user 1000 group 1000", ethernet("web0", managed="no"), "exempt"),
    "no, vnet_hdr": Row("tap vnet_hdr", ethernet("web0", managed="no", model="e1000"), "exempt"),
    "no, queues": Row("tap multi_queue", ethernet("web0", managed="no", queues=2), "exempt"),
    "no, queues of a model without": Row("tap", ethernet("web0", managed="no", queues=2, model="e1000"), "exempt"),
    "no, too few queues": Row("tap", ethernet("web0", managed="no", queues=2), "mismatch", INVALID),
    "no, too many queues": Row("tap multi_queue", ethernet("web0", managed="no"), "mismatch", INVALID),
    "no, tun": Row("tun", ethernet("web0", managed="no"), "mismatch", INVALID),
    "no, a veth": Row("", ethernet("pair0", managed="no"), "mismatch", INVALID),
    "no, held": Row("tap", ethernet("web0", managed="no"), "foreign", BUSY, held="0"),
    "15 bytes": Row("", ethernet("abcdefghijklmno"), "free"),
    "16 bytes": Row("", ethernet("abcdefghijklmnop"), "too_long", "is too long"),
    "template": Row("", ethernet("web%d"), "free"),
    "colon": Row("", ethernet("a:b"), "invalid", INVALID),
    "percent": Row("", ethernet("a%s"), "invalid", INVALID),
}


@pytest.mark.parametrize("label", TABLE)
def test_libvirt_agrees(host: rig.Host, label: str) -> None:
    row = TABLE[label]
    host.run(["ip", "link", "add", "pair0", "type", "veth", "peer", "name", "pair1"])
    if row.made:
        host.run(["ip", "tuntap", "add", "dev", "web0", "mode", *row.made.split()])
    if row.held is not None:
        hold(host, "web0", row.held)
    define(host, "web", row.interface)

    (entry,) = guard(host, domains=["web"], on_conflict="report")["interfaces"]
    assert entry["verdict"] == row.verdict, entry

    said = refusal(host, "web")
    if row.verdict in ("free", "exempt"):
        assert said == ""
        running = guard(host, domains=["web"])["interfaces"]
        assert {found["verdict"] for found in running} <= {"own", "free"}
        assert "own" in {found["verdict"] for found in running}
    else:
        assert row.said in said
        if entry["exists"]:
            assert ("DELETES" in entry["reason"]) == (link(host, entry["name"]) == "")


def test_a_multi_queue_tap_that_somebody_reads_would_be_shared(host: rig.Host) -> None:
    """libvirt does start this guest, and the kernel deals its packets out to both."""
    tap(host, "web0", "multi_queue")
    stranger = hold(host, "web0", MULTI_QUEUE)
    define(host, "web", ethernet("web0", managed="no", queues=2))
    (conflict,) = guard(host, domains=["web"], on_conflict="report")["conflicts"]
    assert conflict["verdict"] == "foreign"
    assert f"process {stranger} (python3); the guest would share its traffic" in conflict["reason"]
    assert refusal(host, "web") == ""
    result = guard(host, domains=["web"])
    assert [(entry["verdict"], len(entry["held_by"])) for entry in result["interfaces"]] == [("own", 2)]
    assert f"web0 of the guest web is open in process {stranger} (python3) as well." in str(result["warnings"])


def test_reserved_names_are_dropped_by_libvirt(host: rig.Host) -> None:
    xml = guests.Guest("web", interfaces=[ethernet("vnet777")]).xml()
    assert guard(host, domain_xml=xml, on_conflict="report")["conflicts"][0]["verdict"] == "reserved"
    define(host, "web", ethernet("vnet777"), ethernet("vnetfoo"), ethernet("macvtap7"), ethernet("veth7"))
    defined = guests.virsh(host, "dumpxml", "--inactive", "web")
    assert [name for name in ("vnet777", "vnetfoo", "macvtap7", "veth7") if name in defined] == ["veth7"]
    assert [entry["name"] for entry in guard(host, domains=["web"])["interfaces"]] == ["veth7"]


def test_two_definitions_of_one_name(host: rig.Host) -> None:
    define(host, "a", ethernet("same0"))
    define(host, "b", guests.bridged("br0", "same0"))
    result = guard(host, domains=["all"])
    assert [(entry["domain"], entry["verdict"]) for entry in result["conflicts"]] == [
        ("a", "duplicate"),
        ("b", "duplicate"),
    ]
    assert "(a, b)" in result["msg"]
    pid = guests.pid(host, "a") if refusal(host, "a") == "" else 0
    result = guard(host, domains=["all"], on_conflict="report")
    assert [entry["verdict"] for entry in result["interfaces"]] == ["own", "foreign"]
    assert f"held by the guest a, process {pid} (qemu-system-" in result["conflicts"][0]["reason"]
    assert EXISTS in refusal(host, "b")


def test_a_tap_of_the_same_name_in_another_namespace_is_another_device(host: rig.Host) -> None:
    inside = ["/usr/bin/unshare", "--net"]
    pid = hold(host, "web0", inside=inside)
    assert [entry["verdict"] for entry in guard(host, names=["web0"])["interfaces"]] == ["free"]
    tap(host, "web0")
    host.run(["ip", "link", "set", "web0", "up"])
    (entry,) = guard(host, names=["web0"], on_conflict="report")["interfaces"]
    assert (entry["verdict"], entry["held_by"]) == ("stale", [])
    kept = guard(host, remove_stale=["web0"])
    assert kept["removed"] == [], "the same name is reason enough to be careful"
    assert f"process {pid} (python3)" in str(kept["warnings"])


def test_run_inside_another_network_namespace(host: rig.Host) -> None:
    words, arguments = modules.prepare(host, "tap_guard", names=["web0"])
    output = host.run(["unshare", "--net", *words], stdin=arguments, check=False)
    assert "another network namespace than PID 1" in output.stdout


def test_remove_stale_removes_what_matches_and_nothing_else(host: rig.Host) -> None:
    tap(host, "lab-1", "user", "1000", "group", "100")
    tap(host, "lab-2", "multi_queue", "vnet_hdr")
    host.run(["ip", "link", "set", "lab-2", "up"])
    tap(host, "lab-port", master="br0")
    tap(host, "lab-addr")
    host.run(["ip", "address", "add", "192.0.2.1/24", "dev", "lab-addr"])
    tap(host, "lab-held")
    holder = hold(host, "lab-held")
    tap(host, "lab-kept")
    define(host, "web", ethernet("lab-kept", managed="no"))
    tap(host, "other-1")
    host.run(["ip", "tuntap", "add", "dev", "lab-tun", "mode", "tun"])

    before = host.run(["ip", "-d", "-o", "link"]).stdout
    checked = guard(host, remove_stale=["lab-*"], check_mode=True)
    assert host.run(["ip", "-d", "-o", "link"]).stdout == before
    assert host.run(["ls", "/var/lib/hypervisor-hardening"], check=False).stdout == ""

    removed = guard(host, remove_stale=["lab-*"])
    assert (checked["removed"], checked["changed"]) == (removed["removed"], removed["changed"])
    assert (removed["removed"], removed["changed"]) == (["lab-1", "lab-2"], True)
    names = host.run(["ls", "/sys/class/net"]).stdout.split()
    assert [name for name in names if name.startswith(("lab", "other"))] == [
        "lab-addr", "lab-held", "lab-kept", "lab-port", "lab-tun", "other-1",
    ]  # fmt: skip
    warnings = str(removed["warnings"])
    for why in ("has the address 192.0.2.1/24", f"process {holder} (python3)", "managed='no'", "a port of br0"):
        assert why in warnings
    entries = host.run(["sh", "-c", "cat /var/lib/hypervisor-hardening/journal/*.json"]).stdout
    for what in (
        '"owner": 1000',
        '"group": 100',
        '"multi_queue": true',
        "/sys/class/net/lab-1",
        "/sys/class/net/lab-2",
    ):
        assert what in entries

    again = guard(host, remove_stale=["lab-*"])
    assert (again["removed"], again["changed"]) == ([], False)
    exact = guard(host, remove_stale=["lab-port", "lab-addr"])
    assert exact["removed"] == ["lab-addr", "lab-port"]
    host.run(["rm", "-rf", "/var/lib/hypervisor-hardening"])


def test_a_stale_tap_out_of_the_way_and_the_guest_starts(host: rig.Host) -> None:
    tap(host, "web0")
    define(host, "web", ethernet("web0"))
    result = guard(host, domains=["web"], remove_stale=["web*"])
    assert (result["removed"], [entry["verdict"] for entry in result["interfaces"]]) == (["web0"], ["free"])
    assert refusal(host, "web") == ""
    host.run(["rm", "-rf", "/var/lib/hypervisor-hardening"])


def test_a_definition_that_no_parser_should_swallow(host: rig.Host) -> None:
    define(host, "web", ethernet("web0"))
    host.put("/etc/libvirt/qemu/bomb.xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><domain><name>&b;</name></domain>")
    host.put("/etc/libvirt/qemu/deep.xml", b"<a>" * 100_000)
    try:
        result = guard(host, domains=["all"])
        assert [entry["name"] for entry in result["interfaces"]] == ["web0"]
        for name in ("bomb", "deep"):
            assert f"guest {name} are unknown" in str(result["warnings"])
    finally:
        host.run(["rm", "/etc/libvirt/qemu/bomb.xml", "/etc/libvirt/qemu/deep.xml"])


def test_from_a_virtual_environment_without_lxml(host: rig.Host) -> None:
    """python3-lxml is the distribution's: from another interpreter the module starts over, or says what is missing."""
    define(host, "web", ethernet("web0"))
    venv = "/root/venv"
    host.run(["sh", "-c", f"test -e {venv} || python3 -m venv --without-pip {venv}"])
    assert host.run([f"{venv}/bin/python", "-c", "import lxml"], check=False).returncode == 1
    play: list[dict[str, t.Any]] = [
        {
            "hosts": host.name,
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": f"{venv}/bin/python"},
            "tasks": [{"hypervisor.hardening.tap_guard": {"domains": ["all"]}, "name": "Look"}],
        }
    ]

    run = playbooks.play(play, host.inventory)
    assert run.rc == 0, run.text
    assert [entry["name"] for entry in run.results("tap_guard")[0]["interfaces"]] == ["web0"]

    hidden = "mv /usr/lib/python3/dist-packages/lxml /usr/lib/python3/dist-packages/lxml.hidden"
    host.run(["sh", "-c", hidden])
    try:
        run = playbooks.play(play, host.inventory)
        assert run.rc != 0
        message = run.failed[0].result["msg"]
        assert "Failed to import the required Python library (lxml)" in message
        assert f"Python {venv}/bin/python" in message, "that is where the module was started"
        assert "Install the package python3-lxml." in message
    finally:
        host.run(["mv", "/usr/lib/python3/dist-packages/lxml.hidden", "/usr/lib/python3/dist-packages/lxml"])
