# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures with QEMU processes in it. The texts are what Debian 13 shows, cut down."""

from __future__ import annotations

import os
import stat
import types
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

# A guest of libvirt 11.3 with max_core = 0.
STATUS = """\
Name:	qemu-system-x86
Umask:	0002
State:	S (sleeping)
PPid:	1
Uid:	64055	64055	64055	64055
Gid:	64055	64055	64055	64055
Groups:	993 64055
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	000001fffeffffff
CapAmb:	0000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
"""
DAEMON_STATUS = """\
Name:	libvirtd
State:	S (sleeping)
PPid:	1
Uid:	0	0	0	0
Gid:	0	0	0	0
CapPrm:	000001ffffffffff
CapEff:	000001ffffffffff
NoNewPrivs:	0
Seccomp:	0
Seccomp_filters:	0
"""
HOST_MOUNTS = """\
802 799 0:110 / / rw,relatime shared:207 - overlay overlay rw
811 802 0:115 / /dev rw,nosuid shared:210 - devtmpfs udev rw,size=4096k,mode=755
812 811 0:116 / /dev/shm rw,nosuid,nodev shared:211 - tmpfs tmpfs rw
813 811 0:118 / /dev/pts rw,nosuid,noexec,relatime shared:214 - devpts devpts rw,gid=5,mode=620
671 811 0:121 / /dev/hugepages rw,nosuid,nodev,relatime shared:219 - hugetlbfs hugetlbfs rw,pagesize=2M
814 802 0:117 / /run rw,nosuid,nodev shared:212 - tmpfs tmpfs rw
"""
GUEST_MOUNTS = """\
900 890 0:110 / / rw,relatime master:207 - overlay overlay rw
902 920 0:116 / /dev/shm rw,nosuid,nodev master:211 - tmpfs tmpfs rw
903 920 0:118 / /dev/pts rw,nosuid,noexec,relatime master:214 - devpts devpts rw,gid=5,mode=620
904 920 0:121 / /dev/hugepages rw,nosuid,nodev,relatime master:219 - hugetlbfs hugetlbfs rw,pagesize=2M
905 900 0:117 / /run rw,nosuid,nodev master:212 - tmpfs tmpfs rw
920 900 0:129 / /dev rw,nosuid,relatime - tmpfs devfs rw,size=64k,mode=755
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max core file size        0                    0                    bytes
Max open files            20000                20000                files
Max locked memory         8388608              unlimited            bytes
Max nice priority         0                    0
"""
COMMAND = (
    "/usr/bin/qemu-system-x86_64 -name guest={name},debug-threads=on -S -object"
    ' {{"qom-type":"secret","id":"masterKey0","file":"/var/lib/libvirt/qemu/domain-{id}-{name}/master-key.aes"}}'
    " -machine pc-i440fx-10.0,usb=off,dump-guest-core=off -uuid {uuid} -sandbox on -msg timestamp=on"
)
UUID = "3f77186c-5d70-46fe-8543-411ebb6bdde8"
BUILT_IN = {"null": "1:3", "full": "1:7", "zero": "1:5", "random": "1:8", "urandom": "1:9", "kvm": "10:232"}
HOST_NAMESPACES = types.MappingProxyType({"mnt": "mnt:[4026531841]", "user": "user:[4026531837]"})


class QemuHost(TreeHost):
    """Device nodes are played by files, as whoever runs the tests need not be root; see ``node``."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
        self.put("/proc/mounts", "cgroup /sys/fs/cgroup/devices cgroup rw,relatime,devices 0 0\n")
        self.process(1, "/usr/lib/systemd/systemd", status=DAEMON_STATUS, mounts=HOST_MOUNTS)
        for name, device in BUILT_IN.items():
            self.node(f"/dev/{name}", f"char {device}", group=993 if name == "kvm" else 0)

    def node(self, path: str, device: str, *, owner: int = 0, group: int = 0, mode: str = "0666") -> None:
        """A device node; ``device`` is for example ``char 1:3``."""
        self.put(path, f"{device} {owner} {group} {mode}")

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        status = super().stat(path, follow=follow)
        if "/dev/" not in path or not stat.S_ISREG(status.st_mode):
            return status
        kind, number, owner, group, mode = self.text(path).split()
        major, minor = map(int, number.split(":"))
        bits = int(mode, 8) | (stat.S_IFCHR if kind == "char" else stat.S_IFBLK)
        return os.stat_result(
            (bits, 0, 0, 1, int(owner), int(group), 0, 0, 0, 0), {"st_rdev": os.makedev(major, minor)}
        )

    def process(
        self,
        pid: int,
        exe: str,
        *,
        comm: str = "",
        argv: t.Sequence[str] = (),
        status: str = STATUS,
        mounts: str = GUEST_MOUNTS,
        cgroup: str = "/init.scope",
        namespaces: t.Mapping[str, str] = HOST_NAMESPACES,
        label: str | None = None,
        limits: str = LIMITS,
        ticks: int = 4242,
    ) -> None:
        base = f"/proc/{pid}"
        self.put(f"{base}/stat", f"{pid} ({comm or exe[-15:]}) S 1 " + " ".join(["0"] * 17) + f" {ticks} 0\n")
        self.put(f"{base}/status", status)
        self.put(f"{base}/cmdline", "".join(f"{word}\0" for word in argv))
        self.put(f"{base}/mountinfo", mounts)
        self.put(f"{base}/limits", limits)
        self.put(f"{base}/coredump_filter", "00000033\n")
        self.put(f"{base}/cgroup", f"5:devices:{cgroup}\n0::/elsewhere\n")
        if label is not None:
            self.put(f"{base}/attr/current", label)
        self.link(f"{base}/exe", exe)
        for kind, name in namespaces.items():
            self.link(f"{base}/ns/{kind}", name)

    def guest(
        self, name: str, pid: int, *, number: int = 1, exe: str = "/usr/bin/qemu-system-x86_64", **how: t.Any
    ) -> None:
        """A guest of the system's libvirt, with everything that confines one but a label."""
        self.put(f"/run/libvirt/qemu/{name}.pid", f"{pid}\n")
        self.put(f"/run/libvirt/qemu/{name}.xml", f"<domstatus><domain><name>{name}</name></domain></domstatus>")
        cgroup = f"/machine.slice/machine-qemu\\x2d{number}\\x2d{name}.scope/libvirt"
        how.setdefault("namespaces", {**HOST_NAMESPACES, "mnt": f"mnt:[{pid}]"})
        how.setdefault("argv", COMMAND.format(name=name, id=number, uuid=UUID).split(" "))
        self.process(pid, exe, cgroup=cgroup, **how)
        self.put(f"/sys/fs/cgroup/devices{cgroup}/devices.list", "c 1:3 rw\nc 10:232 rw\n")
        for node, device in BUILT_IN.items():
            self.node(f"/proc/{pid}/root/dev/{node}", f"char {device}", group=993 if node == "kvm" else 0)

    def daemon(self, pid: int, *, ticks: int = 10**9, **how: t.Any) -> None:
        """A running libvirtd, started after everything else unless told otherwise."""
        self.put("/run/libvirtd.pid", f"{pid}\n")
        self.process(
            pid, "/usr/sbin/libvirtd", comm="libvirtd", ticks=ticks, status=how.pop("status", DAEMON_STATUS), **how
        )
