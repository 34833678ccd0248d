#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_permissions
short_description: Close libvirt's files to those who should not get at them
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Looks at libvirt's configuration, definitions of guests, secrets, TLS keys and hooks, and gives those that others
    than root could read or write, and should not, an owner and a mode that end it. It is the same look that the facts
    C(files) of M(hypervisor.hardening.hypervisor_info) come from.
  - Nothing is opened, and a file that is as it should be, or that lies out of others' reach because of a directory
    above it, stays as it is. The group of a file stays; a group that is not meant to read it is only refused that.
  - The owner and mode before go to the host's journal in C(/var/lib/hypervisor-hardening/journal). Running guests and
    daemons do not notice.
options:
  classes:
    description:
      - Which files. V(configuration) is what lies in C(/etc/libvirt), C(/etc/qemu) and C(/etc/sasl2); V(definitions)
        are those of guests, which hold passwords of consoles and storage; V(secrets) are libvirt's own; V(tls_keys)
        are those of libvirt, for root, and of QEMU, for its group, too; V(client_credentials) is C(auth.conf);
        V(hooks) are scripts that libvirt runs as root.
    type: list
    elements: str
    choices: [configuration, definitions, secrets, client_credentials, tls_keys, hooks]
    default: [configuration, definitions, secrets, client_credentials, tls_keys, hooks]
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - root on the target
seealso:
  - module: hypervisor.hardening.hypervisor_info
"""

EXAMPLES = r"""
- name: Close libvirt's files
  hypervisor.hardening.libvirt_permissions:

- name: See which keys and secrets others can read
  hypervisor.hardening.libvirt_permissions:
    classes: [secrets, tls_keys]
  check_mode: true
  diff: true
"""

RETURN = r"""
files:
  description: The files and directories that change.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    before:
      description: Its owner and mode.
      type: str
    after:
      description: Those that it gets.
      type: str
  sample:
    - path: /etc/libvirt/qemu/web1.xml
      before: owner root, mode 0644
      after: owner root, mode 0600
checked:
  description: How many files and directories were looked at.
  returned: success
  type: int
  sample: 41
ca_keys:
  description: Keys of certificate authorities, which do not belong on a hypervisor. They are left alone.
  returned: success
  type: list
  elements: str
  sample: [/etc/pki/CA/private/cakey.pem]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonfiles as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    classes = list(room.CLASSES)
    module = AnsibleModule(
        argument_spec={"classes": {"type": "list", "elements": "str", "choices": classes, "default": classes}},
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(module.params["classes"]))


if __name__ == "__main__":
    main()
