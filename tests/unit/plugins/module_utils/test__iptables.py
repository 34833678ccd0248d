# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of iptables-save, and what they do with a port."""

from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _iptables
from ansible_collections.hypervisor.hardening.plugins.module_utils._packetfilter import passes_on, verdict


def saved(*rules: str, policy: str = "ACCEPT", chains: str = "") -> str:
    return f"*filter\n:INPUT {policy} [0:0]\n:FORWARD DROP [0:0]\n{chains}" + "\n".join(rules) + "\nCOMMIT\n"


REJECT = "-A INPUT -j REJECT --reject-with icmp-host-prohibited"


# What iptables(8) and iptables-extensions(8) say of these words.
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "open"),
        (saved(), "open"),
        (saved(policy="DROP"), "closed"),
        (saved(REJECT), "closed"),
        (saved("-A INPUT -p tcp -m tcp --dport 16509 -j DROP"), "closed"),
        (saved("-A INPUT -p tcp -m tcp --dport 16500:16510 -j DROP"), "closed"),
        (saved("-A INPUT -p tcp -m multiport --dports 22,16509 -j DROP"), "closed"),
        (saved("-A INPUT -p udp -m udp --dport 16509 -j DROP"), "open"),
        (saved("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", policy="DROP"), "closed"),
        (saved("-A INPUT -p tcp -m tcp --dport 16509 -j ACCEPT", policy="DROP"), "open"),
        (saved("-A INPUT -p tcp -m tcp ! --dport 16509 -j DROP"), "open"),
        (saved("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", policy="DROP"), "closed"),
        (saved("-A INPUT -m state --state NEW -j DROP"), "closed"),
        (saved("-A INPUT -i lo -j ACCEPT", policy="DROP"), "closed"),
        (saved("-A INPUT ! -i lo -j DROP"), "closed"),
        (saved("-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 16509 -j ACCEPT", policy="DROP"), "restricted"),
        (saved("-A INPUT -i eth0 -j DROP"), "restricted"),
        (saved('-A INPUT -m comment --comment "all -j ACCEPT" -j DROP'), "closed"),
        (saved("-A INPUT -j LOG --log-prefix x", "-A INPUT -m limit --limit 1/sec -j LOG", policy="DROP"), "closed"),
        (saved("-A INPUT -j LIBVIRT_INP", chains=":LIBVIRT_INP - [0:0]\n"), "open"),
        (saved("-A INPUT -j X", "-A X -p tcp -m tcp --dport 16509 -j DROP", chains=":X - [0:0]\n"), "closed"),
        (saved("-A INPUT -j X", "-A X -j RETURN", "-A X -j DROP", chains=":X - [0:0]\n"), "open"),
        (saved("-A INPUT -g X", "-A INPUT -j DROP", "-A X -p udp -j DROP", chains=":X - [0:0]\n"), "open"),
        (saved("-A INPUT -j X", "-A X -j X", chains=":X - [0:0]\n"), "restricted"),
        (saved("-A FORWARD -j DROP"), "open"),
        (saved("-A INPUT -m set --match-set bad src -j DROP"), "restricted"),
    ],
)
def test_verdict(text: str, wanted: str) -> None:
    assert verdict(_iptables.parse(text, 4), 4, 16509) == wanted


def test_other_family() -> None:
    assert verdict(_iptables.parse(saved(policy="DROP"), 6), 4, 16509) == "open"


def test_tables_before_the_filter() -> None:
    text = "*mangle\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 5900 -j DROP\nCOMMIT\n" + saved()
    assert verdict(_iptables.parse(text, 4), 4, 5900) == "closed"


def forwarding(*rules: str, policy: str = "ACCEPT", chains: str = "") -> str:
    return f"*filter\n:INPUT DROP [0:0]\n:FORWARD {policy} [0:0]\n{chains}" + "\n".join(rules) + "\nCOMMIT\n"


LIBVIRT = (
    ":LIBVIRT_FWI - [0:0]\n",
    "-A FORWARD -j LIBVIRT_FWI",
    "-A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp",
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", True),
        (forwarding(), True),
        (forwarding(policy="DROP"), False),
        # what libvirt does for its own bridge says nothing of other traffic
        (forwarding(*LIBVIRT[1:], chains=LIBVIRT[0]), True),
        (forwarding(*LIBVIRT[1:], chains=LIBVIRT[0], policy="DROP"), False),
        (forwarding("-A FORWARD -i br0 -j ACCEPT", "-A FORWARD -j REJECT"), False),
        (forwarding("-A FORWARD -j ACCEPT", policy="DROP"), True),
        (forwarding("-A FORWARD -j X", "-A X -j DROP", chains=":X - [0:0]\n"), False),
        (forwarding("-A FORWARD -j X", "-A X -j RETURN", "-A X -j DROP", chains=":X - [0:0]\n"), True),
        (forwarding("-A FORWARD -g X", "-A FORWARD -j DROP", chains=":X - [0:0]\n"), True),
        (forwarding("-A FORWARD -j X", "-A X -j X", chains=":X - [0:0]\n", policy="DROP"), False),
    ],
)
def test_what_is_passed_on_that_no_rule_names(text: str, wanted: bool) -> None:
    assert passes_on(_iptables.parse(text, 4), 4) is wanted
    assert passes_on(_iptables.parse(text, 6), 4) is True
