# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame: a section fails alone, in its own words."""

from __future__ import annotations

import errno
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import HardeningError, Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HardeningError("Not today."), "Not today."),
        (OSError(errno.EACCES, "Permission denied", "/proc/1/maps"), "/proc/1/maps: Permission denied"),
        (OSError("a pipe broke"), "a pipe broke"),
        (KeyError("colour"), "KeyError: 'colour' (test__info.py, line 30)"),
    ],
)
def test_a_section_fails_alone(error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(context: Context) -> t.Any:
        raise error

    monkeypatch.setattr(_info, "SECTIONS", {"bad": fails, "good": lambda context: {"connect": context.connect}})
    result = _info.gather(Host(str(tmp_path)), connect=True)
    assert result == {"hypervisor": {"bad": {"error": words}, "good": {"connect": True}}}
