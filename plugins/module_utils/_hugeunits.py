# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that bring huge pages and their mounts back at the next boot of systemd."""

from __future__ import annotations

import typing as t

from . import _units
from ._host import Host
from ._hugepages import PoolError, label, sysfs

_SERVICE = "hypervisor-hardening-hugepages-{size}kB"
# The last drop-in wins; systemctl edit writes override.conf.
_DROP_IN = "zz-hypervisor-hardening.conf"


def reservations(
    host: Host, size: int, wanted: t.Mapping[int | None, int], *, all_or_fail: bool
) -> t.Iterator[_units.File]:
    """A service for each node (None: the whole machine) of one page size, and the end of those of a former wish.

    :param wanted: node -> number of pages.
    :param all_or_fail: the service fails, for ``systemctl --failed`` to show, where the kernel gives fewer pages.
    """
    stem = _SERVICE.format(size=size)
    names = {f"{stem}{'' if node is None else f'-node{node}'}.service": node for node in wanted}
    former = (name for name in host.list(_units.DIRECTORY) if name.startswith(stem) and name.endswith(".service"))
    for name in sorted({*names, *former}):
        text = None
        if name in names:
            node = names[name]
            text = _service(size, node, wanted[node], all_or_fail)
        yield _units.File(f"{_units.DIRECTORY}/{name}", text, "sysinit.target")


def _service(size: int, node: int | None, pages: int, all_or_fail: bool) -> str:
    path = sysfs(size, node)
    command = f"echo {pages} > {path}"
    if all_or_fail:
        command += f' && read got < {path} && test "$$got" -ge {pages}'
    where = "" if node is None else f" on node {node}"
    # As early as the kernel's document advises; after sysctl.d, where vm.nr_hugepages may say otherwise.
    return f"""{_units.HEADER}[Unit]
Description={pages} huge pages of {label(size)}{where}
DefaultDependencies=no
After=systemd-sysctl.service
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c '{command}'

[Install]
WantedBy=sysinit.target
"""


def mount(host: Host, path: str, options: str) -> _units.File:
    """What mounts hugetlbfs at ``path``: a unit; or a drop-in, where somebody else's unit (systemd's own for
    /dev/hugepages) or line of fstab(5) mounts it already. Options of theirs that ours do not speak of stay.

    :param options: of mount(2): pagesize, uid, gid, mode.
    :raises PoolError: that unit is masked.
    """
    unit = f"{_units.escape(path)}.mount"
    found = _of_others(host, unit)
    if not found or _is_ours(host, unit):
        text = _mount_unit(path, f"nosuid,nodev,{options}")
        return _units.File(f"{_units.DIRECTORY}/{unit}", text, "local-fs.target")
    if _units.is_masked(host, found[0]):
        raise PoolError(f"{path}: {unit} is masked, so the next boot mounts nothing. Run: systemctl unmask '{unit}'")
    ours = {option.partition("=")[0] for option in options.split(",")}
    theirs = [
        option
        for option in _units.last_value(host, unit, "Options", without=_DROP_IN).split(",")
        if option and option.partition("=")[0] not in ours
    ]
    text = f"{_units.HEADER}[Mount]\nOptions={','.join([*theirs, options])}\n"
    return _units.File(f"{_units.DIRECTORY}/{unit}.d/{_DROP_IN}", text)


def no_mount(host: Host, path: str) -> t.Iterator[_units.File]:
    """The end of what ``mount`` wrote.

    :raises PoolError: somebody else's unit, or a line of fstab(5), would mount it again at boot.
    """
    unit = f"{_units.escape(path)}.mount"
    found = _of_others(host, unit)
    if found and not _units.is_masked(host, found[0]):
        by_fstab = "/generator/" in found[0]
        remedy = "Remove its line from /etc/fstab" if by_fstab else f"Run: systemctl mask '{unit}'"
        raise PoolError(f"{path}: {found[0]} would mount it again at the next boot. {remedy}; or set persist to false.")
    yield _units.File(f"{_units.DIRECTORY}/{unit}", None, "local-fs.target")
    yield _units.File(f"{_units.DIRECTORY}/{unit}.d/{_DROP_IN}", None)


def delegate(path: str, users: t.Sequence[str]) -> _units.File:
    """What makes the directories of users in a mount that is empty after each boot (tmpfiles.d(5)); none ends it."""
    name = f"/etc/tmpfiles.d/hypervisor-hardening-hugetlbfs-{_units.escape(path)}.conf"
    lines = "".join(f"d {path}/{user} 0700 {user} - -\n" for user in users)
    return _units.File(name, f"{_units.HEADER}{lines}" if lines else None)


def _is_ours(host: Host, unit: str) -> bool:
    path = f"{_units.DIRECTORY}/{unit}"
    return not _units.is_masked(host, path) and (host.text_optional(path) or "").startswith(_units.HEADER)


def _of_others(host: Host, unit: str) -> list[str]:
    """The files by which somebody else defines a unit."""
    return _units.fragments(host, unit)[1 if _is_ours(host, unit) else 0 :]


def _mount_unit(path: str, options: str) -> str:
    return f"""{_units.HEADER}[Unit]
Description=Huge pages at {path}

[Mount]
What=hugetlbfs
Where={path}
Type=hugetlbfs
Options={options}

[Install]
WantedBy=local-fs.target
"""
