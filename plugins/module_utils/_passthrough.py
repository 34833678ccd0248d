# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which layers of a guest's confinement stop QEMU from a file or device that only a passed-through argument names.

libvirt does not read such arguments, so nothing prepares the host for them: no label, owner, node in /dev or entry in
the device list (libvirt's docs/kbase/qemu-passthrough-security.rst).
"""

from __future__ import annotations

import posixpath
import stat
import typing as t
from dataclasses import dataclass

from . import _conffile, _guestdevices, _libvirtd, _mountinfo, _qemu
from ._host import Host
from ._kernelmac import kernel_mac
from ._virconf import Document, VirConfError

if t.TYPE_CHECKING:
    import os

    from lxml.etree import _Element

    from ._definition import Definition

_ACL = "system.posix_acl_access"
_LABEL = "security.selinux"
_KINDS = {stat.S_IFCHR: "device", stat.S_IFBLK: "device", stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket"}
_MOST_PATHS = 32


@dataclass(frozen=True)
class Surroundings:
    """What of the host decides. ``user`` is whom guests run as, None where nothing tells; ``namespaces`` whether they
    get a mount namespace, None where qemu.conf cannot be read; ``listed`` the device list, ``mounts`` what is mounted
    below /dev, which every guest sees."""

    mac: str
    enforcing: bool
    user: _qemu.User | None
    namespaces: bool | None
    listed: tuple[str, ...]
    mounts: tuple[str, ...]


@dataclass(frozen=True)
class LayerVerdict:
    """``stops`` is None where it depends; ``grant`` is the narrowest way to let it through, "" where none is needed."""

    layer: str
    stops: bool | None
    why: str
    grant: str


@dataclass(frozen=True)
class Opened:
    """A path that an argument names; ``kind`` is ``file``, ``directory``, ``device``, ``socket`` or ``missing``."""

    argument: str
    path: str
    kind: str
    layers: tuple[LayerVerdict, ...]


def surroundings(host: Host) -> Surroundings:
    """What of the host decides whether QEMU may open a path."""
    document: Document | None
    try:
        document = Document.parse(host.read_optional(_libvirtd.QEMU_CONF) or b"")
    except (VirConfError, OSError):
        document = None
    mac, mode = kernel_mac(host)
    uid, gid, _source = _qemu.user(host, _conffile.read(host, "qemu.conf"))
    return Surroundings(
        mac=mac,
        enforcing=mac == "apparmor" or mode == "enforcing",
        user=None if uid is None or gid is None else _qemu.User(host.user_name(uid), uid, gid),
        namespaces=_namespaces(document),
        listed=_guestdevices.listed(host, document),
        mounts=tuple(mount.target for mount in _mountinfo.read(host, 1) if mount.target.startswith("/dev/")),
    )


def opened(host: Host, definition: Definition, domain: _Element, around: Surroundings) -> tuple[Opened, ...]:
    """What the guest's passed-through arguments name, with the verdict of every layer.

    :param domain: the XML that ``definition`` was made of.
    """
    given = frozenset(around.listed) | _guestdevices.from_definition(host, domain)
    found = []
    for argument in definition.passthrough.args:
        for path in dict.fromkeys((*argument.paths, *_nodes(host, argument.device))):
            found.append(_opened(host, definition, around, argument.shown, path, given))
    return tuple(found[:_MOST_PATHS])


def opened_path(host: Host, definition: Definition, domain: _Element, around: Surroundings, path: str) -> Opened:
    """The same for one path that no argument names yet."""
    given = frozenset(around.listed) | _guestdevices.from_definition(host, domain)
    return _opened(host, definition, around, "", path, given)


def _opened(
    host: Host, definition: Definition, around: Surroundings, shown: str, path: str, given: t.Collection[str]
) -> Opened:
    status = _status(host, path)
    kind = "missing" if status is None else _KINDS.get(stat.S_IFMT(status.st_mode), "file")
    layers = (
        _selinux(host, definition, around, path),
        _apparmor(definition, around, path),
        _dac(host, definition, around, path, status),
        _namespace(around, path, given),
        _seccomp(shown),
        _cgroup(path, kind, given),
    )
    return Opened(shown, path, kind, layers)


def _nodes(host: Host, device: str) -> list[str]:
    """The nodes by which QEMU gets at a device of the host that an argument takes."""
    words = device.split()
    if words[:1] == ["pci"]:
        return sorted(_guestdevices.vfio_nodes(host, f"/sys/bus/pci/devices/{words[1]}"))
    if words[:2] == ["usb", "bus"] and words[2].isdigit() and words[4].isdigit():
        return [f"/dev/bus/usb/{int(words[2]):03d}/{int(words[4]):03d}"]
    return []


def _namespaces(document: Document | None) -> bool | None:
    if document is None:
        return None
    value = document.get("namespaces")
    return True if value is None else bool(value.content)


def _status(host: Host, path: str) -> os.stat_result | None:
    try:
        return host.stat_optional(path)
    except (OSError, ValueError):  # a loop of symlinks, a name that is too long, a NUL
        return None


def _without_label(definition: Definition, model: str) -> bool:
    return any(
        label.where == "domain" and label.type == "none" and label.model in ("", "none", model)
        for label in definition.seclabels
    )


def _selinux(host: Host, definition: Definition, around: Surroundings, path: str) -> LayerVerdict:
    if around.mac != "selinux":
        return LayerVerdict("selinux", False, "the kernel does not run it", "")
    if _without_label(definition, "selinux"):
        return LayerVerdict("selinux", False, "the definition takes the guest out of it", "")
    if not around.enforcing:
        return LayerVerdict("selinux", False, "it is permissive", "")
    try:
        label = host.attributes(path).get(_LABEL, b"").rstrip(b"\0").decode("utf-8", "replace")
    except (OSError, ValueError):
        label = ""
    kind = label.split(":")[2] if label.count(":") >= 2 else ""
    grant = (
        f"label {path} virt_content_t to read it; svirt_image_t:s0 without categories to share it for writing; "
        "svirt_image_t:s0 with the guest's own categories for itself alone, which needs a static label"
    )
    if kind == "virt_content_t":
        return LayerVerdict("selinux", None, "virt_content_t may be read, not written", grant)
    if kind == "svirt_image_t" and label.endswith(":s0"):
        return LayerVerdict("selinux", False, "svirt_image_t without categories is open to every guest", "")
    if kind == "svirt_image_t":
        return LayerVerdict("selinux", None, f"{label}: only for a guest of these categories", grant)
    return LayerVerdict("selinux", True, f"svirt_t may not use the label {label or 'that it has'}", grant)


def _apparmor(definition: Definition, around: Surroundings, path: str) -> LayerVerdict:
    if around.mac != "apparmor":
        return LayerVerdict("apparmor", False, "the kernel does not run it", "")
    if _without_label(definition, "apparmor"):
        return LayerVerdict("apparmor", False, "the definition takes the guest out of it", "")
    return LayerVerdict(
        "apparmor",
        True,
        "the guest's profile is made of its definition, which does not name the path",
        f'the rule "{path}" rw, (or r,) in the profile libvirt-{definition.uuid} alone: grants of the module '
        "apparmor_local, which outlast a libvirt that deletes the profile when the guest stops",
    )


def _dac(
    host: Host, definition: Definition, around: Surroundings, path: str, status: os.stat_result | None
) -> LayerVerdict:
    user = user_of(host, definition, around)
    grant = f"setfacl -m u:{user.name if user else 'USER'}:rw '{path}' (or :r), and x on each directory above it"
    if user is None:
        return LayerVerdict("dac", None, "QEMU's user is unknown", grant)
    if user.uid == 0:
        return LayerVerdict("dac", False, "QEMU runs as root", "")
    if status is None:
        return LayerVerdict("dac", None, "there is no such file yet", grant)
    if _acl(host, path):
        return LayerVerdict("dac", None, "the file has an ACL: see getfacl", grant)
    gids = _qemu.groups(host, user)
    may = _may(status, user.uid, gids)
    above = (one for one in _mountinfo.ancestors(path) if one != path)
    closed = next((one for one in above if not _searchable(host, one, user.uid, gids)), "")
    if closed and not _acl(host, closed):
        return LayerVerdict("dac", True, f"{user.name} may not enter {closed}", grant)
    if may & 6 == 6:
        return LayerVerdict("dac", False, f"{user.name} may read and write it", "")
    if may & 4:
        return LayerVerdict("dac", None, f"{user.name} may read it, not write", grant)
    return LayerVerdict("dac", True, f"{user.name} may not read it", grant)


def user_of(host: Host, definition: Definition, around: Surroundings) -> _qemu.User | None:
    """Whom a guest's QEMU runs as, by its own label, qemu.conf or the distribution; None where nothing tells."""
    own = next((label.label for label in definition.seclabels if label.where == "domain" and label.model == "dac"), "")
    if not own:
        return around.user
    user, _colon, group = own.partition(":")
    uid, gid = _qemu.number(user, host.uid), _qemu.number(group, host.gid)
    return None if uid is None or gid is None else _qemu.User(host.user_name(uid), uid, gid)


def _may(status: os.stat_result, uid: int, gids: t.Collection[int]) -> int:
    """The permission bits that hold for a user: path_resolution(7)."""
    if status.st_uid == uid:
        return status.st_mode >> 6 & 7
    return status.st_mode >> 3 & 7 if status.st_gid in gids else status.st_mode & 7


def _searchable(host: Host, directory: str, uid: int, gids: t.Collection[int]) -> bool:
    status = _status(host, directory)
    return status is None or bool(_may(status, uid, gids) & 1)


def _acl(host: Host, path: str) -> bool:
    try:
        return _ACL in host.attributes(path)
    except (OSError, ValueError):
        return False


def _namespace(around: Surroundings, path: str, given: t.Collection[str]) -> LayerVerdict:
    path = posixpath.normpath(path)
    if not path.startswith("/dev/"):
        return LayerVerdict("mount_namespace", False, "it hides only what is in /dev", "")
    if around.namespaces is False:
        return LayerVerdict("mount_namespace", False, "qemu.conf gives guests none", "")
    if any(_mountinfo.is_below(path, mount) for mount in around.mounts):
        return LayerVerdict("mount_namespace", False, "what is mounted below /dev before the start stays visible", "")
    if path in given:
        return LayerVerdict("mount_namespace", False, "the node is in the device list or in the definition", "")
    return LayerVerdict(
        "mount_namespace",
        None if around.namespaces is None else True,
        "the guest's own /dev has no such node",
        "name the device in the definition itself (hostdev, disk, serial, tpm, rng, input), for this guest alone; "
        "otherwise cgroup_device_acl of qemu.conf, for all guests",
    )


def _seccomp(shown: str) -> LayerVerdict:
    starts = any(word in shown for word in ("exec:", "script=/", "helper=/", "smb="))
    if starts:
        return LayerVerdict(
            "seccomp", True, "spawn=deny lets QEMU start no program", "none for one guest; let libvirt do it instead"
        )
    return LayerVerdict("seccomp", False, "opening a file is not among what the filter denies", "")


def _cgroup(path: str, kind: str, given: t.Collection[str]) -> LayerVerdict:
    if kind != "device" and not (kind == "missing" and path.startswith("/dev/")):
        return LayerVerdict("device_cgroup", False, "it is about devices alone", "")
    if posixpath.normpath(path) in given:
        return LayerVerdict("device_cgroup", False, "the device is in the device list or in the definition", "")
    return LayerVerdict(
        "device_cgroup",
        True,
        "the guest's cgroup allows the device list and what the definition names",
        "name the device in the definition itself, for this guest alone; otherwise cgroup_device_acl of qemu.conf, "
        "for all guests",
    )
