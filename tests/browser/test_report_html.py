# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of an audit in a real browser: by mouse, by keyboard alone, on a phone, in the dark, on paper."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from browser.chromium import Heard, launched, written
from playwright.sync_api import Browser, Page, expect

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_html import render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

Open = Callable[..., Page]
PHONE = {"width": 360, "height": 740}

# Milliseconds; a busy machine takes its time.
expect.set_options(timeout=20_000)

# Each text that is seen, with the contrast it has to what is behind it (WCAG 2.2, 1.4.3, relative luminance).
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] === 255) return colour;
      if (colour[3] !== 0) throw new Error("half transparent: " + one.className);
    }
    throw new Error("nothing behind " + element.className);
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, style, title")) continue;
    const [one, other] = [rgba(getComputedStyle(element).color), behind(element)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push([contrast, element.className || element.tagName, texts.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="session")
def chromium() -> t.Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def open_page(chromium: Browser, heard: Heard, tmp_path: Path) -> t.Iterator[Open]:
    """Open a master's page. Whatever the test does with it, the page has asked for itself alone, in silence."""
    contexts = []

    def open_page(master: t.Any, fragment: str = "", **options: t.Any) -> Page:
        address = written(render(master), tmp_path / "report.html")
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        heard.listen(page)
        page.goto(address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert {request.split("#")[0] for request in heard.requests} <= {(tmp_path / "report.html").as_uri()}
    assert heard.complaints == []


def fragment(page: Page) -> str:
    return str(page.evaluate("decodeURIComponent(location.hash)"))


def titles(page: Page) -> list[str]:
    """The groups of findings: code of the rule, or name of the host."""
    return page.locator("#list .group > h3").locator(".code, .by-host .title bdi").all_inner_texts()


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.innerText || document.activeElement.id")).replace("\n", " ")


def open_everything(page: Page) -> None:
    for selector in (".group > h3 .line[aria-expanded=false]", ".group .more", ".entry > .line[aria-expanded=false]"):
        while page.locator(selector).count():
            page.locator(selector).evaluate_all("all => all.forEach((one) => one.click())")
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")


def test_at_first(open_page: Open) -> None:
    page = open_page(masters.small())
    expect(page.locator("#result")).to_have_text("6 findings of 5 rules")
    # By state, then severity; what passes and what does not apply is not there.
    assert titles(page) == ["QEM-05", "DMN-01", "CPU-02", "MEM-01", "NET-03"]
    assert fragment(page) == ""
    expect(page.locator(".detail")).to_have_count(0)


def test_all_of_a_finding(open_page: Open) -> None:
    page = open_page(masters.small(), "#text=ksm-off")
    page.locator(".entry > .line").click()
    told = " ".join(page.locator(".group").inner_text().split())
    for wanted in (
        "low MEM-01 KSM is off", "⊘ Waived", "kvm1", "Observed 0", "Expected 1", "configured ✕ Fail 0, expected: 1",
        "/etc/libvirt/qemu.conf", "seccomp_sandbox = 0", "reason The vendor's appliance needs it.",
        "owner platform team", "expires 2027-01-31", "ticket SEC-17", "otherwise fail", "Why Why ksm-off matters.",
        "Fix Harden the host (hypervisor_qemu_settings).", "Effective after a restart of the guest.",
        "What the fix of ksm-off can break.", "Sources src/qemu/qemu.conf.in", "BSI SYS.1.5 SYS.1.5.A26",
        "ksm-off · level baseline · memory", "Debian GNU/Linux 13 (trixie)", "6.12.48+deb13-amd64",
    ):  # fmt: skip
        assert wanted in told


def test_filter_by_severity_and_state(open_page: Open) -> None:
    page = open_page(masters.every_combination(), "#by=rule")
    expect(page.locator("#result")).to_have_text("50 findings of 5 rules")
    page.get_by_label("high").check()
    expect(page.locator("#result")).to_have_text("10 findings of 1 rule")
    for state in ("Fail", "Unknown", "Waived", "Manual"):
        page.locator("#filter").get_by_label(state).uncheck()
    expect(page.locator("#result")).to_have_text("2 findings of 1 rule")
    page.locator("#filter").get_by_label("Not applicable").check()
    expect(page.locator("#result")).to_have_text("4 findings of 1 rule")
    assert fragment(page) == "#by=rule&state=pending,not_applicable&severity=high"


def test_filter_by_text_category_and_host(open_page: Open) -> None:
    page = open_page(masters.small())
    page.locator("#text").fill("seccomp WEB")
    expect(page.locator("#result")).to_have_text("1 finding of 1 rule")
    page.locator("#text").fill("0.0.0.0:16509")
    expect(page.locator("#list .code")).to_have_text(["DMN-01"])
    page.locator("#text").fill("")
    page.locator("#category").select_option("memory")
    expect(page.locator("#list .code")).to_have_text(["MEM-01"])
    page.locator("#category").select_option("")
    page.locator("#host").fill("kvm2")
    expect(page.locator("#result")).to_have_text("No finding is in this selection.")
    page.locator("#host").fill("kvm")  # a part of each name
    expect(page.locator("#result")).to_have_text("6 findings of 5 rules")


def test_a_whole_name_of_a_host_is_no_part_of_another(open_page: Open) -> None:
    hosts = [masters.host(name, [masters.finding("r", "fail", name=name)]) for name in ("kvm1", "kvm10", "kvm11")]
    page = open_page(masters.master(hosts), "#host=kvm1&by=host")
    expect(page.locator("#result")).to_have_text("1 finding of 1 host")
    page.locator("#host").fill("kvm")
    expect(page.locator("#result")).to_have_text("3 findings of 3 hosts")


def test_the_fragment_is_the_filter(open_page: Open) -> None:
    wanted = "#text=seccomp&host=kvm1&category=qemu&by=host&state=fail,pass&severity=critical"
    page = open_page(masters.small(), wanted)
    assert page.locator("#text").input_value() == "seccomp"
    assert page.locator("#host").input_value() == "kvm1"
    assert page.locator("#category").input_value() == "qemu"
    assert page.locator("#by").input_value() == "host"
    assert page.locator("input:checked").evaluate_all("all => all.map((one) => one.value)") == [
        "fail",
        "pass",
        "critical",
    ]
    expect(page.locator("#result")).to_have_text("1 finding of 1 host")
    page.reload()
    assert fragment(page) == wanted
    page.locator("#reset").click()
    assert fragment(page) == ""
    page.go_back()
    assert fragment(page) == wanted
    expect(page.locator("#result")).to_have_text("1 finding of 1 host")


@pytest.mark.parametrize(
    "fragment", ["#nonsense", "#by=__proto__&state=toString&severity=", "#text=%F0&host=%00", "#=&&=="]
)
def test_nonsense_in_the_fragment(open_page: Open, fragment: str) -> None:
    expect(open_page(masters.small(), fragment).locator("#result")).to_contain_text("finding")


def test_what_passes_is_counted_and_shown_when_asked(open_page: Open) -> None:
    page = open_page(masters.small(), "#text=QEM-05")
    expect(page.locator(".entry")).to_have_count(2)
    page.get_by_role("button", name="Show also 1 pass").click()
    expect(page.locator(".entry")).to_have_count(3)
    expect(page.locator(".entry").last).to_contain_text("✓ Pass")
    assert "kvm2" in focused(page)


def test_objects_that_read_the_same_are_one_line(open_page: Open) -> None:
    guests = [masters.finding("r", "fail", "guest", f"guest{number}") for number in range(5)]
    page = open_page(masters.master([masters.host("kvm1", guests)]))
    expect(page.locator("#result")).to_have_text("5 findings of 1 host")
    expect(page.locator(".entry")).to_contain_text("guest guest0, guest guest1, guest guest2 and 2 more")
    page.locator(".entry > .line").click()
    expect(page.locator(".detail")).to_contain_text("guest guest4")
    page.locator("#text").fill("guest3")
    expect(page.locator("#result")).to_have_text("1 finding of 1 host")


def test_a_cell_of_the_fleet_shows_its_findings(open_page: Open) -> None:
    page = open_page(masters.small())
    page.get_by_role("gridcell", name=re.compile("^daemon: 1 fail")).click()
    assert fragment(page) == "#host=kvm1&category=daemon&by=host"
    expect(page.locator(".entry")).to_contain_text("No libvirt daemon listens on TCP")
    page.get_by_role("gridcell", name="mac: 1 pass").first.click()
    assert "pass" in fragment(page)
    expect(page.locator(".entry")).to_contain_text("A MAC is enforcing")


def test_a_total_shows_its_findings(open_page: Open) -> None:
    page = open_page(masters.small())
    page.locator(".tiles .manual button").click()
    expect(page.locator("#list .code")).to_have_text(["NET-03"])


def test_the_order_of_hosts(open_page: Open) -> None:
    page = open_page(masters.small())
    names = page.locator("#matrix tbody .host")
    expect(names).to_have_text(["kvm3", "kvm1", "kvm2"])
    page.locator("#matrix").get_by_role("button", name="Host").click()
    expect(names).to_have_text(["kvm1", "kvm2", "kvm3"])
    page.locator("#matrix").get_by_role("button", name="Score").click()
    expect(names).to_have_text(["kvm3", "kvm1", "kvm2"])
    page.locator("#matrix tbody .host", has_text="kvm1").click()
    assert fragment(page) == "#host=kvm1&by=host"


def test_the_keyboard_alone(open_page: Open) -> None:
    page = open_page(masters.small())
    press = page.keyboard.press
    press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("j/k?")  # these are letters here
    assert page.locator("#text").input_value() == "j/k?"
    press("Control+a")
    page.keyboard.type("kvm1")
    expect(page.locator("#result")).to_have_text("6 findings of 5 rules")
    press("Enter")
    assert "QEM-05" in focused(page)
    press("j")
    press("ArrowDown")
    assert "CPU-02" in focused(page)
    press("k")
    press("ArrowUp")
    press("k")  # there is none before
    assert "QEM-05" in focused(page)
    press("Enter")
    press("j")
    assert "guest web" in focused(page)
    press("Enter")
    expect(page.locator(".detail")).to_have_count(1)
    press("Enter")
    expect(page.locator(".detail")).to_be_hidden()
    press("End")
    assert "NET-03" in focused(page)
    press("Home")
    press("Enter")
    expect(page.locator(".inside").first).to_be_hidden()
    press("?")
    expect(page.locator("#help")).to_be_visible()
    press("j")
    press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    assert "QEM-05" in focused(page)


def test_the_fleet_by_keyboard(open_page: Open) -> None:
    page = open_page(masters.small())
    page.locator("#matrix [tabindex='0']").focus()
    assert focused(page) == "kvm3"
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.ariaLabel") == "qemu: 1 fail, 1 pending; one that fails is critical"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == "qemu: 1 pass"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert fragment(page) == "#host=kvm1&category=qemu&by=host"
    assert "kvm1" in focused(page)


def test_focus_goes_down_the_page_and_is_seen(open_page: Open) -> None:
    page = open_page(masters.compared())
    page.locator(".group > h3 .line").first.dispatch_event("click")  # which takes no focus
    places = []
    for _step in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        name, top, outline = page.evaluate("""() => {
          const one = document.activeElement;
          const marked = [one, one.nextElementSibling, one.closest("li")].filter(Boolean).some((it) => {
            const style = getComputedStyle(it);
            return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
          });
          return [one.outerHTML.slice(0, 80), one.getBoundingClientRect().top + scrollY, marked];
        }""")
        assert outline, f"the focus is not seen on {name}"
        places.append((top, name))
    reached = " ".join(name for _top, name in places)
    for wanted in (
        "<summary",
        'id="text"',
        'id="host"',
        'id="category"',
        'name="state"',
        'class="line"',
        'scope="row"',
    ):
        assert wanted in reached
    # Fields of one row differ by a few pixels.
    assert all(later[0] > earlier[0] - 30 for earlier, later in pairwise(places)), places


@pytest.mark.parametrize("name", ["empty", "small", "compared", "every_combination", "nasty", "migrating", "fleet"])
def test_a_phone_needs_no_sideways_scroll(open_page: Open, name: str) -> None:
    master = masters.fleet(2, 3) if name == "fleet" else getattr(masters, name)()
    page = open_page(master, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    if name != "fleet":
        open_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("visualViewport.width") == pytest.approx(360)
    # Nor is anything cut off, but in boxes that scroll by themselves.
    cut = page.evaluate("""() => [...document.querySelectorAll("body *")].filter((one) => one.checkVisibility()
      && one.getBoundingClientRect().right > 360.5 && !one.closest(".long, .scroll, pre, dialog, .hidden-text"))
      .map((one) => one.outerHTML.slice(0, 90))""")
    assert cut == []


def test_a_finger_finds_the_findings_of_a_category(open_page: Open) -> None:
    page = open_page(masters.small(), viewport=PHONE, has_touch=True, is_mobile=True)
    cell = page.get_by_role("gridcell", name=re.compile("^daemon: 1 fail"))
    box = cell.bounding_box()
    assert box and box["height"] >= 24 and box["width"] >= 24  # WCAG 2.2, 2.5.8
    cell.tap()
    expect(page.locator(".entry")).to_contain_text("No libvirt daemon listens on TCP")


@pytest.mark.parametrize(("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("dark", "print")])
@pytest.mark.parametrize("name", ["compared", "every_combination", "nasty", "migrating"])
def test_contrast(open_page: Open, scheme: str, media: t.Literal["print", "screen"], name: str) -> None:
    page = open_page(getattr(masters, name)(), color_scheme=scheme)
    if name != "nasty":
        page.locator("#filter").get_by_label("Not applicable").check()
        page.locator("#filter").get_by_label("Pass").check()
        open_everything(page)
    page.emulate_media(media=media)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    if media == "print":
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [found for found in contrasts if found[0] < 4.5] == []


def test_dark_is_dark(open_page: Open) -> None:
    def brightness(scheme: str) -> int:
        colour = open_page(masters.small(), color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        return sum(map(int, re.findall(r"\d+", colour)))

    assert brightness("dark") < 100 < 650 < brightness("light")


def test_colour_is_not_all_that_tells_states_apart(open_page: Open) -> None:
    page = open_page(masters.every_combination())
    cells = page.locator("#matrix .cell").all_inner_texts()
    assert cells == ["✕ 10"]
    shown = set(page.locator(".tiles .state").all_inner_texts())
    assert len({text.split()[0] for text in shown}) == len({text.split(maxsplit=1)[1] for text in shown}) == 7


def test_the_picture_is_to_scale(open_page: Open) -> None:
    page = open_page(masters.compared())
    widths = (
        page.locator(".picture .bar")
        .first.locator("rect")
        .evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
    )
    # 3 fail, and 1 of each of four other states.
    assert len(widths) == 5
    assert widths[0] / widths[1] == pytest.approx(3, rel=0.03)
    assert max(widths[1:]) == pytest.approx(min(widths[1:]), rel=0.01)


def test_a_comparison_tells_each_kind_of_change_and_whose_hosts_only_one_run_has(open_page: Open) -> None:
    page = open_page(masters.compared())
    kinds = page.locator("section[aria-labelledby=changes] details")
    assert [text.split()[1:] for text in kinds.locator("summary").all_inner_texts()] == [
        ["1", "worse"],
        ["1", "better"],
        ["1", "new"],
        ["1", "gone"],
        ["1", "other"],
    ]
    other = page.locator("details.changes.other")
    assert other.locator("li").inner_text().split("\n")[0].startswith("CPU vulnerabilities mitigated")
    assert other.locator(".from-to").inner_text().split() == ["✕", "Fail", "→", "?", "Unknown"]
    told = page.locator(".picture > .quiet").inner_text()
    assert "Audited only now: kvm2." in told
    assert "Audited only then: kvm3." in told
    assert page.locator(".picture > .quiet").is_visible() and other.is_visible()


def test_hostile_names_are_text(open_page: Open) -> None:
    page = open_page(masters.nasty(), "#by=host")
    page.locator("#filter").get_by_label("Not applicable").check()
    open_everything(page)
    page.locator("#text").fill("<script>alert(1)</script>")
    page.locator("#text").fill("")
    wanted = {"script": 2, "img": 0, "iframe": 0, "i": 0, "meta": 5, "a[href^='java']": 0, "style": 1}
    assert {tag: page.locator(tag).count() for tag in wanted} == wanted
    told = page.locator("#list").evaluate("list => list.textContent")
    assert "</script><img src=x onerror=alert(1)>" in told
    assert "U+202Eexe.tpircsU+202C" in told
    assert not set("\u202e\u202c\u200b\u2028\x1b\x07\x00\x7f") & set(told)
    attributes = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((one) => [...one.attributes].map((it) => it.value)).join()"
    )
    assert "\u202e" not in attributes


def test_the_policy_is_in_force(open_page: Open, heard: Heard) -> None:
    page = open_page(masters.small())
    refused = page.evaluate("""async () => {
      const refused = [];
      document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      const image = document.createElement("img");
      image.src = "https://example.org/x.png";
      document.body.append(image);
      document.body.setAttribute("style", "color: red");
      try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); } catch { refused.push("markup"); }
      await fetch("https://example.org/").catch(() => {});
      await new Promise((done) => setTimeout(done, 100));
      return refused;
    }""")
    assert {"img-src", "style-src-attr", "connect-src", "markup"} <= set(refused)
    # So the silence of all other tests means something.
    assert heard.complaints
    heard.complaints.clear()
    heard.requests.clear()


def test_without_scripts(open_page: Open) -> None:
    page = open_page(masters.compared(), java_script_enabled=False)
    expect(page.locator("#filter")).to_be_hidden()
    told = " ".join(page.locator("body").inner_text().split())
    for wanted in (
        "50 of 100", "1 host not audited", "Old backup client.", "Before and after", "QEM-05 Seccomp sandbox is on",
        "guest web: observed 0, expected 1", "/etc/libvirt/qemu.conf",
    ):  # fmt: skip
        assert wanted in told
    page.set_viewport_size({"width": 360, "height": 740})
    expect(page.locator("noscript .card").first).to_be_visible()


def test_on_paper(open_page: Open) -> None:
    page = open_page(masters.small())
    page.evaluate(
        "addEventListener('beforeprint', () => { document.title = document.querySelectorAll('.detail').length; })"
    )
    page.pdf()
    assert page.title() == "6"
    expect(page.locator(".detail")).to_have_count(0)  # as it was
    page.emulate_media(media="print")
    expect(page.locator("#keys")).to_be_hidden()
    expect(page.locator("#result")).to_be_visible()


def test_a_thousand_hosts(open_page: Open) -> None:
    page = open_page(masters.fleet(1000))
    loaded = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    first = page.evaluate(loaded)
    page.reload()
    assert min(first, page.evaluate(loaded)) < 2000
    expect(page.locator("#matrix tbody tr:visible")).to_have_count(25)
    expect(page.locator(".detail, .entry")).to_have_count(0)
    page.locator("#text").fill("kvm778 guest5")
    expect(page.locator("#result")).to_have_text("40 findings of 40 rules")
    page.locator("#text").fill("kvm77")
    page.locator("#by").select_option("host")
    expect(page.locator(".group")).to_have_count(11)  # kvm77 and kvm770 to kvm779
    page.get_by_role("button", name="Show all 1000 hosts").click()
    expect(page.locator("#matrix tbody tr:visible")).to_have_count(1000)
