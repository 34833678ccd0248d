# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real runs of main() on a played host."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.hypervisor.hardening.plugins.doc_fragments import conf_file
from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner
from ansible_collections.hypervisor.hardening.plugins.modules import libvirt_conf
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

CONF = "/etc/libvirt/libvirtd.conf"
TEXT = "# a comment\n#max_clients = 5000\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtHost:
    played = LibvirtHost(tmp_path)
    played.put(CONF, TEXT)
    played.daemon(77, 500)
    monkeypatch.setattr(_runner, "Host", lambda: played)
    return played


def run(capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    with patch_module_args({"_ansible_diff": True, **arguments}), pytest.raises(SystemExit):
        libvirt_conf.main()
    return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))


def test_check_mode_says_what_a_run_does_and_a_second_run_nothing(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"daemon": "remote", "settings": {"max_clients": "100", "audit_logging": "yes"}}
    predicted = run(capsys, **options, _ansible_check_mode=True)
    assert host.text(CONF) == TEXT
    done = run(capsys, **options)
    assert done == predicted
    assert host.text(CONF) == TEXT + "max_clients = 100\naudit_logging = 1\n"
    assert done["diff"]["before"] == TEXT
    assert set(done) - {"changed", "diff", "invocation", "warnings"} == set(yaml.safe_load(libvirt_conf.RETURN))
    second = run(capsys, **options)
    assert (second["changed"], second["changes"], second["restart_required"]) == (False, [], True)


def test_a_refusal_changes_nothing(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    failed = run(capsys, daemon="qemu", settings={"max_client": 5, "tls_allowed_dn_list": "all"})
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "Did you mean max_clients" in failed["msg"]
    assert "Make it a list" in failed["msg"]
    assert host.text(CONF) == TEXT


@pytest.mark.parametrize("options", [{}, {"daemon": "qemu", "path": CONF}, {"daemon": "sshd"}])
def test_options_that_do_not_fit(
    host: LibvirtHost, capsys: pytest.CaptureFixture[str], options: dict[str, t.Any]
) -> None:
    assert run(capsys, **options)["failed"]


def test_the_documented_options(host: LibvirtHost, capsys: pytest.CaptureFixture[str]) -> None:
    texts = (libvirt_conf.DOCUMENTATION, conf_file.ModuleDocFragment.DOCUMENTATION)
    options = {name: option for text in texts for name, option in yaml.safe_load(text)["options"].items()}
    arguments = run(capsys, daemon="qemu")["invocation"]["module_args"]
    assert {**arguments, "daemon": None} == {name: option.get("default") for name, option in options.items()}
    assert options["daemon"]["choices"] == [*libvirt_conf.room.ROLES, *libvirt_conf.DAEMONS]
