# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of nftables, from what ``nft --json list ruleset`` prints (libnftables-json(5))."""

from __future__ import annotations

import typing as t

from ._packetfilter import Chain, Condition, Rule, Table, depends

_FAMILIES = {"ip": frozenset({4}), "ip6": frozenset({6}), "inet": frozenset({4, 6})}
_VERDICTS = ("accept", "drop", "return", "jump", "goto")
# Statements that neither match nor decide.
_SILENT = {"counter", "log", "comment", "mangle", "ct helper", "notrack", "last", "meter", "quota object"}


def parse(document: t.Any) -> list[Table]:
    """The tables that packets of IP pass, with their chains.

    :raises ValueError: not nft's JSON.
    """
    if not isinstance(document, dict) or not isinstance(document.get("nftables"), list):
        raise ValueError("nft printed no list of objects")
    tables: dict[tuple[str, str], Table] = {}
    sets: dict[tuple[str, str, str], list[t.Any]] = {}
    rules = []
    for entry in document["nftables"]:
        ((kind, value),) = entry.items()
        key = (value.get("family", ""), value.get("table", value.get("name", "")))
        if kind == "table" and value["family"] in _FAMILIES:
            tables[key] = Table(f"{value['family']} {value['name']}", _FAMILIES[value["family"]])
        elif kind == "chain" and key in tables:
            chain = Chain(value["name"], value.get("hook", ""), value.get("policy", "accept"))
            tables[key].chains[value["name"]] = chain
        elif kind == "set":
            sets[(*key, value["name"])] = value.get("elem", [])
        elif kind == "rule" and key in tables:
            rules.append((key, value))
    for key, value in rules:
        chain_of = tables[key].chains.get(value["chain"])
        if chain_of is not None:
            own = {name: elements for (*of, name), elements in sets.items() if tuple(of) == key}
            chain_of.rules.extend(_rules(value.get("expr", []), own))
    return list(tables.values())


def _rules(statements: list[dict[str, t.Any]], sets: t.Mapping[str, list[t.Any]]) -> t.Iterator[Rule]:
    """A rule of nft; one with a verdict map becomes several of ours."""
    conditions: list[Condition] = []
    for statement in statements:
        ((kind, value),) = statement.items()
        if kind in _VERDICTS:
            yield Rule(tuple(conditions), kind, value["target"] if isinstance(value, dict) else "")
        elif kind == "reject":
            yield Rule(tuple(conditions), "drop")
        elif kind == "vmap":
            for rule in _map(value, sets):
                yield Rule((*conditions, *rule.conditions), rule.action, rule.target)
        elif kind == "match":
            conditions.append(_condition(value["op"], value["left"], value["right"], sets))
        elif kind not in _SILENT and not (kind == "xt" and value.get("name") == "comment"):
            conditions.append(depends)


def _map(value: dict[str, t.Any], sets: t.Mapping[str, list[t.Any]]) -> t.Iterator[Rule]:
    data = value.get("data")
    pairs = data.get("set", []) if isinstance(data, dict) else []
    if not pairs:  # a named map: what it does is not in the ruleset's rules
        yield Rule((depends,), "drop")
        yield Rule((depends,), "accept")
    for key, action in pairs:
        condition = _condition("==", value["key"], key, sets)
        for rule in _rules([action], sets):
            yield Rule((condition, *rule.conditions), rule.action, rule.target)


def _condition(operation: str, left: t.Any, right: t.Any, sets: t.Mapping[str, list[t.Any]]) -> Condition:
    values = _values(right, sets)
    subject = _subject(left)
    if subject is None or values is None or operation not in ("==", "!=", "in"):
        return depends
    negated = operation == "!="
    if subject == "port":
        return lambda port: _among(port, values) != negated
    holds = subject in values
    if subject == "lo":
        # a connection from elsewhere comes in by another interface, and which one is not known
        others = [value for value in values if value != "lo"]
        return depends if others else (lambda port: negated)
    return lambda port: holds != negated


def _subject(left: t.Any) -> str | None:
    """What of a new TCP connection a match looks at: "port", or the very value that it has."""
    if not isinstance(left, dict):
        return None
    ((kind, value),) = left.items()
    if kind == "payload" and value.get("protocol") in ("tcp", "th") and value.get("field") == "dport":
        return "port"
    if kind == "payload" and value.get("protocol") in ("udp", "sctp", "icmp", "icmpv6", "dccp"):
        return "another protocol"
    if kind == "payload" and value.get("field") == "protocol":
        return "tcp"
    if kind == "meta" and value.get("key") == "l4proto":
        return "tcp"
    if kind == "meta" and value.get("key") in ("iifname", "iif"):
        return "lo"
    if kind == "ct" and value.get("key") == "state":
        return "new"
    return None


def _values(right: t.Any, sets: t.Mapping[str, list[t.Any]]) -> list[t.Any] | None:
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if isinstance(right, str) and right.startswith("@"):
        if right[1:] not in sets:
            return None
        right = sets[right[1:]]
    values = right if isinstance(right, list) else [right]
    plain = [value["elem"]["val"] if isinstance(value, dict) and "elem" in value else value for value in values]
    return [6 if value == "tcp" else value for value in plain] + (["tcp"] if 6 in plain or "tcp" in plain else [])


def _among(port: int, values: list[t.Any]) -> bool:
    for value in values:
        if value == port:
            return True
        if isinstance(value, dict) and "range" in value:
            low, high = value["range"]
            if isinstance(low, int) and isinstance(high, int) and low <= port <= high:
                return True
    return False
