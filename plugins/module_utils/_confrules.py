# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on the values of qemu.conf: what libvirt refuses when it starts, or accepts and means something else by."""

from __future__ import annotations

import os
import re
import stat
import typing as t

from ._confkeys import is_secret
from ._host import Host

if t.TYPE_CHECKING:
    from ._virconf import Document, Plain

# The key, and a name or path in its value, that the host does not have.
Lacking = frozenset[tuple[str, str]]

HUGETLBFS_MAGIC = 0x958458F6  # linux/magic.h

# Made, and given to QEMU's user, when the driver starts (qemu_driver.c, qemuStateInitialize).
MADE_AT_START = ("auto_dump_path", "memory_backing_dir")

_USERS = ("user", "swtpm_user")
_GROUPS = ("group", "swtpm_group")
_IMAGE_FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
_SHUT_DOWN = ("none", "persistent", "transient", "all")

# Sets of words and numbers, each from the enumeration that libvirt's parser looks the value up in.
_ALLOWED: dict[str, tuple[t.Any, ...]] = {
    "security_driver": ("selinux", "apparmor", "none"),  # security_driver.c; dac is always there and not to be named
    "namespaces": ("mount",),  # qemu_domain.c, qemuDomainNamespace
    "cgroup_controllers": (  # vircgroup.c, virCgroupController
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "net_cls", "perf_event"),
    ),
    "seccomp_sandbox": (-1, 0, 1),  # qemu.conf; the parser takes any other number for 1
    "stdio_handler": ("logd", "file"),  # qemu_conf.c, virQEMUDriverConfigLoadProcessEntry
    "lock_manager": ("lockd", "sanlock", "nop"),  # qemu_conf.c and lock_manager.c
    "sched_core": ("none", "vcpus", "emulator", "full"),  # qemu_conf.c, virQEMUSchedCore
    "deprecation_behavior": ("none", "omit", "reject", "crash"),  # read first when a guest starts, and then ignored
    "save_image_format": _IMAGE_FORMATS,  # qemu_saveimage.c; 9.0 looks at these three first when it needs them
    "dump_image_format": _IMAGE_FORMATS,
    "snapshot_image_format": _IMAGE_FORMATS,
    "auto_shutdown_try_save": ("none", "persistent"),  # a transient guest has nothing to be restored from
    "auto_shutdown_try_shutdown": _SHUT_DOWN,
    "auto_shutdown_poweroff": _SHUT_DOWN,
    "default_cpu_deprecated_features": ("off", "on", "none"),
    "allow_disk_format_probing": (False,),  # gone since 4.5, and 1 is an error
}

# In libvirt's lens, and not read by the parser of 12.8, where a value of a wrong type passes in them.
_NO_VXHS = "QEMU has had no VxHS since 5.2, and libvirt ignores the key."
_NOT_READ = {
    "vnc_tls_priority": "libvirt 12.8 shows this key in its sample and does not read it: VNC keeps QEMU's own.",
    "vxhs_tls": _NO_VXHS,
    "vxhs_tls_x509_cert_dir": _NO_VXHS,
    "vxhs_tls_x509_secret_uuid": _NO_VXHS,
}

# Lowest and highest port of a range: keys, least value, libvirt's defaults (qemu_conf.c, qemu_conf.h).
_PORTS = (
    ("remote_display_port_min", "remote_display_port_max", 5900, 5900, 65535),
    ("remote_websocket_port_min", "remote_websocket_port_max", 5700, 5700, 65535),
    ("migration_port_min", "migration_port_max", 1, 49152, 49215),
    ("backup_port_min", "backup_port_max", 1, 10809, 10872),
)


def secrets(*documents: Document) -> tuple[str, ...]:
    """The passwords in some files, longest first."""
    # SIM118: a Document is no dict, and cannot be iterated over.
    values = {document.get(key) for document in documents for key in document.keys() if is_secret(key)}  # noqa: SIM118
    texts = {str(value.content) for value in values if value is not None}
    return tuple(sorted(filter(None, texts), key=len, reverse=True))


def lacking(host: Host, settings: t.Mapping[str, t.Any]) -> Lacking:
    """What the settings name and the host does not have: users, groups, directories, hugetlbfs mounts."""
    named = ((key, word) for key, value in settings.items() for word in _words(value))
    return frozenset((key, word) for key, word in named if not _present(host, key, word))


def problems(wanted: t.Mapping[str, Plain], document: Document, absent: Lacking) -> list[str]:
    """Why libvirt would not take the wanted values, or not for what they look like; each names its key.

    :param wanted: values of the right type.
    :param document: the configuration with the wanted values in it, for rules on more than one key.
    :param absent: what ``lacking`` found.
    """
    found = [problem for key, value in wanted.items() for problem in _problems(key, value, absent)]
    for ports in _PORTS:
        if wanted.keys() & set(ports[:2]):
            found += _port_problems(document, *ports)
    return found


def doubts(wanted: t.Mapping[str, Plain]) -> list[str]:
    """What libvirt takes, and what will not do what it seems to say."""
    found = [f"{key}: {_NOT_READ[key]}" for key in wanted if key in _NOT_READ]
    if wanted.get("security_driver") == []:
        found.append('security_driver: an empty list means the same as no line: libvirt probes. "none" turns MAC off.')
    found += [
        f"{key}: {wanted[key]!r} gives a guest that breaks out of its QEMU the whole host."
        for key in ("user", "swtpm_user")
        if str(wanted.get(key)).lstrip("+") in ("root", "0")
    ]
    return found


def _problems(key: str, value: Plain, absent: Lacking) -> t.Iterator[str]:
    if key in _ALLOWED:
        allowed = _ALLOWED[key]
        for word in value if isinstance(value, (list, tuple)) else [value]:
            if word not in allowed:
                yield f"{key}: {word!r} is not one of {', '.join(map(str, map(_bare, allowed)))}."
    if key in _USERS or key in _GROUPS:
        yield from _owner_problems(key, str(value), absent)
    if key == "security_driver" and len(set(_words(value))) < len(_words(value)):
        yield f"{key}: each driver may be named once."
    if key == "cgroup_device_acl" and not value:
        yield f"{key}: an empty list leaves guests without /dev/null. null goes back to libvirt's own list."
    if key == "hugetlbfs_mount" or key in MADE_AT_START or _is_tls_directory(key) or key == "cgroup_device_acl":
        yield from _path_problems(key, value, absent)


def _owner_problems(key: str, value: str, absent: Lacking) -> t.Iterator[str]:
    """virGetUserID (virutil.c): a name, else a number; a plus sign keeps a number from being looked up as a name."""
    number = re.fullmatch(r"\+?([0-9]+)", value)
    noun = "group" if key in _GROUPS else "user"
    if number is None and not re.fullmatch(r"\+?-[0-9]+", value):
        if (key, value) in absent:
            yield f'{key}: this host has no {noun} {value!r}. Create it first, or give a number as "+NUMBER".'
    elif number is None or int(number[1]) >= 2**32 - 1:
        yield (
            f"{key}: {value!r} is no {noun}; libvirt takes -1 for an order not to switch, so guests would run as root. "
            f'Name the {noun}, or give its number as "+NUMBER".'
        )


def _path_problems(key: str, value: Plain, absent: Lacking) -> t.Iterator[str]:
    for path in _words(value):
        if not path and key == "hugetlbfs_mount":
            yield f'{key}: "" keeps libvirt from starting, whatever its documentation says. [] turns huge pages off.'
        elif not path.startswith("/"):
            yield f"{key}: {path!r} is not an absolute path."
        elif (key, path) not in absent:
            continue
        elif key == "hugetlbfs_mount":
            yield f"{key}: {path} is not on a hugetlbfs file system, and libvirt would not start. Mount it there first."
        elif key in MADE_AT_START:
            yield f"{key}: {path} is no directory and cannot become one, and libvirt makes it when it starts."
        elif _is_tls_directory(key):
            yield f"{key}: the directory {path} does not exist, and libvirt would not start. Create it first."


def _port_problems(document: Document, low: str, high: str, least: int, *defaults: int) -> t.Iterator[str]:
    first, last = _number(document, low, defaults[0]), _number(document, high, defaults[1])
    if first < least:
        yield f"{low}: {first} is below {least}."
    if last > 65535:
        yield f"{high}: {last} is above 65535."
    if first > last:
        yield f"{low} ({first}) is above {high} ({last}); a key that is not set has libvirt's default. Set both."


def _number(document: Document, key: str, default: int) -> int:
    value = document.get(key)
    return value.content if value is not None and isinstance(value.content, int) else default


def _present(host: Host, key: str, word: str) -> bool:
    if "\0" in word:
        return False
    if key in _USERS:
        return host.uid(word) is not None
    if key in _GROUPS:
        return host.gid(word) is not None
    if key == "hugetlbfs_mount":
        return word.startswith("/") and host.exists(word) and host.filesystem(word) == HUGETLBFS_MAGIC
    if key in MADE_AT_START:
        return word.startswith("/") and _can_be_directory(host, word)
    if _is_tls_directory(key):
        return host.exists(word)
    return True


def _can_be_directory(host: Host, path: str) -> bool:
    while not host.exists(path):
        path = os.path.dirname(path)
    return stat.S_ISDIR(host.stat(path).st_mode)


def _is_tls_directory(key: str) -> bool:
    return key.endswith("_tls_x509_cert_dir")


def _words(value: t.Any) -> list[str]:
    """The strings in a value: itself, or those of a list."""
    return [word for word in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(word, str)]


def _bare(word: t.Any) -> t.Any:
    return int(word) if isinstance(word, bool) else word
