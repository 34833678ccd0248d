# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the packet filter."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_firewall
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

NFT = "nft --json list ruleset"
CLOSED = """{"nftables": [{"table": {"family": "inet", "name": "f"}},
{"chain": {"family": "inet", "table": "f", "name": "i", "hook": "input", "policy": "drop"}}]}"""
V6 = "fe800000000000000000000000000001 02 40 20 80 eth0\n"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def command(host: TreeHost, line: str, answer: str | int) -> None:
    host.put(f"/usr/sbin/{line.split()[0]}", mode=0o755)
    host.answers[line] = answer


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_firewall.facts(Context(host))


def verdicts(host: TreeHost) -> set[tuple[str | None, str | None]]:
    return {(port["ipv4"], port["ipv6"]) for port in facts(host)["ports"]}


def test_no_tool(host: TreeHost) -> None:
    found = facts(host)
    assert (found["tools"], found["input"]) == ([], None)
    assert verdicts(host) == {(None, "disabled")}
    assert "installed" in found["unread"][0]["reason"]


def test_nft(host: TreeHost) -> None:
    command(host, NFT, CLOSED)
    host.put("/proc/net/if_inet6", V6)
    found = facts(host)
    assert (found["tools"], found["input"]) == (["nft"], [{"name": "inet f i", "policy": "drop", "rules": 0}])
    assert verdicts(host) == {("closed", "closed")}


@pytest.mark.parametrize("answer", [1, "not JSON", "[]", '{"nftables": [{"table": {}}]}'])
def test_an_nft_that_gives_no_answer(host: TreeHost, answer: str | int) -> None:
    command(host, NFT, answer)
    found = facts(host)
    assert found["input"] is None
    assert found["unread"][0]["path"] == "packet filter"


def test_nftables_that_nobody_has_loaded_is_not_loaded_by_the_question(host: TreeHost) -> None:
    command(host, NFT, 1)
    host.put("/lib/modules/6.12.48+deb13-amd64/modules.dep", "kernel/net/netfilter/nf_tables.ko.xz: kernel/x.ko.xz\n")
    found = facts(host)
    assert (found["tools"], found["input"], found["unread"]) == (["/sys/module"], [], [])
    host.directory("/sys/module/nf_tables")
    assert facts(host)["input"] is None


def test_iptables_of_the_older_kind_counts_beside_nft(host: TreeHost) -> None:
    command(host, NFT, '{"nftables": []}')
    command(host, "iptables-legacy-save", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    command(host, "ip6tables-legacy-save", "")
    host.put("/proc/net/if_inet6", V6)
    assert verdicts(host) == {("open", "open")}
    host.put("/proc/net/ip_tables_names", "filter\n")
    assert verdicts(host) == {("closed", "open")}


def test_iptables_save_alone(host: TreeHost) -> None:
    command(host, "iptables-save", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n")
    command(host, "ip6tables-save", "")
    assert facts(host)["tools"] == ["iptables-save"]
    assert verdicts(host) == {("closed", "disabled")}
    command(host, "iptables-save", "# Table `x' is incompatible, use 'nft' tool.\n")
    assert facts(host)["input"] is None


@pytest.mark.parametrize(
    ("prefix", "tables", "known"),
    [
        ("iptables-nft", [(2, "filter"), (10, "nat"), (7, "filter")], True),
        ("iptables-nft", [(1, "filter")], False),
        ("iptables-nft", [(2, "filter"), (2, "firewalld")], False),
        # legacy rules, and beside them some of nftables
        ("iptables", [(2, "filter")], False),
        ("iptables", [], True),
    ],
)
def test_tables_that_iptables_does_not_show(
    host: TreeHost, prefix: str, tables: list[tuple[int, str]], known: bool
) -> None:
    host.tables = tables
    command(host, f"{prefix}-save", "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
    command(host, f"{prefix.replace('ip', 'ip6', 1)}-save", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    found = facts(host)
    assert verdicts(host) == {("open" if known else None, "disabled")}
    assert found["forwarding"]["ipv4"] == ("open" if known else None)
    assert ("nft" in "".join(entry["reason"] for entry in found["unread"])) is not known


def test_a_kernel_that_does_not_tell_its_tables(host: TreeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[tuple[int, str]]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(host, "nftables", refuse)
    command(host, "iptables-nft-save", "")
    found = facts(host)
    assert (found["input"], found["unread"][0]["path"]) == (None, "packet filter")


def test_ports_of_qemu_conf(host: TreeHost) -> None:
    host.put("/etc/libvirt/qemu.conf", "migration_port_min = 50000\nremote_display_port_min = 6000\n")
    assert [port["port"] for port in facts(host)["ports"]] == [16509, 16514, 5700, 6000, 10809, 50000]
