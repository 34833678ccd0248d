# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import words

DOCUMENTATION = r"""
name: words
short_description: Take the answer of a survey for the list that it stands for
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - A survey sends every answer as a string. This turns one into a list of strings, and leaves a list as it is.
  - The string is a list in JSON, or words with commas, blanks or line ends between them. An empty one is an empty list.
options:
  _input:
    description: A string, or a list.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Mark what a survey asked for
  hypervisor.hardening.mount_propagation:
    mounts: "{{ answer | hypervisor.hardening.words }}"
  vars:
    answer: /, /srv
"""

RETURN = r"""
_value:
  description: The list.
  type: list
  elements: str
  sample: [/, /srv]
"""


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"words": words}
