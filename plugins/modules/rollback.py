#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rollback
short_description: Put back what a hypervisor was before it was hardened
version_added: 0.1.0
description:
  - Before each change, the modules of this collection keep the former state in the host's journal
    (C(/var/lib/hypervisor-hardening/journal)). This module brings it back. That can be what was changed by one role,
    what was changed since a moment, or everything.
  - A file comes back with its bytes, owner, mode and extended attributes, and one that did not exist is removed.
    Running values (huge pages, mounts and their propagation, TAP devices, parameters of the kernel) become what they
    were.
  - Of each target, the state before the first selected change returns. What was put back once does not count any more.
  - What is not as the journal says that it was made has been changed by somebody else since. It is shown in
    RV(left_alone) and stays as it is, unless O(overwrite) names it.
  - Before anything is changed, the installed libvirt judges the C(qemu.conf) that would return, and the kernel is asked
    who uses what would go. Huge pages and mounts of a running guest are not taken away; the guest is named instead.
    No running guest is touched.
  - It is recorded in the journal itself, so that it can be taken back, too, by O(since). A run that was broken off is
    finished by the next one.
  - What was changed by other means than the modules of this collection is not in the journal.
options:
  all:
    description: Put back everything.
    type: bool
    default: false
  roles:
    description:
      - Put back what these roles have changed, such as V(hypervisor_qemu), V(hypervisor_mounts),
        V(hypervisor_hugepages), V(hypervisor_taps), V(hypervisor_launchers), V(hypervisor_migration),
        V(hypervisor_daemon), V(hypervisor_kernel) and V(hypervisor_mac). A name that is not known is refused, with
        those that are.
      - The journal keeps the module that made a change. What the role
        P(hypervisor.hardening.hypervisor_launchers#role) delegated of huge pages goes with V(hypervisor_hugepages).
    type: list
    elements: str
    default: []
  since:
    description:
      - Put back what was changed at or after a moment (UTC), such as V(2026-01-31T23:59:00Z), or from an entry of the
        journal on. The module M(hypervisor.hardening.journal_info) shows both.
      - Together with O(roles), what both are true of.
    type: str
  overwrite:
    description:
      - Targets that are put back although somebody else has changed them since, by their names in RV(left_alone). What
        they hold now goes to the journal.
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
    details:
      - Passwords are covered, and of files that not everybody may read nothing is shown.
  idempotent:
    support: full
notes:
  - Needs root.
  - What is put back is in force when the daemon was restarted; see RV(restart_required).
seealso:
  - module: hypervisor.hardening.journal_info
  - module: hypervisor.hardening.daemon_restart
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Put back what the role hypervisor_qemu changed
  hypervisor.hardening.rollback:
    roles: [hypervisor_qemu]
  register: rollback

- name: Load it
  hypervisor.hardening.daemon_restart:
    units: "{{ rollback.restart_units }}"
  when: rollback.restart_required

- name: Show what would return if the last run were taken back
  hypervisor.hardening.rollback:
    since: "2026-01-31T23:59:00Z"
  check_mode: true
  diff: true

- name: Put everything back, and a file that somebody has edited since
  hypervisor.hardening.rollback:
    all: true
    overwrite: [/etc/libvirt/qemu.conf]
"""

RETURN = r"""
put_back:
  description: What returned, in the order in which it did; in check mode what would.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: The file, or the running value as the journal names it.
      returned: success
      type: str
    kind:
      description: V(file), V(directory), V(link), V(mode), V(owner), V(rename), V(unit), V(propagation),
        V(hugetlbfs), V(hugepages), V(tap), V(acl), V(socket), V(selinux_boolean), V(selinux_permissive),
        V(selinux_fcontext), V(selinux_label) or V(kernel).
      returned: success
      type: str
    by:
      description: The module that had changed it first.
      returned: success
      type: str
    entry:
      description: The entry of the journal whose former state returned.
      returned: success
      type: str
    time:
      description: When that entry was made (UTC).
      returned: success
      type: str
  sample:
    - target: /etc/libvirt/qemu.conf
      kind: file
      by: qemu_conf
      entry: 20260131T235900.123456789-4711.json
      time: 20260131T235900Z
left_alone:
  description: What was selected and stays as it is.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: As above.
      returned: success
      type: str
    reason:
      description: Why. Who else has changed it, or what else is in a directory.
      returned: success
      type: str
restart_required:
  description: Whether a daemon of libvirt's goes by something else than what its files and mounts are now.
  returned: success
  type: bool
restart_units:
  description: The units to restart for that, such as C(libvirtd.service) and C(virtlogd.service).
  returned: success
  type: list
  elements: str
guests_pending:
  description: Running guests that keep what was in force when they were started.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _rollback, _runner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "all": {"type": "bool", "default": False},
            "roles": {"type": "list", "elements": "str", "default": []},
            "since": {"type": "str"},
            "overwrite": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = _rollback.Wanted(
        everything=module.params["all"],
        roles=[role for role in module.params["roles"] if role],
        since=module.params["since"] or "",
        overwrite=[target for target in module.params["overwrite"] if target],
    )
    _runner.run(module, _rollback, wanted)


if __name__ == "__main__":
    main()
