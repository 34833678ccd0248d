#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hugetlbfs
short_description: Reserve huge pages and mount them for guests
version_added: 0.1.0
description:
  - Reserves huge pages, mounts hugetlbfs for each page size, makes the directory in it that libvirt uses
    (C(PATH/libvirt/qemu), owned by root, mode 0755, as libvirt itself makes it), and keeps all that after a reboot.
  - What the kernel really gave is read back. Fewer pages than wanted are an error, and the pool is put back to what it
    was, unless O(allow_partial) is set.
  - A guest's own directory (C(PATH/libvirt/qemu/ID-NAME)) is never made. libvirt would leave one that is there as it
    is, and so skip its owner and label.
  - Nothing is taken away from guests. A pool is not made smaller than what is in use or promised, what is in use is not
    unmounted, and a mount's owner and mode are changed in place. The page size of a mount cannot be changed; see the
    examples for how to replace one that nothing uses.
  - libvirt looks for hugetlbfs mounts once, when its daemon starts, and only while C(hugetlbfs_mount) is not set in
    C(qemu.conf); RV(restart_required) says when the running daemon does not know of a change. After the restart, guests
    that are running can use the mount if it reaches them; see M(hypervisor.hardening.mount_propagation).
  - The kernel's command line is not touched. A unit that runs early at boot asks for the pages instead, and their
    number can be changed without a reboot.
options:
  pools:
    description:
      - The pools, each of one page size. A pool reserves pages, or mounts them, or both.
    type: list
    elements: dict
    required: true
    suboptions:
      size:
        description: The page size with its unit, such as V(2M), V(1G) or V(2048 kB). The kernel must have it.
        type: str
        required: true
      pages:
        description:
          - How many pages of this size the whole machine reserves. The kernel spreads them over its nodes.
          - Without it and O(pools[].pages_per_node) the reservation stays as it is.
        type: int
      pages_per_node:
        description: How many pages of this size a NUMA node reserves, as node and number. Other nodes stay as they are.
        type: dict
      path:
        description:
          - >-
            The mount point, letters, digits and C(. _ + @ : -) only, no symbolic link in it. It is made if it is
            missing; one that is not empty is refused, because the mount would hide what is in it.
        type: str
      owner:
        description:
          - User that owns the mount's root directory, by name or number. Without it, it stays as it is; a new mount is
            root's.
        type: str
      group:
        description: Group of the mount's root directory, by name or number. Without it as for O(pools[].owner).
        type: str
      mode:
        description:
          - Mode of the mount's root directory, octal, in quotes. Without it, it stays as it is; a new mount has
            V('0755').
          - One without C(0011) is refused, because libvirt adds these bits whenever its daemon starts.
        type: raw
      delegate:
        description:
          - Users for each of whom the directory C(PATH/USER) is made, owned by that user, mode 0700, also after each
            boot. This is for who runs guests without the system's libvirt daemon, and may not make directories in the
            mount.
          - Without it, it stays as it is. An empty list makes none at the next boot; directories that are there stay
            until then, because a guest may be in them.
          - For C(qemu:///session) that user sets C(hugetlbfs_mount = ["PATH/USER"]) in C(~/.config/libvirt/qemu.conf).
            A QEMU without libvirt takes it as the C(mem-path) of C(memory-backend-file).
        type: list
        elements: str
      state:
        description:
          - V(absent) unmounts O(pools[].path) if a hugetlbfs with pages of this size is there and nothing uses it, and
            removes the units of the mount; with C(pages) V(0) also those of the reservation.
        type: str
        choices: [present, absent]
        default: present
  persist:
    description:
      - Have it hold after a reboot, by units of systemd - a service for each reservation, which fails visibly if the
        kernel gives fewer pages then; a mount unit for each path, or a drop-in, where a unit (as for C(/dev/hugepages))
        or a line of C(/etc/fstab) mounts it already; a file in C(/etc/tmpfiles.d) for each directory that is delegated.
      - With another init the module refuses, because no way is known to repeat it at boot.
      - With V(false) units that are there are left alone.
    type: bool
    default: true
  allow_partial:
    description:
      - Take fewer pages than wanted where memory is too full or too scattered for all. The next boot asks for all.
      - A number of pages that does not fit into the memory that is available is not asked for at all before the next
        boot. Nor is the kernel asked again for what it could not give since the last boot.
    type: bool
    default: false
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
    details:
      - How many pages the kernel will give is only known once it was asked.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: hypervisor.hardening.mount_propagation
  - module: hypervisor.hardening.daemon_restart
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: 512 pages of 2 MiB where libvirt looks for them
  hypervisor.hardening.hugetlbfs:
    pools:
      - size: 2M
        pages: 512
        path: /dev/hugepages

- name: Pages of 1 GiB by node, as many as there are now and all from the next boot on
  hypervisor.hardening.hugetlbfs:
    pools:
      - size: 1G
        pages_per_node: {0: 8, 1: 8}
        path: /dev/hugepages1G
    allow_partial: true
  register: pages

- name: A directory for a user who runs guests with qemu:///session
  hypervisor.hardening.hugetlbfs:
    pools:
      - size: 2M
        path: /dev/hugepages
        delegate: [alice]

- name: Another page size at the same path
  hypervisor.hardening.hugetlbfs:
    pools:
      - size: 2M
        path: /dev/hugepages
        pages: 0
        state: absent
      - size: 1G
        path: /dev/hugepages
        pages: 16
"""

RETURN = r"""
pools:
  description: Each of O(pools) as it is now; in check mode as it was.
  returned: success
  type: list
  elements: dict
  contains:
    size:
      description: The page size.
      returned: success
      type: str
    pages:
      description: How many pages of this size the machine has reserved.
      returned: success
      type: int
    free:
      description: How many of these nobody has.
      returned: success
      type: int
    in_use:
      description: How many are in use or promised.
      returned: success
      type: int
    pages_per_node:
      description: How many each node has.
      returned: success
      type: dict
    path:
      description: The mount point.
      returned: when it was given
      type: str
    mounted:
      description: Whether hugetlbfs with pages of this size is mounted there.
      returned: when a path was given
      type: bool
    uid:
      description: Owner of the mount's root directory.
      returned: when it is mounted
      type: int
    gid:
      description: Group of the mount's root directory.
      returned: when it is mounted
      type: int
    mode:
      description: Mode of the mount's root directory.
      returned: when it is mounted
      type: str
    base:
      description: libvirt's directory in it.
      returned: when it is mounted
      type: str
    delegated:
      description: The directories of the users.
      returned: when it is mounted and delegate was given
      type: list
      elements: str
  sample:
    - size: 2M
      pages: 512
      free: 512
      in_use: 0
      pages_per_node: {"0": 512}
      path: /dev/hugepages
      mounted: true
      uid: 0
      gid: 0
      mode: "0755"
      base: /dev/hugepages/libvirt/qemu
shortages:
  description: What is reserved in smaller number than wanted, and why. Only with O(allow_partial).
  returned: success
  type: list
  elements: str
  sample: ["3 pages of 1G instead of 16: the kernel could not give more when it was asked since this boot."]
reboot_required:
  description: Whether pages are short that the next boot asks for.
  returned: success
  type: bool
reboot_reason:
  description: Which, and why; empty if no reboot is required.
  returned: success
  type: str
restart_required:
  description: Whether libvirt's daemon runs since before a mount was made or taken away, and so does not know of it.
  returned: success
  type: bool
restart_units:
  description: The units to restart, if so.
  returned: success
  type: list
  elements: str
  sample: [libvirtd.service]
guests_pending:
  description:
    - Running guests that cannot get at one of the mounts, because it does not reach them. They were started while it,
      or C(/), was private, and nothing but a new start changes that.
  returned: success
  type: list
  elements: str
  sample: [web1]
got:
  description: How many pages the kernel gave, or the pool has.
  returned: failure, for lack of pages
  type: int
wanted:
  description: How many were wanted.
  returned: failure, for lack of pages
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _hugetlb as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    pool = {
        "size": {"type": "str", "required": True},
        "pages": {"type": "int"},
        "pages_per_node": {"type": "dict"},
        "path": {"type": "str"},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "mode": {"type": "raw"},
        "delegate": {"type": "list", "elements": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec={
            "pools": {"type": "list", "elements": "dict", "required": True, "options": pool},
            "persist": {"type": "bool", "default": True},
            "allow_partial": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
