# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() against a tree of fixtures."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info, _runner
from ansible_collections.hypervisor.hardening.plugins.modules import hypervisor_info
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    monkeypatch.setattr(hypervisor_info, "prefer", lambda module, *libraries: None)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        hypervisor_info.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_every_section_answers(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, connect=True)
    assert result["changed"] is False
    assert list(result["hypervisor"]) == list(_info.SECTIONS)


def test_every_section_is_documented() -> None:
    documented = yaml.safe_load(hypervisor_info.RETURN)["hypervisor"]["contains"]
    assert sorted(documented) == sorted(_info.SECTIONS)
