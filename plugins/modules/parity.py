#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: parity
short_description: Say which hypervisors can take each other's guests
version_added: 0.1.0
description:
  - Compares what M(hypervisor.hardening.hypervisor_info) has read of the hosts of a migration group, and what each host
    keeps in the fact C(hypervisor_hardening_facts), and says what differs, in which direction a migration breaks, and
    what happens then.
  - It runs on the controller, once for all hosts, and asks none of them anything. Nothing passes through a template.
  - Hosts are put together by their values, so that one odd host among many is one finding. What is not known of a host,
    or is older than O(max_age), is unknown and never equal.
options:
  hosts:
    description: The hosts. Facts are taken from this run, or from the fact cache.
    type: list
    elements: str
    required: true
  group:
    description:
      - The migration group of hosts that have neither the fact C(hypervisor_hardening_migration_group) nor the variable
        C(hypervisor_migration_group) in the inventory.
    type: str
    required: true
  partial:
    description:
      - Whether these are not all hosts of their groups, as in a job slice of AWX. Then whatever looks equal is unknown,
        and there is no agreement.
    type: bool
    default: false
  max_age:
    description: The greatest age of facts in seconds, by the clocks of host and controller.
    type: int
    default: 3600
  fail_on:
    description:
      - What makes a host fall short, severities (V(critical), V(high), V(medium), V(low), V(info)), each for itself, of
        findings that name it, or V(unknown).
    type: list
    elements: str
    default: []
  agreement:
    description: Values of the agreement that you choose, by key.
    type: dict
    default: {}
  report_dir:
    description:
      - The directory on the controller for the reports C(parity.json) and C(parity.html). It is made where it is
        missing.
      - They are written in check mode too, for nothing of a host is in them that was not read.
    type: path
  formats:
    description: The formats of the reports.
    type: list
    elements: str
    choices: [json, html]
    default: [json, html]
attributes:
  action:
    description: Runs on the controller alone.
    support: full
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - Lists and dictionaries may also come as the strings that a survey sends.
seealso:
  - module: hypervisor.hardening.hypervisor_info
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Read the host
  hypervisor.hardening.hypervisor_info:
  register: facts

- name: Keep what was read
  ansible.builtin.set_fact:
    hypervisor_hardening_facts: "{{ facts.hypervisor }}"
    cacheable: true

- name: Compare all hosts
  hypervisor.hardening.parity:
    hosts: "{{ ansible_play_hosts_all }}"
    group: rack1
    fail_on: [critical]
  register: compared
  run_once: true

- name: Show what differs
  ansible.builtin.debug:
    msg: "{{ compared.lines }}"
  run_once: true
"""

RETURN = r"""
lines:
  description: The report for a terminal, with the matrix of sources and destinations.
  returned: success
  type: list
  elements: str
summary:
  description: Of each group the number of hosts, of those not known, and of findings by severity, with their ids.
  returned: success
  type: dict
failures:
  description: The lines of O(fail_on), by host; only hosts that fall short are in it.
  returned: success
  type: dict
agreements:
  description:
    - By host, what its group agrees on. C(agreement) is for the gate, null where C(errors) says why there is none, and
      C(departures) names the hosts that have other values.
  returned: success
  type: dict
files:
  description: The reports that were written.
  returned: success
  type: list
  elements: str
"""
