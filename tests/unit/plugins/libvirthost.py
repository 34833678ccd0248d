# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures with a played libvirtd: systemctl restarts it, virsh connects to it.

It does not come up while one of its files holds ``broken``, and neither does any other daemon. The real ones are met
in tests/integration.
"""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed, HostError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

CONF = "/etc/libvirt/qemu.conf"
TICKS = os.sysconf("SC_CLK_TCK")


class LibvirtHost(TreeHost):
    """``took_off``: what happens to guests at the next restart; ``takes_up``: whether libvirtd then writes their status
    files; ``hangs``: commands that give no answer."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[str] = []
        self.hangs: set[str] = set()
        self.unit = {"LoadState": "loaded", "KillMode": "process", "MainPID": "0"}
        self.said = ""
        self.took_off: t.Callable[[], None] | None = None
        self.takes_up = True
        self.refusal = ""
        self.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
        self.put("/proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n")
        self.put("/usr/sbin/libvirtd", "")
        for command in ("systemctl", "virsh", "virt-admin"):
            self.put(f"/usr/bin/{command}", "")
            os.chmod(self.path(f"/usr/bin/{command}"), 0o755)
        for directory in ("run/systemd/system", "etc/libvirt", "run/libvirt/qemu"):
            (root / directory).mkdir(parents=True)
        self.put(CONF, "# empty\n")

    def process(self, pid: int, comm: str, ticks: int, *words: str, state: str = "S") -> None:
        self.put(f"/proc/{pid}/stat", f"{pid} ({comm}) {state} 1 " + " ".join(["0"] * 17) + f" {ticks} 0\n")
        self.put(f"/proc/{pid}/status", f"Name:\t{comm}\nTracerPid:\t0\n")
        self.put(f"/proc/{pid}/cmdline", "".join(f"{word}\0" for word in words))

    def daemon(self, pid: int, ticks: int | None = None, *, name: str = "libvirtd", state: str = "S") -> None:
        """A running daemon; ``ticks`` None: started now."""
        self.put(f"/run/{name}.pid", f"{pid}\n")
        self.process(pid, name, ticks_now() if ticks is None else ticks, state=state)
        if name == "libvirtd":
            self.unit["MainPID"] = str(pid)

    def listen(self, socket: str) -> None:
        line = f"0000000000000000: 00000002 00000000 00010000 0001 01 4711 {socket}\n"
        self.put("/proc/net/unix", self.text("/proc/net/unix") + line)

    def guest(self, name: str, pid: int, ticks: int, *, status: str = "<domstatus/>") -> None:
        self.put(f"/run/libvirt/qemu/{name}.pid", f"{pid}\n")
        self.put(f"/run/libvirt/qemu/{name}.xml", status)
        self.process(pid, "qemu-system-x86", ticks, "/usr/bin/qemu-system-x86_64", "-name", f"guest={name},x=on")

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        line = " ".join(argv)
        self.calls.append(line)
        if any(part in line for part in self.hangs):
            raise HostError(f"{line} gave no answer within {timeout:g} seconds and was killed.")
        name = argv[-1][: -len(".service")]
        if line.startswith(("systemctl restart", "systemctl start")):
            self._restart(name)
        if "--signal=USR1" in argv:
            self._execute_anew(name)
        if line.startswith("systemctl show") and name != "libvirtd":
            mode = "control-group" if name in ("virtlogd", "virtlockd") else "process"
            told = f"LoadState=loaded\nKillMode={mode}\nMainPID={self._pid(name)}\n"
            return Completed(tuple(argv), 0, told, "")
        if line.startswith("systemctl show"):
            return Completed(tuple(argv), 0, "".join(f"{key}={value}\n" for key, value in self.unit.items()), "")
        if line.startswith("systemctl is-failed"):
            return Completed(tuple(argv), 1 if self._pid(name) else 0, "", "")
        if argv[0] == "journalctl":
            return Completed(tuple(argv), 0, self.said, "")
        if argv[0] == "virt-admin":
            return Completed(
                tuple(argv), 0 if self._pid(argv[2].partition(":")[0]) else 1, "", "error: Cannot recv data\n"
            )
        if argv[0] == "virsh" and not self.exists("/run/libvirtd.pid"):
            return Completed(
                tuple(argv), 1, "", "error: failed to connect to the hypervisor\nerror: Cannot recv data\n"
            )
        if argv[0] == "virsh":
            return Completed(tuple(argv), 1 if self.refusal else 0, "", self.refusal)
        return Completed(tuple(argv), 0, "", "")

    def _pid(self, name: str) -> int:
        return int(self.text_optional(f"/run/{name}.pid") or 0)

    def _takes_its_files(self, name: str) -> bool:
        """Whether a daemon comes up with them; otherwise it is gone."""
        files = (self.text_optional(f"/etc/libvirt/{file}") or "" for file in ("qemu.conf", f"{name}.conf"))
        if any("broken" in text for text in files):
            Path(self.path(f"/run/{name}.pid")).unlink(missing_ok=True)
            return False
        return True

    def _execute_anew(self, name: str) -> None:
        if self._takes_its_files(name):
            self.put(f"/proc/{self._pid(name)}/auxv", f"{time.monotonic()}")

    def _restart(self, name: str) -> None:
        if self.took_off:
            self.took_off()
        if not self._takes_its_files(name):
            return
        # a tick later than everything before
        time.sleep(2 / TICKS)
        former = int(self.unit["MainPID"]) if name == "libvirtd" else self._pid(name) or 900
        self.daemon(former + 1, name=name)
        if self.takes_up:
            for status in Path(self.path("/run/libvirt/qemu")).glob("*.xml"):
                status.touch()


def ticks_now() -> int:
    """Clock ticks since boot (proc_pid_stat(5), field 22), as a process that starts now has them."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
