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

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.modules import guest_confinement_info
from ansible_collections.hypervisor.hardening.tests.unit.plugins.qemus import QemuHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QemuHost:
    host = QemuHost(tmp_path)
    monkeypatch.setattr(_runner, "Host", lambda: host)
    return host


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        guest_confinement_info.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_a_host_without_libvirt_has_no_guests(host: QemuHost, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys)
    assert (result["changed"], result["guests"], result["leftovers"]) == (False, [], [])


def test_check_mode_is_the_same(host: QemuHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.guest("web", 7)
    first, second = run(capsys), run(capsys, _ansible_check_mode=True, _ansible_diff=True)
    assert [guest["name"] for guest in first["guests"]] == ["web"]
    assert first["guests"] == second["guests"]


def test_a_name_that_is_not_utf8(host: QemuHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.process(7, "/usr/bin/qemu-system-x86_64", argv=["qemu-system-x86_64"])
    Path(host.path("/proc/7/cmdline")).write_bytes(b"qemu-system-x86_64\0-name\0guest=caf\xe9\0")
    assert [guest["name"] for guest in run(capsys)["guests"]] == ["caf\N{REPLACEMENT CHARACTER}"]


def documented(entry: dict[str, t.Any]) -> dict[str, t.Any]:
    return {name: documented(inner.get("contains", {})) for name, inner in entry.items()}


def test_every_key_is_documented(host: QemuHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.guest("web", 7, number=3)
    host.process(20, "/usr/bin/swtpm")
    host.put("/run/libvirt/qemu/swtpm/3-web-swtpm.pid", "20")
    result = run(capsys)
    told = documented(yaml.safe_load(guest_confinement_info.RETURN))
    assert set(told) == {"guests", "leftovers"}
    (guest,) = result["guests"]
    assert set(told["guests"]) == set(guest)
    for name in ("seccomp", "user_namespace", "mount_namespace", "label", "cgroup", "core_dump", "limits"):
        assert set(told["guests"][name]) == set(guest[name]), name
    assert set(told["guests"]["dev"]) == set(guest["dev"][0])
    assert set(told["guests"]["weaknesses"]) == set(guest["weaknesses"][0])
    assert set(guest["helpers"][0]) - {"name"} < set(guest)


def test_the_documented_words_are_those_of_the_judgement() -> None:
    text = " ".join(yaml.safe_load(guest_confinement_info.RETURN)["guests"]["contains"]["weaknesses"]["description"])
    from ansible_collections.hypervisor.hardening.plugins.module_utils import _weakness

    assert [name for name in _weakness._JUDGES if f"V({name}) - " not in text] == []
