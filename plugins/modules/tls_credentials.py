#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_credentials
short_description: Put certificates and keys for migration over TLS in place
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Keeps the five files that QEMU needs to migrate guests over TLS in both directions, which are C(ca-cert.pem),
    C(server-cert.pem), C(server-key.pem), C(client-cert.pem) and C(client-key.pem).
  - Before anything is replaced, in check mode too, the whole set is proven. A server and a client made of these very
    files talk to each other in memory, which shows that keys and certificates match, that both were issued by the
    authority for that purpose, that they are valid now, and that the server's names this host. Then the installed QEMU
    loads them as it would at the begin of a migration, as the user that guests run as. It does so in a namespace of its
    own, which leaves nothing behind.
  - What would not work is refused, and the files stay as they are. So does a set that has been there for long and has
    expired since.
  - The files are replaced together, each with its owner and mode. Keys belong to root, and QEMU's group may read them.
    What the files held before, keys included, goes to the host's journal in C(/var/lib/hypervisor-hardening/journal).
  - No daemon is restarted and no guest is touched, because QEMU reads the files when a migration begins.
options:
  path:
    description:
      - The directory. It is made if it does not exist.
      - The default is where libvirt looks as long as neither C(migrate_tls_x509_cert_dir) nor
        C(default_tls_x509_cert_dir) is set in C(qemu.conf), and there was no C(/etc/pki/libvirt-migrate) when its
        daemon started. It is also the only one that the AppArmor rules of Debian and Ubuntu let guests read.
      - With any other one, set C(migrate_tls_x509_cert_dir) with M(hypervisor.hardening.qemu_conf) afterwards; see
        RV(used_for_migration).
    type: path
    default: /etc/pki/qemu
  ca_cert:
    description:
      - The certificates of the authorities to trust, as PEM text.
      - Of each of the five files that is given neither as text nor in O(src) the one in O(path) is kept, and proven
        with the others. So a call without any of them checks what is there.
    type: str
  server_cert:
    description:
      - The certificate that this host shows as the destination of a migration, as PEM text, followed by those of
        authorities between it and O(ca_cert).
      - One certificate for both purposes can be given here and in O(client_cert).
    type: str
  server_key:
    description: The private key of O(server_cert), as PEM text without a password.
    type: str
  client_cert:
    description: The certificate that this host shows as the source of a migration, as PEM text.
    type: str
  client_key:
    description: The private key of O(client_cert), as PEM text without a password.
    type: str
  src:
    description: The same as files on the target, such as those that another tool renews there. They are copied.
    type: dict
    suboptions:
      ca_cert:
        description: The path of what would be given in O(ca_cert).
        type: path
      server_cert:
        description: The path of what would be given in O(server_cert).
        type: path
      server_key:
        description: The path of what would be given in O(server_key).
        type: path
      client_cert:
        description: The path of what would be given in O(client_cert).
        type: path
      client_key:
        description: The path of what would be given in O(client_key).
        type: path
  names:
    description:
      - Names and addresses of this host, each of which the server's certificate has to hold.
      - The default is the name that libvirt tells the source of a migration, which is C(migration_host) in
        C(qemu.conf), or else the host's own, made whole by its resolver.
    type: list
    elements: str
    default: []
  group:
    description: The group that may read the keys. The default is the one that QEMU runs as.
    type: str
  renew_days:
    description: How many days before a certificate expires RV(renew_soon) says so, with a warning.
    type: int
    default: 30
extends_documentation_fragment:
  - hypervisor.hardening.attributes
attributes:
  check_mode:
    support: full
    details:
      - The proof is the same as without it.
  diff_mode:
    support: full
    details:
      - Of a certificate it shows names, validity and fingerprint; of a key that it changes, and nothing else.
  idempotent:
    support: full
requirements:
  - root on the target
  - Python with its module ssl on the target
notes:
  - The journal keeps former keys, readable for root alone. Remove the entries of a key that was stolen.
seealso:
  - module: hypervisor.hardening.qemu_conf
  - module: hypervisor.hardening.hypervisor_info
"""

EXAMPLES = r"""
- name: Certificates from files on the controller, one of each for every host
  hypervisor.hardening.tls_credentials:
    ca_cert: "{{ lookup('ansible.builtin.file', 'pki/ca.pem') }}"
    server_cert: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '-server.pem') }}"
    server_key: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '-server.key') }}"
    client_cert: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '-client.pem') }}"
    client_key: "{{ lookup('ansible.builtin.file', 'pki/' ~ inventory_hostname ~ '-client.key') }}"

- name: One certificate for both purposes, which another tool renews on the host
  hypervisor.hardening.tls_credentials:
    src:
      ca_cert: /etc/ipa/ca.crt
      server_cert: /etc/pki/tls/certs/host.pem
      server_key: /etc/pki/tls/private/host.key
      client_cert: /etc/pki/tls/certs/host.pem
      client_key: /etc/pki/tls/private/host.key
    names: [h1.migration.example]

- name: See whether what is there still works, and for how long
  hypervisor.hardening.tls_credentials:
    renew_days: 45
  check_mode: true
"""

RETURN = r"""
files:
  description: The files that were replaced, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [server-cert.pem, server-key.pem]
certificates:
  description: Each certificate of the three files.
  returned: success
  type: list
  elements: dict
  contains:
    file:
      description: The name of the file that holds it.
      type: str
    subject:
      description: The common name of its subject, empty without one.
      type: str
    names:
      description: The DNS names and addresses among its alternative names.
      type: list
      elements: str
    not_before:
      description: Since when it is valid, in UTC.
      type: str
    not_after:
      description: Until when it is valid, in UTC.
      type: str
    days_left:
      description: How many whole days that is from now.
      type: int
    sha256:
      description: Its fingerprint.
      type: str
  sample:
    - file: server-cert.pem
      subject: h1.example
      names: [h1.example, 192.0.2.1]
      not_before: "2026-01-01T00:00:00Z"
      not_after: "2027-01-01T00:00:00Z"
      days_left: 200
      sha256: 0f6e9c2bb35bd3ff6da4b54d0a5a0c5a1d4bd7f7c0e2f1a1c3a9a2cbb9e63c11
authorities:
  description: The fingerprints of the authorities that this host trusts, sorted. Hosts with the same trust each other.
  returned: success
  type: list
  elements: str
  sample: [3d1c0e8e2a6f4f7b9c5e8d7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b]
names:
  description: The names and addresses that the server's certificate was proven to hold.
  returned: success
  type: list
  elements: str
  sample: [h1.example]
used_for_migration:
  description: Whether O(path) is where C(qemu.conf) has migrations look.
  returned: success
  type: bool
  sample: true
not_after:
  description: When the first of the certificates expires, in UTC.
  returned: success
  type: str
  sample: "2027-01-01T00:00:00Z"
days_left:
  description: How many whole days that is from now.
  returned: success
  type: int
  sample: 200
renew_soon:
  description: Whether that is less than O(renew_days).
  returned: success
  type: bool
  sample: false
checked_by:
  description: The QEMU that judged the files, or V(rules only) where there is none, or nobody knows as whom it runs.
  returned: success
  type: str
  sample: /usr/bin/qemu-system-x86_64
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tlscredentials as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/pki/qemu"},
            # Certificates are no secrets, but a text that holds the key as well comes here by mistake.
            **{option: {"type": "str", "no_log": True} for option in room.FILES},
            "src": {"type": "dict", "options": {option: {"type": "path", "no_log": False} for option in room.FILES}},
            "names": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str"},
            "renew_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
