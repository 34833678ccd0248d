#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hypervisor_info
short_description: What an audit of a hypervisor needs to know, in one call
version_added: 0.1.0
description:
  - Collects of a KVM/QEMU/libvirt host what is configured, what the daemons have loaded, and what the kernel enforces.
    These are different keys, and none is derived from another.
  - Each section that cannot be told is a dictionary with the single key C(error) and never costs the others. Inside a
    section a value that cannot be told is null, with the reason in the section's C(unread). What is absent is said by
    a value (V(false), an empty list), not by a missing key.
  - Changes nothing, and wakes nothing unless O(connect) says so. A host without libvirt gets an answer, too.
  - No password and no guest definition is in the result.
options:
  connect:
    description:
      - Whether libvirt's daemon may be started by a connection, if it is idle (socket activation).
      - Without it, what only an idle daemon could tell is null, and C(capabilities.reason) says so.
      - A daemon that runs is asked in any case, read-only and for 10 seconds at most.
    type: bool
    default: false
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - Needs root.
  - The libraries lxml (C(python3-lxml)) and libvirt (C(python3-libvirt)) of the host are used where any of its
    interpreters has them. What cannot be told without them is said where it is missing.
seealso:
  - module: hypervisor.hardening.guest_confinement_info
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Learn all about a hypervisor
  hypervisor.hardening.hypervisor_info:
  register: facts

- name: Ask libvirt too, although its daemon may be idle
  hypervisor.hardening.hypervisor_info:
    connect: true
  register: facts

- name: Show who listens to the network
  ansible.builtin.debug:
    msg: "{{ facts.hypervisor.listeners | default([]) | rejectattr('loopback') | list }}"
"""

# Each section has its block here, below a comment with its name. The rules of the audit may use no other paths.
RETURN = r"""
hypervisor:
  description: The facts, by section.
  returned: success
  type: dict
  contains:
    # section: host
    host:
      description: The host itself.
      returned: success
      type: dict
      contains:
        hostname:
          description: The kernel's host name.
          returned: success
          type: str
        os:
          description: The distribution, as C(os-release) tells it.
          returned: success
          type: dict
          contains:
            id:
              description: C(ID), empty where it is not told.
              returned: success
              type: str
              sample: debian
            id_like:
              description: C(ID_LIKE).
              returned: success
              type: list
              elements: str
            version:
              description: C(VERSION_ID), empty where it is not told.
              returned: success
              type: str
              sample: "13"
            name:
              description: C(PRETTY_NAME), empty where it is not told.
              returned: success
              type: str
        kernel:
          description: The release of the running kernel.
          returned: success
          type: str
        architecture:
          description: The machine's architecture, as C(uname -m) prints it.
          returned: success
          type: str
        cpu_vendor:
          description: The C(vendor_id) of C(/proc/cpuinfo), empty on architectures that have none.
          returned: success
          type: str
          sample: AuthenticAMD
        boot_id:
          description: The kernel's name for the present boot.
          returned: success
          type: str
        time:
          description: The host's clock when the facts were collected, in seconds since the epoch.
          returned: success
          type: float
        init:
          description: V(systemd), or the name of PID 1's program.
          returned: success
          type: str
        container:
          description: The manager of the container that the host is, by systemd's word. Empty for a machine.
          returned: success
          type: str
    # section: libvirt
    # section: daemons
    # section: sockets
    # section: listeners
    # section: configuration
    # section: capabilities
    # section: definitions
    # section: guests
    # section: mac
    # section: mounts
    # section: hugepages
    # section: taps
    # section: memfd
    # section: kernel
    # section: cpu
    # section: iommu
    # section: ksm
    # section: files
    # section: groups
    # section: storage
    # section: packages
    # section: firewall
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils._info import gather
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import prefer, show


def main() -> None:
    module = AnsibleModule(
        argument_spec={"connect": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    prefer(module, "libvirt", "lxml")
    show(module, lambda host: gather(host, connect=module.params["connect"]))


if __name__ == "__main__":
    main()
