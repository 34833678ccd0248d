#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tap_guard
short_description: Check that guests find the names of their TAP devices free
version_added: 0.1.0
description:
  - Looks, before a guest starts, whether the names of its network devices are free on the host, says who has those that
    are not, and can remove TAP devices that nobody holds any more.
  - libvirt refuses to start a guest whose interface names a device that exists (C(<target dev='NAME'/>); so from
    libvirt 9.1 on, and in the packages of Debian 12 and RHEL 9; older ones take the device over). For an interface of
    type C(ethernet), its clean-up then deletes the existing TAP device, with its place in the bridge. Only a check
    before the start prevents that.
  - What it is about are interfaces of the types C(bridge), C(direct), C(ethernet) and C(network) that name a device.
  - An interface of type C(ethernet) with C(<target dev='NAME' managed='no'/>) takes a device that was made for it. Such
    a device is exempt if it is there and fits. Neither its owner nor its C(vnet_hdr) matters to libvirt, its queues do.
  - This is a check before a start. A guest that is started by other means (C(virsh), autostart, a manager) does not
    pass it. What closes that gap is C(managed='no'), or a name that nobody else uses.
  - The devices are those of the host's own network namespace. Another name of a device (C(altname)) is not looked at.
  - Needs root, to see who holds a device. C(python3-lxml) is needed where a guest's definition has to be read; if the
    Python in use has it not, the module starts over under the distribution's own.
options:
  names:
    description:
      - Names that should be free. A name that one of O(domains) wants is judged for that guest.
    type: list
    elements: str
    default: []
  domains:
    description:
      - Names of guests, or V(all) for every guest that is defined or runs, transient ones included.
      - A running guest is looked at with the interfaces that it has and with those of its definition, which it gets at
        its next start.
    type: list
    elements: str
    default: []
  domain_xml:
    description:
      - Text of a definition (C(<domain>)) that is yet to be defined. It is judged as if it took the place of the
        definition of the same name, if there is one.
    type: str
  on_conflict:
    description:
      - With V(fail) the module fails if a name is not free, and names all that are not. Nothing is removed then.
      - With V(report) it only returns them.
    type: str
    choices: [fail, report]
    default: fail
  remove_stale:
    description:
      - Patterns (shell wildcards, matched against the whole name) of TAP devices to remove if they are stale.
      - Removed is only a persistent TAP device that no process holds and that no guest takes with C(managed='no'). One
        that is a port of a bridge or has an address (other than a link-local one) must be named in full, without
        wildcards.
      - What each one was (owner, group, flags, bridge, MAC, MTU, addresses) is kept in the journal of the host first.
      - A pattern without any letter, such as V(*), is refused. What makes the devices at boot is not touched.
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
  - name: Domain XML format, network interfaces
    description: What C(<target dev=>) and C(managed='no') mean to libvirt.
    link: https://libvirt.org/formatdomain.html#network-interfaces
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: No guest of this host finds the name of its device taken
  hypervisor.hardening.tap_guard:
    domains: [all]

- name: These names are still free
  hypervisor.hardening.tap_guard:
    names: [web0, web1]

- name: Check a definition before it is defined, and clear away what a test lab left
  hypervisor.hardening.tap_guard:
    domain_xml: "{{ lookup('ansible.builtin.template', 'web.xml.j2') }}"
    remove_stale: ["lab-*"]

- name: Only look
  hypervisor.hardening.tap_guard:
    domains: [all]
    on_conflict: report
  register: taps
"""

RETURN = r"""
interfaces:
  description:
    - What was judged, in the order of the guests' names, then O(names). In check mode as it is now, with what would be
      removed. On a failure because of conflicts, too.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the device.
      returned: success
      type: str
    domain:
      description: The guest that wants it; null for one of O(names).
      returned: success
      type: str
    exists:
      description: Whether there is a device of this name. If not, its properties are null.
      returned: success
      type: bool
    kind:
      description: >-
        V(tap), V(tun), V(macvtap), V(physical), V(loopback), V(veth), the kernel's word (V(bridge), V(vlan), V(bond)
        and so on), or V(other).
      returned: success
      type: str
    persistent:
      description: Whether the TAP device outlives its holders.
      returned: success
      type: bool
    owner:
      description: The uid that may open the TAP device beside root; null if none was set.
      returned: success
      type: int
    group:
      description: The gid likewise.
      returned: success
      type: int
    multi_queue:
      description: Whether the TAP device was made for several queues.
      returned: success
      type: bool
    vnet_hdr:
      description: Whether the TAP device carries the virtio header. Whoever opens it sets this anew.
      returned: success
      type: bool
    bridge:
      description: The bridge (or bond, and so on) that the device is a port of; null for none.
      returned: success
      type: str
    held_by:
      description: The processes that have the device open.
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
        guest:
          description: The guest of libvirt that it is; null if it is none.
          returned: success
          type: str
    verdict:
      description:
        - V(free) - there is no such device.
        - V(own) - that very guest runs on it.
        - V(exempt) - the guest takes it as it is (C(managed='no')), and it fits.
        - V(foreign) - it exists, and somebody else has it, or it is no TAP device.
        - V(stale) - it is a TAP device that no process holds.
        - V(reserved) - libvirt would drop the name (C(vnet), C(macvtap), C(macvlan)).
        - V(too_long) - it has more than 15 bytes.
        - V(invalid) - the kernel takes no such name.
        - V(duplicate) - several interfaces want it.
        - V(missing) - the guest takes it as it is and it is not there, or a running guest has lost it.
        - V(mismatch) - the guest takes it as it is, and libvirt cannot open it (other queues, no TAP device).
        - All but the first three are conflicts.
      returned: success
      type: str
    reason:
      description: Why, who has it, what libvirt would do, and what to do about it.
      returned: success
      type: str
  sample:
    - name: web0
      domain: web
      exists: true
      kind: tap
      persistent: true
      owner: 1000
      group: null
      multi_queue: false
      vnet_hdr: false
      bridge: br0
      held_by: []
      verdict: stale
      reason: >-
        It is a persistent TAP device (port of br0, owner uid 1000) that no process holds; libvirt refuses to start the
        guest, and its clean-up DELETES this device.
conflicts:
  description: Those that are not free, without the ones that are (or in check mode would be) removed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name of the device.
      returned: success
      type: str
    domain:
      description: The guest that wants it; null for one of O(names).
      returned: success
      type: str
    verdict:
      description: See RV(interfaces[].verdict).
      returned: success
      type: str
    reason:
      description: See RV(interfaces[].reason).
      returned: success
      type: str
  sample: []
removed:
  description: The stale TAP devices that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [lab-7]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tapguard as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "domains": {"type": "list", "elements": "str", "default": []},
            "domain_xml": {"type": "str"},
            "on_conflict": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
            "remove_stale": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
