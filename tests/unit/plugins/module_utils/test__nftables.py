# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of nftables as JSON, and what they do with a port."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _nftables
from ansible_collections.hypervisor.hardening.plugins.module_utils._packetfilter import verdict

# Statements as libnftables-json(5) has them.
DROP: t.Any = {"drop": None}
ACCEPT: t.Any = {"accept": None}


def match(left: t.Any, right: t.Any, operation: str = "==") -> t.Any:
    return {"match": {"op": operation, "left": left, "right": right}}


def dport(right: t.Any, operation: str = "==", protocol: str = "tcp") -> t.Any:
    return match({"payload": {"protocol": protocol, "field": "dport"}}, right, operation)


def meta(key: str, right: t.Any, operation: str = "==") -> t.Any:
    return match({"meta": {"key": key}}, right, operation)


def ruleset(*rules: list[t.Any], policy: str = "accept", family: str = "inet", more: t.Sequence[t.Any] = ()) -> t.Any:
    at = {"family": family, "table": "filter"}
    return {
        "nftables": [
            {"metainfo": {"version": "1.1.3", "json_schema_version": 1}},
            {"table": {"family": family, "name": "filter", "handle": 1}},
            {"chain": {**at, "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}},
            {"chain": {**at, "name": "other", "handle": 2}},
            *more,
            *({"rule": {**at, "chain": "input", "handle": 9, "expr": rule}} for rule in rules),
        ]
    }


OTHER = {"rule": {"family": "inet", "table": "filter", "chain": "other", "handle": 8, "expr": [dport(16509), DROP]}}
SET = {"set": {"family": "inet", "table": "filter", "name": "ports", "type": "inet_service", "elem": [22, 16509]}}
STATES = {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}}}


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"nftables": []}, "open"),
        (ruleset(policy="drop"), "closed"),
        (ruleset([DROP]), "closed"),
        (ruleset([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]), "closed"),
        (ruleset([dport(16509), DROP]), "closed"),
        (ruleset([dport({"range": [16000, 17000]}), {"counter": {"packets": 0, "bytes": 0}}, DROP]), "closed"),
        (ruleset([dport({"set": [22, {"range": [16509, 16514]}]}), DROP]), "closed"),
        (ruleset([dport("@ports"), DROP], more=[SET]), "closed"),
        (ruleset([dport("@unknown"), DROP]), "restricted"),
        (ruleset([dport(16509, protocol="udp"), DROP]), "open"),
        (ruleset([dport(16509, "!="), DROP]), "open"),
        (ruleset([dport(22), ACCEPT], policy="drop"), "closed"),
        (ruleset([dport(16509), ACCEPT], policy="drop"), "open"),
        (
            ruleset([meta("l4proto", {"set": ["tcp", "udp"]}), dport(16509, protocol="th"), ACCEPT], policy="drop"),
            "open",
        ),
        (ruleset([meta("l4proto", "icmp"), ACCEPT], policy="drop"), "closed"),
        (ruleset([meta("iifname", "lo"), ACCEPT], policy="drop"), "closed"),
        (ruleset([meta("iifname", "lo", "!="), DROP]), "closed"),
        (ruleset([meta("iifname", "eth0"), ACCEPT], policy="drop"), "restricted"),
        (
            ruleset(
                [match({"ct": {"key": "state"}}, {"set": ["established", "related"]}, "in"), ACCEPT], policy="drop"
            ),
            "closed",
        ),
        (ruleset([match({"ct": {"key": "state"}}, "new"), DROP]), "closed"),
        (ruleset([STATES], policy="drop"), "closed"),
        (
            ruleset(
                [
                    {
                        "vmap": {
                            "key": {"payload": {"protocol": "tcp", "field": "dport"}},
                            "data": {"set": [[16509, DROP]]},
                        }
                    }
                ]
            ),
            "closed",
        ),
        (ruleset([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@map"}}]), "restricted"),
        (
            ruleset(
                [match({"payload": {"protocol": "ip", "field": "saddr"}}, "192.0.2.1"), dport(16509), ACCEPT],
                policy="drop",
            ),
            "restricted",
        ),
        (ruleset([{"jump": {"target": "other"}}], more=[OTHER]), "closed"),
        (ruleset([{"goto": {"target": "other"}}], policy="drop", more=[OTHER]), "closed"),
        (ruleset([dport(22), {"jump": {"target": "other"}}], more=[OTHER]), "open"),
        (ruleset([{"xt": {"type": "match", "name": "comment"}}, DROP]), "closed"),
        (ruleset([{"xt": {"type": "match", "name": "multiport"}}, DROP]), "restricted"),
        (ruleset([{"limit": {"rate": 1, "per": "second"}}, {"log": {"prefix": "x"}}], policy="drop"), "closed"),
        (ruleset(policy="drop", family="ip"), "closed"),
        (ruleset(policy="drop", family="ip6"), "open"),
        (ruleset(policy="drop", family="bridge"), "open"),
    ],
)
def test_verdict(document: t.Any, wanted: str) -> None:
    assert verdict(_nftables.parse(document), 4, 16509) == wanted


def test_every_chain_has_to_accept() -> None:
    second = ruleset([dport(16509), ACCEPT], policy="drop")
    both = {"nftables": ruleset(policy="accept", family="ip")["nftables"] + second["nftables"]}
    assert verdict(_nftables.parse(both), 4, 16509) == "open"
    assert verdict(_nftables.parse(both), 4, 5900) == "closed"


@pytest.mark.parametrize("document", [None, [], {"other": []}])
def test_what_is_not_nfts(document: t.Any) -> None:
    with pytest.raises(ValueError, match="no list of objects"):
        _nftables.parse(document)


# As nft 1.0.6 prints what was made of rules like those of its manual (handles left out).
PRINTED = """\
{"nftables": [
    {"table": {"family": "inet", "name": "filter"}},
    {"set": {"family": "inet", "name": "mgmt", "table": "filter", "type": "ipv4_addr", "flags": ["interval"],
    "elem": [{"prefix": {"addr": "192.0.2.0", "len": 24}}]}},
    {"chain": {"family": "inet", "table": "filter", "name": "other"}},
    {"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0,
    "policy": "drop"}},
    {"rule": {"family": "inet", "table": "filter", "chain": "other", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 10809}}, {"drop": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input",
    "expr": [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["established",
    {"accept": null}], ["related", {"accept": null}]]}}}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"meta": {"key": "l4proto"}}, "right": {"set": ["icmp", "ipv6-icmp"]}}}, {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [22, {"range": [5900, 5910]}]}}},
    {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "comment": "tls",
    "expr": [{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@mgmt"}},
    {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 16514}},
    {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}}, {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"jump": {"target": "other"}}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 5700}}, {"limit": {"rate": 5, "burst": 5,
    "per": "second"}}, {"log": {"prefix": "x"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}},
    {"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [49152, 49215]}}},
    {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "192.0.2.7"}},
    {"accept": null}]}},
    {"table": {"family": "ip", "name": "x"}},
    {"chain": {"family": "ip", "table": "x", "name": "i", "type": "filter", "hook": "input", "prio": 10,
    "policy": "accept"}},
    {"rule": {"family": "ip", "table": "x", "chain": "i", "expr": [{"match": {"op": "==",
    "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 5900}}, {"reject": {"type": "tcp reset"}}]}}
]}"""


def test_what_nft_prints() -> None:
    tables = _nftables.parse(json.loads(PRINTED))
    found = {
        port: (verdict(tables, 4, port), verdict(tables, 6, port)) for port in (16509, 16514, 5700, 5900, 10809, 49152)
    }
    assert found == {
        16509: ("closed", "closed"),  # the policy
        16514: ("restricted", "restricted"),  # from one network
        5700: ("restricted", "restricted"),  # up to a rate
        5900: ("closed", "open"),  # a second table, of IPv4 alone, refuses it
        10809: ("closed", "closed"),  # in a chain that is jumped to
        49152: ("restricted", "restricted"),  # from one address
    }
