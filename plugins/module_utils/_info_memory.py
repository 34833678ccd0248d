# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the host's memory as guests can fill it, and on where their pages go when it is full."""

from __future__ import annotations

import os
import re
import typing as t

from . import _libvirtd, _mountinfo, _proc, _qemuproc
from ._host import Host
from ._infocontext import Context

_SLICE = "/sys/fs/cgroup/machine.slice"
_SIZE_RE = re.compile(r"(\d+)([bkKmMgGtT]?)\Z")
_KIB = {"b": 1 / 1024, "k": 1, "m": 1 << 10, "g": 1 << 20, "t": 1 << 30}


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``memory``; its keys are documented in hypervisor_info."""
    host = context.host
    total = re.search(r"^MemTotal: *(\d+) kB", host.text("/proc/meminfo"), re.MULTILINE)
    return {
        "total_kib": int(total[1]) if total else None,
        "guests_kib": sum(_guest(host, guest.pid) for guest in _libvirtd.guests(host)),
        "machine_slice": {
            "exists": host.exists(_SLICE),
            "max_bytes": _limit(host, "memory.max"),
            "high_bytes": _limit(host, "memory.high"),
        },
        "swap": list(_swap(host)),
    }


def _guest(host: Host, pid: int) -> int:
    """The memory that a running guest may come to have, in kibibytes, by QEMU's option -m (qemu(1)): a plain number is
    in MiB."""
    words = (_qemuproc.option(_proc.command_line(host, pid), "m") or "").split(",")
    given = dict(word.partition("=")[::2] if "=" in word else ("size", word) for word in words)
    match = _SIZE_RE.match(given.get("maxmem") or given.get("size", ""))
    return int(int(match[1]) * _KIB[(match[2] or "m").lower()]) if match else 0


def _limit(host: Host, name: str) -> int | None:
    """A limit of the cgroup that all guests are in, in bytes; None for none (cgroup-v2.rst, memory.max)."""
    text = (host.text_optional(f"{_SLICE}/{name}") or "").strip()
    return int(text) if text.isdigit() else None


def _swap(host: Host) -> t.Iterator[dict[str, t.Any]]:
    """The swap areas in use (proc_swaps(5)), and whether what is written there can be read from the disk."""
    for line in (host.text_optional("/proc/swaps") or "").splitlines()[1:]:
        fields = line.split()
        path = _mountinfo.unescaped(fields[0])
        kind, protected = _kind(host, path, fields[1])
        yield {"name": path, "kind": kind, "kib": int(fields[2]), "protected": protected}


def _kind(host: Host, path: str, kind: str) -> tuple[str, bool | None]:
    """``zram``, ``dm-crypt``, ``file`` or ``partition``; whether it is protected, None if that cannot be told."""
    status = host.stat_optional(path)
    if status is None:
        return kind, None
    number = status.st_rdev if kind == "partition" else status.st_dev
    device = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    if not host.exists(device):
        return kind, None
    if (_name(host, device) or os.path.basename(path)).startswith("zram"):
        return "zram", True
    return ("dm-crypt", True) if _is_encrypted(host, device) else (kind, False)


def _name(host: Host, device: str) -> str:
    match = re.search(r"^DEVNAME=(.*)$", host.text_optional(f"{device}/uevent") or "", re.MULTILINE)
    return match[1] if match else ""


def _is_encrypted(host: Host, device: str) -> bool:
    """Whether a block device is one of dm-crypt (its uuid begins so: cryptsetup's lib/libdevmapper.c), or made of such
    alone."""
    if (host.text_optional(f"{device}/dm/uuid") or "").startswith("CRYPT-"):
        return True
    below = host.list(f"{device}/slaves")
    return bool(below) and all(_is_encrypted(host, f"/sys/class/block/{name}") for name in below)
