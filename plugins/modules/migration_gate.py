#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_gate
short_description: Refuse guests that come by migration to a host that is not as agreed
version_added: 0.1.0
description:
  - Puts up a gate on a host that guests migrate to. It holds what the hosts of a migration group agree on, and a hook
    of libvirt that compares the host with it when a migration begins, before anything on the host is touched.
  - libvirt itself does not compare these values. A destination that runs QEMU as another user gives the shared image to
    that user while the guest still runs on the source; one without the system-call filter takes that confinement from
    the guest without a word.
  - The hook also reads the guest's XML for what it needs here. These are mounted and free huge pages, names of TAP
    devices, fixed ports of displays, images, devices and directories of the host, and C(memfd_create). Machine type and
    processor are left to libvirt, which checks them.
  - The values are the live ones, seen without a connection to libvirt. The user is the one that owns
    C(/var/lib/libvirt/qemu); C(memfd_create) is tried as that user; C(qemu.conf) counts if it was not changed after the
    daemon started. If it was, what is loaded is not known, and that is a departure as well.
  - A hook that is broken, has no agreement, or comes to no judgement within two seconds refuses with V(enforce), and
    lets pass and logs with V(warn). It never hinders anything else than a migration that begins.
  - libvirt looks for hooks when its daemon starts (and, as seen on 9.0 and 11.3, when it is reloaded). The first one is
    ignored until then, see RV(ignore:armed).
  - The hooks that are there stay and run as before. From libvirt 6.5 on, the gate is a file of its own in
    C(/etc/libvirt/hooks/qemu.d), the last one by its name, so that it judges what the others made of the XML. An older
    libvirt runs C(/etc/libvirt/hooks/qemu) alone. There an existing one is renamed to C(qemu.chained), and the gate
    runs it.
  - The hook logs with syslog as C(hypervisor-hardening-gate). It needs the system's Python, 3.9 or later, and nothing
    else.
options:
  agreement:
    description:
      - What the hosts of the group agree on, with the keys C(version) (V(1)), C(group) (the group's name), C(values) (a
        dictionary), and C(digest), which may be left out.
      - C(values) can hold C(qemu_uid), C(qemu_gid), C(dynamic_ownership), C(remember_owner), C(security_models),
        C(namespaces), C(seccomp_sandbox), C(cgroup_controllers), C(cgroup_device_acl), C(sched_core), C(max_core),
        C(memory_backing_dir), C(lock_manager), C(migrate_tls_force) and C(memfd_create). Each is the effective value,
        with libvirt's default where C(qemu.conf) sets none. What is not among them is not compared.
      - An unknown key, a value of another type, and a digest that is not that of the values are refused.
      - Required if O(state=present).
    type: dict
  mode:
    description:
      - V(enforce) refuses a guest that may not come, and the reason reaches whoever migrates it.
      - V(warn) logs the reason and lets the guest come.
      - V(off) leaves everything in place and lets every guest come without a look. Going from there to another mode
        takes no restart of the daemon.
    type: str
    choices: ['off', warn, enforce]
    default: warn
  state:
    description:
      - V(absent) takes the gate away, and brings back what was there before it.
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
seealso:
  - name: Hooks for specific system management
    description: When libvirt calls its hooks, and what their exit status does.
    link: https://libvirt.org/hooks.html
  - module: hypervisor.hardening.daemon_restart
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Log which guests would come to a host that is not as agreed
  hypervisor.hardening.migration_gate:
    agreement: "{{ agreement }}"
  register: gate

- name: Have the daemon take notice of its first hook
  hypervisor.hardening.daemon_restart:
  when: gate.restart_required

- name: Refuse them
  hypervisor.hardening.migration_gate:
    mode: enforce
    agreement:
      version: 1
      group: web
      values:
        qemu_uid: 64055
        qemu_gid: 64055
        dynamic_ownership: true
        seccomp_sandbox: true
        namespaces: [mount]

- name: No gate any more
  hypervisor.hardening.migration_gate:
    state: absent
"""

RETURN = r"""
armed:
  description:
    - Whether the running daemon calls the hook, since it was started after the first hook of QEMU came to be. A daemon
      that does not run will.
    - V(false) also with O(mode=off) and O(state=absent). In check mode it is as it is now.
  returned: success
  type: bool
restart_required:
  description: Whether the daemon has to be restarted for the hook to be called.
  returned: success
  type: bool
restart_units:
  description: The units to restart for that.
  returned: success
  type: list
  elements: str
hook:
  description: What libvirt runs; empty with O(state=absent).
  returned: success
  type: str
  sample: /etc/libvirt/hooks/qemu.d/zz-hypervisor-hardening
chained:
  description: The other hooks of QEMU, which run as before.
  returned: success
  type: list
  elements: str
  sample: [/etc/libvirt/hooks/qemu]
digest:
  description: The SHA-256 digest of the agreement; empty with O(state=absent). Hosts with the same one agree.
  returned: success
  type: str
mismatches:
  description: Where the host departs from the agreement now. With V(enforce) no guest may come then.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The key among the agreement's values.
      returned: success
      type: str
    agreed:
      description: The agreed value.
      returned: success
      type: raw
    live:
      description: The host's own value; null where it is not known.
      returned: success
      type: raw
    reason:
      description: Why it is not known; empty where it is.
      returned: success
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _migrationgate, _runner


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "agreement": {"type": "dict"},
            "mode": {"type": "str", "choices": ["off", "warn", "enforce"], "default": "warn"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["agreement"])],
        supports_check_mode=True,
    )
    wanted = _migrationgate.Wanted(
        agreement=module.params["agreement"],
        mode=module.params["mode"],
        present=module.params["state"] == "present",
    )
    _runner.run(module, _migrationgate, wanted)


if __name__ == "__main__":
    main()
