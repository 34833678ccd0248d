# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html
from markdown_it import MarkdownIt

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import visible
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_markdown import code, escaped, render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

# The dialects of trackers: CommonMark with tables, bare links and strikethrough; raw HTML let through.
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OURS = {
    "div", "h1", "h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code", "strong",
}  # fmt: skip


def page(markdown: str) -> t.Any:
    return html.fromstring(f"<div>{PARSER.render(markdown)}</div>")


def text(element: t.Any) -> str:
    return str(element.text_content())


@pytest.mark.parametrize(
    "master", [masters.small(), masters.compared(), masters.every_combination(), masters.empty(), masters.nasty()]
)
def test_there_is_no_markup_but_ours(master: masters.Json) -> None:
    elements = list(page(render(master)).iter())
    assert {element.tag for element in elements} <= OURS
    # The alignment of figures is all there is.
    assert {name for element in elements for name in element.attrib} <= {"style"}


@pytest.mark.parametrize("name", masters.NASTY_NAMES)
def test_a_hostile_host_breaks_no_table(name: str) -> None:
    other = masters.host("kvm2", [masters.finding("x", "pass")])
    master = masters.master([masters.host(name, [masters.finding("x", "fail", "guest", name)]), other])
    tree = page(render(master))
    (table,) = tree.iter("table")
    rows = [[text(cell) for cell in row] for row in table.iter("tr")]
    assert [row[1:] for row in rows] == [
        ["Score", "Fail", "Pending", "Unknown", "Waived", "Manual", "Pass", "N/A"],
        ["0", "1", "0", "0", "0", "0", "0", "0"],
        ["100", "0", "0", "0", "0", "0", "1", "0"],
        ["50", "1", "0", "0", "0", "0", "1", "0"],
    ]
    assert [text(heading) for heading in tree.iter("h2")] == ["Fails or is pending (1)"]


def test_the_sections_name_what_is_not_proven() -> None:
    tree = page(render(masters.compared()))
    assert [text(heading) for heading in tree.iter("h2")] == [
        "Not audited (1)",
        "Waivers that have expired, and waive nothing (1)",
        "Waivers that expire soon (1)",
        "Waivers without use (1)",
        "Fails or is pending (3)",
        "Unknown: not proven, either way (1)",
        "Manual: for a person to look at (1)",
        "Waived: not proven, and accepted (1)",
        f"Since the audit of {masters.EARLIER}",
    ]
    assert [text(heading) for heading in tree.iter("h3")] == [
        "critical: QEM-05 Seccomp sandbox is on (qemu-seccomp-on)",
        "high: DMN-01 No libvirt daemon listens on TCP (daemon-no-tcp)",
        "medium: CPU-02 CPU vulnerabilities mitigated (cpu-mitigated)",
        "medium: NET-03 Ports are isolated (switch-hardened)",
        "low: MEM-01 KSM is off (ksm-off)",
    ]


def test_a_failure_has_what_a_ticket_needs() -> None:
    master = masters.master([masters.host("kvm1", [masters.finding("x", "pending", "guest", "web")])])
    (entries,) = page(render(master)).xpath("div/ul|ul")
    lines = [" ".join(text(entry).split()) for entry in entries]
    assert lines == [
        "pending (guest restart): kvm1 (guest web) observed 0, expected 1 evidence: /etc/libvirt/qemu.conf",
        "Why: Why x matters.",
        "Fix: Harden the host (hypervisor_qemu_settings). Advice for x. Effective after a restart of the guest.",
        "Danger: What the fix of x can break.",
        "Sources: src/qemu/qemu.conf.in",
    ]


def test_what_changed_is_told_with_both_states() -> None:
    lines = [" ".join(text(entry).split()) for entry in page(render(masters.compared())).iter("li")]
    assert lines[-7:] == [
        "worse: daemon-no-tcp, pass to fail: kvm1",
        "better: mac-enforcing, fail to pass: kvm1",
        "new: ksm-off, absent to fail: kvm1",
        "gone: qemu-seccomp-on, fail to absent: kvm1 (guest old)",
        "other: cpu-mitigated, fail to unknown: kvm1",
        "hosts audited now only: kvm2",
        "hosts audited then only: kvm3",
    ]


def test_a_selection_is_told() -> None:
    selection = {"only": ["qemu"], "skip": [], "disabled": ["ksm-off"]}
    assert "Selection: only `qemu`; disabled `ksm-off`." in render(masters.small() | {"selection": selection})


@settings(deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("`| \\*_[]()<>&!#@:/-=+~\n\t'\"a1."), st.characters()), max_size=60))
def test_any_text_in_a_code_span_is_one_code_span(name: str) -> None:
    tree = page(f"| a | b |\n| --- | --- |\n| {code(name)} | end |\n\n- x: {code(name)}, {code(name)}\n")
    row = tree.findall(".//td")
    assert [text(cell) for cell in row][1:] == ["end"]
    if name:
        seen = visible(name).replace("|", r"\x7c")
        assert [text(element) for element in tree.iter("code")] == [seen] * 3
    assert {element.tag for element in tree.iter()} <= OURS


@settings(deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("`| \\*_[]()<>&!#@:/-=+~a1."), st.characters()), max_size=60))
def test_escaped_text_is_shown_as_it_is(words: str) -> None:
    words = re.sub(r"\s+", " ", visible(words))
    (paragraph,) = page(f"Why: {escaped(words)} end").iter("p")
    assert text(paragraph) == f"Why: {words} end"
    assert len(paragraph) == 0


@pytest.mark.parametrize(
    "words",
    [
        "<b>x</b>", "<!-- x -->", "&#60;b&#62; &amp;", "[a](b) [c]", "![a](b)", "*a* _a_ __a__ `a`", "~~a~~", "a_b_c",
        "<https://example.org>", "a | b", "\\\\ \\* \\<",
    ],
)  # fmt: skip
def test_markup_in_escaped_text_is_text(words: str) -> None:
    (paragraph,) = page(f"Why: {escaped(words)} end").iter("p")
    assert (text(paragraph), len(paragraph)) == (f"Why: {words} end", 0)


@pytest.mark.parametrize(("name", "shown"), [("", "(empty)"), ("  ", r"`\x20\x20`"), ("`", "`` ` ``")])
def test_what_cannot_be_seen_is_said(name: str, shown: str) -> None:
    assert code(name) == shown


def test_very_long_names_are_cut_and_measured() -> None:
    assert code("x" * 10_240) == f"`{'x' * 300}... (10240 characters)`"
