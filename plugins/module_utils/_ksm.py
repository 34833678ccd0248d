# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel same-page merging (Documentation/admin-guide/mm/ksm.rst): what it does, and its end."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from . import _units
from ._host import Host, HostError
from ._kernelvalues import KernelError, Value
from ._reader import Reader

if t.TYPE_CHECKING:
    from ._journal import Journal

DIRECTORY = "/sys/kernel/mm/ksm"
RUN = f"{DIRECTORY}/run"
_WANTS = f"{_units.DIRECTORY}/multi-user.target.wants"
# Red Hat's tuning service and the switch that comes with it; Debian's ksmtuned has the first only.
_SERVICES = ("ksm", "ksmtuned")
_STOP, _UNMERGE = "0", "2"


@dataclass(frozen=True)
class Service:
    """A service that turns merging on. ``path``: the file that defines it, "" for none."""

    name: str
    installed: bool
    masked: bool
    enabled: bool
    running: bool
    path: str

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    @property
    def mask(self) -> str:
        """The link to /dev/null by which ``systemctl mask`` keeps it from being started."""
        return f"{_units.DIRECTORY}/{self.unit}"


@dataclass(frozen=True)
class Ksm:
    """``pages_shared`` pages stand for ``pages_sharing`` more; ``zero_pages`` are mapped to the zero page instead.
    None: this kernel does not tell."""

    present: bool
    run: int | None
    pages_shared: int | None
    pages_sharing: int | None
    zero_pages: int | None
    merge_across_nodes: bool | None
    services: tuple[Service, ...]

    @property
    def merged(self) -> int:
        """The pages that unmerging needs."""
        return (self.pages_sharing or 0) + (self.zero_pages or 0)

    @property
    def off(self) -> bool:
        return not self.run and not self.merged


@dataclass(frozen=True)
class Step:
    """The end of merging: ``unmerge`` what is merged, and keep ``services`` from starting it again."""

    unmerge: Value | None
    services: tuple[Service, ...]

    def __str__(self) -> str:
        said = [str(self.unmerge)] if self.unmerge else []
        return "; ".join([*said, *(f"{service.unit} is not masked" for service in self.services)])


def read(reader: Reader) -> Ksm:
    """What the kernel merges, and who tells it to."""
    return Ksm(
        present=reader.host.exists(RUN),
        run=reader.number(RUN),
        pages_shared=reader.number(f"{DIRECTORY}/pages_shared"),
        pages_sharing=reader.number(f"{DIRECTORY}/pages_sharing"),
        zero_pages=reader.number(f"{DIRECTORY}/ksm_zero_pages"),
        merge_across_nodes=reader.truth(f"{DIRECTORY}/merge_across_nodes"),
        services=tuple(_service(reader, name) for name in _SERVICES),
    )


def _service(reader: Reader, name: str) -> Service:
    host, unit = reader.host, f"{name}.service"
    files = _units.fragments(host, unit)
    masked = bool(files) and _units.is_masked(host, files[0])
    return Service(
        name=name,
        installed=any(not _units.is_masked(host, path) for path in files),
        masked=masked,
        enabled=not masked and host.stat_optional(f"{_WANTS}/{unit}", follow=False) is not None,
        # a oneshot service that succeeded has no process and no cgroup
        running=bool(reader.text(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs")),
        path=files[0] if files else "",
    )


def needed_kib(ksm: Ksm) -> int:
    """The memory in kibibytes that merged pages take once each has its own again."""
    return ksm.merged * os.sysconf("SC_PAGE_SIZE") // 1024


def plan(ksm: Ksm, available: int, *, without_headroom: bool) -> Step | None:
    """How to end merging, None where it has ended.

    :param available: MemAvailable of /proc/meminfo in kibibytes.
    :param without_headroom: unmerge although the memory is not there.
    :raises KernelError: it is not there; or a service that turns merging on is the operator's own.
    """
    needed = needed_kib(ksm)
    if needed > available and not without_headroom:
        raise KernelError(
            f"KSM: {ksm.merged} pages are merged. To take them apart needs {needed} KiB at once, and the host has "
            f"{available} KiB (MemAvailable), so the kernel would kill guests. Nothing was done. Migrate guests away "
            "or stop some first, or set ksm_without_headroom.",
            needed_kib=needed,
            available_kib=available,
        )
    services = tuple(service for service in ksm.services if service.installed and not service.masked)
    for service in services:
        if service.path == service.mask:
            raise KernelError(
                f"{service.path} turns KSM on at boot, and is a file of this host's own, which no mask can cover. "
                "Nothing was done. Remove it and run again."
            )
    unmerge = None if ksm.off or not ksm.present else Value("KSM", RUN, str(ksm.run), _STOP)
    return Step(unmerge, services) if unmerge or services else None


def apply(host: Host, step: Step, journal: Journal) -> None:
    """End the services first, or they would have merging on again.

    :raises KernelError: systemd or the kernel refused.
    """
    if step.services:
        for service in step.services:
            if service.running:
                journal.record_value(f"unit:{service.unit}", "active", "inactive")
        # before they are masked: systemctl knows no masked unit that is not loaded
        _systemctl(host, "stop", "--", *(service.unit for service in step.services))
        for service in step.services:
            journal.record_value(f"link:{service.mask}", None, "/dev/null")
            host.symlink("/dev/null", service.mask)
        _systemctl(host, "daemon-reload")
    if step.unmerge is None:
        return
    journal.record_value(RUN, step.unmerge.before, _STOP)
    try:
        host.write_kernel(RUN, _UNMERGE)
        host.write_kernel(RUN, _STOP)
    except OSError as error:
        raise KernelError(
            f"KSM: the kernel did not take all merged pages apart ({error.strerror}). What is merged still is as it "
            "was; run again when there is more free memory."
        ) from None


def _systemctl(host: Host, *words: str) -> None:
    done = host.run(["systemctl", *words])
    if done.rc != 0:
        raise HostError(f"systemctl {' '.join(words)} failed: {(done.err or done.out).strip()}")
