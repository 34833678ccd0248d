#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_access
short_description: Let one guest use one file or device of the host, and stay confined
version_added: 0.1.0
description:
  - A file that a guest's definition does not name, such as one in an argument that is passed through to QEMU, is kept
    from it by every layer of its confinement. This module works out what each layer needs, does what can be done for
    this guest, and says what is left to do and what the guest gets only when it is started anew.
  - For AppArmor, it adds a rule to the profile of this guest alone, as M(hypervisor.hardening.apparmor_local) does,
    judged by AppArmor's compiler before.
  - For permissions, it adds QEMU's user to the access control list of the file, and of the directories above it that
    this user may not enter. Nobody else gets more by that. The guests of a host run as one user, so only AppArmor or
    SELinux keeps the others out.
  - What is open to all guests or to none is only said. That is the device list of C(qemu.conf), which decides on the
    guest's own C(/dev) and its device cgroup, the label of a file where SELinux runs, and the propagation of mounts.
  - No running guest is touched.
options:
  grants:
    description: Which guests use what. What is not among these stays as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      guest:
        description: The guest's name or UUID. It has to be defined, or to run.
        type: str
        required: true
      path:
        description: The file or device, with no patterns. Symbolic links are followed.
        type: path
        required: true
      access:
        description: Whether it is read, or read and written.
        type: str
        choices: [read, write]
        default: read
      state:
        description:
          - V(absent) takes the rule away, and the entry in the file's access control list, unless AppArmor's rules of
            another guest name the file. The directories above stay as they are.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Needs lxml (C(python3-lxml)) on the host.
seealso:
  - name: QEMU command-line passthrough
    description: What the layers are.
    link: https://libvirt.org/kbase/qemu-passthrough-security.html
  - module: hypervisor.hardening.apparmor_local
  - module: hypervisor.hardening.guest_definition_info
  - module: hypervisor.hardening.qemu_conf
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Let a guest read its option ROM
  hypervisor.hardening.guest_access:
    grants:
      - guest: web
        path: /srv/firmware/option.rom
  register: access

- name: Say which layers are still closed
  ansible.builtin.debug:
    msg: "{{ item.layers | selectattr('stops', 'true') | map(attribute='grant') }}"
  loop: "{{ access.grants }}"

- name: Take a device away from it
  hypervisor.hardening.guest_access:
    grants:
      - guest: web
        path: /dev/ttyUSB0
        access: write
        state: absent
"""

RETURN = r"""
grants:
  description: What holds of each entry, in their order. In check mode it is what would hold.
  returned: success
  type: list
  elements: dict
  contains:
    guest:
      description: The guest's name.
      returned: success
      type: str
    path:
      description: The path without symbolic links.
      returned: success
      type: str
    access:
      description: What was asked for.
      returned: success
      type: str
    granted:
      description: Whether no layer stops it any more, at the latest when the guest is started anew.
      returned: success
      type: bool
    restart:
      description: Whether the guest runs, and has some of it only when it is started anew.
      returned: success
      type: bool
    layers:
      description: The layers.
      returned: success
      type: list
      elements: dict
      contains:
        layer:
          description: V(selinux), V(apparmor), V(dac), V(mount_namespace), V(device_cgroup) or V(propagation).
          returned: success
          type: str
        stops:
          description: Whether it stops the guest; null where that depends.
          returned: success
          type: bool
        why:
          description: The reason.
          returned: success
          type: str
        grant:
          description: What is left to do; empty for nothing.
          returned: success
          type: str
        restart:
          description: Whether this layer is among what the guest has only when it is started anew.
          returned: success
          type: bool
guests_pending:
  description: The guests that have to be started anew for all that was granted or taken.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _guestaccess, _runner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "grants": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "guest": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "access": {"type": "str", "choices": ["read", "write"], "default": "read"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
            },
        },
        supports_check_mode=True,
    )
    wanted = _guestaccess.Wanted(
        tuple(
            _guestaccess.Access(one["guest"], one["path"], one["access"], one["state"] == "present")
            for one in module.params["grants"]
        )
    )
    _runner.run(module, _guestaccess, wanted)


if __name__ == "__main__":
    main()
