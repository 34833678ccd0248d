# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures whose kernel and systemctl are played: mounts, page pools, enabled units.

What the real ones do is shown by tests/integration; here they are only made to do what a plan asks for, or to refuse.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._syscalls import (
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

HUGETLBFS_MAGIC = 0x958458F6  # linux/magic.h
TMPFS_MAGIC = 0x01021994

# As systemd-nspawn of Debian 13 leaves it, cut down. /run/host covers the later lines below it.
SHARED = """\
1459 1113 0:166 / / rw,relatime shared:40 - overlay overlay rw,uuid=on
1461 1459 0:170 / /sys rw,nosuid,nodev,noexec,relatime shared:463 - sysfs sysfs rw
1462 1459 0:171 / /dev rw,nosuid shared:464 - tmpfs tmpfs rw,size=4096k,nr_inodes=65536,mode=755
1465 1459 0:173 / /run rw,nosuid,nodev shared:466 - tmpfs tmpfs rw,size=4936820k,mode=755
1466 1465 0:173 /host /run/host ro,nosuid,nodev,noexec shared:466 - tmpfs tmpfs rw,size=4936820k,mode=755
1467 1466 254:0 /usr/lib/os-release /run/host/os-release ro,relatime shared:467 - ext4 /dev/vda rw
1468 1466 0:168 /propagate/mp13 /run/host/incoming ro,relatime master:469 - tmpfs tmpfs rw,mode=755
1469 1465 254:0 /usr/lib/os-release /run/host/os-release rw,relatime shared:467 - ext4 /dev/vda rw
1470 1465 0:168 /propagate/mp13 /run/host/incoming rw,relatime shared:469 - tmpfs tmpfs rw,mode=755
1472 1459 0:176 / /proc rw,nosuid,nodev,noexec,relatime shared:470 - proc proc rw
1079 1462 0:177 / /dev/hugepages rw,nosuid,nodev,relatime shared:473 - hugetlbfs hugetlbfs rw,pagesize=2M
"""
PRIVATE = re.sub(r" (shared|master):\d+", "", SHARED)
# The same host's mounts as a guest sees them that libvirt started while / was shared, and while it was private.
SLAVE = re.sub(r" (shared|master):(\d+)", r" master:\2", SHARED)

_TAG = {MS_PRIVATE: "", MS_SHARED: " shared:900", MS_SLAVE: " master:901", MS_UNBINDABLE: " unbindable"}


class PlayedHost(TreeHost):
    """``refused``: mount points at which mount(2) gives an error number; ``limit``: what the pools can hold at most."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.refused: dict[str, int] = {}
        self.busy: set[str] = set()
        self.limit: dict[str, int] = {}
        self.calls: list[str] = []
        self._owners: dict[str, tuple[int, int]] = {}
        self.put("/proc/1/mountinfo", SHARED)
        self.put("/proc/1/comm", "systemd\n")
        self.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
        self.put("/proc/stat", "btime 1700000000\n")
        self.put("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
        self.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:994::/:/bin/false\n")
        self.put("/etc/group", "root:x:0:\nkvm:x:994:\n")
        for directory in ("run/systemd/system", "etc/systemd/system", "usr/lib/systemd/system", "dev/hugepages"):
            (root / directory).mkdir(parents=True)
        self.link("/proc/1/root", "../..")
        self.link("/proc/1/ns/mnt", "mnt:[4026531841]")

    def guest(self, name: str, pid: int, mountinfo: str | None) -> None:
        """A running guest of libvirt, in a mount namespace of its own unless ``mountinfo`` is None."""
        self.put(f"/run/libvirt/qemu/{name}.pid", f"{pid}\n")
        self.put(f"/run/libvirt/qemu/{name}.xml", "<domstatus/>\n")
        self.put(f"/proc/{pid}/stat", f"{pid} (qemu-system-x86) S 1 " + " ".join(["0"] * 17) + " 4242 0\n")
        self.put(f"/proc/{pid}/cmdline", f"/usr/bin/qemu-system-x86_64\0-name\0guest={name},debug-threads=on\0")
        self.put(f"/proc/{pid}/mountinfo", self.text("/proc/1/mountinfo") if mountinfo is None else mountinfo)
        self.link(f"/proc/{pid}/ns/mnt", "mnt:[4026531841]" if mountinfo is None else f"mnt:[{pid}]")

    def daemon(self, pid: int, ticks: int) -> None:
        """A running libvirtd."""
        self.put("/run/libvirtd.pid", f"{pid}\n")
        self.put(f"/proc/{pid}/stat", f"{pid} (libvirtd) S 1 " + " ".join(["0"] * 17) + f" {ticks} 0\n")

    def pool(
        self, size: str, pages: int, *, free: int | None = None, reserved: int = 0, nodes: t.Sequence[int] = ()
    ) -> None:
        """A pool of huge pages as sysfs shows it, ``size`` as in its directory, 2048kB; ``nodes``: pages of each."""
        directories = {f"/sys/kernel/mm/hugepages/hugepages-{size}": pages}
        for node, count in enumerate(nodes):
            directories[f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size}"] = count
        for directory, count in directories.items():
            self.put(f"{directory}/nr_hugepages", f"{count}\n")
            self.put(f"{directory}/free_hugepages", f"{count if free is None else free}\n")
            self.put(f"{directory}/surplus_hugepages", "0\n")
        self.put(f"/sys/kernel/mm/hugepages/hugepages-{size}/resv_hugepages", f"{reserved}\n")

    def stat(self, path: str, *, follow: bool = True) -> os.stat_result:
        """Whoever runs the tests need not be root: everything is root's, but for what was given to somebody."""
        found = super().stat(path, follow=follow)
        owner = self._owners.get(path.removeprefix("/proc/1/root"), (0, 0))
        return os.stat_result((*found[:4], *owner, *found[6:]), {"st_ctime_ns": found.st_ctime_ns})

    def set_owner(self, path: str, uid: int, gid: int, mode: int) -> None:
        inside = path.removeprefix("/proc/1/root")
        before = self._owners.get(inside, (0, 0))
        self._owners[inside] = (uid if uid >= 0 else before[0], gid if gid >= 0 else before[1])
        os.chmod(self.path(path), mode)
        self.calls.append(f"chown {uid}:{gid} {mode:04o} {inside}")

    def mount(
        self, source: str, target: str, fstype: str, flags: int, options: str = "", *, rehearse: bool = False
    ) -> None:
        if target in self.refused:
            raise OSError(self.refused[target], os.strerror(self.refused[target]), target)
        if rehearse:
            return
        self.calls.append(" ".join(filter(None, ("mount", fstype, target, options, f"{flags:#x}"))))
        lines = self.text("/proc/1/mountinfo").splitlines()
        if fstype:
            number = max(int(line.split()[0]) for line in lines) + 1
            tag = "" if any(line.split()[4] == "/" and " shared:" not in line for line in lines) else " shared:999"
            above = [line.split() for line in lines if f"{target}/".startswith(line.split()[4].rstrip("/") + "/")]
            parent = max(above, key=lambda fields: len(fields[4]))[0]
            lines.append(f"{number} {parent} 0:{number} / {target} rw{tag} - {fstype} {source} rw,{options}")
            values = dict(option.partition("=")[::2] for option in options.split(","))
            assert not os.listdir(self.path(target)), "what is in there would be hidden"
            self._owners[target] = (int(values.get("uid", 0)), int(values.get("gid", 0)))
            os.chmod(self.path(target), int(values.get("mode", "0755"), 8))
        else:
            lines = [self._retagged(line, flags) if line.split()[4] == target else line for line in lines]
        self.put("/proc/1/mountinfo", "".join(line + "\n" for line in lines))

    @staticmethod
    def _retagged(line: str, flags: int) -> str:
        before, _dash, after = line.partition(" - ")
        fields = before.split(" ")
        return " ".join(fields[:6]) + _TAG[flags] + " - " + after

    def unmount(self, target: str) -> None:
        if target in self.busy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), target)
        self.calls.append(f"umount {target}")
        shutil.rmtree(self.path(f"{target}/libvirt"), ignore_errors=True)  # it goes with the mount
        lines = self.text("/proc/1/mountinfo").splitlines()
        self.put("/proc/1/mountinfo", "".join(line + "\n" for line in lines if line.split()[4] != target))

    def write_kernel(self, path: str, value: str, *, rehearse: bool = False) -> None:
        assert not rehearse
        self.calls.append(f"{path} = {value}")
        given = min(int(value), self.limit.get(path, int(value)))
        free = int(self.text(path.replace("/nr_", "/free_"))) + given - int(self.text(path))
        self.put(path, f"{given}\n")
        self.put(path.replace("/nr_", "/free_"), f"{free}\n")

    def filesystem(self, path: str) -> int:
        return HUGETLBFS_MAGIC if self._hugetlbfs(path) else TMPFS_MAGIC

    def block_size(self, path: str) -> int:
        line = self._hugetlbfs(path)
        size = re.search(r"pagesize=(\d+)([MG])", line or "")
        return int(size[1]) << {"M": 20, "G": 30}[size[2]] if size else 4096

    def _hugetlbfs(self, path: str) -> str | None:
        inside = path.removeprefix("/proc/1/root")
        lines = self.text("/proc/1/mountinfo").splitlines()
        return next((line for line in lines if line.split()[4] == inside and " - hugetlbfs " in line), None)

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        self.calls.append(" ".join(argv))
        if list(argv[:2]) == ["systemctl", "enable"]:
            for unit in argv[argv.index("--") + 1 :]:
                wanted_by = re.search(r"^WantedBy=(.*)$", self.text(f"/etc/systemd/system/{unit}"), re.MULTILINE)
                assert wanted_by, f"{unit} has no [Install] section"
                link = f"/etc/systemd/system/{wanted_by[1]}.wants/{unit}"
                if self.stat_optional(link, follow=False) is None:
                    self.link(link, f"/etc/systemd/system/{unit}")
        return Completed(tuple(argv), 0, "", "")

    def tree(self) -> dict[str, tuple[int, str]]:
        """Every path below the root with its mode and content: what a check must leave as it is."""
        found = {}
        for path in sorted(Path(self.root).rglob("*")):
            if path.is_symlink():
                found[str(path)] = (0, os.readlink(path))
            else:
                found[str(path)] = (path.stat().st_mode, path.read_text() if path.is_file() else "")
        return found
