# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._weaknesses import weakness_lines

DOCUMENTATION = r"""
name: weakness_lines
short_description: Tell the weaknesses of running guests, a line each
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - Each line names the guest, the fact, the observed and the expected value.
positional: only
options:
  _input:
    description: The return value C(guests) of M(hypervisor.hardening.guest_confinement_info).
    type: list
    elements: dict
    required: true
  only:
    description: The weakness ids to tell; all when left out.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Look at the running guests
  hypervisor.hardening.guest_confinement_info:
  register: confinement

- name: Tell which of them run without a seccomp filter
  ansible.builtin.debug:
    msg: "{{ confinement.guests | hypervisor.hardening.weakness_lines(['no_seccomp']) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
  sample:
    - "web1 (pid 4711): no_seccomp: observed mode 0, expected mode 2"
"""


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"weakness_lines": weakness_lines}
