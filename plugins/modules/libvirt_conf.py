#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_conf
short_description: Set keys of libvirtd.conf and of libvirt's other files
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Sets and removes any number of keys of one of libvirt's configuration files, C(libvirtd.conf), C(virtproxyd.conf),
    C(virtlogd.conf), C(network.conf), C(qemu-lockd.conf) and so on, in one call. Every byte that is not meant stays,
    comments and layout included. For C(qemu.conf) there is M(hypervisor.hardening.qemu_conf).
  - Which keys exist, and of what type they are, the installed libvirt says itself, through the Augeas lens of that very
    file. An unknown key is refused with the nearest known ones, because libvirt would ignore it without a message. A
    value of the wrong type, or outside libvirt's set, is refused, because the daemon would not start with it.
  - A key that has no effect because systemd makes the daemon's sockets is refused, and the unit that decides is named.
  - The file is replaced atomically, with its owner, mode, ACL and SELinux context. What it held before goes to the
    host's journal in C(/var/lib/hypervisor-hardening/journal).
  - No daemon is restarted and no guest is touched. Libvirt has no means to judge such a file but to start with it; so
    M(hypervisor.hardening.daemon_restart) does that, and puts the former file back where the daemon does not come up.
options:
  daemon:
    description:
      - Whose file to edit, C(/etc/libvirt/DAEMON.conf). One that this host's layout does not read is refused.
      - V(qemu) is the daemon that drives QEMU here, V(libvirtd) or V(virtqemud); V(remote) the one that serves other
        hosts, V(libvirtd) or V(virtproxyd).
      - Either this or O(path) has to be given.
    type: str
    choices:
      - qemu
      - remote
      - libvirtd
      - virtqemud
      - virtproxyd
      - virtnetworkd
      - virtstoraged
      - virtsecretd
      - virtnodedevd
      - virtnwfilterd
      - virtinterfaced
      - virtlxcd
      - virtxend
      - virtvboxd
      - virtchd
      - virtlogd
      - virtlockd
  path:
    description:
      - The file itself, such as C(/etc/libvirt/network.conf). Its name tells which keys there are. It is created, for
        root only, if it does not exist.
      - RV(restart_required) is about a file of C(/etc/libvirt) that a daemon of this host's layout reads. For any other
        one it says that nothing is pending.
    type: path
  settings:
    description:
      - The wanted keys and their values, in the words of the file.
      - A value is a bool, a number, a string or a list of strings, as libvirt reads it for that key. For a bool or a
        number a string is taken as well where it can mean only one, such as V("false") or V("20") from a survey.
      - V(null) removes the key, and so goes back to libvirt's default.
      - Of a key that stands in the file more than once only the first line counts in libvirt; the others are removed.
      - A new key goes below its commented sample, otherwise to the end of the file.
    type: dict
    default: {}
  optional:
    description:
      - Keys of O(settings) that an older libvirt may not know. Where the installed one does not, they are left out and
        told in RV(left_out) instead of being refused.
    type: list
    elements: str
    default: []
  managed_elsewhere:
    description:
      - Keys that something else owns. Where they are in O(settings) they are left alone, and told in RV(left_alone).
      - A key that no libvirt knows in this file is refused with the nearest known ones.
    type: list
    elements: str
    default: []
  allow_lockout:
    description:
      - Whether a value may be set with which the daemon serves nobody, such as an empty C(tls_allowed_dn_list) or
        C(sasl_allowed_username_list), or C(max_client_requests) of 0.
    type: bool
    default: false
extends_documentation_fragment:
  - hypervisor.hardening.attributes
  - hypervisor.hardening.conf_file
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
  - module: hypervisor.hardening.qemu_conf
  - module: hypervisor.hardening.daemon_restart
"""

EXAMPLES = r"""
- name: Serve only managers of this site by TLS, and verify them
  hypervisor.hardening.libvirt_conf:
    daemon: remote
    settings:
      tls_no_verify_certificate: null
      tls_allowed_dn_list: ["CN=manager*,O=Example"]
  register: result

- name: Restart the daemon over it, or go back
  hypervisor.hardening.daemon_restart:
    units: "{{ result.restart_units }}"
  when: result.restart_required

- name: Keep larger logs of guests' consoles
  hypervisor.hardening.libvirt_conf:
    daemon: virtlogd
    settings:
      max_size: 8388608
      max_backups: 5

- name: Choose how virtual networks are filtered
  hypervisor.hardening.libvirt_conf:
    path: /etc/libvirt/network.conf
    settings:
      firewall_backend: nftables
    optional: [firewall_backend]
"""

RETURN = r"""
file:
  description: The file.
  returned: success
  type: str
  sample: /etc/libvirt/libvirtd.conf
read_by:
  description: The daemon of this host that reads it, empty for none.
  returned: success
  type: str
  sample: libvirtd
socket_activated:
  description: Whether systemd makes the sockets of that daemon, whose own file it is.
  returned: success
  type: bool
  sample: true
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
      description: The value that libvirt read so far, V(null) for none.
      type: raw
    after:
      description: The value that it reads from now on, V(null) for none.
      type: raw
  sample:
    - key: auth_tls
      before: null
      after: sasl
keys_from:
  description:
    - Who told which keys there are. V(lens) is the installed libvirt; V(fallback) is a table of this collection, which
      was used because the host has no lens of that file.
  returned: success
  type: str
  sample: lens
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
backup_file:
  description: The copy of the former file, V(null) where none was asked for or nothing was changed.
  returned: success
  type: str
  sample: /etc/libvirt/libvirtd.conf.20260101T120000.000~
left_out:
  description: The keys of O(optional) that the installed libvirt does not know.
  returned: success
  type: list
  elements: str
  sample: [tcp_min_ssf]
left_alone:
  description: The keys of O(managed_elsewhere) that were given and left as they are.
  returned: success
  type: list
  elements: str
  sample: [auth_tls]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonconf as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._daemonunits import DAEMONS
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "daemon": {"type": "str", "choices": [*room.ROLES, *DAEMONS]},
            "path": {"type": "path"},
            "settings": {"type": "dict", "default": {}},
            "optional": {"type": "list", "elements": "str", "default": []},
            "managed_elsewhere": {"type": "list", "elements": "str", "default": []},
            "allow_lockout": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "unsafe_writes": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("daemon", "path")],
        required_one_of=[("daemon", "path")],
        supports_check_mode=True,
    )
    run(module, room, room.Wanted(**module.params))


if __name__ == "__main__":
    main()
