# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._levels import Control, LevelError, choose
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._survey import mapping

DOCUMENTATION = r"""
name: level_settings
short_description: Choose the qemu.conf settings of a hardening level
version_added: 0.1.0
author: hypervisor.hardening contributors
description:
  - Merges the controls of a level, and of all levels below it, with the operator's own settings, which win.
  - On a kernel without AppArmor and SELinux C(security_driver) and C(security_require_confined) are left alone and
    reported.
positional: level
options:
  _input:
    description:
      - The controls. Each is a dictionary with C(id), C(level), C(settings) and, where it must be asked for, C(switch).
    type: list
    elements: dict
    required: true
  level:
    description: The hardening level.
    type: str
    choices: [baseline, hardened, strict]
    required: true
  own:
    description: The operator's settings, key to value. They win over those of the controls.
    type: dict
    default: {}
  secret:
    description: The operator's passwords, key to value. They win over what the controls do with those keys.
    type: dict
    default: {}
  extend:
    description: The operator's additions to lists, key to list.
    type: dict
    default: {}
  mac:
    description: Whether the host's kernel has AppArmor or SELinux. Leave it out where nobody looked.
    type: bool
"""

EXAMPLES = r"""
- name: What the level strict asks for
  ansible.builtin.debug:
    msg: "{{ controls | hypervisor.hardening.level_settings('strict', own={'max_core': 0}) }}"
  vars:
    controls:
      - id: qemu-default-confined
        level: baseline
        settings:
          security_default_confined: true
      - id: qemu-seccomp-on
        level: baseline
        switch: true
        settings:
          seccomp_sandbox: 1
"""

RETURN = r"""
_value:
  description:
    - C(settings), C(secret_settings) and C(extend) for the module M(hypervisor.hardening.qemu_conf), C(optional) with
      the keys that an older libvirt may not know, and C(left_alone) with C(key) and C(reason) of each key that is not
      touched.
  type: dict
  sample:
    settings: {seccomp_sandbox: 1, security_default_confined: true}
    secret_settings: {}
    extend: {}
    optional: [seccomp_sandbox, security_default_confined]
    left_alone: []
"""


def level_settings(
    controls: list[dict[str, t.Any]],
    level: str,
    own: dict[str, t.Any] | str | None = None,
    mac: bool | None = None,
    secret: dict[str, t.Any] | str | None = None,
    extend: dict[str, t.Any] | str | None = None,
) -> dict[str, t.Any]:
    try:
        chosen = choose(
            [Control(**control) for control in controls],
            level,
            mapping("own", own),
            mac,
            secret=mapping("secret", secret),
            extend=mapping("extend", extend),
        )
    except (LevelError, TypeError) as error:
        raise AnsibleFilterError(f"level_settings: {error}") from error
    return vars(chosen)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"level_settings": level_settings}
