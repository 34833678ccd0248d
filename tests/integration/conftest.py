# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workers at once: each has hosts of its own, and what belongs to the whole machine stays with one of them."""

from __future__ import annotations

import os
import re
import signal

import pytest

# Each worker's playbooks reach the hosts of its own inventory only.
os.environ["HYPERVISOR_RIG_SCOPE"] = f"test-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"

# A shell lets what it starts in the background ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The pool of huge pages is the machine's: those that change it must not meet.
CHANGES_HUGE_PAGES = re.compile(r"test_hugetlbfs|test_mount_propagation|hot_plug|hugepages")


RELEASE = re.compile(r"bookworm|trixie")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        release = RELEASE.search(item.nodeid)
        place = f"{item.path.stem} {release[0] if release else ''}"
        item.add_marker(pytest.mark.xdist_group("huge pages" if CHANGES_HUGE_PAGES.search(item.nodeid) else place))
