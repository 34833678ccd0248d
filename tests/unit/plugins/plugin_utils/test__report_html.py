# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page as a parser of HTML sees it. How it looks and works in a browser is tested in tests/browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import typing as t
from collections import Counter
from html.parser import HTMLParser

import lxml.html
import pytest

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _parity_html
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _report_html as report
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _report_html_data as data
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import ReportError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

ELEMENTS = {
    *("html", "head", "meta", "title", "link", "style", "body", "a", "header", "main", "section", "footer", "script"),
    *("h1", "h2", "h3", "h4", "p", "ul", "li", "dl", "dt", "dd", "b", "small", "span", "bdi", "code", "kbd", "details"),
    *("summary", "svg", "rect", "table", "thead", "tbody", "tr", "th", "td", "button", "form", "div", "label", "input"),
    *("datalist", "select", "option", "fieldset", "legend", "output", "noscript", "dialog"),
}
MASTERS = ("empty", "small", "compared", "every_combination", "nasty", "migrating")


class Markup(HTMLParser):
    """Every start tag with its attributes, as one who does not trust the page reads it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def tree(page: str) -> lxml.html.HtmlElement:
    return lxml.html.document_fromstring(page.encode("utf-8"), parser=lxml.html.HTMLParser(encoding="utf-8"))


def text(element: t.Any) -> str:
    return " ".join(element.text_content().split())


def embedded(page: str) -> t.Any:
    return json.loads(tree(page).get_element_by_id("data").text)


@pytest.mark.parametrize("name", MASTERS)
def test_the_page_is_whole(name: str) -> None:
    page = report.render(getattr(masters, name)())
    document = tree(page)
    assert page.startswith("<!DOCTYPE html>")
    assert document.get("lang") == "en"
    assert len(document.xpath("//h1")) == 1
    identifiers = document.xpath("//@id")
    assert len(identifiers) == len(set(identifiers))
    assert {str(one) for one in document.xpath("//label/@for")} <= set(identifiers)
    page.encode("utf-8")  # what is no character at all would not be written


@pytest.mark.parametrize("name", MASTERS)
def test_only_elements_of_the_page_are_in_it(name: str) -> None:
    markup = Markup(report.render(getattr(masters, name)()))
    assert {tag for tag, _attributes in markup.tags} <= ELEMENTS
    names = {attribute for _tag, attributes in markup.tags for attribute in attributes}
    assert not {attribute for attribute in names if attribute.startswith("on") or attribute in ("style", "src")}


@pytest.mark.parametrize("name", MASTERS)
def test_nothing_is_asked_for_from_elsewhere(name: str) -> None:
    markup = Markup(report.render(getattr(masters, name)()))
    for tag, attributes in markup.tags:
        target = attributes.get("href") or "#"
        assert target.startswith("#") or (tag, target) == ("link", "data:,")
    style = report._part("page.css")
    assert "url(" not in style and "@import" not in style


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    document = tree(report.render(masters.small()))
    (policy,) = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    parts = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    hashes = {
        name: base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        for name, element in (
            ("style-src", document.xpath("//style")[0]),
            ("script-src", document.xpath("//script[not(@type)]")[0]),
        )
    }
    assert parts == {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashes['style-src']}'",
        "script-src": f"'sha256-{hashes['script-src']}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    # The policy counts for what stands behind it.
    assert document.xpath("//meta[@http-equiv]/preceding-sibling::*/@charset") == ["utf-8"]


def test_data_ends_no_element_early() -> None:
    page = report.render(masters.nasty())
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&") & set(found)
    assert found.isascii()
    names = {target[1] for host in json.loads(found)["hosts"] for target in host["objects"]}
    assert names >= {json.loads(json.dumps(name)) for name in masters.NASTY_NAMES}


def test_no_character_is_invisible() -> None:
    markup = Markup(report.render(masters.nasty()))
    shown = "".join(markup.text)
    hidden = {f"U+{ord(one):04X}" for one in shown if not one.isprintable() and one not in "\n"}
    assert hidden == set()
    assert "U+202E" in shown and "U+D800" in shown and "U+001B" in shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain", "<bdi>plain</bdi>"),
        ("<b>&\"'", "<bdi>&lt;b&gt;&amp;&#34;&#39;</bdi>"),
        ("a\u202eb", '<bdi>a<span class="code-point">U+202E</span>b</bdi>'),
        ("a\nb", '<bdi>a<span class="code-point">U+000A</span>b</bdi>'),
        (["a", "b"], "<bdi>a, b</bdi>"),
        (7, "<bdi>7</bdi>"),
    ],
)
def test_text_from_outside(said: t.Any, shown: str) -> None:
    assert report.visible(said) == shown


def test_texts_of_several_lines() -> None:
    assert report.visible("a\n\tb\r", lines=True) == '<bdi>a\n\tb<span class="code-point">U+000D</span></bdi>'


def test_long_text_scrolls() -> None:
    assert report.visible("x" * 401).startswith('<bdi class="long">')


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("2026-11-21T06:50:00Z", "2026-11-21 06:50 UTC"),
        ("2026-11-21T06:50:00.123456+00:00", "2026-11-21 06:50 UTC"),
        ("2026-11-21T06:50:00+02:00", "2026-11-21T06:50:00+02:00"),
        ("yesterday\u202e", "yesterday[U+202E]"),
    ],
)
def test_moments(said: str, shown: str) -> None:
    assert report.moment(said) == shown


def test_what_is_no_master() -> None:
    with pytest.raises(ReportError):
        report.render({"hosts": []})


@pytest.mark.parametrize(("said", "shown"), [(0, "0"), (1234567, "1,234,567"), (1594.96, "1,595"), (12.3456, "12.3")])
def test_numbers(said: float, shown: str) -> None:
    assert report.number(said) == shown


def test_the_totals_come_first() -> None:
    master = masters.small()
    document = tree(report.render(master))
    tiles = {tile.get("class"): int(text(tile.find("b"))) for tile in document.xpath("//ul[@class='tiles']/li")}
    assert tiles == master["counts"]
    (score,) = document.xpath("//div[contains(@class, 'score')]")
    for wanted in ("50 of 100", "32 of 60 points", "Capped", "70"):
        assert wanted in text(score)
    assert text(document.xpath("//p[contains(@class, 'formula')]")[0]) == f"Score: {master['score']['formula']}"
    sections = [text(heading) for heading in document.xpath("//main//h2")]
    assert sections == ["Score", "Findings", "To look at first", "The fleet", "Findings"]


def test_what_did_not_run_and_expired_waivers() -> None:
    (section,) = tree(report.render(masters.small())).xpath("//section[h2[@id='first']]")
    summaries = [text(summary) for summary in section.xpath("details/summary")]
    assert summaries[0] == "1 host not audited: unreachable: connection timed out"
    assert "expired" in summaries[1]
    assert [bool(one.get("open") is not None) for one in section.xpath("details")] == [True, True, False, False]
    for wanted in ("Old backup client.", "2026-11-01", "without use because no host of this run is covered"):
        assert wanted in text(section)


def test_nothing_ran() -> None:
    (score,) = tree(report.render(masters.empty())).xpath("//div[contains(@class, 'score')]")
    assert "Nothing was counted." in text(score)


def test_the_fleet() -> None:
    table = tree(report.render(masters.small())).get_element_by_id("matrix")
    names = [text(head) for head in table.xpath(".//thead//th")]
    assert names == ["Host", "Score", "States", "daemon", "qemu", "cpu", "mac", "memory", "network", "secrets"]
    rows = {
        text(row[0]): [text(cell) for cell in row[1:] if cell.get("class") != "stack"]
        for row in table.xpath(".//tbody/tr")
    }
    assert list(rows) == ["kvm3", "kvm1", "kvm2"]  # what did not run, then the worst
    assert rows["kvm3"] == ["\N{EN DASH}", "not audited: unreachable: connection timed out"]
    assert rows["kvm1"] == ["15.1", "✕ 1", "✕ 1", "? 1", "✓ 1", "⊘ 1", "✎ 1", "\N{EN DASH} 1"]
    assert rows["kvm2"] == ["100", *["✓ 1"] * 7]
    (qemu,) = table.xpath(".//tbody/tr[2]/td[@data-category='qemu']")
    assert qemu.get("aria-label") == "qemu: 1 fail, 1 pending; one that fails is critical"
    assert qemu.get("class") == "cell fail critical"


def test_before_and_after() -> None:
    document = tree(report.render(masters.compared()))
    rows = [[text(cell) for cell in row] for row in document.xpath("//div[contains(@class, 'picture')]//tbody/tr")]
    # kvm1 alone was audited by both. Of its failures those of daemon and ksm are new; mac, cpu and the guest that is
    # gone failed before: 2 - 2 + 3.
    assert rows == [
        ["✕ Fail", "3", "2", "-1"],
        ["↻ Pending", "1", "1", "="],
        ["? Unknown", "0", "1", "+1"],
        ["⊘ Waived", "1", "1", "="],
        ["✎ Manual", "1", "1", "="],
        ["✓ Pass", "1", "1", "="],
    ]
    bars = document.xpath("//div[contains(@class, 'picture')]//*[local-name()='svg'][@role='img']/@aria-label")
    assert bars == [
        "Earlier: 3 fail, 1 pending, 1 waived, 1 manual, 1 pass",
        "Now: 2 fail, 1 pending, 1 unknown, 1 waived, 1 manual, 1 pass",
    ]


def test_changes() -> None:
    (section,) = tree(report.render(masters.compared())).xpath("//section[h2[@id='changes']]")
    told = [text(one) for one in section.xpath("details")]
    assert told == [
        "▼ 1 worse No libvirt daemon listens on TCP kvm1 ✓ Pass → ✕ Fail",
        "▲ 1 better A MAC is enforcing kvm1 ✕ Fail → ✓ Pass",
        "+ 1 new KSM is off kvm1 absent → ✕ Fail",
        "\N{MINUS SIGN} 1 gone Seccomp sandbox is on kvm1 guest old ✕ Fail → absent",
        "~ 1 other CPU vulnerabilities mitigated kvm1 ✕ Fail → ? Unknown",
    ]


def test_without_scripts() -> None:
    (part,) = tree(report.render(masters.small())).xpath("//noscript")
    told = text(part)
    for wanted in ("QEM-05", "Seccomp sandbox is on", "1 fail, 1 pending, on 1 host", "Why qemu-seccomp-on matters."):
        assert wanted in told
    for wanted in ("guest web", "observed 0.0.0.0:16509, expected nothing", "/etc/libvirt/qemu.conf", "SEC-17"):
        assert wanted in told
    assert "A MAC is enforcing" not in told  # it passes


def test_without_scripts_and_with_many_findings() -> None:
    (part,) = tree(report.render(masters.fleet(10))).xpath("//noscript")
    assert "in the JSON and CSV reports" in text(part)
    assert len(part.xpath(".//li")) == 150  # a rule each


def test_the_data_is_the_master() -> None:
    master = masters.every_combination()
    known = embedded(report.render(master))
    strings, states = known["strings"], [state for state, _sign, _label in known["states"]]
    found: Counter[tuple[str, ...]] = Counter()
    for host in known["hosts"]:
        numbers = iter(host["findings"])
        for shape, members in zip(numbers, numbers, strict=True):
            number, state, pending, observed, expected, reason, checks, waiver = known["shapes"][shape]
            for one in host["sets"][members]:
                said = (strings[text] for text in (pending, observed, expected, reason))
                found[
                    host["name"], known["rules"][number]["id"], states[state], *host["objects"][one], *said,
                    str(len(checks)), dict(waiver).get("ticket", ""),
                ] += 1  # fmt: skip
    wanted = Counter(
        (
            host["name"], entry["rule"], entry["state"], entry["object"]["type"], entry["object"]["name"],
            entry["pending"] or "", entry["observed"], entry["expected"], entry["reason"], str(len(entry["checks"])),
            (entry["waiver"] or {}).get("ticket", ""),
        )
        for host in master["hosts"] for entry in host["findings"]
    )  # fmt: skip
    assert found == wanted


def test_evidence_in_words() -> None:
    check = masters.check(
        observed=["a", "b"], expected={"one_of": ["c", 1]}, evidence={"source": "ps", "excerpt": {"pid": 7}}
    )
    master = masters.master([masters.host("kvm1", [masters.finding("r", "fail", checks=[check])])])
    known = embedded(report.render(master))
    ((told,),) = (shape[6] for shape in known["shapes"])
    assert [known["strings"][number] for number in told] == [
        "configured", "fail", "a, b", "one of c, 1", "ps", '{\n "pid": 7\n}',
    ]  # fmt: skip


def test_alike_is_told_once() -> None:
    small, large = (len(report.render(masters.fleet(hosts)).encode()) for hosts in (10, 30))
    # A host of 910 findings, 20 guests and 12 categories: what a finding alone would take of JSON is over 300 kB.
    assert (large - small) / 20 < 6_000


def test_whose_interface() -> None:
    target = {"type": "interface", "name": "vnet0", "guest": "web"}
    master = masters.master([masters.host("kvm1", [masters.finding("r", "fail", object=target)])])
    page = report.render(master)
    assert [target for host in embedded(page)["hosts"] for target in host["objects"]] == [["interface", "vnet0", "web"]]
    assert "interface vnet0 of guest web" in text(tree(page).xpath("//noscript")[0])


def test_bars_are_full() -> None:
    parts = data.stacked({"pass": 2, "fail": 1, "waived": 0})
    assert [(state, count) for state, count, _left, _width in parts] == [("fail", 1), ("pass", 2)]
    assert parts[0][2] == 0
    assert parts[1][2] == pytest.approx(333.3, abs=0.1)
    assert sum(width for *_rest, width in parts) == pytest.approx(1000, abs=0.2)
    assert data.stacked({}) == []


def test_categories_of_operators_come_last() -> None:
    rules = {name: masters.rule(name, category=name) for name in ("zebra", "trap", "apple", "daemon")}
    assert data.categories(masters.master(rules=rules)) == ["daemon", "trap", "apple", "zebra"]


def test_the_matrix_of_migration_is_that_of_its_own_page() -> None:
    master = masters.migrating()
    page, own = tree(report.render(master)), tree(_parity_html.render(master["migration"]))
    of_audit, of_own = (one.xpath("//table[starts-with(../@aria-labelledby, 'matrix-')]//td") for one in (page, own))
    assert [text(cell) for cell in of_audit] == [text(cell) for cell in of_own]
    assert "qemu-user" in {text(cell) for cell in of_audit}
    # Each cell that breaks leads to its finding, and no id is there twice.
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.xpath("//td/a/@href")} <= set(ids)
    assert not tree(report.render(masters.small())).xpath("//section[@class='migration']")
