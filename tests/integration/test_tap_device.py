# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tap_device against the kernel: who may open what it makes, what it leaves alone, and what the next boot makes."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import modules

# TUNSETIFF and the flags of include/uapi/linux/if_tun.h; IFF_NO_PI is 0x1000. It says what the kernel answered.
OPEN = b"""
import fcntl, os, struct, sys, time
device = os.open("/dev/net/tun", os.O_RDWR)
try:
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002 | int(sys.argv[2], 16)))
except OSError as error:
    sys.exit(error.strerror)
if sys.argv[3:]:
    open("/run/held", "w").close()
    time.sleep(600)
"""
MULTI_QUEUE = "0x100"
# The devices, and each file below /etc and /var/lib: all that the module could change.
STATE = r"""
for name in /sys/class/net/*; do
    echo "$name $(cd $name && cat ifindex flags ifalias tun_flags owner group 2>/dev/null) $(readlink $name/master)"
done
find /etc /var/lib -xdev -type f -exec cksum {} +
find /etc /var/lib -xdev -printf '%p %m %U %G %C@\n'
"""
CLEAN = """
systemctl stop hold.service
rm -f /run/held /etc/systemd/system/hypervisor-hardening-tap-*.service
rm -f /etc/systemd/system/multi-user.target.wants/hypervisor-hardening-tap-*.service
rm -rf /var/lib/hypervisor-hardening
systemctl daemon-reload
for path in /sys/class/net/*/tun_flags; do
    name=${path%/tun_flags}
    ip link delete "${name##*/}"
done
ip link delete br0
true
"""


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        for user in ("alice", "bob"):
            fresh.run(["useradd", "--create-home", user])
        fresh.put("/usr/local/bin/open-tap", OPEN)
        yield fresh


@pytest.fixture
def host(machine: rig.Host) -> t.Iterator[rig.Host]:
    machine.run(["ip", "link", "add", "br0", "type", "bridge"])
    try:
        yield machine
    finally:
        machine.run(["sh", "-c", CLEAN])


def state(host: rig.Host) -> str:
    return host.run(["sh", "-c", STATE]).stdout


def sysfs(host: rig.Host, name: str, attribute: str) -> str:
    return host.run(["cat", f"/sys/class/net/{name}/{attribute}"]).stdout.strip()


def there(host: rig.Host, name: str) -> bool:
    return host.run(["test", "-e", f"/sys/class/net/{name}"], check=False).returncode == 0


def opened(host: rig.Host, user: str, name: str, flags: str = "0") -> str:
    """What the kernel says when a user opens a TAP device, "" if it lets him."""
    words = ["runuser", "-u", user, "--", "python3", "/usr/local/bin/open-tap", name, flags]
    return host.run(words, check=False).stderr.strip()


def hold(host: rig.Host, name: str, flags: str = "0") -> int:
    """A process that has a device open; its pid."""
    program = ["/usr/bin/python3", "/usr/local/bin/open-tap", name, flags, "hold"]
    host.run(["systemd-run", "--quiet", "--collect", "--unit=hold", *program])
    host.run(["sh", "-c", "until [ -e /run/held ]; do sleep 0.05; done"])
    return int(host.run(["systemctl", "show", "-p", "MainPID", "--value", "hold"]).stdout)


def reboot(host: rig.Host) -> None:
    """Reboot without what a reboot takes away: a host of the rig keeps its network namespace."""
    host.run(["sh", "-c", "for name in br0 alice0 alice1 alice2; do ip link delete $name; done; true"])
    host.reboot()


def call(host: rig.Host, *devices: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """A run that must succeed; a check before it must change nothing, and a second run neither."""
    before = state(host)
    predicted = modules.call(host, "tap_device", check_mode=True, devices=list(devices), **options)
    assert not predicted.get("failed"), predicted["msg"]
    assert state(host) == before
    done = modules.call(host, "tap_device", devices=list(devices), **options)
    assert not done.get("failed"), done["msg"]
    assert done["changed"] is predicted["changed"]
    after = state(host)
    again = modules.call(host, "tap_device", devices=list(devices), **options)
    assert (again["changed"], again["devices"]) == (False, done["devices"])
    assert state(host) == after
    return done


def refused(host: rig.Host, *devices: dict[str, t.Any], **options: t.Any) -> str:
    """The message of a run that must fail, and leave everything as it is."""
    before = state(host)
    failed = modules.call(host, "tap_device", devices=list(devices), **options)
    assert (failed.get("failed"), failed["changed"]) == (True, False)
    assert state(host) == before
    return str(failed["msg"])


def test_what_the_kernel_makes_of_it(host: rig.Host) -> None:
    alice = host.run(["id", "-u", "alice"]).stdout.strip()
    bob = host.run(["id", "-g", "bob"]).stdout.strip()
    done = call(
        host,
        {"name": "alice0", "owner": "alice", "multi_queue": True, "bridge": "br0"},
        {"name": "bob0", "group": "bob", "vnet_hdr": False},
    )
    # tap, multi_queue, persist, no_pi, vnet_hdr of include/uapi/linux/if_tun.h
    assert int(sysfs(host, "alice0", "tun_flags"), 16) == 0x2 | 0x100 | 0x800 | 0x1000 | 0x4000
    assert int(sysfs(host, "bob0", "tun_flags"), 16) == 0x2 | 0x800 | 0x1000
    assert (sysfs(host, "alice0", "owner"), sysfs(host, "alice0", "group")) == (alice, "-1")
    assert (sysfs(host, "bob0", "owner"), sysfs(host, "bob0", "group")) == ("-1", bob)
    shown = host.run(["ip", "-o", "link", "show", "dev", "alice0"]).stdout
    assert "master br0" in shown and ",UP" in shown
    assert "master" not in host.run(["ip", "-o", "link", "show", "dev", "bob0"]).stdout
    assert done["devices"][0] == {
        "name": "alice0",
        "exists": True,
        "owner": int(alice),
        "group": None,
        "multi_queue": True,
        "vnet_hdr": True,
        "bridge": "br0",
        "up": True,
        "held_by": [],
    }
    assert opened(host, "alice", "alice0", MULTI_QUEUE) == ""
    assert opened(host, "alice", "alice0") == "Invalid argument", "one queue of a device that has several"
    assert opened(host, "bob", "alice0", MULTI_QUEUE) == "Operation not permitted"
    assert opened(host, "bob", "bob0") == ""
    assert opened(host, "alice", "bob0") == "Operation not permitted"


def test_without_owner_and_group_the_kernel_lets_everybody_in(host: rig.Host) -> None:
    """Why the module wants one of the two."""
    host.run(["ip", "tuntap", "add", "dev", "open0", "mode", "tap"])
    assert opened(host, "alice", "open0") == opened(host, "bob", "open0") == ""
    assert "give owner or group" in refused(host, {"name": "alice0"})


def test_whoever_opens_it_sets_the_virtio_header(host: rig.Host) -> None:
    """Why a device that is there is not changed for it: a second run would take back what a guest did."""
    device = {"name": "alice0", "owner": "alice", "vnet_hdr": False}
    call(host, device)
    assert opened(host, "alice", "alice0", "0x4000") == ""
    assert int(sysfs(host, "alice0", "tun_flags"), 16) & 0x4000
    assert call(host, device)["changed"] is False


def test_a_device_of_others_is_left_alone(host: rig.Host) -> None:
    host.run(["ip", "tuntap", "add", "dev", "lab0", "mode", "tap", "user", "alice"])
    message = refused(host, {"name": "lab0", "owner": "alice"})
    assert message.startswith("lab0 exists and was not made by this module")
    assert "lab0 exists" in refused(host, {"name": "lab0", "state": "absent"})
    assert "br0 exists" in refused(host, {"name": "br0", "owner": "alice"})


def test_a_device_that_is_held_is_left_alone(host: rig.Host) -> None:
    device = {"name": "alice0", "owner": "alice", "multi_queue": True}
    call(host, device)
    pid = hold(host, "alice0", MULTI_QUEUE)
    assert call(host, device)["devices"][0]["held_by"] == [{"pid": pid, "comm": "python3"}]
    for change in ({"owner": "bob"}, {"multi_queue": False}, {"bridge": "br0"}, {"state": "absent"}):
        assert f"It is held by process {pid} (python3), so it stays as it is." in refused(host, {**device, **change})
    host.run(["systemctl", "stop", "hold"])
    done = call(host, {"name": "alice0", "owner": "bob", "bridge": "br0"})
    assert (done["changed"], done["devices"][0]["multi_queue"]) == (True, False)
    assert opened(host, "bob", "alice0") == ""
    assert opened(host, "alice", "alice0") == "Operation not permitted"


def test_what_is_there_is_plugged_in_without_being_made_anew(host: rig.Host) -> None:
    call(host, {"name": "alice0", "owner": "alice"})
    index = sysfs(host, "alice0", "ifindex")
    call(host, {"name": "alice0", "owner": "alice", "bridge": "br0"})
    host.run(["ip", "link", "set", "dev", "alice0", "down", "nomaster"])
    assert call(host, {"name": "alice0", "owner": "alice", "bridge": "br0"})["changed"] is True
    assert sysfs(host, "alice0", "ifindex") == index


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"name": "sixteen-letters0", "owner": "alice"}, "cannot be the name of a TAP device"),
        ({"name": "a b", "owner": "alice"}, "cannot be the name of a TAP device"),
        ({"name": "alice0", "owner": "mallory"}, "no user 'mallory'"),
        ({"name": "alice0", "group": "nobody-here"}, "no group 'nobody-here'"),
        ({"name": "alice0", "owner": "alice", "bridge": "br9"}, "no bridge br9"),
        ({"name": "alice0", "owner": "alice", "bridge": "lo"}, "no bridge lo"),
    ],
)
def test_refusals_leave_no_trace(host: rig.Host, device: dict[str, t.Any], message: str) -> None:
    assert message in refused(host, device)


def test_it_is_back_after_a_reboot_and_gone_for_good_when_it_is_absent(host: rig.Host) -> None:
    alice = host.run(["id", "-u", "alice"]).stdout.strip()
    devices: list[dict[str, t.Any]] = [
        {"name": "alice0", "owner": "alice", "multi_queue": True, "bridge": "br0"},
        {"name": "alice1", "owner": "alice"},
        {"name": "alice2", "owner": "alice"},
    ]
    call(host, *devices[:2])
    call(host, devices[2], persist=False)
    # The bridge comes late, as from NetworkManager.
    late = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 3; exec ip link add br0 type bridge'\n"
    host.put("/etc/systemd/system/late.service", f"[Unit]\nAfter=multi-user.target\n{late}".encode())
    host.put("/etc/systemd/system/late.timer", b"[Timer]\nOnActiveSec=1\n[Install]\nWantedBy=timers.target\n")
    host.run(["systemctl", "enable", "--quiet", "late.timer"])
    reboot(host)
    assert not there(host, "br0")
    wait = "until [ -e /sys/class/net/alice0/master ]; do sleep 0.2; done"
    host.run(["sh", "-c", wait], timeout=60)
    assert host.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""
    assert sysfs(host, "alice0", "owner") == sysfs(host, "alice1", "owner") == alice
    assert not there(host, "alice2")
    host.run(["systemctl", "disable", "--quiet", "late.timer"])
    assert call(host, *devices[:2])["changed"] is False
    gone = [{"name": device["name"], "state": "absent"} for device in devices]
    done = call(host, *gone)
    assert [device["exists"] for device in done["devices"]] == [False, False, False]
    assert host.run(["sh", "-c", "find /etc/systemd -name '*hypervisor-hardening*'"]).stdout == ""
    reboot(host)
    assert not there(host, "alice0") and not there(host, "alice1")


def test_a_unit_that_finds_its_name_taken_touches_nothing(host: rig.Host) -> None:
    call(host, {"name": "alice0", "owner": "alice"})
    host.run(["ip", "link", "delete", "alice0"])
    host.run(["ip", "tuntap", "add", "dev", "alice0", "mode", "tap", "user", "bob"])
    before = host.run(["ip", "-d", "-o", "link", "show", "dev", "alice0"]).stdout
    unit = "hypervisor-hardening-tap-alice0.service"
    assert host.run(["systemctl", "start", unit], check=False).returncode != 0
    assert host.run(["ip", "-d", "-o", "link", "show", "dev", "alice0"]).stdout == before
    host.run(["systemctl", "reset-failed", unit])
