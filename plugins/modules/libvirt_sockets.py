#!/usr/bin/python
# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: libvirt_sockets
short_description: Say who may connect to libvirt's sockets
version_added: 0.1.0
author:
  - hypervisor.hardening contributors (!UNKNOWN)
description:
  - Gives the UNIX sockets of libvirt's daemons their mode and group, at once and for every later start. It acts on all
    daemons of this host's layout whose sockets systemd makes, in one call.
  - The file of the socket is changed where it lies, because the kernel goes by it when somebody connects. Nothing is
    restarted, and nobody who is connected is cut off. A drop-in of the socket unit has systemd make the next one alike;
    where the unit does that by itself there is none.
  - A daemon that makes its sockets itself is left alone and told in RV(not_activated). There the keys
    C(unix_sock_rw_perms), C(unix_sock_ro_perms), C(unix_sock_admin_perms) and C(unix_sock_group) of its file decide,
    which M(hypervisor.hardening.libvirt_conf) sets.
  - Whether a mode is safe depends on what a client has to prove besides; C(auth_unix_rw) says that.
options:
  mode:
    description: The mode of the sockets for all calls, in octal and quoted. As it is, if it is not given.
    type: str
  group:
    description: The group of the sockets for all calls. As it is, if it is not given.
    type: str
  ro_mode:
    description: The mode of the read-only sockets.
    type: str
  ro_group:
    description: The group of the read-only sockets.
    type: str
  admin_mode:
    description: The mode of the sockets for virt-admin.
    type: str
  admin_group:
    description: The group of the sockets for virt-admin.
    type: str
  disabled:
    description:
      - Socket units of systemd that nobody is to listen with, such as C(libvirtd-tcp.socket). They are stopped, and not
        started at boot.
      - A daemon that runs keeps the port that systemd has handed to it until it is restarted.
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
requirements:
  - root on the target
seealso:
  - module: hypervisor.hardening.libvirt_conf
"""

EXAMPLES = r"""
- name: Let only members of libvirt manage guests, and members of monitoring look at them
  hypervisor.hardening.libvirt_sockets:
    mode: "0660"
    group: libvirt
    ro_mode: "0660"
    ro_group: monitoring
    admin_mode: "0600"

- name: Listen on no port for plain TCP
  hypervisor.hardening.libvirt_sockets:
    disabled: [libvirtd-tcp.socket]
"""

RETURN = r"""
sockets:
  description: The sockets that systemd makes for the daemons of this host's layout; in check mode as they would be.
  returned: success
  type: list
  elements: dict
  contains:
    daemon:
      description: Whose socket it is.
      type: str
    kind:
      description: V(rw) for all calls, V(ro) for those that only read, V(admin) for virt-admin.
      type: str
    path:
      description: The file of the socket.
      type: str
    unit:
      description: The unit that makes it.
      type: str
    mode:
      description: The mode of the file, V(null) where it is not there.
      type: str
    group:
      description: The group of the file, V(null) where it is not there.
      type: str
  sample:
    - daemon: libvirtd
      kind: rw
      path: /run/libvirt/libvirt-sock
      unit: libvirtd.socket
      mode: "0660"
      group: libvirt
changes:
  description: What changes, in files of sockets, in drop-ins, and in units that are disabled.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The file, or the unit.
      type: str
    before:
      description: What it was.
      type: str
    after:
      description: What it is from now on.
      type: str
  sample:
    - path: /run/libvirt/libvirt-sock
      before: mode 0666, group root
      after: mode 0660, group libvirt
not_activated:
  description: The daemons of this host's layout that make their sockets themselves, and were left alone.
  returned: success
  type: list
  elements: str
  sample: [libvirtd]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonsockets as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._runner import run

OPTIONS = ("mode", "group", "ro_mode", "ro_group", "admin_mode", "admin_group")


def main() -> None:
    spec: dict[str, dict[str, object]] = {name: {"type": "str"} for name in OPTIONS}
    spec["disabled"] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    values = [module.params[name] for name in OPTIONS]
    rw, ro, admin = (room.Access(*values[at : at + 2]) for at in (0, 2, 4))
    run(module, room, room.Wanted(rw, ro, admin, module.params["disabled"]))


if __name__ == "__main__":
    main()
