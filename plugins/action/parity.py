# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of many hosts in one step: what is between facts and report never passes through a template."""

from __future__ import annotations

import datetime
import json
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.hypervisor.hardening.plugins.filter.audit import _version
from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _parity_html, _parity_terminal
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritygroups import fact, group_of
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import (
    FailOnError,
    failures,
    parity,
    summary,
)
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._reportfile import write
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import mapping, words

FACTS = "hypervisor_hardening_facts"
NO_FACTS = "no facts: not reached in this run, and none are cached"
FORMATS = ("json", "html")
OPTIONS: dict[str, dict[str, t.Any]] = {
    "hosts": {"type": "raw", "required": True},
    "group": {"type": "str", "required": True},
    "partial": {"type": "bool", "default": False},
    "max_age": {"type": "int", "default": 3600},
    "fail_on": {"type": "raw"},
    "agreement": {"type": "raw"},
    "report_dir": {"type": "path"},
    "formats": {"type": "raw", "default": ["json", "html"]},
}


class ActionModule(ActionBase):
    """Compares the facts of hosts and writes the reports."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        # ansible-core types its plugins in part only.
        _valid, given = self.validate_argument_spec(OPTIONS)  # type: ignore[no-untyped-call]
        variables = (task_vars or {})["hostvars"]
        try:
            formats = _formats(words(given["formats"]))
            of_hosts = {name: variables.raw_get(name) for name in words(given["hosts"])}
            groups = {name: group_of(of_host) or given["group"] for name, of_host in of_hosts.items()}
            master = parity(
                {name: fact(of_host, FACTS) or NO_FACTS for name, of_host in of_hosts.items()},
                groups,
                datetime.datetime.now(datetime.UTC),
                _version(),
                max_age=given["max_age"],
                partial=given["partial"],
                choice=plain(mapping("agreement", given["agreement"])),
                plain=plain,
            )
            result["failures"] = failures(master, words(given["fail_on"]))
            result["lines"] = _parity_terminal.render(master)
            result["summary"] = summary(master)
            agreements = {group["name"]: group["agreement"] for group in master["groups"]}
            result["agreements"] = {name: agreements[group] for name, group in groups.items()}
            result["files"] = [_write(given["report_dir"], master, name) for name in formats if given["report_dir"]]
        except (FailOnError, OSError, TypeError, ValueError) as error:
            raise AnsibleActionFail(str(error)) from error
        return {**result, "changed": False}


def _formats(names: list[str]) -> list[str]:
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f"formats: {', '.join(unknown)} is none of {', '.join(FORMATS)}.")
    return names


def _write(directory: str, master: dict[str, t.Any], name: str) -> str:
    text = json.dumps(master, indent=1) + "\n" if name == "json" else _parity_html.render(master)
    return write(directory, f"parity.{name}", text)
