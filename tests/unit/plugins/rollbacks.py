# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that change a host, and the one that takes it back."""

from __future__ import annotations

import json
import typing as t
from types import ModuleType

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.modules import rollback


def call(module: ModuleType, capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    """Run a module under its own name, which the journal keeps; its result, of a failure too."""
    name = f"hypervisor.hardening.{module.__name__.rpartition('.')[2]}"
    told = {"_ansible_diff": True, "_ansible_module_name": name, **arguments}
    with patch_module_args(told), pytest.raises(SystemExit):
        module.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    """Run rollback, which succeeds."""
    done = call(rollback, capsys, **arguments)
    assert not done.get("failed"), done["msg"]
    return done
