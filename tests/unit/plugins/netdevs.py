# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Host below a tree of fixtures with network devices, processes that hold them, guests, and a played ``ip``.

The files are what kernel 6.18 shows. What the real ``ip``, kernel and libvirt do is shown by tests/integration.
"""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

HOST_NETWORK = "net:[4026531840]"
ELSEWHERE = "net:[4026532999]"
# include/uapi/linux/if_tun.h
TUN, TAP, MULTI_QUEUE, PERSIST, NO_PI, VNET_HDR = 0x1, 0x2, 0x100, 0x800, 0x1000, 0x4000
PERSISTENT_TAP = TAP | PERSIST | NO_PI


class NetHost(TreeHost):
    """``busy``: TAP devices that somebody takes just before ``ip`` removes them; ``addresses``: by device."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._index = 1
        self.busy: set[str] = set()
        self.addresses: dict[str, list[dict[str, t.Any]]] = {}
        self.calls: list[list[str]] = []
        self.put("/proc/sys/kernel/random/boot_id", "b5b0\n")
        self.put("/proc/uptime", "0 0\n")
        self.process(1, "systemd")
        self.link("/proc/self/ns/net", HOST_NETWORK)
        self.put("/sys/class/net/bonding_masters", "\n")
        self.device("lo", type="772", carrier="1")

    def device(self, name: str, *, devtype: str = "", master: str = "", **files: str) -> None:
        """A device: its DEVTYPE, the device that it is a port of, and more files of sysfs by name."""
        self._index += 1
        given = {"ifindex": str(self._index), "iflink": str(self._index), "type": "1", "mtu": "1500", **files}
        given["uevent"] = (f"DEVTYPE={devtype}\n" if devtype else "") + f"INTERFACE={name}\nIFINDEX={self._index}"
        for file, value in {"address": f"02:00:00:00:00:{self._index:02x}", **given}.items():
            self.put(f"/sys/class/net/{name}/{file}", f"{value}\n")
        if master:
            self.link(f"/sys/class/net/{name}/master", f"../{master}")

    def tap(self, name: str, flags: int = PERSISTENT_TAP, *, owner: int = -1, group: int = -1, **files: str) -> None:
        self.device(name, tun_flags=f"{flags:#x}", owner=str(owner), group=str(group), **files)

    def process(self, pid: int, comm: str, *held: str, network: str = HOST_NETWORK, argv: str = "") -> None:
        """A process; ``held``: TAP devices, or paths of other open files."""
        self.put(f"/proc/{pid}/comm", f"{comm}\n")
        self.put(f"/proc/{pid}/stat", f"{pid} ({comm}) S " + " ".join(["0"] * 18 + [str(1000 + pid)] + ["0"] * 30))
        self.put(f"/proc/{pid}/cmdline", argv.replace(" ", "\0") + "\0")
        self.link(f"/proc/{pid}/ns/net", network)
        self.link(f"/proc/{pid}/fd/0", "/dev/null")
        for fd, what in enumerate(held, start=3):
            path = what if "/" in what or ":" in what else "/dev/net/tun"
            self.link(f"/proc/{pid}/fd/{fd}", path)
            iff = f"iff:\t{what}\n" if path == "/dev/net/tun" else ""
            self.put(f"/proc/{pid}/fdinfo/{fd}", f"pos:\t0\nflags:\t02100002\nmnt_id:\t80\nino:\t105\n{iff}")

    def define(self, name: str, *interfaces: str) -> None:
        self.put(f"/etc/libvirt/qemu/{name}.xml", definition(name, *interfaces))

    def guest(self, name: str, pid: int, *held: str, interfaces: t.Sequence[str] = ()) -> None:
        """A running guest of libvirt."""
        self.process(
            pid, "qemu-system-x86", *held, argv=f"/usr/bin/qemu-system-x86_64 -name guest={name},debug-threads=on"
        )
        self.put(f"/run/libvirt/qemu/{name}.pid", str(pid))
        body = definition(name, *interfaces)
        self.put(f"/run/libvirt/qemu/{name}.xml", f"<domstatus state='running' pid='{pid}'>\n{body}</domstatus>\n")

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        self.calls.append(list(argv))
        if argv[:6] == ["ip", "-json", "-details", "address", "show", "dev"]:
            shown = {"ifname": argv[6], "mtu": 1500, "addr_info": self.addresses.get(argv[6], [])}
            return Completed(tuple(argv), 0, json.dumps([shown]), "")
        if argv[0] == "systemctl":
            self._systemctl(argv[1:])
        elif argv[2] in ("add", "del") and argv[4] in self.busy:
            return Completed(tuple(argv), 1, "", "ioctl(TUNSETIFF): Device or resource busy\n")
        elif argv[:4] == ["ip", "tuntap", "add", "dev"]:
            self._add(argv[4], argv[7:])
        elif argv[:4] == ["ip", "link", "set", "dev"]:
            self._set(argv[4], argv[5:])
        else:
            assert argv[:4] == ["ip", "tuntap", "del", "dev"]
            shutil.rmtree(self.path(f"/sys/class/net/{argv[4]}"))
        return Completed(tuple(argv), 0, "", "")

    def _add(self, name: str, words: t.Sequence[str]) -> None:
        numbers = {kind: int(words[words.index(kind) + 1]) if kind in words else -1 for kind in ("user", "group")}
        flags = PERSISTENT_TAP | (MULTI_QUEUE if "multi_queue" in words else 0)
        flags |= VNET_HDR if "vnet_hdr" in words else 0
        self.tap(name, flags, owner=numbers["user"], group=numbers["group"])

    def _set(self, name: str, words: t.Sequence[str]) -> None:
        path = f"/sys/class/net/{name}"
        if "alias" in words:
            self.put(f"{path}/ifalias", words[words.index("alias") + 1] + "\n")
        if "master" in words:
            Path(self.path(f"{path}/master")).unlink(missing_ok=True)
            self.link(f"{path}/master", f"../{words[words.index('master') + 1]}")
        if "up" in words:
            self.put(f"{path}/flags", "0x1003\n")
        for word, file in (("address", "address"), ("mtu", "mtu")):
            if word in words:
                self.put(f"{path}/{file}", words[words.index(word) + 1] + "\n")
        if "nomaster" in words:
            Path(self.path(f"{path}/master")).unlink(missing_ok=True)

    def _systemctl(self, words: t.Sequence[str]) -> None:
        for unit in words[3:] if words[0] == "enable" else ():
            link = f"/etc/systemd/system/multi-user.target.wants/{unit}"
            Path(self.path(link)).unlink(missing_ok=True)
            self.link(link, f"../{unit}")


def definition(name: str, *interfaces: str) -> str:
    return f"<domain type='kvm'><name>{name}</name><devices>{''.join(interfaces)}</devices></domain>\n"


def interface(target: str, kind: str = "ethernet", *, managed: bool = True, queues: int = 0) -> str:
    """An ``<interface>`` of type ``kind``; with ``queues`` of model virtio."""
    unmanaged = "" if managed else " managed='no'"
    driver = f"<model type='virtio'/><driver queues='{queues}'/>" if queues else ""
    return f"<interface type='{kind}'><target dev='{target}'{unmanaged}/>{driver}</interface>"
