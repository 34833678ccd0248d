# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test of a plugin needs."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible.module_utils.common import warnings


@pytest.fixture(autouse=True)
def _usual_umask() -> t.Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _no_warnings_of_other_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is a process of its own; Ansible collects its warnings in globals, which here outlive it."""
    monkeypatch.setattr(warnings, "_global_warnings", {})
    monkeypatch.setattr(warnings, "_global_deprecations", {})
