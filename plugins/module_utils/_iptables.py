# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of iptables, from what ``iptables-save`` and ``ip6tables-save`` print (iptables-save(8))."""

from __future__ import annotations

import re
import shlex

from ._packetfilter import Chain, Condition, Rule, Table, depends

_ACTIONS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
# Targets that let a packet go on.
_SILENT = {"LOG", "NFLOG", "ULOG", "AUDIT", "MARK", "CONNMARK", "SECMARK", "CONNSECMARK", "TRACE", "CT", "CHECKSUM"}
# Matches that only say which match module the next word belongs to, or nothing.
_IGNORED = {"-m": 1, "--match": 1, "--comment": 1, "--reject-with": 1, "--log-prefix": 1, "--log-level": 1}


def parse(text: str, family: int) -> list[Table]:
    """The tables that decide, by their chains INPUT and FORWARD.

    :param family: 4 or 6.
    """
    tables: list[Table] = []
    for line in text.splitlines():
        if line.startswith("*"):
            tables.append(Table(line[1:].strip(), frozenset({family})))
        elif line.startswith(":") and tables:
            name, policy = line[1:].split()[:2]
            hook = {"INPUT": "input", "FORWARD": "forward"}.get(name, "")
            tables[-1].chains[name] = Chain(name, hook, "drop" if policy == "DROP" else "accept")
        elif line.startswith("-A ") and tables:
            words = shlex.split(line)
            chain = tables[-1].chains.get(words[1])
            if chain is not None:
                chain.rules.append(_rule(words[2:]))
    return tables


def _rule(words: list[str]) -> Rule:
    conditions: list[Condition] = []
    action, target = "", ""
    position = 0
    negated = False
    while position < len(words):
        word = words[position]
        value = words[position + 1] if position + 1 < len(words) else ""
        if word == "!":
            negated = True
            position += 1
            continue
        if word in ("-j", "-g"):
            action, target = _target(word, value)
        elif word in ("--dport", "--dports", "--destination-port", "--destination-ports"):
            conditions.append(_ports(value, negated))
        elif word in ("-p", "--protocol"):
            conditions.append(_fixed((value in ("tcp", "6", "all")) != negated))
        elif word in ("--ctstate", "--state"):
            conditions.append(_fixed(("NEW" in value.split(",")) != negated))
        elif word in ("-i", "--in-interface"):
            conditions.append(_fixed(negated) if value == "lo" else depends)
        elif word.startswith("-") and word not in _IGNORED:
            conditions.append(depends)
        position += 1 if not word.startswith("-") else 2 if not value.startswith("-") and value != "!" else 1
        negated = False
    return Rule(tuple(conditions), action, target)


def _target(option: str, name: str) -> tuple[str, str]:
    if name in _ACTIONS:
        return _ACTIONS[name], ""
    if name in _SILENT:
        return "", ""
    return ("goto" if option == "-g" else "jump"), name


def _ports(value: str, negated: bool) -> Condition:
    ranges = [(int(low), int(high or low)) for low, high in re.findall(r"(\d+)(?::(\d+))?", value)]
    return lambda port: any(low <= port <= high for low, high in ranges) != negated


def _fixed(answer: bool) -> Condition:
    return lambda port: answer
