# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on networks that guests share with the host: libvirt's, the host's bridges, virtual functions of its cards."""

from __future__ import annotations

import json
import typing as t

from . import _netdev, _statefile
from ._host import HardeningError, Host, HostError
from ._infocontext import Context
from ._reader import Reader

_CONFIGURED = "/etc/libvirt/qemu/networks"
# src/network/bridge_driver.c: a state file of each network that runs.
_RUNNING = "/run/libvirt/network"
_GUEST_PORTS = ("tap", "macvtap")
_SECONDS = 5.0
_MOST = 100
# Documentation/networking/ip-sysctl.rst: what gives the host a voice on a link, by the value that takes it away.
_QUIET4 = {"accept_redirects": "0", "send_redirects": "0", "proxy_arp": "0"}
_QUIET6 = {"accept_ra": "0", "accept_redirects": "0"}


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``networks``; its keys are documented in hypervisor_info.

    :raises HardeningError: this process sees another network namespace than the host's.
    """
    reader = Reader(context.host)
    networks = _networks(context, reader)
    names = _netdev.names(context.host)
    devices = [device for device in (_netdev.device(context.host, name) for name in names) if device]
    return {
        "networks": networks[:_MOST],
        "bridges": _bridges(reader, devices, networks)[:_MOST],
        "virtual_functions": _virtual_functions(reader, names),
        "unread": reader.unread,
    }


def _networks(context: Context, reader: Reader) -> list[dict[str, t.Any]]:
    """libvirt's networks (formatnetwork.rst); of one that runs the state counts."""
    running = dict(_statefile.elements(reader, _RUNNING, "network"))
    configured = dict(_statefile.elements(reader, _CONFIGURED, "network"))
    autostart = set(reader.list(f"{_CONFIGURED}/autostart"))
    guests = _guests(context, reader)
    found = []
    for name, element in sorted({**configured, **running}.items()):
        forward, bridge = element.find("forward"), element.find("bridge")
        found.append(
            {
                "name": name,
                "mode": "isolated" if forward is None else forward.get("mode", "nat"),
                "bridge": "" if bridge is None else bridge.get("name", ""),
                "active": name in running,
                "autostart": f"{name}.xml" in autostart,
                "guests": None if guests is None else sorted(guests.get(name, ()))[:_MOST],
            }
        )
    return found


def _guests(context: Context, reader: Reader) -> dict[str, set[str]] | None:
    """Which guests have an interface on a network of libvirt's; None where a definition cannot be read (noted)."""
    try:
        read, unread = context.definitions
    except HardeningError as error:
        reader.note("/etc/libvirt/qemu", str(error))
        return None
    for entry in unread:
        reader.note(entry.path, entry.reason)
    found: dict[str, set[str]] = {}
    for one in read:
        for nic in one.definition.interfaces:
            if nic.type == "network":
                found.setdefault(nic.source, set()).add(one.definition.name)
    return None if unread else found


def _bridges(reader: Reader, devices: list[_netdev.Device], networks: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    bridges = [device for device in devices if device.kind == "bridge"]
    of_libvirt = {network["bridge"]: network["name"] for network in networks if network["bridge"]}
    addresses = _addresses(reader) if bridges else {}
    routes = _default_routes(reader.host)
    return [
        {
            "name": device.name,
            "guest_ports": [port.name for port in devices if port.bridge == device.name and port.kind in _GUEST_PORTS],
            "network": of_libvirt.get(device.name, ""),
            "addresses": None if addresses is None else addresses.get(device.name, []),
            "default_route": device.name in routes,
            "speaks": _speaks(reader, device.name),
        }
        for device in bridges
    ]


def _addresses(reader: Reader) -> dict[str, list[str]] | None:
    """The addresses of each device, less those of the link alone; None where ip(8) does not tell (noted)."""
    shown = _ip(reader, "address", "show")
    if shown is None:
        return None
    return {
        link.get("ifname", ""): [
            f"{entry['local']}/{entry['prefixlen']}"
            for entry in link.get("addr_info", [])
            if entry.get("scope") == "global" and "local" in entry
        ]
        for link in shown
    }


def _ip(reader: Reader, *words: str) -> list[dict[str, t.Any]] | None:
    try:
        done = reader.host.run(["ip", "-json", *words], timeout=_SECONDS)
        if done.rc != 0:
            raise HostError(done.err.strip()[:200])
        shown = json.loads(done.out or "[]")
        return [link for link in shown if isinstance(link, dict)]
    except (HostError, ValueError, TypeError) as error:
        reader.note(f"ip {' '.join(words)}", str(error))
        return None


def _default_routes(host: Host) -> set[str]:
    """The devices that a default route leaves by: proc_net(5), and net/ipv6/route.c for the form of ipv6_route."""
    found = set()
    for line in (host.text_optional("/proc/net/route") or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            found.add(fields[0])
    for line in (host.text_optional("/proc/net/ipv6_route") or "").splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            found.add(fields[9])
    return found


def _speaks(reader: Reader, name: str) -> list[str]:
    """The settings by which the host answers on a bridge, or hears routers there, as sysctl(8) has them."""
    loud = []
    ipv4, ipv6 = (f"/proc/sys/net/{family}/conf/{name}" for family in ("ipv4", "ipv6"))
    for directory, wanted in ((ipv4, _QUIET4), (ipv6, _QUIET6)):
        if directory == ipv6 and reader.text(f"{ipv6}/disable_ipv6") in ("1", None):
            continue
        for key, quiet in wanted.items():
            value = reader.text(f"{directory}/{key}")
            if value is not None and value != quiet:
                loud.append(f"{directory[len('/proc/sys/') :].replace('/', '.')}.{key} = {value}")
    return loud


def _virtual_functions(reader: Reader, names: list[str]) -> list[dict[str, t.Any]] | None:
    """Virtual functions of SR-IOV as their cards treat them (ip-link(8)); None where one cannot be asked (noted)."""
    found = []
    for name in names:
        if reader.text(f"{_netdev.SYSFS}/{name}/device/sriov_numvfs") in ("0", "", None):
            continue
        shown = _ip(reader, "link", "show", "dev", name)
        if shown is None:
            return None
        for entry in (one for link in shown for one in link.get("vfinfo_list", [])):
            found.append(
                {
                    "name": f"{name} vf {entry.get('vf')}",
                    "device": name,
                    "spoofchk": entry.get("spoofchk"),
                    "trust": entry.get("trust"),
                    "vlan": next((vlan.get("vlan") for vlan in entry.get("vlan_list", [])), entry.get("vlan")) or 0,
                }
            )
    return found[:_MOST]
