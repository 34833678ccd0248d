# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium without a screen, which hears and reports whatever a page asks for or complains about."""

from __future__ import annotations

import os
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PROGRAM = "/usr/bin/chromium"
# Chromium itself is to ask for nothing either.
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync"]


@contextmanager
def launched() -> t.Iterator[Browser]:
    with sync_playwright() as playwright:
        # Its sandbox is not for root.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=[*QUIET, *sandbox])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Heard:
    """What a page did that nobody sees."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("popup", lambda popup: self.complaints.append(f"popup: {popup.url}"))

        def dialog(shown: t.Any) -> None:
            self.complaints.append(f"{shown.type}: {shown.message}")
            shown.dismiss()

        page.on("dialog", dialog)


def written(page: str, path: Path) -> str:
    """Write the page; return its address."""
    path.write_text(page, encoding="utf-8")
    return path.as_uri()
