# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of an agreement that qemu.conf decides: what it sets, and libvirt's default where it is silent.

The defaults are those of src/qemu/qemu_conf.c, virQEMUDriverConfigNew, for the system's daemon.
"""

from __future__ import annotations

import typing as t

# The groups that libvirt uses if it is not told otherwise, as far as the kernel has them (qemu.conf's own comment).
CGROUP_CONTROLLERS = ("cpu", "devices", "memory", "blkio", "cpuset", "cpuacct")
MEMORY_BACKING_DIR = "/var/lib/libvirt/qemu/ram"

# The default of max_core: 0 in 10.0.0, unlimited in 11.3.0.
_LAST_WITHOUT_CORE = (10, 0, 0)
_FIRST_WITH_CORE = (11, 3, 0)


def of_settings(
    settings: t.Mapping[str, t.Any], *, version: str, device_acl: t.Sequence[str] | None
) -> tuple[dict[str, t.Any], dict[str, str]]:
    """The values that qemu.conf decides, each in the form of ``_agreement.KEYS``, and the reasons for those not known.

    :param settings: what libvirt reads in qemu.conf (bool keys are numbers there).
    :param version: of the installed libvirt (X.Y.Z), "" if not known.
    :param device_acl: its built-in list of devices (``_confkeys.sample``), None if not known.
    """
    values: dict[str, t.Any] = {
        "dynamic_ownership": bool(settings.get("dynamic_ownership", 1)),
        "remember_owner": bool(settings.get("remember_owner", 1)),
        "namespaces": _list(settings.get("namespaces", ["mount"])),
        "seccomp_sandbox": settings.get("seccomp_sandbox", -1) != 0,
        "cgroup_controllers": _list(settings.get("cgroup_controllers", CGROUP_CONTROLLERS)),
        "sched_core": str(settings.get("sched_core", "none")),
        "memory_backing_dir": str(settings.get("memory_backing_dir", MEMORY_BACKING_DIR)),
        "lock_manager": str(settings.get("lock_manager", "nop")),
        "migrate_tls_force": bool(settings.get("migrate_tls_force", 0)),
    }
    unknown = {}
    devices = settings.get("cgroup_device_acl", device_acl)
    if devices is None:
        unknown["cgroup_device_acl"] = (
            "qemu.conf does not set it, and libvirt's package does not tell the built-in list"
        )
    else:
        values["cgroup_device_acl"] = _list(devices)
    core = settings.get("max_core", _default_core(version))
    if core is None:
        unknown["max_core"] = (
            f"qemu.conf does not set it, and the default of libvirt {version or '(unknown)'} is not known"
        )
    else:
        values["max_core"] = str(core)
    return values, unknown


def _list(value: t.Any) -> list[str]:
    return sorted({str(item) for item in value})


def _default_core(version: str) -> str | None:
    parts = version.split(".")
    if not version or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    number = tuple(map(int, parts))
    return "0" if number <= _LAST_WITHOUT_CORE else "unlimited" if number >= _FIRST_WITH_CORE else None
