#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: qemu_conf
short_description: Set keys of libvirt's qemu.conf
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Sets, extends and removes any number of keys of C(/etc/libvirt/qemu.conf), the configuration of libvirt's QEMU
    driver, in one call. Every byte that is not meant stays, comments and layout included.
  - Which keys exist, and of what type they are, the installed libvirt says itself, through the Augeas lens in its
    package. An unknown key is refused with the nearest known ones, because libvirt would ignore it without a message. A
    value of the wrong type, or outside libvirt's set, is refused, because the driver would not start with it.
  - Before the file is replaced the installed libvirt's own parser judges the new one, in check mode too. It does so in
    namespaces of its own, which leave nothing behind.
  - The file is replaced atomically, with its owner, mode, ACL and SELinux context. What it held before goes to the
    host's journal in C(/var/lib/hypervisor-hardening/journal).
  - No daemon is restarted and no guest is touched. What the change is waiting for is in RV(restart_required) and
    RV(guests_pending); M(hypervisor.hardening.daemon_restart) does the restart.
options:
  settings:
    description:
      - The wanted keys and their values, in the words of C(qemu.conf).
      - A value is a bool, a number, a string or a list of strings, as libvirt reads it for that key. For a bool or a
        number a string is taken as well where it can mean only one, such as V("false") or V("49152") from a survey.
      - V(null) removes the key, and so goes back to libvirt's default.
      - Of a key that stands in the file more than once only the first line counts in libvirt; the others are removed.
      - A new key goes below its commented sample, otherwise to the end of the file.
    type: dict
    default: {}
  extend:
    description:
      - Lists that are to hold libvirt's built-in entries and these after them.
      - The built-in entries are those of the installed libvirt; the lens's own test file tells them. So far that is
        possible for C(cgroup_device_acl) only.
      - A key may not be in O(settings) as well.
    type: dict
    default: {}
  secret_settings:
    description:
      - The same as O(settings) for the keys that hold a password, which are C(vnc_password), C(spice_password) and
        C(rdp_password).
      - They are refused in O(settings). Their values are in no result, diff, log or error message.
    type: dict
    default: {}
  optional:
    description:
      - Keys of O(settings) and O(secret_settings) that an older libvirt may not know. Where the installed one does not,
        they are left out and told in RV(left_out) instead of being refused.
    type: list
    elements: str
    default: []
  managed_elsewhere:
    description:
      - Keys that something else owns, such as OpenStack, oVirt or CloudStack. Wherever they are given in this module
        they are left alone, and told in RV(left_alone).
      - A key that no libvirt knows is refused with the nearest known ones, because the key that was meant would then
        not be left alone.
    type: list
    elements: str
    default: []
  path:
    description:
      - The file to edit. It is created, for root only, if it does not exist.
      - RV(restart_required) and RV(guests_pending) are about C(/etc/libvirt/qemu.conf), the file that the daemon reads.
        For any other file they say that nothing is pending.
    type: path
    default: /etc/libvirt/qemu.conf
  libvirt_check:
    description:
      - Whether the installed libvirt judges the new file before it takes the old one's place.
      - Where libvirt is not installed the rules of this module decide alone, with a warning. Where its daemon is and
        C(virsh) is not, a change is refused, because M(hypervisor.hardening.daemon_restart) could not prove it either.
    type: bool
    default: true
extends_documentation_fragment:
  - hypervisor.hardening.attributes
  - hypervisor.hardening.conf_file
attributes:
  check_mode:
    support: full
    details:
      - libvirt's own check runs in check mode as well. It changes nothing on the host.
  diff_mode:
    support: full
    details:
      - Passwords, those already in the file included, are not shown.
  idempotent:
    support: full
requirements:
  - root on the target
seealso:
  - module: hypervisor.hardening.daemon_restart
"""

EXAMPLES = r"""
- name: Confine every guest
  hypervisor.hardening.qemu_conf:
    settings:
      security_default_confined: true
      seccomp_sandbox: 1
      namespaces: [mount]
      dump_guest_core: false
      max_core: 0
      vnc_listen: 127.0.0.1

- name: Give guests one device more than libvirt's own list
  hypervisor.hardening.qemu_conf:
    extend:
      cgroup_device_acl: [/dev/vfio/vfio]

- name: Go back to libvirt's default for the user that QEMU runs as
  hypervisor.hardening.qemu_conf:
    settings:
      user: null
      group: null

- name: Set the password of consoles without showing it anywhere
  hypervisor.hardening.qemu_conf:
    secret_settings:
      vnc_password: "{{ vault_vnc_password }}"

- name: Show what would change
  hypervisor.hardening.qemu_conf:
    settings:
      migration_port_min: 49152
      migration_port_max: 49215
  check_mode: true
  diff: true
"""

RETURN = r"""
changes:
  description: The keys whose value changes, in the order in which they were given.
  returned: success
  type: list
  elements: dict
  contains:
    key:
      description: The key.
      type: str
    before:
      description: The value that libvirt read so far, V(null) for none. A password reads C((not shown)).
      type: raw
    after:
      description: The value that it reads from now on, V(null) for none. A new password reads C((changed, not shown)).
      type: raw
  sample:
    - key: vnc_listen
      before: 0.0.0.0
      after: 127.0.0.1
keys_from:
  description:
    - Who told which keys there are. V(lens) is the installed libvirt; V(fallback) is a table of this collection, which
      was used because the host has no lens.
  returned: success
  type: str
  sample: lens
checked_by:
  description:
    - Who judged the new file, C(libvirt) with its version, or V(rules only).
    - It is V(rules only) as well where nothing changes, because libvirt is not asked then.
  returned: success
  type: str
  sample: libvirt 11.3.0
restart_required:
  description: Whether the daemon goes by something else than the file means, or will after a run without check mode.
  returned: success
  type: bool
  sample: true
restart_units:
  description: The systemd units to restart; none where no restart is required.
  returned: success
  type: list
  elements: str
  sample: [libvirtd.service]
guests_pending:
  description: The running guests that were started under other settings, and keep them until they are started again.
  returned: success
  type: list
  elements: str
  sample: [web1, db1]
backup_file:
  description: The copy of the former file, V(null) where none was asked for or nothing was changed.
  returned: success
  type: str
  sample: /etc/libvirt/qemu.conf.20260101T120000.000~
left_out:
  description: The keys of O(optional) that the installed libvirt does not know.
  returned: success
  type: list
  elements: str
  sample: [sched_core]
left_alone:
  description: The keys of O(managed_elsewhere) that were given and left as they are.
  returned: success
  type: list
  elements: str
  sample: [user, group]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _qemuconf as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


class _Module(AnsibleModule):
    """A password in settings is refused; until then neither the log nor the output of the refusal may show it."""

    def _log_invocation(self) -> None:
        settings = self.params["settings"]
        settings.update({key: room.NOT_SHOWN for key in settings if room.is_secret(key)})
        # ansible-core types neither this method nor the class itself.
        super()._log_invocation()  # type: ignore[no-untyped-call]


def main() -> None:
    module = _Module(  # type: ignore[no-untyped-call]
        argument_spec={
            "settings": {"type": "dict", "default": {}},
            "extend": {"type": "dict", "default": {}},
            "secret_settings": {"type": "dict", "default": {}, "no_log": True},
            "optional": {"type": "list", "elements": "str", "default": []},
            "managed_elsewhere": {"type": "list", "elements": "str", "default": []},
            "path": {"type": "path", "default": "/etc/libvirt/qemu.conf"},
            "libvirt_check": {"type": "bool", "default": True},
            "backup": {"type": "bool", "default": False},
            "unsafe_writes": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
