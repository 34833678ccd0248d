# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime
import json
import typing as t
from pathlib import Path

import yaml
from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: audit
short_description: Judge hypervisors by rules
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - Judges the facts of hosts, as M(hypervisor.hardening.hypervisor_info) returns them, by the rules of the collection
    and by those of your own. Nothing is asked of a host, so that stored facts can be judged anew at any time.
  - Each rule is, for each host or each object on it, V(pass), V(fail), V(not_applicable), V(waived), V(manual),
    V(unknown), or V(pending) where only the restart of a daemon, of a guest or of the host is missing.
  - What could not be read is unknown. No rule passes because there was nothing to look at.
  - Rules, parameters and waivers are checked as a whole before a host is judged, without any host too.
requirements:
  - The Python package C(jmespath) where Ansible runs.
options:
  _input:
    description:
      - A dictionary, host name to facts. A text in the place of facts says why there are none, and so does the result
        of a task that failed.
    type: dict
    required: true
  now:
    description: The time of the audit in ISO 8601; the present when left out.
    type: str
  previous:
    description: The result of an earlier audit, to be compared with.
    type: dict
extends_documentation_fragment:
  - hypervisor.hardening.audit
seealso:
  - module: hypervisor.hardening.hypervisor_info
  - plugin: hypervisor.hardening.audit_report
    plugin_type: filter
  - plugin: hypervisor.hardening.audit_failures
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the host
  hypervisor.hardening.hypervisor_info:
  register: facts

- name: Tell which part of what applies is proven to hold
  ansible.builtin.debug:
    msg: "{{ ({inventory_hostname: facts.hypervisor} | hypervisor.hardening.audit('strict')).score }}"

- name: Accept one finding until the end of the year, and leave the network out
  ansible.builtin.set_fact:
    judged: "{{ hosts | hypervisor.hardening.audit(skip=['network'], waivers=accepted) }}"
  vars:
    hosts: "{{ {inventory_hostname: facts.hypervisor} }}"
    accepted:
      - rule: qemu-seccomp-on
        hosts: [build*]
        reason: The guests of the build farm run an emulator that needs it.
        owner: platform team
        expires: "2026-12-31"
"""

RETURN = r"""
_value:
  description: The result, from which the filter P(hypervisor.hardening.audit_report#filter) makes reports.
  type: dict
  contains:
    schema:
      description: The kind and version of this document.
      type: str
      sample: hypervisor.hardening/audit/1
    collection:
      description: The version of the collection.
      type: str
      sample: 0.1.0
    generated:
      description: The time of the audit, in UTC.
      type: str
      sample: "2026-11-21T06:50:00Z"
    level:
      description: The level whose rules were judged.
      type: str
      sample: hardened
    selection:
      description: The options O(only), O(skip) and O(disabled).
      type: dict
    rules:
      description: What a person has to know of each rule, by id.
      type: dict
    hosts:
      description:
        - An entry for each host, with C(name), C(state) (V(audited) or V(not_audited)), C(reason) why it was not,
          C(collected) (the time of its facts), C(facts) (a line of them), C(findings), C(counts) by state, and
          C(score).
        - A finding has C(rule), C(object), C(state), C(pending), C(observed), C(expected), C(reason), C(checks)
          and C(waiver).
      type: list
      elements: dict
    counts:
      description: How many findings are in each state.
      type: dict
    score:
      description:
        - C(value) of 100, from C(passed) and C(applicable) by the C(formula) beside it, and C(capped) while a critical
          rule fails.
        - C(fixable_now) is the same of the rules alone that can be put right without a reboot and without the restart
          of a guest.
      type: dict
    waivers:
      description: Those that have C(expired), were C(unused), or are C(expiring) within 30 days.
      type: dict
    comparison:
      description: What is C(better), C(worse), C(new) and C(gone) since O(previous), or null.
      type: dict
"""

COLLECTION = Path(__file__).parents[2]
OWN_RULES = COLLECTION / "roles/hypervisor_audit/files/rules"


def judge(
    hosts: dict[str, t.Any],
    level: str = "hardened",
    only: list[str] | str | None = None,
    skip: list[str] | str | None = None,
    disabled: list[str] | str | None = None,
    rules: list[str] | str | None = None,
    params: dict[str, t.Any] | str | None = None,
    waivers: list[dict[str, t.Any]] | None = None,
    now: str | None = None,
    previous: dict[str, t.Any] | None = None,
) -> dict[str, t.Any]:
    # Read here: to find one filter, Ansible reads all files of this directory, in every worker.
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _waivers
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import documented
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._master import Selection, SelectionError, audit
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import MissingLibrary
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import RuleError, load, with_params
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import mapping, words

    if not isinstance(hosts, t.Mapping):
        raise AnsibleFilterError("audit: The input is no dictionary of host names and facts.")
    selection = Selection(str(level), *(tuple(map(str, words(names))) for names in (only, skip, disabled)))
    directories = [OWN_RULES, *(Path(str(directory)).expanduser() for directory in words(rules))]
    try:
        every = load(directories, documented(COLLECTION / "plugins/modules/hypervisor_info.py"))
        chosen = with_params(every, plain(mapping("params", params)))
        accepted = _waivers.read(plain(waivers or []), {rule.id for rule in every})
        master = audit(hosts, chosen, selection, accepted, _moment(now), _version(), plain)
        if previous is not None:
            # Rarely asked for.
            from ansible_collections.hypervisor.hardening.plugins.plugin_utils._compare import compare

            master["comparison"] = compare(master, plain(previous))
    except (RuleError, _waivers.WaiverError) as error:
        raise AnsibleFilterError("audit: " + "\n".join(["Nothing was judged.", *error.errors])) from error
    except (MissingLibrary, SelectionError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"audit: {error}") from error
    return master


def _moment(now: str | None) -> datetime.datetime:
    """:raises ValueError: it is not written as ISO 8601."""
    if now is None:
        return datetime.datetime.now(datetime.UTC)
    moment = datetime.datetime.fromisoformat(str(now))
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _version() -> str:
    """An installed collection has a manifest, a checkout has not."""
    manifest = COLLECTION / "MANIFEST.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"])
    return str(yaml.safe_load((COLLECTION / "galaxy.yml").read_text(encoding="utf-8"))["version"])


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"audit": judge}
