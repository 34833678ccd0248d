#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: guest_confinement_info
short_description: What confines each running guest, as the kernel shows it
version_added: 0.1.0
description:
  - Reads from C(/proc) of every running QEMU what the kernel enforces on it, and names what is weak.
  - Needs no connection to libvirt, touches no guest, and gives the same answer while libvirt's daemon is down or hangs.
    Files of libvirt only tell what to expect - its pid files who manages a guest, C(qemu.conf) and the guest's
    live definition which device nodes belong in its C(/dev).
  - A QEMU is a process that executes a file named C(qemu-system-...) or C(qemu-kvm), by the kernel's link to that
    file and not by the name that a process gives itself; and whatever libvirt keeps as the process of a guest. Guests
    that were started without libvirt are looked at like others. The QEMU processes that libvirt asks for their
    capabilities have no guest and are left out, and so is a process that ends meanwhile.
  - A host without a running guest, or without libvirt and QEMU, has an empty list.
extends_documentation_fragment:
  - hypervisor.hardening.attributes.info
notes:
  - A guest that was taken over can make reads of its own C(/proc) wait for ever, as it can for C(ps). The task keyword
    C(timeout) bounds that.
  - Needs root. Where a process may not be looked at the module fails, because a guest could be among them.
  - If a guest has device nodes that the device list does not explain, its definition is read with lxml (the package
    C(python3-lxml)).
seealso:
  - module: hypervisor.hardening.qemu_conf
  - module: hypervisor.hardening.mount_propagation
author:
  - hypervisor.hardening contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at the running guests
  hypervisor.hardening.guest_confinement_info:
  register: confinement

- name: Fail where QEMU has not all of its seccomp filter
  ansible.builtin.assert:
    that: "'no_seccomp' not in item.weaknesses | map(attribute='id')"
    fail_msg: "{{ item.name }}: {{ item.weaknesses | selectattr('id', 'eq', 'no_seccomp') | list }}"
    quiet: true
  loop: "{{ confinement.guests }}"
  loop_control:
    label: "{{ item.name }}"

- name: Tell which guests have to be started again for a change of qemu.conf to reach them
  ansible.builtin.debug:
    msg: >-
      {{ confinement.guests | subelements('weaknesses') | selectattr('1.id', 'eq', 'older_than_configuration')
         | map(attribute='0.name') }}
"""

RETURN = r"""
guests:
  description: One entry for each running QEMU process, by name and pid.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: What C(-name) on the command line calls it, empty if nothing does.
      returned: success
      type: str
    short_name:
      description: libvirt's name for the guest's own files, C(ID-NAME) with the first 20 characters of the name.
        Empty for a guest that libvirt did not start.
      returned: success
      type: str
    uuid:
      description: What C(-uuid) on the command line says, empty if nothing does.
      returned: success
      type: str
    managed_by:
      description:
        - V(libvirt) if the system's libvirt keeps it as the process of a guest, V(libvirt-session) if the libvirt of
          the user that QEMU runs as does, otherwise V(other).
        - V(older_than_configuration) and the guest's definition are only known for V(libvirt).
      returned: success
      type: str
    pid:
      description: The process id.
      returned: success
      type: int
    start_time:
      description: When the process started, in seconds since the epoch, to 10 milliseconds.
      returned: success
      type: float
    uid:
      description: The effective user id, as the host counts.
      returned: success
      type: int
    gid:
      description: The effective group id, as the host counts.
      returned: success
      type: int
    uids:
      description: All four user ids.
      returned: success
      type: dict
      sample: {"real": 64055, "effective": 64055, "saved": 64055, "filesystem": 64055}
    gids:
      description: All four group ids.
      returned: success
      type: dict
      sample: {"real": 64055, "effective": 64055, "saved": 64055, "filesystem": 64055}
    groups:
      description: The supplementary group ids.
      returned: success
      type: list
      elements: int
    cap_eff:
      description: The effective capabilities, 16 hexadecimal digits.
      returned: success
      type: str
    cap_prm:
      description: The permitted capabilities, which a process can make effective by itself.
      returned: success
      type: str
    no_new_privs:
      description: Whether executing a program can never give it privileges.
      returned: success
      type: bool
    seccomp:
      description: The system call filter.
      returned: success
      type: dict
      contains:
        mode:
          description: V(0) disabled, V(1) strict, V(2) filter.
          returned: success
          type: int
        filters:
          description: How many filters there are, inherited ones included; null where the kernel does not count them.
          returned: success
          type: int
    user_namespace:
      description: The user namespace.
      returned: success
      type: dict
      contains:
        id:
          description: The kernel's name for it.
          returned: success
          type: str
        private:
          description: Whether it is not the host's. Capabilities then hold in it alone.
          returned: success
          type: bool
    mount_namespace:
      description: The mount namespace.
      returned: success
      type: dict
      contains:
        id:
          description: The kernel's name for it.
          returned: success
          type: str
        private:
          description: Whether neither PID 1, nor libvirt's daemon, nor another guest lives in it.
          returned: success
          type: bool
    private_dev:
      description: Whether its C(/dev) is another file system than the host's.
      returned: success
      type: bool
    dev:
      description:
        - What stands in its C(/dev) and is no directory; empty where that is the host's.
        - What lies on other file systems that are mounted there (C(pts), C(shm), C(mqueue), C(hugepages)) is left out.
      returned: success
      type: list
      elements: dict
      contains:
        path:
          description: The path as the guest's process sees it.
          returned: success
          type: str
        type:
          description: V(char), V(block), V(symlink), V(file), V(fifo) or V(socket).
          returned: success
          type: str
        device:
          description: MAJOR:MINOR of a device, otherwise empty.
          returned: success
          type: str
        owner:
          description: The user id that owns it.
          returned: success
          type: int
        group:
          description: The group id that owns it.
          returned: success
          type: int
        mode:
          description: The permission bits.
          returned: success
          type: str
        unexpected:
          description:
            - Why it is unexpected, empty if it is not. Expected is what C(cgroup_device_acl) of C(qemu.conf) lists
              (without it, libvirt's built-in list), what the guest's definition names or passes through, what those
              are built of (device mapper, symlinks), and what the host itself has as a mount below C(/dev).
            - An expected node also has to be the device that the host has by that name, belong to the host's owner of
              it or to the user that QEMU runs as, and give all others no more than the host's does.
          returned: success
          type: str
    dev_incomplete:
      description: Why not all of its C(/dev) was looked at - more than 1024 entries, or a file system of a network or
        of a process (FUSE). Normally empty.
      returned: success
      type: str
    propagation:
      description: The propagation of its C(/) - V(slave), V(shared), V(shared,slave), V(private) or V(unbindable).
        Empty where it has no mount on C(/) (chroot).
      returned: success
      type: str
    label:
      description: The label of the kernel's mandatory access control, all empty where there is none.
      returned: success
      type: dict
      contains:
        model:
          description: V(apparmor) or V(selinux).
          returned: success
          type: str
        value:
          description: The profile, or the context.
          returned: success
          type: str
        mode:
          description: The profile's mode (V(enforce), V(complain) and so on), or V(enforcing) or V(permissive).
          returned: success
          type: str
    cgroup:
      description: The cgroup that filters its devices.
      returned: success
      type: dict
      contains:
        path:
          description: Its path. Empty where it cannot be seen.
          returned: success
          type: str
        device_rules:
          description:
            - With cgroup version 2 the BPF programs of type C(cgroup_device) on it and on every cgroup above it but the
              root, with version 1 the lines of C(devices.list). Empty where nothing filters devices.
            - null where the kernel does not tell.
          returned: success
          type: list
          elements: str
          sample: ["BPF program 43 on /machine.slice/machine-qemu\\x2d1\\x2dweb1.scope/libvirt"]
    limits:
      description: Resource limits, each with C(soft) and C(hard), V(-1) for unlimited.
      returned: success
      type: dict
      contains:
        core:
          description: The size of a core dump, in bytes.
          returned: success
          type: dict
        memlock:
          description: Memory that it may lock, in bytes.
          returned: success
          type: dict
        nofile:
          description: Open files.
          returned: success
          type: dict
    core_dump:
      description: What a core dump would hold.
      returned: success
      type: dict
      contains:
        filter:
          description: The kernel's C(coredump_filter), in hexadecimal. V(00000000) leaves all memory out.
          returned: success
          type: str
        guest_memory:
          description: Whether QEMU was not told to leave the guest's memory out (C(-machine dump-guest-core=off)).
          returned: success
          type: bool
    binary:
      description: The file that it executes.
      returned: success
      type: str
    binary_deleted:
      description: Whether that file has been deleted or replaced since.
      returned: success
      type: bool
    helpers:
      description:
        - The processes that libvirt started beside it (swtpm, virtiofsd, passt, qemu-pr-helper and the like), found by
          its cgroup or by libvirt's pid files. They are reported and not judged, as some have to be root.
        - Each has C(name) and those of the keys above that hold for any process.
      returned: success
      type: list
      elements: dict
    weaknesses:
      description:
        - In what it is less confined than it can be, with what was observed and what is expected.
        - A guest of a user's own libvirt always has V(host_mount_namespace), V(host_dev) and V(no_device_cgroup), as
          that libvirt has no right to make anything else. It reaches no more than the user does.
        - V(runs_as_root) - one of the user or group ids is 0 on the host.
        - V(capabilities) - it has effective or permitted capabilities, other than over a user namespace of its own.
        - V(new_privileges) - C(NoNewPrivs) is 0.
        - V(no_seccomp) - there is no system call filter, or only filters that PID 1 or libvirt's daemon have as well.
        - V(host_mount_namespace) - it lives in a mount namespace with the host, libvirt's daemon or another guest.
        - V(host_dev) - its C(/dev) is the host's.
        - V(unexpected_device) - in its own C(/dev) there is a node that is unexpected, or more than was looked at.
        - V(no_mount_propagation) - its mount namespace is its own, and C(/) in it gets nothing from the host's. This
          limits what can be given to the guest while it runs, not what it can reach.
        - V(no_mac) - the kernel has neither AppArmor nor SELinux, or the label is none that libvirt makes for a guest.
          That is no profile, C(unconfined) or the daemon's own; a context of the daemon or of an unconfined process,
          or one without categories.
        - V(mac_not_enforced) - it has such a label, and the mode is not C(enforce), C(kill) or C(enforcing).
        - V(no_device_cgroup) - nothing filters what devices it may open, or the kernel does not tell.
        - V(core_dumps) - the soft limit of a core dump's size is not 0, and C(coredump_filter) does not leave all
          memory out. Even without the guest's memory there are keys and passwords in QEMU's own. If the kernel pipes
          core dumps to a program, 0 only asks that program to write none.
        - V(deleted_binary) - the file that it executes has been deleted or replaced.
        - V(older_than_configuration) - it was started before C(qemu.conf), as it is now, was in force.
      returned: success
      type: list
      elements: dict
      contains:
        id:
          description: One of the words above.
          returned: success
          type: str
        observed:
          description: What the kernel says.
          returned: success
          type: str
        expected:
          description: What it says of a confined guest.
          returned: success
          type: str
      sample:
        - id: new_privileges
          observed: NoNewPrivs 0
          expected: NoNewPrivs 1
leftovers:
  description: Paths in C(/run/libvirt/qemu) that broken-off starts have left of the private C(/dev) of a guest.
  returned: success
  type: list
  elements: str
  sample: [/run/libvirt/qemu/7-web1.dev]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils._confinement import gather
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import show


def main() -> None:
    show(AnsibleModule(argument_spec={}, supports_check_mode=True), gather)


if __name__ == "__main__":
    main()
