# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit of many hosts in one step: what is between the facts and the reports never passes through a template."""

from __future__ import annotations

import datetime
import json
import typing as t
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import yaml
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible.plugins.action import ActionBase

from ansible_collections.hypervisor.hardening.plugins.filter.audit import _version, judge
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _report_summary, _report_terminal
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._master import SelectionError, failures
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritygroups import group_of
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import parity
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._reportfile import write
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import words

SUFFIXES = {"json": "json", "html": "html", "markdown": "md", "junit": "xml", "sarif": "sarif", "csv": "csv"}
NOT_REACHED = "not reached in this run"
OPTIONS: dict[str, dict[str, t.Any]] = {
    "hosts": {"type": "raw", "required": True},
    "facts": {"type": "str", "required": True},
    "level": {"type": "str", "default": "hardened"},
    **{name: {"type": "raw"} for name in ("only", "skip", "disabled", "rules", "params", "waivers", "fail_on")},
    "waivers_file": {"type": "path"},
    "previous": {"type": "path"},
    "report_dir": {"type": "path"},
    "formats": {"type": "raw", "default": ["json", "html"]},
    "migration_group": {"type": "str", "default": ""},
    "partial": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """Judges the facts of hosts and writes the reports."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        # ansible-core types its plugins in part only.
        _valid, given = self.validate_argument_spec(OPTIONS)  # type: ignore[no-untyped-call]
        variables = (task_vars or {})["hostvars"]
        try:
            formats = _formats(words(given["formats"]))
            hosts = {name: _facts(variables.raw_get(name), given["facts"]) for name in words(given["hosts"])}
            choice = {name: given[name] for name in ("level", "only", "skip", "disabled", "rules", "params")}
            previous = json.loads(_read(given["previous"])) if given["previous"] else None
            master = judge(hosts, **choice, waivers=_waivers(given), previous=previous)
            if given["migration_group"]:
                master["migration"] = _migration(hosts, variables, given["migration_group"], given["partial"])
            result["failures"] = failures(master, words(given["fail_on"]))
            result["lines"] = _report_terminal.render(master)
            result["summary"] = _report_summary.render(master)
            result["files"] = [_write(given["report_dir"], master, name) for name in formats] if _wanted(given) else []
        except (AnsibleFilterError, SelectionError, OSError, TypeError, ValueError) as error:
            raise AnsibleActionFail(str(error)) from error
        return {**result, "changed": False}


def _migration(hosts: dict[str, t.Any], variables: t.Any, group: str, partial: bool) -> dict[str, t.Any] | None:
    """Which hosts can take each other's guests; None where there are not two to be compared."""
    read = {
        name: found["hypervisor"]
        for name, found in hosts.items()
        if isinstance(found, Mapping) and "hypervisor" in found
    }
    if len(read) < 2:
        return None
    groups = {name: group_of(variables.raw_get(name)) or group for name in hosts}
    every = {name: read.get(name, "not audited") for name in hosts}
    return parity(every, groups, datetime.datetime.now(datetime.UTC), _version(), partial=partial, plain=plain)


def _facts(variables: t.Any, name: str) -> t.Any:
    """What the task that reads a host has registered, as it is."""
    return variables.get(name, NOT_REACHED) if isinstance(variables, dict) else NOT_REACHED


def _waivers(given: dict[str, t.Any]) -> list[t.Any]:
    """:raises ValueError: no list of waivers."""
    found: list[t.Any] = []
    sources = {"waivers": given["waivers"], given["waivers_file"]: _read(given["waivers_file"])}
    for where, source in sources.items():
        try:
            parsed = yaml.safe_load(source) if isinstance(source, str) else source
        except yaml.YAMLError as error:
            raise ValueError(f"{where}: {error}") from error
        if not isinstance(parsed or [], list):
            raise ValueError(f"{where} is no list of waivers.")
        found += parsed or []
    return found


def _read(path: str | None) -> str:
    return Path(path).read_text(encoding="utf-8") if path else ""


def _wanted(given: dict[str, t.Any]) -> bool:
    """Without a host there is nothing to report: only what was given is checked."""
    return bool(given["report_dir"] and words(given["hosts"]))


def _formats(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in SUFFIXES]
    if unknown:
        raise ValueError(f"formats: {', '.join(unknown)} is none of {', '.join(SUFFIXES)}.")
    return names


def _write(directory: str, master: dict[str, t.Any], name: str) -> str:
    renderer = import_module(f"ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_{name}")
    return write(directory, f"audit.{SUFFIXES[name]}", renderer.render(master))
