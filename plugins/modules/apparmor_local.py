#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apparmor_local
short_description: Give guests what AppArmor keeps from them, and no more
version_added: 0.1.0
description:
  - libvirt makes a profile of AppArmor for each guest that starts, of what the guest's definition names. What else a
    guest needs, such as a file that is passed through to QEMU, has to be added to the policy by hand. This module holds
    all of these additions of a host, each as narrow as it can be. What is not among its options any more is taken away.
  - Rules are written only where the installed release reads additions, as its profiles say. For all guests that is
    C(/etc/apparmor.d/abstractions/libvirt-qemu.d) or C(/etc/apparmor.d/local/abstractions/libvirt-qemu), for
    virt-aa-helper C(/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper), and for one guest its own profile in
    C(/etc/apparmor.d/libvirt). In a file that others write to as well, they are a block between two marks, and
    all else stays.
  - Some releases of libvirt delete the profile of a guest that stops, 9.0 for one, and others keep it, as 11.3 does.
    Where the installed virt-aa-helper deletes it, and a guest has rules of its own, it is denied to write that file.
  - AppArmor's compiler judges every profile with the additions in it before a file is written, in check mode too. What
    it refuses is not written, and never loaded. If loading fails, the former files come back.
  - The profiles of guests that run are not loaded anew. Such a guest gets the rules, or loses them, when it is started
    the next time, see RV(guests_pending).
  - Huge pages need no rule here, since libvirt adds one to a guest that has them.
  - Where the kernel does not run AppArmor, nothing is written, and a warning says so.
options:
  grants:
    description: What guests may use beyond their definitions.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description:
          - The file, device or directory, with no patterns. Characters that are special to AppArmor are taken as
            they are.
          - Symbolic links in it are followed, since AppArmor knows files without them.
        type: path
        required: true
      access:
        description: Whether it may be read, or read and written.
        type: str
        choices: [read, write]
        default: read
      below:
        description:
          - Whether this is a directory of which all is meant, at any depth.
          - Refused in C(/tmp), C(/var/tmp) and C(/dev/shm), where any process of the host can make names, and for
            directories of which no guest needs everything.
        type: bool
        default: false
      guest:
        description:
          - The name or UUID of the guest. Without it, the grant is for all guests.
        type: str
        default: ''
  rules:
    description:
      - Other rules for all guests, each as apparmor.d(5) describes them, with or without a comma at the end.
      - One that would give too much, such as a capability that leads out of the confinement, is refused.
    type: list
    elements: str
    default: []
  pools:
    description:
      - Whether virt-aa-helper may read the storage pools of this host that are directories. To find the images that an
        image is built on, it has to, and its profile knows only usual places and endings of names.
    type: bool
    default: false
  memfd_fallback:
    description:
      - Names or UUIDs of guests that may make the file in C(/tmp) that QEMU falls back to where C(memfd_create) does
        not work. Without it, a migration with vhost-user devices fails then.
      - The rule is written only where the call, tried as QEMU's user, fails. It names QEMU's file with its six random
        characters, owned by the guest, for each of these guests alone.
    type: list
    elements: str
    default: []
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
  - name: The QEMU driver of libvirt
    description: What a guest's profile is made of.
    link: https://libvirt.org/drvqemu.html#apparmor-svirt-confinement
  - module: hypervisor.hardening.guest_confinement_info
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Let one guest read a firmware, and write to a device of its own
  hypervisor.hardening.apparmor_local:
    grants:
      - path: /srv/firmware/option.rom
        guest: web
      - path: /dev/ttyUSB0
        access: write
        guest: web

- name: Let the helper of libvirt read pools, and keep guests from the host's sound cards
  hypervisor.hardening.apparmor_local:
    pools: true
    rules:
      - deny /dev/snd/* rw

- name: No additions any more
  hypervisor.hardening.apparmor_local:
"""

RETURN = r"""
model:
  description: What the kernel runs, V(apparmor), V(selinux), or nothing.
  returned: success
  type: str
  sample: apparmor
profiles:
  description: The loaded profiles of libvirt's daemons and helpers. Those of guests are not among them.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The profile's name.
      returned: success
      type: str
    mode:
      description: Its mode, of which V(enforce) and V(kill) confine.
      returned: success
      type: str
not_enforced:
  description: The names of loaded profiles that do not confine, those of guests too.
  returned: success
  type: list
  elements: str
disabled:
  description: The links that keep a profile of libvirt's from being loaded.
  returned: success
  type: list
  elements: str
force_complain:
  description: The links that have a profile of libvirt's only complain.
  returned: success
  type: list
  elements: str
files:
  description: Where which rules are.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      returned: success
      type: str
    rules:
      description: The rules in it, without their commas.
      returned: success
      type: list
      elements: str
helper_loaded:
  description:
    - Whether the loaded profile of virt-aa-helper is the one that its file describes, by the digest that the kernel
      keeps; null where the kernel does not tell, or nothing is added to it. In check mode it is as it is now.
  returned: success
  type: bool
guests_pending:
  description: Running guests whose profile was loaded before it was changed. They have to be started anew for it.
  returned: success
  type: list
  elements: str
memfd_create:
  description: Whether C(memfd_create) works for QEMU's user; null if it was not tried, or could not be.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _aagrants, _apparmorlocal, _runner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "grants": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "access": {"type": "str", "choices": ["read", "write"], "default": "read"},
                    "below": {"type": "bool", "default": False},
                    "guest": {"type": "str", "default": ""},
                },
            },
            "rules": {"type": "list", "elements": "str", "default": []},
            "pools": {"type": "bool", "default": False},
            "memfd_fallback": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = _apparmorlocal.Wanted(
        grants=tuple(_aagrants.Grant(**grant) for grant in module.params["grants"]),
        rules=tuple(module.params["rules"]),
        pools=module.params["pools"],
        memfd_fallback=tuple(module.params["memfd_fallback"]),
    )
    _runner.run(module, _apparmorlocal, wanted)


if __name__ == "__main__":
    main()
