# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree of fixtures that looks like a host with libvirt's files, for the tests of qemu_conf.

The lens here is a miniature in the manner of libvirt's; the real ones are read by tests/integration.
"""

from __future__ import annotations

from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._confkeys import LENS, SAMPLE
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

LENS_TEXT = r"""
(* /etc/libvirt/qemu.conf *)
module Libvirtd_qemu =
   autoload xfm
   let eol   = del /[ \t]*\n/ "\n"
   let bool_val = store /0|1/
   let str_entry       (kw:string) = [ key kw . value_sep . str_val ]
   let bool_entry      (kw:string) = [ key kw . value_sep . bool_val ]
   (* (* str_entry "gone_for_good" *) | str_entry "gone" *)
   let vnc_entry = str_entry "vnc_listen"
                 | str_entry  "vnc_password"
                 | str_entry "vnc_tls_x509_cert_dir"
                 | bool_entry "vnc_tls"
   let security_entry = str_entry "security_driver"
                 | bool_entry "security_default_confined"
                 | str_entry "user"
                 | str_entry "group"
                 | str_array_entry "cgroup_controllers" | str_array_entry "cgroup_device_acl"
                 | int_entry "seccomp_sandbox"
                 | str_array_entry "namespaces"
   let save_entry = str_entry "auto_dump_path" | bytes_entry "auto_dump_max_size"
   let process_entry = str_entry "hugetlbfs_mount"
                 | limits_entry "max_core"
                 | int_entry "max_files"
                 | str_entry "stdio_handler"
                 | str_array_entry "capability_filters"
   let network_entry = int_entry "migration_port_min"
                 | int_entry "migration_port_max"
   let future_entry = colour_entry "future_key"
   let obsolete_entry = bool_entry "clear_emulator_capabilities"
   let record = indent . entry . eol
   let lns = ( record | comment | empty ) *
"""

SAMPLE_TEXT = r"""module Test_libvirtd_qemu =
   let conf = "vnc_listen = \"0.0.0.0\"
cgroup_device_acl = [
    \"/dev/null\", \"/dev/full\",
    \"/dev/fuse\"
]
capability_filters = [ \"capname\" ]
namespaces = [ \"mount\" ]
"

   test Libvirtd_qemu.lns get conf =
{ "vnc_listen" = "0.0.0.0" }
{ "cgroup_device_acl"
    { "1" = "/dev/wrong" }
}
"""

CONF = b"""\
# Master configuration file for the QEMU driver.

# VNC is configured to listen on 127.0.0.1 by default.
#vnc_listen = "0.0.0.0"

#vnc_password = "XYZ12345"

user = "root"   # for now
#group = "root"
"""


def make(root: Path, *, lens: bool = True, conf: bytes | None = CONF) -> Host:
    """The tree, with libvirt's packages or (``lens`` False) without."""
    put(root, "/etc/passwd", "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n")
    put(root, "/etc/group", "root:x:0:\nkvm:x:994:\nlibvirt-qemu:x:64055:\n")
    put(root, "/proc/sys/kernel/random/boot_id", "b5b0\n")
    (root / "etc/libvirt").mkdir()
    (root / "srv/pki").mkdir(parents=True)
    if lens:
        put(root, LENS, LENS_TEXT)
        put(root, SAMPLE, SAMPLE_TEXT)
    if conf is not None:
        (root / "etc/libvirt/qemu.conf").write_bytes(conf)
    return Host(str(root))


def put(root: Path, path: str, text: str) -> None:
    full = Path(f"{root}{path}")
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_text(text)


def daemon(root: Path, *, ticks: int, pid: int = 77) -> None:
    """A running libvirtd, as /run and /proc show it."""
    put(root, "/usr/sbin/libvirtd", "")
    virsh(root)
    put(root, "/run/libvirtd.pid", f"{pid}\n")
    put(root, f"/proc/{pid}/stat", f"{pid} (libvirtd) S 1 " + " ".join(["0"] * 17) + f" {ticks} 0\n")


def virsh(root: Path) -> None:
    """libvirt's client, which nothing here runs: there is no driver for it to ask."""
    put(root, "/usr/bin/virsh", "")
    (root / "usr/bin/virsh").chmod(0o755)
