# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One private subnet per scope, which the outer machine and each host have one leg in.

The hosts' legs (host0 inside) are macvlan devices on one end of a veth pair; the other end is the machine's. So
hosts reach each other without passing the machine's packet filter, which container engines set to drop what is bridged.
A virtual machine's leg is a macvtap device, which is the same with a file for QEMU instead of an address.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import pathlib
import stat
from typing import Any

from ._base import RigError, run

# RFC 2544 set this range aside for benchmarks of network devices, so hardly anybody routes it.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
#: How every link of the rig on the outer machine is called.
LINK_PREFIX = "hvr"
_FIRST_SLOT, _LAST_SLOT = 10, 250


def ensure(directory: pathlib.Path, scope: str) -> dict[str, Any]:
    """Make the network of a scope unless it is there.

    :raises RigError: no subnet is free.
    """
    path = directory / "net.json"
    if path.exists():
        net: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if _exists(net["prefix"]) and _exists(_parent(net)):
            return net
    digest = hashlib.sha256(scope.encode()).hexdigest()
    net = {"prefix": f"{LINK_PREFIX}{digest[:5]}"}
    _delete_all(net["prefix"])
    subnet = _free_subnet(int(digest[:4], 16))
    net["subnet"] = str(subnet)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(net), encoding="utf-8")
    os.replace(temporary, path)
    run(["ip", "link", "add", net["prefix"], "type", "veth", "peer", "name", _parent(net)])
    run(["ip", "address", "add", f"{subnet[1]}/24", "dev", net["prefix"]])
    for link in (net["prefix"], _parent(net)):
        run(["ip", "link", "set", link, "up"])
    return net


def _parent(net: dict[str, Any]) -> str:
    return f"{net['prefix']}-up"


def _exists(link: str) -> bool:
    return pathlib.Path(f"/sys/class/net/{link}").exists()


def _free_subnet(first: int) -> ipaddress.IPv4Network:
    taken = []
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout):
        if route["dst"] != "default":
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
    subnets: list[ipaddress.IPv4Network] = list(_RANGE.subnets(new_prefix=24))
    for step in range(len(subnets)):
        subnet = subnets[(first + step) % len(subnets)]
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise RigError(f"every subnet of {_RANGE} is routed somewhere on this machine: the hosts need one of 256 addresses")


def free_slot(taken: set[int]) -> int:
    """The lowest number free for a host.

    :raises RigError: there are too many hosts.
    """
    for slot in range(_FIRST_SLOT, _LAST_SLOT + 1):
        if slot not in taken:
            return slot
    raise RigError("too many hosts are up: take some down")


def address(net: dict[str, Any], slot: int) -> str:
    """The IPv4 address of a slot."""
    return str(ipaddress.ip_network(net["subnet"])[slot])


def is_apart(pid: int) -> bool:
    """Whether a process has a network namespace of its own by now."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def attach(directory: pathlib.Path, slot: int, pid: int, *, for_qemu: bool = False) -> None:
    """Put a leg, with the slot's address, into the network namespace of a process; it goes with the namespace.

    :param for_qemu: the address is not the namespace's but that of the virtual machine in it.
    """
    net = json.loads((directory / "net.json").read_text(encoding="utf-8"))
    inside = ["nsenter", "-t", str(pid), "-n", "ip"]
    ip = ipaddress.IPv4Address(address(net, slot))
    # An address keeps its MAC: neighbours would look for the next host in the slot at the last one for half a minute.
    mac = ":".join(f"{byte:02x}" for byte in (2, 0, *ip.packed))
    kind = ["type", "macvtap" if for_qemu else "macvlan", "mode", "bridge"]
    # The kernel takes no name that this machine has itself, whatever namespace the link is for (rtnl_newlink).
    name = f"{_parent(net)}{slot}"
    run(["ip", "link", "add", "link", _parent(net), "name", name, "address", mac, "netns", str(pid), *kind])
    run([*inside, "link", "set", name, "name", "host0"])
    if not for_qemu:
        run([*inside, "address", "add", f"{ip}/24", "dev", "host0"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "link", "set", "host0", "up"])


def open_tap() -> tuple[int, str]:
    """Open the macvtap device of this network namespace; to be called in a mount namespace that goes with it.

    :returns: the file, for a child to inherit, and the MAC address.
    """
    # What /sys shows of the network is that of the namespace it was mounted in.
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    link = pathlib.Path("/sys/class/net/host0")
    major, minor = next(link.glob("macvtap/*/dev")).read_text(encoding="ascii").split(":")
    node = "/run/host0"
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(int(major), int(minor)))
    return os.open(node, os.O_RDWR), (link / "address").read_text(encoding="ascii").strip()


def remove(directory: pathlib.Path) -> None:
    """Remove the network of a scope, if it is there."""
    path = directory / "net.json"
    if path.exists():
        _delete_all(json.loads(path.read_text(encoding="utf-8"))["prefix"])


def _delete_all(prefix: str) -> None:
    for link in pathlib.Path("/sys/class/net").glob(f"{prefix}*"):
        # A veth takes its other end along.
        if _exists(link.name):
            run(["ip", "link", "delete", link.name], check=False)
