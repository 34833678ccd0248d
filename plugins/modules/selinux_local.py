#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: selinux_local
short_description: Keep SELinux's policy for guests as narrow as what they need
version_added: 0.1.0
description:
  - Switches the booleans that widen what guests may do, has types of virtualization enforced again that somebody made
    permissive, and gives storage pools their label so that it lasts.
  - Nothing is done unless an option asks for it. The mode of SELinux is never changed, and no denial is hidden.
  - Files in a pool are not labelled, since a running guest may have them under a label of its own. The directory is,
    and new images take its label.
  - Huge pages need nothing here, as libvirt labels the directory of each guest in them.
  - Where the kernel does not run SELinux, nothing is done, and a warning says so.
options:
  booleans:
    description: Names of booleans of virtualization, and whether each is to be on, from now on and after a boot.
    type: dict
    default: {}
  minimal:
    description:
      - Whether to switch off all other booleans of virtualization. One that a storage pool of this host needs is left,
        or switched on, such as C(virt_use_nfs) for a pool of type C(netfs).
      - Not for hosts of oVirt, which switches some on by itself.
    type: bool
    default: false
  enforce_types:
    description: Whether to take back what C(semanage permissive) set for types of virtualization.
    type: bool
    default: false
  pools:
    description:
      - Whether storage pools that are local directories get the type C(virt_image_t), and keep it when files are
        labelled anew.
    type: bool
    default: false
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
  - Needs C(setsebool), C(semanage) and C(chcon), the first two only for what is to be changed.
  - Tried with a played kernel alone so far.
seealso:
  - module: hypervisor.hardening.apparmor_local
  - module: hypervisor.hardening.guest_access
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Switch off what guests of this host do not need, and keep USB devices for them
  hypervisor.hardening.selinux_local:
    booleans:
      virt_use_usb: true
    minimal: true

- name: Label storage pools
  hypervisor.hardening.selinux_local:
    pools: true
"""

RETURN = r"""
model:
  description: What the kernel runs, V(apparmor), V(selinux), or nothing.
  returned: success
  type: str
  sample: selinux
mode:
  description: SELinux's mode, V(enforcing) or V(permissive); empty where it does not run.
  returned: success
  type: str
booleans:
  description: The booleans of virtualization that are on.
  returned: success
  type: list
  elements: str
needed:
  description: The booleans that storage pools need, each with the name of a pool.
  returned: success
  type: dict
permissive:
  description: The types of virtualization that are not enforced, if O(enforce_types).
  returned: success
  type: list
  elements: str
pools:
  description: The storage pools that are local directories, if O(pools).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The pool's name.
      returned: success
      type: str
    path:
      description: Its directory.
      returned: success
      type: str
    label:
      description: The type in the directory's label.
      returned: success
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _runner, _selinuxlocal


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "booleans": {"type": "dict", "default": {}},
            "minimal": {"type": "bool", "default": False},
            "enforce_types": {"type": "bool", "default": False},
            "pools": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    wanted = _selinuxlocal.Wanted(
        booleans={name: module.boolean(value) for name, value in module.params["booleans"].items()},
        minimal=module.params["minimal"],
        enforce_types=module.params["enforce_types"],
        pools=module.params["pools"],
    )
    _runner.run(module, _selinuxlocal, wanted)


if __name__ == "__main__":
    main()
