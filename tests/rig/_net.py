# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One private bridge and subnet per scope; each host has one leg in it, called host0 inside."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import pathlib
from typing import Any

from ._base import RigError, run

# RFC 2544 set this range aside for benchmarks of network devices, so hardly anybody routes it.
_RANGE = ipaddress.ip_network("198.18.0.0/15")
#: How every link of the rig on the outer machine is called.
LINK_PREFIX = "hvr"
_FIRST_SLOT, _LAST_SLOT = 10, 250


def ensure(directory: pathlib.Path, scope: str) -> dict[str, Any]:
    """Make the bridge of a scope unless it is there.

    :raises RigError: no subnet is free.
    """
    path = directory / "net.json"
    if path.exists():
        net: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if pathlib.Path(f"/sys/class/net/{net['bridge']}").exists():
            return net
    digest = hashlib.sha256(scope.encode()).hexdigest()
    prefix = f"{LINK_PREFIX}{digest[:5]}"
    subnet = _free_subnet(int(digest[:4], 16))
    net = {"prefix": prefix, "bridge": f"{prefix}-br", "subnet": str(subnet)}
    directory.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(net), encoding="utf-8")
    os.replace(temporary, path)
    run(["ip", "link", "add", net["bridge"], "type", "bridge"])
    run(["ip", "address", "add", f"{subnet[1]}/24", "dev", net["bridge"]])
    run(["ip", "link", "set", net["bridge"], "up"])
    return net


def _free_subnet(first: int) -> ipaddress.IPv4Network:
    taken = []
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]).stdout):
        if route["dst"] != "default":
            taken.append(ipaddress.ip_network(route["dst"], strict=False))
    subnets = list(_RANGE.subnets(new_prefix=24))
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


def attach(directory: pathlib.Path, slot: int, pid: int) -> None:
    """Put a leg of the bridge, with the slot's address, into the network namespace of a process."""
    net = json.loads((directory / "net.json").read_text(encoding="utf-8"))
    outside = f"{net['prefix']}-{slot}"
    run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "host0", "netns", str(pid)])
    run(["ip", "link", "set", outside, "master", net["bridge"], "up"])
    inside = ["nsenter", "-t", str(pid), "-n", "ip"]
    run([*inside, "address", "add", f"{address(net, slot)}/24", "dev", "host0"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "link", "set", "host0", "up"])


def detach(directory: pathlib.Path, slot: int) -> None:
    """Remove the leg of a slot, if it is there."""
    path = directory / "net.json"
    if path.exists():
        _delete(f"{json.loads(path.read_text(encoding='utf-8'))['prefix']}-{slot}")


def remove(directory: pathlib.Path) -> None:
    """Remove the bridge of a scope, if it is there."""
    path = directory / "net.json"
    if path.exists():
        _delete(json.loads(path.read_text(encoding="utf-8"))["bridge"])


def _delete(link: str) -> None:
    if pathlib.Path(f"/sys/class/net/{link}").exists():
        # It also goes by itself with the last process of its namespace, perhaps just now.
        run(["ip", "link", "delete", link], check=False)
