# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """How an audit is chosen: the same for the module and for the filter."""

    DOCUMENTATION = r"""
options:
  level:
    description: The rules of this level, and of those before it, are judged.
    type: str
    choices: [baseline, hardened, strict]
    default: hardened
  only:
    description: The rules to judge, by id, code or category; all when empty.
    type: list
    elements: str
    default: []
  skip:
    description: The rules to leave out, by id, code or category.
    type: list
    elements: str
    default: []
  disabled:
    description: The ids of rules that are switched off for good.
    type: list
    elements: str
    default: []
  rules:
    description: Directories on the controller with rules of your own, beside those of the collection.
    type: list
    elements: path
    default: []
  params:
    description: Values for the parameters of rules, by rule id and name.
    type: dict
    default: {}
  waivers:
    description:
      - Findings that you accept, each a dictionary with C(rule), C(reason), C(owner) and C(expires), the last day
        on which it holds, and where you want with C(ticket) and with C(hosts), C(guests) and C(objects), lists of
        patterns as of a shell.
      - A waiver that has expired waives nothing, and its finding comes first.
    type: list
    elements: dict
    default: []
"""
