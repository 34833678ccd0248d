# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the host itself: system, kernel, processor."""

from __future__ import annotations

import os
import re
import time
import typing as t

from . import _mountinfo, _proc, _units
from ._host import Host
from ._infocontext import Context

# Those of version 1, by their names in version 2.
_CONTROLLERS = {name: name for name in ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "hugetlb", "pids")}
_CONTROLLERS["blkio"] = "io"
_OS_RELEASE_RE = re.compile(r"^([A-Z_]+)=(['\"]?)(.*)\2\s*$", re.MULTILINE)


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``host``; its keys are documented in hypervisor_info.

    :raises OSError: a file of /proc cannot be read.
    """
    host = context.host
    system = {key: value for key, _quote, value in _OS_RELEASE_RE.findall(_os_release(context))}
    boot = _units.boot(host)
    return {
        "hostname": host.text("/proc/sys/kernel/hostname").strip(),
        "os": {
            "id": system.get("ID", ""),
            "id_like": system.get("ID_LIKE", "").split(),
            "version": system.get("VERSION_ID", ""),
            "name": system.get("PRETTY_NAME", ""),
        },
        "kernel": host.text("/proc/sys/kernel/osrelease").strip(),
        "architecture": os.uname().machine,
        "cpu_vendor": _cpu_vendor(host.text("/proc/cpuinfo")),
        "cgroup": _cgroup(host),
        "boot_id": _proc.boot_id(host),
        "time": round(time.time(), 2),
        "init": boot.init,
        "container": boot.container,
    }


def _cgroup(host: Host) -> dict[str, t.Any]:
    """What guests can be limited with, as libvirt finds it (src/util/vircgroupv2.c, vircgroupv1.c)."""
    unified = host.text_optional("/sys/fs/cgroup/cgroup.controllers")
    if unified is not None:
        return {"version": 2, "controllers": sorted(unified.split())}
    mounted = [mount.options.split(",") for mount in _mountinfo.read(host, 1) if mount.fstype == "cgroup"]
    found = {_CONTROLLERS[word] for words in mounted for word in words if word in _CONTROLLERS}
    return {"version": 1 if found else None, "controllers": sorted(found)}


def _os_release(context: Context) -> str:
    """os-release(5): the one in /etc counts where there are both."""
    paths = ("/etc/os-release", "/usr/lib/os-release")
    return next((text for text in map(context.host.text_optional, paths) if text is not None), "")


def _cpu_vendor(cpuinfo: str) -> str:
    found = re.search(r"^vendor_id\s*:\s*(\S+)", cpuinfo, re.MULTILINE)
    return found[1] if found else ""
