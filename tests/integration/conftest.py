# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several workers at once: each has hosts of its own, and its playbooks reach only those."""

from __future__ import annotations

import os
import signal

os.environ["HYPERVISOR_RIG_SCOPE"] = f"test-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"

# A shell lets what it starts in the background ignore SIGINT, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
