# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.hypervisor.hardening.plugins.filter import audit as plugin
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _query
from ansible_collections.hypervisor.hardening.tests.unit.plugins.plugin_utils.auditrules import check, entry

audit = plugin.FilterModule().filters()["audit"]
FACTS = {"host": {"init": "systemd", "hostname": "kvm1", "time": 1795243800.0}}


@pytest.fixture(autouse=True)
def own_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The rules of the collection, in the place of the real ones."""
    directory = tmp_path / "own"
    write(directory, entry("init-systemd", checks=[check("host.init", {"is": "systemd"})]))
    monkeypatch.setattr(plugin, "OWN_RULES", directory)
    return directory


def write(directory: Path, *entries: t.Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "rules.yml").write_text(yaml.safe_dump(list(entries)), encoding="utf-8")


def test_judges_hosts() -> None:
    master = audit({"kvm1": FACTS, "kvm2": "unreachable"}, now="2026-11-21T06:50:00Z")
    assert [(host["name"], host["state"], host["reason"]) for host in master["hosts"]] == [
        ("kvm1", "audited", ""),
        ("kvm2", "not_audited", "unreachable"),
    ]
    (finding,) = master["hosts"][0]["findings"]
    assert (finding["rule"], finding["state"]) == ("init-systemd", "pass")
    assert (master["generated"], master["comparison"]) == ("2026-11-21T06:50:00Z", None)
    galaxy = yaml.safe_load((plugin.COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))
    assert master["collection"] == galaxy["version"]


def test_without_hosts_everything_else_is_checked() -> None:
    assert audit({})["hosts"] == []
    with pytest.raises(AnsibleFilterError, match="expires: is missing"):
        audit({}, waivers=[{"rule": "init-systemd", "reason": "r", "owner": "o"}])


def test_the_version_of_an_installed_collection_is_in_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "9.8.7"}}', encoding="utf-8")
    monkeypatch.setattr(plugin, "COLLECTION", tmp_path)
    assert plugin._version() == "9.8.7"


def test_own_directories_come_beside(tmp_path: Path) -> None:
    write(
        tmp_path / "mine",
        entry("mine", params={"name": "x"}, checks=[check("host.hostname", {"is": {"param": "name"}})]),
    )
    master = audit(
        {"kvm1": FACTS},
        level="strict",
        rules=str(tmp_path / "mine"),
        params='{"mine": {"name": "kvm1"}}',
        only="host, mine",
        skip=["init-systemd"],
    )
    assert [(one["rule"], one["state"]) for one in master["hosts"][0]["findings"]] == [("mine", "pass")]
    assert master["selection"] == {"only": ["host", "mine"], "skip": ["init-systemd"], "disabled": []}


def test_a_waiver_of_a_disabled_rule_is_no_mistake() -> None:
    waiver = {"rule": "init-systemd", "reason": "r", "owner": "o", "expires": "2027-01-01"}
    master = audit({"kvm1": FACTS}, disabled="init-systemd", waivers=[waiver], params={"init-systemd": {}})
    assert master["rules"] == {}


def test_compares_with_an_earlier_run() -> None:
    before = audit({"kvm1": {"host": {**FACTS["host"], "init": "sysvinit"}}})
    comparison = audit({"kvm1": FACTS}, previous=before)["comparison"]
    assert [(one["rule"], one["before"], one["after"]) for one in comparison["better"]] == [
        ("init-systemd", "fail", "pass")
    ]


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"level": "paranoid"}, ["'paranoid' is unknown"]),
        ({"only": ["nothing"]}, ["only: there is no rule and no category 'nothing'"]),
        ({"disabled": "nothing"}, ["disabled: there is no rule 'nothing'"]),
        ({"rules": ["/does/not/exist"]}, ["Nothing was judged", "/does/not/exist: is no directory"]),
        ({"params": {"nothing": {}}}, ["params: there is no rule nothing"]),
        ({"params": "{broken"}, ["params is no dictionary"]),
        ({"waivers": [{"rule": "nothing"}, "x"]}, ["waiver 1 (nothing): rule: there is no rule", "waiver 2: is no"]),
        ({"waivers": {"rule": "x"}}, ["waivers: is no list"]),
        ({"now": "yesterday"}, ["yesterday"]),
        ({"previous": {"schema": "x"}}, ["The earlier audit"]),
    ],
)
def test_refuses_in_words(options: dict[str, t.Any], messages: list[str]) -> None:
    with pytest.raises(AnsibleFilterError) as refused:
        audit({"kvm1": FACTS}, **options)
    assert str(refused.value).startswith("audit: ")
    assert [message for message in messages if message not in str(refused.value)] == []


@pytest.mark.parametrize("hosts", [None, "kvm1", [FACTS]])
def test_refuses_what_are_no_hosts(hosts: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="no dictionary of host names and facts"):
        audit(hosts)


def test_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(text: str) -> t.Any:
        raise _query.MissingLibrary("The Python package jmespath is not installed")

    monkeypatch.setattr(_query, "_parse", missing)
    with pytest.raises(AnsibleFilterError, match="package jmespath is not installed"):
        audit({})
