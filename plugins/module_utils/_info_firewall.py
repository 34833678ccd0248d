# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the host's packet filter: what it does with a connection to the ports of virtualization."""

from __future__ import annotations

import json
import typing as t

from . import _iptables, _nftables
from ._host import Host, HostError
from ._infocontext import Context
from ._packetfilter import Table, passes_on, verdict
from ._reader import Reader

COMMAND_SECONDS = 5.0
# linux/netfilter.h; the families whose chains packets of IP for the host pass.
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
# What iptables keeps in nftables (iptables/nft.c).
_OF_IPTABLES = frozenset(
    (family, name) for family in ("ip", "ip6") for name in ("filter", "nat", "mangle", "raw", "security")
)
_LEGACY = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``firewall``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    tables, tools = _tables(reader)
    ipv6 = bool(reader.text("/proc/net/if_inet6"))
    chains = [] if tables is None else [(table, chain) for table in tables for chain in table.base("input")]
    return {
        "tools": tools,
        "input": None
        if tables is None
        else [
            {"name": f"{table.name} {chain.name}", "policy": chain.policy, "rules": len(chain.rules)}
            for table, chain in chains
        ],
        "ports": [
            {
                "name": name,
                "port": port,
                "ipv4": None if tables is None else verdict(tables, 4, port),
                "ipv6": "disabled" if not ipv6 else None if tables is None else verdict(tables, 6, port),
            }
            for name, port in _ports(context)
        ],
        "forwarding": {
            name: None if tables is None else "open" if passes_on(tables, family) else "closed"
            for name, family in (("ipv4", 4), ("ipv6", 6))
        },
        "unread": reader.unread,
    }


def _ports(context: Context) -> list[tuple[str, int]]:
    """The ports that libvirt's daemons and QEMU listen on (libvirtd.conf, qemu.conf; of a range the first)."""
    qemu = context.configuration("qemu.conf").settings

    def number(key: str, default: int) -> int:
        value = qemu.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    return [
        ("libvirt, TCP", 16509),
        ("libvirt, TLS", 16514),
        ("consoles over WebSocket", number("remote_websocket_port_min", 5700)),
        ("consoles", number("remote_display_port_min", 5900)),
        ("NBD", 10809),
        ("migration", number("migration_port_min", 49152)),
    ]


def _tables(reader: Reader) -> tuple[list[Table] | None, list[str]]:
    """All tables; None where they cannot be had (noted), and the commands that told."""
    try:
        if _unused(reader):
            tables, tools = [], ["/sys/module"]
        elif reader.host.has_command("nft"):
            tables, tools = _nft(reader), ["nft"]
        elif reader.host.has_command("iptables-nft-save"):
            _only_of_iptables(reader.host, _OF_IPTABLES)
            tables, tools = _iptables_save(reader, "nft-"), ["iptables-nft-save"]
        elif reader.host.has_command("iptables-save"):
            # one that does not know nftables, or does not say so by its name
            _only_of_iptables(reader.host, frozenset())
            tables, tools = _iptables_save(reader, ""), ["iptables-save"]
        else:
            reader.note("nft", "Neither nft nor iptables-save is installed: the rules cannot be listed.")
            return None, []
        # the older filter of the kernel, beside nftables; only where it has been used, for asking would load it
        if any("filter" in (reader.text(path) or "").split() for path in _LEGACY.values()):
            tables += _iptables_save(reader, "legacy-")
            tools.append("iptables-legacy-save")
    except (HostError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = isinstance(error, (HostError, OSError))
        words = str(error) if told else f"not understood: {type(error).__name__}: {error}"
        reader.note("packet filter", words)
        return None, []
    return tables, tools


def _unused(reader: Reader) -> bool:
    """Whether nftables is a module that nobody has loaded; a list of its rules, which are none, would load it."""
    if reader.host.exists("/sys/module/nf_tables"):
        return False
    release = reader.text("/proc/sys/kernel/osrelease")
    return "/nf_tables.ko" in (reader.text(f"/lib/modules/{release}/modules.dep") or "")


def _only_of_iptables(host: Host, known: t.Container[tuple[str, str]]) -> None:
    """Raise HostError where there are tables that a tool of iptables does not show."""
    tables = ((_FAMILIES[family], name) for family, name in host.nftables() if family in _FAMILIES)
    others = [f"{family} {name}" for family, name in tables if (family, name) not in known]
    if others:
        raise HostError(
            f"The kernel has tables of nftables that iptables does not show ({', '.join(others)}), and nft is not "
            "installed, which would."
        )


def _nft(reader: Reader) -> list[Table]:
    done = reader.host.run(["nft", "--json", "list", "ruleset"], timeout=COMMAND_SECONDS)
    if done.rc != 0:
        raise HostError(f"nft list ruleset failed: {done.err.strip()[:200]}")
    return _nftables.parse(json.loads(done.out or '{"nftables": []}'))


def _iptables_save(reader: Reader, variant: str) -> list[Table]:
    tables = []
    for family, command in ((4, f"iptables-{variant}save"), (6, f"ip6tables-{variant}save")):
        done = reader.host.run([command], timeout=COMMAND_SECONDS)
        if done.rc != 0:
            raise HostError(f"{command} failed: {done.err.strip()[:200]}")
        if "incompatible" in done.out:
            raise HostError(f"{command} cannot show all tables, and nft, which could, is not installed.")
        tables += _iptables.parse(done.out, family)
    return tables
