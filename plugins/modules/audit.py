#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
short_description: Judge hypervisors by rules, and report
version_added: 0.1.0
description:
  - Judges what M(hypervisor.hardening.hypervisor_info) has read of hosts by the rules of the collection and by those of
    your own, and writes the reports. It runs on the controller, once for all hosts, and asks none of them anything.
  - It does what the filters P(hypervisor.hardening.audit#filter), P(hypervisor.hardening.audit_report#filter) and
    P(hypervisor.hardening.audit_failures#filter) do one by one. Between filters Ansible looks through every value for
    templates, which takes minutes for a hundred hosts; here nothing passes through a template.
  - Rules, parameters and waivers are checked as a whole before a host is judged. Without any host only that is done.
options:
  hosts:
    description: The hosts. One whose facts are missing is told as not audited, with the reason.
    type: list
    elements: str
    required: true
  facts:
    description: The variable in which the task with M(hypervisor.hardening.hypervisor_info) has registered its result.
    type: str
    required: true
  waivers_file:
    description: A YAML file on the controller with more waivers.
    type: path
  previous:
    description: The JSON report of an earlier run, to be compared with. It may be the one that is written anew.
    type: path
  report_dir:
    description:
      - The directory on the controller for the reports, C(audit.json) and so on. It is made where it is missing.
      - They are written in check mode too, for nothing of a host is in them that was not read.
    type: path
  formats:
    description: The formats of the reports.
    type: list
    elements: str
    choices: [json, html, markdown, junit, sarif, csv]
    default: [json, html]
  migration_group:
    description:
      - The migration group of hosts that have no C(hypervisor_migration_group) of their own. With it, the JSON and HTML
        reports also tell which of the hosts can take each other's guests, as M(hypervisor.hardening.parity) does.
      - Empty, or with fewer than two hosts that were read, nothing is compared.
    type: str
    default: ""
  partial:
    description: Whether only a part of the hosts is here, as in a slice of a job. Then no host is told to fit another.
    type: bool
    default: false
  fail_on:
    description: What makes a host fall short, as the filter P(hypervisor.hardening.audit_failures#filter) takes it.
    type: list
    elements: str
    default: []
attributes:
  action:
    description: Runs on the controller alone.
    support: full
extends_documentation_fragment:
  - hypervisor.hardening.audit
  - hypervisor.hardening.attributes.info
notes:
  - Lists and dictionaries may also come as the strings that a survey sends.
seealso:
  - module: hypervisor.hardening.hypervisor_info
  - module: hypervisor.hardening.parity
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read the host
  hypervisor.hardening.hypervisor_info:
  register: facts

- name: Judge all hosts, and keep reports
  hypervisor.hardening.audit:
    hosts: "{{ ansible_play_hosts_all }}"
    facts: facts
    fail_on: [critical]
    report_dir: "{{ playbook_dir }}/reports"
  register: judged
  run_once: true

- name: Fail where the host falls short
  ansible.builtin.fail:
    msg: "{{ judged.failures[inventory_hostname] }}"
  when: inventory_hostname in judged.failures
"""

RETURN = r"""
lines:
  description: The report for a terminal.
  returned: success
  type: list
  elements: str
summary:
  description: Counts and score of all and of each host, with the ids of the rules that fail there.
  returned: success
  type: dict
failures:
  description: The lines of O(fail_on), by host; only hosts that fall short are in it.
  returned: success
  type: dict
files:
  description: The reports that were written.
  returned: success
  type: list
  elements: str
"""
