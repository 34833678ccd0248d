#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_restart
short_description: Restart libvirt's daemon, or go back to what it ran with
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Restarts the daemon that drives QEMU, C(libvirtd) or on a modular host C(virtqemud), or those of O(units), and opens
    a connection to each. A restart alone proves nothing, because systemd counts the daemon as started before its
    drivers are.
  - If no connection can be opened, the files of the daemon that this collection changed since it last came up are put
    back from the host's journal, and the daemon is restarted with them, all in the same call. The module then fails,
    with what libvirt said.
  - Nothing is done at all if the daemon would refuse one of its files (the installed libvirt's own parser judges
    C(qemu.conf)), if a job of a guest that a restart would break is under way (a migration, a save, a dump, a
    snapshot), if the unit has a C(KillMode) that also ends what belongs to running guests, or if a debugger is attached
    to the daemon.
  - Running guests go on. That each is the same process afterwards is read from C(/proc); a guest that is not makes the
    module fail and is named.
  - Sockets of systemd's activation stay as they are. A unit that had failed or had been started too often is reset
    first. A daemon that was stopped by a signal goes on and ends; one that does not end in time is killed, which guests
    do not notice.
  - C(virtlogd) and C(virtlockd) hold the pipes of guests' consoles and the leases of their disks. One that runs is not
    restarted but asked by C(SIGUSR1) to execute itself anew, which hands these on.
options:
  units:
    description:
      - The daemons to restart, such as RV(hypervisor.hardening.libvirt_conf#module:restart_units), one after the other
        in this order, by their names or those of their services. By default the one that drives QEMU.
      - All of them are judged before the first restart. Each one that does not come up has its own files put back, and
        ends the module.
    type: list
    elements: str
  timeout:
    description:
      - How many seconds systemd has for the restart, and again the daemon for the first connection. libvirt itself
        gives threads that are still busy 30 seconds to end.
      - In the worst case (a daemon that has to be killed, does not come up, and with its former files not either) the
        module takes about seven times as long.
    type: int
    default: 60
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
    details:
      - Judges all that can be judged without a restart, and says what would be restarted.
  diff_mode:
    support: full
  idempotent:
    support: none
    details:
      - Each call restarts the daemon. Make it depend on RV(hypervisor.hardening.qemu_conf#module:restart_required),
        which also finishes what a run that broke off has left undone, and not on a task that reports C(changed).
      - Of calls that are made at the same time one restarts the daemon, and counts for those that waited.
seealso:
  - module: hypervisor.hardening.qemu_conf
  - module: hypervisor.hardening.libvirt_conf
  - module: hypervisor.hardening.hugetlbfs
"""

EXAMPLES = r"""
- name: Confine every guest
  hypervisor.hardening.qemu_conf:
    settings:
      seccomp_sandbox: 1
      namespaces: [mount]
  register: result

- name: Restart libvirt over it
  hypervisor.hardening.daemon_restart:
  when: result.restart_required

- name: Verify the clients that come by TLS
  hypervisor.hardening.libvirt_conf:
    daemon: remote
    settings:
      tls_no_verify_certificate: null
  register: result

- name: Restart whoever serves them
  hypervisor.hardening.daemon_restart:
    units: "{{ result.restart_units }}"
  when: result.restart_required

- name: Restart libvirt on a host with hundreds of guests, which libvirt takes up one by one
  hypervisor.hardening.daemon_restart:
    timeout: 180
  when: result.restart_required
"""

RETURN = r"""
restarted:
  description: The systemd units that were restarted; in check mode those that would be.
  returned: when a restart was tried, or would be
  type: list
  elements: str
  sample: [libvirtd.service]
rolled_back:
  description:
    - Whether files were put back because the daemon did not come up. The module has failed then, and its message says
      which, and what libvirt said.
  returned: when a restart was tried, or would be
  type: bool
  sample: false
guests:
  description: The guests that ran before.
  returned: when a restart was tried, or would be
  type: list
  elements: dict
  contains:
    name:
      description: The name of the guest.
      type: str
      returned: always
    pid:
      description: Its process.
      type: int
      returned: always
    start_time:
      description: When this process was started, in seconds since the epoch.
      type: float
      returned: always
    same:
      description: Whether it is still there, the very same process. The module has failed if one is not.
      type: bool
      returned: always
  sample: [{"name": "web1", "pid": 2210, "start_time": 1767225600.52, "same": true}]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _restarts as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={"units": {"type": "list", "elements": "str"}, "timeout": {"type": "int", "default": 60}},
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg=f"timeout: {module.params['timeout']} is no time to wait; it takes at least 1 second.")
    run(module, room, room.Wanted(since=room.now(), **module.params))


if __name__ == "__main__":
    main()
