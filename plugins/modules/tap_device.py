#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tap_device
short_description: Make persistent TAP devices for users who run guests
version_added: 0.1.0
description:
  - Makes TAP devices that an ordinary user may open, plugs them into a bridge, sets their link up, and keeps all that
    after a reboot. A libvirt that runs as that user (C(qemu:///session)) may not make any itself.
  - The guest takes such a device with C(<interface type='ethernet'>) and C(<target dev='NAME' managed='no'/>). libvirt
    then leaves its MAC address, its link and its bridge as they are, and fails if it is not there.
  - A device that this module made carries the alias C(hypervisor.hardening). Any other one is left alone, and wanting
    its name is an error.
  - A device that a process holds is left alone as well; what would change it is an error that names the process.
    Owner, group and queues cannot be changed in place, so a device that nobody holds is made anew for them.
  - What was there before (owner, group, flags, bridge, MAC, MTU) goes to the journal of the host first.
options:
  devices:
    description:
      - The devices.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The name of the device, letters, digits and C(. _ -) only, at most 15 of them.
        type: str
        required: true
      owner:
        description:
          - The user who may open it, by name or number.
          - At least one of this and O(devices[].group) is needed, because the kernel lets every user of the host open a
            TAP device that has neither. If it has both, only that user may, and only as a member of that group.
        type: str
      group:
        description: The group whose members may open it, by name or number.
        type: str
      multi_queue:
        description:
          - Whether it has several queues. It must be V(true) for a guest that gives the interface more than one
            (C(<driver queues='2'/>)), and V(false) for one that does not. Otherwise the kernel refuses to open it.
        type: bool
        default: false
      vnet_hdr:
        description:
          - Whether it is made for the virtio header. Whoever opens the device sets this anew (libvirt does, for an
            interface of model virtio), so a device that is there is not changed for it.
        type: bool
        default: true
      bridge:
        description:
          - The Linux bridge that it is a port of. The bridge must be there; who makes it is not this module's business.
          - Without it, the device stays the port that it is, and a new one is none.
        type: str
      state:
        description: V(absent) removes the device, if this module made it, and what makes it at boot.
        type: str
        choices: [present, absent]
        default: present
  persist:
    description:
      - Have it hold after a reboot, by a service of systemd for each device. It runs before any user logs in, and
        fails visibly if the device cannot be made. If the bridge comes later, it tries again for five minutes.
      - With another init the module refuses, because no way is known to repeat it at boot.
      - With V(false) units that are there are left alone.
    type: bool
    default: true
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: hypervisor.hardening.tap_guard
  - name: Domain XML format, generic ethernet connection
    description: What C(managed='no') means to libvirt.
    link: https://libvirt.org/formatdomain.html#generic-ethernet-connection
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: A device for a guest of alice, with two queues, on a bridge
  hypervisor.hardening.tap_device:
    devices:
      - name: alice0
        owner: alice
        multi_queue: true
        bridge: br0

- name: One for all members of a group
  hypervisor.hardening.tap_device:
    devices:
      - name: lab0
        group: lab

- name: Take it back
  hypervisor.hardening.tap_device:
    devices:
      - name: alice0
        state: absent
"""

RETURN = r"""
devices:
  description: Each of O(devices) as it is now; in check mode as it was.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the device.
      returned: success
      type: str
    exists:
      description: Whether there is a device of this name. If not, its properties are null.
      returned: success
      type: bool
    owner:
      description: The uid that may open it beside root; null if none was set.
      returned: success
      type: int
    group:
      description: The gid likewise.
      returned: success
      type: int
    multi_queue:
      description: Whether it has several queues.
      returned: success
      type: bool
    vnet_hdr:
      description: Whether it carries the virtio header now.
      returned: success
      type: bool
    bridge:
      description: The bridge that it is a port of; null for none.
      returned: success
      type: str
    up:
      description: Whether its link is set up.
      returned: success
      type: bool
    held_by:
      description: The processes that have it open.
      returned: success
      type: list
      elements: dict
      contains:
        pid:
          description: The process.
          returned: success
          type: int
        comm:
          description: Its command.
          returned: success
          type: str
  sample:
    - name: alice0
      exists: true
      owner: 1000
      group: null
      multi_queue: true
      vnet_hdr: true
      bridge: br0
      up: true
      held_by: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tapdevice as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    device = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "multi_queue": {"type": "bool", "default": False},
        "vnet_hdr": {"type": "bool", "default": True},
        "bridge": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "dict", "required": True, "options": device},
            "persist": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
