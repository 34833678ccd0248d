# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTML report of a thousand hosts with twenty guests each, against that of ten: its size, and how fast it opens.

Of five rules each guest has a value of its own, such as a label or an identifier, so that not all of it reads the same.
"""

from __future__ import annotations

import tempfile
import time
import typing as t
from pathlib import Path

from browser.chromium import launched, written
from playwright.sync_api import Browser

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_html import render
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils import masters

LIMIT_S = 2.0
HOSTS = (10, 100, 1000)
OF_ITS_OWN = frozenset(f"rule-{number}" for number in range(110, 115))
# Until the page is loaded, its list is there and a frame of it was drawn.
DRAWN = "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"


def fleet(hosts: int) -> t.Any:
    master = masters.fleet(hosts)
    for host in master["hosts"]:
        for finding in host["findings"]:
            if finding["rule"] in OF_ITS_OWN:
                finding["observed"] = f"libvirt-{host['name']}-{finding['object']['name']}-{finding['rule']} (enforce)"
    return master


def opened(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds until the page can be used, and until a search for one guest is answered; the best of three."""
    usable, searched = [], []
    for _round in range(3):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address)
        usable.append(page.evaluate(DRAWN) / 1000)
        begun = time.perf_counter()
        page.locator("#text").fill("libvirt-kvm7-guest13-rule-112")
        page.get_by_text("1 finding of 1 rule").or_(page.get_by_text("No finding")).wait_for()
        searched.append(time.perf_counter() - begun)
        context.close()
    return min(usable), min(searched)


def main() -> None:
    print(
        f"{'hosts':>7} {'findings':>10} {'made in':>9} {'size':>10} {'opens in':>10} {'search':>8} {'of 10 hosts':>12}"
    )
    first = 0.0
    with launched() as browser, tempfile.TemporaryDirectory() as directory:
        for hosts in HOSTS:
            master = fleet(hosts)
            findings = sum(master["counts"].values())
            begun = time.process_time()
            page = render(master)
            made = time.process_time() - begun
            del master
            usable, searched = opened(browser, written(page, Path(directory) / f"{hosts}.html"))
            first = first or usable
            print(
                f"{hosts:7,} {findings:10,} {made:7.2f} s {len(page.encode()) / 1e6:7.2f} MB {usable:8.2f} s "
                f"{searched:6.2f} s {usable / first:6.1f} times",
                flush=True,
            )
            if usable > LIMIT_S:
                raise SystemExit(f"{hosts} hosts open in {usable:.2f} s, the limit is {LIMIT_S} s")


if __name__ == "__main__":
    main()
