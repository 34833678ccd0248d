# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: audit_failures
short_description: Tell which findings of an audit make a host fall short
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - Returns a line for each finding that must not be, by the severity of its rule or by its state, and one for each host
    that could not be audited. Without O(fail_on) there are none.
  - What is waived is not among them; what a waiver has covered until it expired is.
positional: fail_on
options:
  _input:
    description: What the filter P(hypervisor.hardening.audit#filter) returned.
    type: dict
    required: true
  fail_on:
    description:
      - Severities (V(critical), V(high), V(medium), V(low), V(info)), each for itself, of rules that must not fail.
      - States (V(fail), V(pending), V(unknown), V(manual)) in which nothing may be, whatever its severity.
    type: list
    elements: str
    default: []
  host:
    description: Only the lines of this host; of all when left out.
    type: str
seealso:
  - plugin: hypervisor.hardening.audit
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Stop where something grave is wrong, or cannot be told
  ansible.builtin.assert:
    that: failures | length == 0
    fail_msg: "{{ failures }}"
  vars:
    judged: "{{ {inventory_hostname: facts.hypervisor} | hypervisor.hardening.audit }}"
    failures: "{{ judged | hypervisor.hardening.audit_failures(['critical', 'high', 'unknown']) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
  sample:
    - "kvm1: QEM-05 qemu-seccomp-on (critical): fail: observed 0, expected 1"
"""


def audit_failures(
    master: dict[str, t.Any], fail_on: list[str] | str | None = None, host: str | None = None
) -> list[str]:
    # Read here: to find one filter, Ansible reads all files of this directory, in every worker.
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._master import SelectionError, failures
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import ReportError, require
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import words

    try:
        found = failures(require(master), words(fail_on))
    except (ReportError, SelectionError) as error:
        raise AnsibleFilterError(f"audit_failures: {error}") from error
    return [line for name, lines in found.items() if host in (None, name) for line in lines]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"audit_failures": audit_failures}
