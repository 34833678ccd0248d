#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mount_propagation
short_description: Make mounts of the host reach its guests
version_added: 0.1.0
description:
  - Sets the propagation of mounts, in the mount namespace of PID 1.
  - libvirt gives every guest a mount namespace of its own, in which all mounts are slaves of the host's. What the host
    mounts later reaches a guest only if the mount above it was C(shared) when the guest started. On a host where C(/)
    is C(private), hot-plug of memory from a hugetlbfs that was mounted later fails, for instance.
  - A recursive word (C(rshared) and so on) is applied mount by mount, not with C(mount --make-rshared /), because that
    also reaches mounts that were made private on purpose, and breaks them (C(unshare --mount=FILE), snapd, containers).
  - These stay as they are - what O(exclude) covers, with everything below it; and for C(rshared) what cannot or should
    not be shared by its own looks - a private mount below a shared one, a directory mounted on itself, a mount that
    holds the file of a mount namespace, an unbindable one, autofs. RV(excluded) lists them. To change such a mount all
    the same, name it in O(mounts).
  - Of mounts stacked on one mount point the topmost counts.
options:
  mounts:
    description:
      - Mount points. A directory that is not one is refused.
    type: list
    elements: str
    default: ["/"]
  propagation:
    description:
      - The kernel's word for what these mounts are to be. With C(r) it also holds for all mounts below them.
      - A C(shared) mount that is a slave besides counts as C(shared). A C(slave) that would get nothing from anywhere
        is C(private) to the kernel, and counts as C(slave).
    type: str
    choices: [private, rprivate, shared, rshared, slave, rslave, unbindable, runbindable]
    default: rshared
  exclude:
    description:
      - Patterns (shell wildcards, C(*) also matches C(/)) of mount points that a recursive word does not touch, nor
        anything below them.
    type: list
    elements: str
    default:
      - /run/snapd/ns
      - /run/credentials
      - /run/systemd/*
      - /run/libvirt/qemu/*.dev
      - /run/containerd
      - /run/containers
      - /run/docker
      - /run/host
      - /run/user/*
      - /var/lib/containerd
      - /var/lib/containers
      - /var/lib/docker
      - /var/lib/incus
      - /var/lib/lxc
      - /var/lib/lxd
      - /var/snap/lxd
  persist:
    description:
      - Have it hold after a reboot, too. systemd makes all mounts shared when it boots, so usually nothing has to be
        written. Where it would not come to that (another word; a propagation among the options of the mount's unit or
        line in C(/etc/fstab); a container whose manager does not share), a unit is written for each of O(mounts).
      - With another init the module refuses, because no way is known to repeat it at boot. Set this to V(false) there
        and call C(mount --make-rshared /) in a boot script, before libvirt is started.
      - With V(false) units that are there are left alone.
    type: bool
    default: true
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
    details:
      - The kernel is asked, in a copy of the mount namespace that goes away at once, whether it would make each change.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: hypervisor.hardening.hugetlbfs
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: What the host mounts later reaches the guests that start from now on
  hypervisor.hardening.mount_propagation:

- name: The same for one tree, with a mount in it that stays as it is
  hypervisor.hardening.mount_propagation:
    mounts: [/srv]
    exclude: [/srv/build/namespaces]

- name: On a host without systemd, whose boot script makes it so at boot
  hypervisor.hardening.mount_propagation:
    persist: false
"""

RETURN = r"""
mounts:
  description: The mounts that were named or changed, with their propagation before and after, by mount point.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: The mount point.
      returned: success
      type: str
    before:
      description: V(shared), V(slave), V(shared,slave), V(unbindable) or V(private).
      returned: success
      type: str
    after:
      description: The same afterwards; in check mode what it would be.
      returned: success
      type: str
  sample: [{"target": "/", "before": "private", "after": "shared"}]
excluded:
  description: The mounts that a recursive word would have changed, and that were left alone.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: The mount point.
      returned: success
      type: str
    propagation:
      description: What it is and stays.
      returned: success
      type: str
    reason:
      description: The pattern of O(exclude), or what it is about the mount.
      returned: success
      type: str
  sample: [{"target": "/run/snapd/ns", "propagation": "private", "reason": "exclude: /run/snapd/ns"}]
guests_pending:
  description:
    - Running guests that what is mounted from now on does not reach, because their copy of one of O(mounts) is no slave
      of the host's. They were started before it was shared, and nothing but a new start changes that.
    - Empty if O(propagation) is neither V(shared) nor V(rshared).
  returned: success
  type: list
  elements: str
  sample: [web1]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _mounts as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mounts": {"type": "list", "elements": "str", "default": ["/"]},
            "propagation": {"type": "str", "choices": list(room.PROPAGATIONS), "default": "rshared"},
            "exclude": {"type": "list", "elements": "str", "default": list(room.DEFAULT_EXCLUDE)},
            "persist": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
