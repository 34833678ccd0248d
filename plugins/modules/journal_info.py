#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal_info
short_description: What this collection has changed on a hypervisor, and what has become of it
version_added: 0.1.0
description:
  - Before each change, the modules of this collection keep the former state in the host's journal
    (C(/var/lib/hypervisor-hardening/journal)). This module lists the changes, and says of each whether it still holds.
  - Nothing of what the journal holds is in the result, neither the contents of files nor values.
options:
  since:
    description:
      - List the changes made at or after a moment (UTC), such as V(2026-01-31T23:59:00Z), or from an entry on.
      - All of them, if it is not given.
    type: str
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - Needs root.
seealso:
  - module: hypervisor.hardening.rollback
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: List what was changed
  hypervisor.hardening.journal_info:
  register: journal

- name: Name what somebody else has changed since
  ansible.builtin.debug:
    msg: "{{ journal.entries | selectattr('state', 'eq', 'drifted') | map(attribute='target') | unique }}"
"""

RETURN = r"""
entries:
  description: The changes, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the entry. Names sort in the order of the changes, also where the clock was set back.
      returned: success
      type: str
      sample: 20260131T235900.123456789-4711.json
    time:
      description: When it was made (UTC).
      returned: success
      type: str
      sample: 20260131T235900Z
    by:
      description: The module that made it.
      returned: success
      type: str
      sample: qemu_conf
    version:
      description: The version of this collection.
      returned: success
      type: str
    kind:
      description: V(file), V(directory), V(link), V(mode), V(owner), V(rename), V(unit), V(propagation),
        V(hugetlbfs), V(hugepages), V(tap), V(acl), V(socket), V(selinux_boolean), V(selinux_permissive),
        V(selinux_fcontext), V(selinux_label), V(kernel), or V(unknown) to this version.
      returned: success
      type: str
    target:
      description: The file, or the running value as the journal names it.
      returned: success
      type: str
      sample: /etc/libvirt/qemu.conf
    state:
      description:
        - V(in_force) - it holds, or a later change was made upon it.
        - V(drifted) - somebody else has changed the target afterwards.
        - V(put_back) - the former state has returned.
        - V(not_made) - the run was broken off before the change, or somebody else has brought the former state back.
        - V(unknown) - this version of the collection does not know such a target.
      returned: success
      type: str
    undoes:
      description: The entry whose former state returned with this change; empty for a change that is no return.
      returned: success
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils._journalled import gather
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import show


def main() -> None:
    module = AnsibleModule(argument_spec={"since": {"type": "str"}}, supports_check_mode=True)
    show(module, lambda host: gather(host, module.params["since"] or ""))


if __name__ == "__main__":
    main()
