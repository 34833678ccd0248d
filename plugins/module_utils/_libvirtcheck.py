# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed libvirt's own judgement on a qemu.conf, without a trace on the host.

``virsh -c qemu:///embed?root=DIR`` (drvqemu.rst) starts the QEMU driver inside virsh, with DIR/etc/qemu.conf. Its start
has effects outside DIR, measured on 9.0 and 11.3: it makes ``auto_dump_path`` and ``memory_backing_dir`` and gives
them to QEMU's user, makes a directory on each hugetlbfs and opens its root to everyone, makes files below /run/libvirt
and runs dmidecode; with mac_filter it sets up ebtables. So all of it happens in mount and network namespaces that end
with the check: DIR and /run/libvirt are a tmpfs, each hugetlbfs has a fresh one over it, dmidecode does nothing,
and the two directories are moved into DIR: libvirt makes them wherever they are and looks at nothing else of them.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import _mountinfo
from ._confrules import MADE_AT_START
from ._host import COMMAND_PATH, HardeningError, Host, HostError
from ._libvirtd import libvirt_message
from ._syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)
from ._virconf import STRING, Document

CHECK_SECONDS = 20.0

_RUN = "/run/libvirt"
_ROOT = f"{_RUN}/hypervisor-hardening"
_CANDIDATE = f"{_ROOT}/etc/qemu.conf"
_DRIVER = "libvirt/connection-driver/libvirt_driver_qemu.so"
_SONAME_RE = re.compile(r"\blibvirt\.so\.0\.([0-9]+)\.([0-9]+)$")
_NOTHING_SAID = "failed to connect to the hypervisor"


class CheckError(HardeningError):
    """libvirt refuses a configuration."""


def version(host: Host) -> str | None:
    """The version of the installed libvirt if it can be asked (virsh and the QEMU driver are there), else None."""
    path = library(host) if host.has_command("virsh") else ""
    return library_version(path) if path and host.exists(f"{os.path.dirname(path)}/{_DRIVER}") else None


def library(host: Host) -> str:
    """The file of libvirt's client library, beside the QEMU driver's where there is more than one; "" for none."""
    found = [
        f"{directory}/{name}"
        for directory in _library_directories(host)
        for name in host.list(directory)
        if _SONAME_RE.search(name)
    ]
    return max(found, key=lambda path: host.exists(f"{os.path.dirname(path)}/{_DRIVER}"), default="")


def library_version(path: str) -> str:
    """The version that a library's file name tells (libvirt's meson.build: X.Y.Z is libvirt.so.0.(1000 X + Y).Z)."""
    found = _SONAME_RE.search(path)
    if not found:
        return ""
    major, minor = divmod(int(found[1]), 1000)
    return f"{major}.{minor}.{found[2]}"


def check(host: Host, path: str, candidate: bytes) -> None:
    """Let the installed libvirt judge what is to become ``path``.

    :raises CheckError: it refuses, in its own words, which may quote a value.
    :raises HostError: it could not be asked.
    """
    document = Document.parse(candidate)
    for key in MADE_AT_START:
        value = document.get(key)
        if value is not None and value.kind == STRING:
            document.set(key, f"{_ROOT}/{key}")
    data = document.render()
    huge = document.get("hugetlbfs_mount")
    try:
        message = host.in_child(lambda: _judge(host, data, _strings(huge)), timeout=CHECK_SECONDS)
    except OSError as error:
        what = f"{error.strerror} at {error.filename}" if error.filename else error.strerror
        raise HostError(
            f"libvirt cannot be asked about {path}: {what}. Without namespaces of its own, for which it takes "
            "CAP_SYS_ADMIN, the question would leave traces."
        ) from None
    if message:
        raise CheckError(message.replace(_CANDIDATE, path))


def _judge(host: Host, candidate: bytes, hugetlbfs: t.Sequence[str]) -> str:
    """In a child: libvirt's objections, "" for none."""
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    for seen in _mountinfo.visible(_mountinfo.read(host, os.getpid())).values():
        if seen.fstype == "hugetlbfs":
            _cover(host, seen, hugetlbfs)
    mount("tmpfs", host.path(_RUN if host.exists(_RUN) else "/run"), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    host.make_directory(os.path.dirname(_CANDIDATE), 0o700)
    host.write(_CANDIDATE, candidate)
    for directory in COMMAND_PATH.split(":"):
        if host.exists(f"{directory}/dmidecode"):
            mount(host.path("/bin/true"), host.path(f"{directory}/dmidecode"), "", MS_BIND)
    done = host.run(["virsh", "-c", f"qemu:///embed?root={_ROOT}", "uri"], timeout=CHECK_SECONDS / 2)
    return "" if done.rc == 0 else _message(done.err) or f"virsh ended with status {done.rc}"


def _message(text: str) -> str:
    """What virsh says last; the driver's log before it says the same at greater length."""
    lines = [line for line in text.splitlines() if line.startswith("error: ") and not line.endswith(_NOTHING_SAID)]
    return libvirt_message("\n".join(lines) or text)


def _cover(host: Host, seen: _mountinfo.Mount, named: t.Sequence[str]) -> None:
    """Lay a fresh hugetlbfs over one, with the directories in it that the candidate names."""
    sizes = [option for option in seen.options.split(",") if option.startswith("pagesize=")]
    mount("hugetlbfs", seen.target, "hugetlbfs", 0, ",".join(sizes))
    for path in named:
        if _mountinfo.is_below(path, seen.target):
            host.make_directory(path, 0o755)


def _strings(value: t.Any) -> list[str]:
    plain = value.plain() if value is not None else []
    items = plain if isinstance(plain, list) else [plain]
    return [item for item in items if isinstance(item, str) and item.startswith("/")]


def _library_directories(host: Host) -> list[str]:
    multiarch = [f"/usr/lib/{name}" for name in host.list("/usr/lib") if "-linux-gnu" in name]
    return [*multiarch, "/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib"]
