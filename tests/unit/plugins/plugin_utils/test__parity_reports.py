# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison as lines and as a page: compact for many hosts, harmless with hostile names, nothing left out."""

from __future__ import annotations

import re
import typing as t

import pytest
from lxml import html

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _parity_html, _parity_terminal
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import (
    FailOnError,
    failures,
    parity,
    summary,
)
from ansible_collections.hypervisor.hardening.tests.unit.plugins.fleets import NOW, host

ROOT = {"uid": 0, "gid": 0, "source": "capabilities"}
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\n{{ 7 * 7 }}"


def fleet(number: int = 50) -> dict[str, t.Any]:
    hosts: dict[str, t.Any] = {f"kvm{one:02}": host(f"kvm{one:02}") for one in range(number)}
    hosts["odd"] = host("odd", capabilities__dac=ROOT)
    hosts["gone"] = "unreachable"
    return hosts


def tree_of(page: str) -> t.Any:
    return html.fromstring(page)


def master(hosts: dict[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    return parity(hosts, dict.fromkeys(hosts, "rack"), NOW, "0.1.0", **options)


def test_lines() -> None:
    lines = _parity_terminal.render(master(fleet()))
    text = "\n".join(lines)
    assert "Migration group rack: 52 hosts, 1 not known" in lines[0]
    assert "qemu-user: user and group of QEMU, by number: 1 of 51 differs (libvirt does not check" in text
    assert "    1 host      0:0: odd" in lines
    assert lines[-4:-1] == ["  A      ok     1     ?", "  B       1     -     ?", "  ?       ?     ?     ?"]
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100


def test_lines_of_ten_thousand_different_hosts_stay_few() -> None:
    hosts = {f"h{one}": host(f"h{one}", migration__values__memory_backing_dir=f"/{one}") for one in range(500)}
    assert len(_parity_terminal.render(master(hosts))) < 80
    assert len(_parity_html.render(master(hosts))) < 500_000


def test_a_single_host_and_none() -> None:
    assert _parity_terminal.render(master({})) == ["There is no host to compare."]
    assert "There is nothing to compare a single host with." in _parity_terminal.render(master({"a": host("a")}))
    assert "nothing to compare a single host with" in _parity_html.render(master({"a": host("a")}))


def test_groups_are_apart() -> None:
    hosts = {"a": host("a"), "b": host("b", capabilities__dac=ROOT), "c": host("c")}
    found = parity(hosts, {"a": "one", "b": "two", "c": "one"}, NOW, "0")
    assert [(group["name"], group["hosts"], group["findings"]) for group in found["groups"]] == [
        ("one", ["a", "c"], []),
        ("two", ["b"], []),
    ]


def test_hostile_names_are_harmless() -> None:
    hosts: dict[str, t.Any] = {name: host(name) for name in ("a", HOSTILE)}
    hosts[HOSTILE]["capabilities"]["dac"] = ROOT
    hosts[HOSTILE]["migration"]["values"]["memory_backing_dir"] = HOSTILE
    hosts["a"]["guests"][0]["name"] = HOSTILE
    hosts["gone"] = HOSTILE
    whole = master(hosts)
    text = "\n".join(_parity_terminal.render(whole))
    assert not set("\x1b\u202e") & set(text)
    page = _parity_html.render(whole)
    assert not set("\x1b\u202e") & set(page)
    tree = tree_of(page)
    assert tree.xpath("//script|//img|//iframe|//*[@onclick]") == []
    assert "<script>alert(1)</script>" in tree.text_content()
    assert all("\x1b" not in line for lines in failures(whole, ["critical"]).values() for line in lines)


def test_the_page_asks_for_nothing_and_is_for_keyboard_and_phone() -> None:
    page = _parity_html.render(master(fleet()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "http:" not in page and "https:" not in page
    assert 'name="viewport"' in page and 'content="light dark"' in page
    tree = tree_of(page)
    # A row and a column head for each cell, a place to scroll that a keyboard reaches, and links that lead somewhere.
    assert len(tree.xpath("//tbody//th[@scope='row']")) == 3 and len(tree.xpath("//thead//th[@scope='col']")) == 4
    assert tree.xpath("//div[@role='region']/@tabindex") == ["0"]
    targets = {link.lstrip("#") for link in tree.xpath("//a/@href")}
    assert targets and targets <= set(tree.xpath("//@id"))
    assert "fits" in page and "unknown" in page
    (finding,) = tree.xpath("//section[@id='finding-1-1']")
    assert "1 of 51 differs" in finding.text_content()


def test_failures_name_the_odd_host() -> None:
    found = failures(master(fleet()), ["critical"])
    assert list(found) == ["odd"]
    assert found["odd"][0].startswith("odd: qemu-user (critical): 0:0: The destination gives the guest's disks to 0:0")
    assert list(failures(master(fleet()), ["unknown"])) == ["gone"]
    assert failures(master(fleet()), ["medium"]) == failures(master(fleet()), []) == {}
    with pytest.raises(FailOnError, match="severe is none of critical, high"):
        failures(master(fleet()), ["severe"])


def test_the_summary_is_small() -> None:
    assert summary(master(fleet()))["groups"] == {
        "rack": {"hosts": 52, "unknown_hosts": 1, "findings": {"critical": 1}, "ids": ["qemu-user"]}
    }
