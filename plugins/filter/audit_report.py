# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from importlib import import_module

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: audit_report
short_description: Render the result of an audit
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - Renders what the filter P(hypervisor.hardening.audit#filter) returned. The same master always gives the same report.
  - Nothing is hidden. What is waived, unknown, or for a person to look at is told apart from what passes in every
    format, and so is a host that could not be audited.
  - Names and values that come from hosts and guests are made harmless for the format. A control character, for example,
    is written as C(\x1b).
positional: format
options:
  _input:
    description: The result of the audit.
    type: dict
    required: true
  format:
    description:
      - The format of the report.
      - V(terminal) is a list of lines, for people. What passes is counted, all else is named, the gravest first.
      - V(html) is one page without outside parts.
      - V(markdown) is for tickets and merge requests.
      - V(junit) is JUnit XML, for continuous integration. Each host is a test suite, each finding a test case.
        What is waived, manual or not applicable is skipped, with the reason. What is unknown is an error.
      - V(sarif) is SARIF 2.1.0, for code scanning. What passes and what does not apply is left out,
        what is waived is a suppressed result.
      - V(csv) is for spreadsheets, with a line for each finding.
      - V(json) is the result itself, for programs and to compare a later run with.
      - V(summary) is a dictionary with the counts, the score and the failed rules of each host, for the artifacts of a
        job.
    type: str
    choices: [terminal, html, markdown, junit, sarif, csv, json, summary]
    required: true
seealso:
  - plugin: hypervisor.hardening.audit
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read what the audit found
  ansible.builtin.debug:
    msg: "{{ hypervisor_audit_result | hypervisor.hardening.audit_report('terminal') }}"

- name: Keep the findings for code scanning
  ansible.builtin.copy:
    content: "{{ hypervisor_audit_result | hypervisor.hardening.audit_report('sarif') }}"
    dest: "{{ playbook_dir }}/hypervisors.sarif"
    mode: "0600"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The report as text; with O(format=terminal) a list of lines, with O(format=summary) a dictionary.
  type: raw
  sample:
    - "Audit of 1 host at level hardened, 2026-11-21T06:50:00Z."
"""

FORMATS = ("terminal", "html", "markdown", "junit", "sarif", "csv", "json", "summary")


# A002: an option is named as its users know it, and a filter's options are its parameters.
def audit_report(master: t.Any, format: str) -> t.Any:  # noqa: A002
    # Read here: to find one filter, Ansible reads all files of this directory, in every worker.
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._plain import plain
    from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import ReportError

    if format not in FORMATS:
        raise AnsibleFilterError(f"audit_report: The format {format!r} is unknown; it is one of {', '.join(FORMATS)}.")
    # Each format is read when it is asked for.
    renderer = import_module(f"ansible_collections.hypervisor.hardening.plugins.plugin_utils._report_{format}")
    try:
        return renderer.render(plain(master))
    except (ReportError, TypeError) as error:
        raise AnsibleFilterError(f"audit_report: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"audit_report": audit_report}
