# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device filter of a process's cgroup: what it may open, whatever stands in its /dev."""

from __future__ import annotations

import posixpath

from ._host import Host

# What devices.list of version 1 shows where nothing is filtered: admin-guide/cgroup-v1/devices.rst.
_ALL_DEVICES = "a *:* rwm"


class DeviceCgroups:
    """The device filters of this host's cgroups. Each cgroup is asked once, however many guests are below it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._v1, self._v2 = _hierarchies(host.text_optional("/proc/mounts") or "")
        self._known: dict[str, list[str] | None] = {}

    def path(self, membership: str) -> str:
        """The cgroup that filters the devices of a process, "" where it is in none that can be seen from here.

        :param membership: the text of /proc/PID/cgroup (cgroups(7)).
        """
        if self._v1:
            return _member(membership, "devices")
        return _member(membership, "") if self._v2 else ""

    def rules(self, membership: str) -> list[str] | None:
        """What filters the devices of a process: nothing, if the list is empty; None if the kernel does not tell.

        Version 1: the lines of devices.list. Version 2 (admin-guide/cgroup-v2.rst, "Device controller"): the BPF
        programs of the process's cgroup and of each one above it but the root; all of them have to agree.
        """
        cgroup = self.path(membership)
        if not cgroup:
            return None
        if self._v1:
            return self._once(self._v1 + cgroup)
        found: list[str] = []
        while cgroup != "/":
            rules = self._once(self._v2 + cgroup)
            if rules is None:
                return None
            found += rules
            cgroup = posixpath.dirname(cgroup)
        return found

    def _once(self, directory: str) -> list[str] | None:
        if directory not in self._known:
            try:
                self._known[directory] = self._lines(directory) if self._v1 else self._programs(directory)
            except OSError:  # no right to ask, a kernel without the filter, or the cgroup has just gone
                return None
        return self._known[directory]

    def _lines(self, directory: str) -> list[str]:
        return [line for line in self._host.text(f"{directory}/devices.list").splitlines() if line != _ALL_DEVICES]

    def _programs(self, directory: str) -> list[str]:
        cgroup = directory[len(self._v2) :]
        return [f"BPF program {number} on {cgroup}" for number in self._host.device_programs(directory)]


def _hierarchies(mounts: str) -> tuple[str, str]:
    """Where the devices controller of version 1 and version 2 are mounted (proc_pid_mounts(5)), "" for neither."""
    v1 = v2 = ""
    for line in mounts.splitlines():
        _source, target, fstype, options = line.split(" ", 4)[:4]
        if fstype == "cgroup2":
            v2 = target
        elif fstype == "cgroup" and "devices" in options.split(","):
            v1 = target
    return v1, v2


def _member(membership: str, controller: str) -> str:
    for line in membership.splitlines():
        _number, controllers, path = line.split(":", 2)
        # Above the root of this cgroup namespace there is nothing to be seen.
        if controller in controllers.split(",") and not path.startswith("/.."):
            return path
    return ""
