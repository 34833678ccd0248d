# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on files: who can get at what decides about guests, or holds their secrets and their memory."""

from __future__ import annotations

import fnmatch
import os
import stat
import typing as t

from . import _bridgehelper, _polkit
from ._permissions import Allowed, Inspection, Reach, described, walk
from ._reader import Reader

if t.TYPE_CHECKING:
    from ._conffile import ConfFile
    from ._host import Host

_STATE = "/var/lib/libvirt"
# Documentation of qemu.conf: *_tls_x509_cert_dir and their default; kbase/tlscerts: libvirt's own.
_USES = ("vnc", "spice", "chardev", "migrate", "backup", "nbd", "default")
_TLS_DIRECTORIES = ("/etc/pki/qemu", *(f"/etc/pki/libvirt-{use}" for use in _USES))
_LIBVIRT_KEYS = "/etc/pki/libvirt/private"
_CA_DIRECTORIES = ("/etc/pki/CA", "/etc/pki/CA/private", "/etc/pki/libvirt", _LIBVIRT_KEYS, *_TLS_DIRECTORIES)
# What certtool's and openssl's guides call a certificate authority's key.
_CA_KEYS = ("*cakey*.pem", "*ca-key*.pem", "*ca_key*.pem", "*ca.key", "*cakey.key")
_SECRET_FILES = tuple(f"/etc/libvirt/{name}" for name in ("auth.conf", "passwd.db", "krb5.tab"))
_NODES = (
    *("/dev/kvm", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/net/tun", "/dev/vfio/vfio", "/dev/iommu", "/dev/sev"),
    *("/dev/userfaultfd", "/dev/loop-control"),
)
_HOOKS_LIMIT = 50


class Context(t.Protocol):
    """What is needed of _infocontext.Context."""

    @property
    def host(self) -> Host: ...

    def configuration(self, name: str) -> ConfFile: ...


class _Users(t.NamedTuple):
    """Numbers of whom QEMU runs as, besides root."""

    owners: frozenset[int]
    groups: frozenset[int]


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``files``; its keys are documented in hypervisor_info."""
    reader = Reader(context.host)
    found = {name: one.facts() for name, one in inspections(context, reader).items()}
    settings = context.configuration("qemu.conf").settings
    return {
        **found,
        "hooks": {**found["hooks"], "files": _hook_files(reader)},
        "devices": [_node(reader, path) for path in _NODES],
        "bridge_helper": _bridgehelper.facts(reader, settings.get("bridge_helper")),
        "polkit": {**found["polkit"], **_polkit.facts(reader)},
        "unread": reader.unread,
    }


def inspections(context: Context, reader: Reader, names: t.Sequence[str] = ()) -> dict[str, Inspection]:
    """The inspections of these classes of files, by default of all."""
    reach = Reach(reader)
    users = _qemu(context)
    settings = context.configuration("qemu.conf").settings
    fills: dict[str, t.Callable[[Inspection], None]] = {
        "configuration": _configuration,
        "definitions": _definitions,
        "secrets": lambda one: _secrets(one, settings),
        "client_credentials": _client_credentials,
        "nova": lambda one: _nova(one, context),
        "tls_keys": lambda one: _tls_keys(one, context, users),
        "ca_keys": lambda one: _ca_keys(one, settings),
        "saved": lambda one: _private(one, users, _saved(settings)),
        "dumps": lambda one: _dumps(one, settings),
        "nvram": lambda one: _private(one, users, [f"{_STATE}/qemu/nvram"]),
        "hooks": _hooks,
        "polkit": _polkit_files,
    }
    found = {name: Inspection(reader, reach) for name in names or fills}
    for name, inspection in found.items():
        fills[name](inspection)
    return found


def _qemu(context: Context) -> _Users:
    """root, whom qemu.conf names, and whom the distributions build in (Debian, Red Hat)."""
    settings = context.configuration("qemu.conf").settings
    owners, groups = {0}, {0}
    for name in ("libvirt-qemu", "qemu", str(settings.get("user", ""))):
        number = _number(name, context.host.uid)
        if number is not None:
            owners.add(number)
    for name in ("libvirt-qemu", "qemu", "kvm", str(settings.get("group", ""))):
        number = _number(name, context.host.gid)
        if number is not None:
            groups.add(number)
    return _Users(frozenset(owners), frozenset(groups))


def _number(name: str, lookup: t.Callable[[str], int | None]) -> int | None:
    # qemu.conf: a leading + makes a number of it
    digits = name[1:] if name.startswith("+") else ""
    return int(digits) if digits.isdigit() else lookup(name) if name else None


def _below(inspection: Inspection, directory: str, files: Allowed, directories: Allowed | None = None) -> None:
    found, within, cut = walk(inspection.reader, directory)
    inspection.truncated = inspection.truncated or cut
    for path in found:
        inspection.look(path, files)
    if directories is not None:
        for path in within:
            inspection.look(path, directories)


def _configuration(one: Inspection) -> None:
    reader, root = one.reader, Allowed(0o755)
    for directory in ("/etc/libvirt", "/etc/libvirt/qemu"):
        one.look(directory, root)
    for name in reader.list("/etc/libvirt"):
        if name.endswith(".conf"):
            one.look(f"/etc/libvirt/{name}", root)
    for name in ("nwfilter", "storage", "qemu/networks", "qemu/autostart"):
        _below(one, f"/etc/libvirt/{name}", root, root)
    for directory in ("/etc/qemu", "/etc/qemu-kvm"):
        _below(one, directory, root, root)
    for path in ("/etc/sasl2/libvirt.conf", "/etc/sasl2/qemu.conf", "/etc/sasl2/qemu-kvm.conf"):
        one.look(path, root)


def _definitions(one: Inspection) -> None:
    for directory in ("/etc/libvirt/qemu", "/run/libvirt/qemu"):
        for name in one.reader.list(directory):
            if name.endswith(".xml"):
                one.look(f"{directory}/{name}", Allowed(0o600))


def _secrets(one: Inspection, settings: t.Mapping[str, t.Any]) -> None:
    for directory in ("/etc/libvirt/secrets", f"{_STATE}/secrets"):
        _below(one, directory, Allowed(0o600), Allowed(0o711))
    for path in _SECRET_FILES:
        one.look(path, Allowed(0o600))
    if any(key.endswith("_password") for key in settings):
        one.look("/etc/libvirt/qemu.conf", Allowed(0o600))


def _client_credentials(one: Inspection) -> None:
    """docs/auth.rst, "Client configuration": of root, and of the users that a manager connects as."""
    one.look("/etc/libvirt/auth.conf", Allowed(0o600))
    for home in ("/root", "/var/lib/nova", "/var/lib/one"):
        one.look(f"{home}/.config/libvirt/auth.conf", Allowed(0o600, None))


def _nova(one: Inspection, context: Context) -> None:
    """OpenStack Security Guide, Check-Compute-01 and -02; Kolla keeps the same files below /etc/kolla."""
    group = context.host.gid("nova")
    groups = frozenset({0} if group is None else {0, group})
    for directory in ("/etc/nova", *(f"/etc/kolla/{name}" for name in one.reader.list("/etc/kolla") if "nova" in name)):
        _below(one, directory, Allowed(0o640, frozenset({0}), groups), Allowed(0o750, frozenset({0}), groups))


def _tls_directories(settings: t.Mapping[str, t.Any]) -> list[str]:
    named = [value for key, value in settings.items() if key.endswith("_tls_x509_cert_dir") and isinstance(value, str)]
    return sorted({*_TLS_DIRECTORIES, *(path.rstrip("/") for path in named if path.startswith("/"))})


def _tls_keys(one: Inspection, context: Context, users: _Users) -> None:
    reader = one.reader
    for path in _keys(reader, _LIBVIRT_KEYS, "*"):
        one.look(path, Allowed(0o600))
    for name in ("libvirtd.conf", "virtproxyd.conf"):
        named = context.configuration(name).settings.get("key_file")
        if isinstance(named, str) and named.startswith("/") and not named.startswith(f"{_LIBVIRT_KEYS}/"):
            one.look(named, Allowed(0o600))
    for directory in _tls_directories(context.configuration("qemu.conf").settings):
        for path in _keys(reader, directory, "*key*.pem"):
            one.look(path, Allowed(0o640, users.owners, users.groups))


def _keys(reader: Reader, directory: str, pattern: str) -> list[str]:
    names = (name for name in reader.list(directory) if fnmatch.fnmatchcase(name, pattern))
    return [f"{directory}/{name}" for name in names if not _is_ca_key(name)]


def _is_ca_key(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _CA_KEYS)


def _ca_keys(one: Inspection, settings: t.Mapping[str, t.Any]) -> None:
    for directory in sorted({*_CA_DIRECTORIES, *_tls_directories(settings)}):
        if one.reader.host.exists(directory):
            one.checked += 1
            for name in one.reader.list(directory):
                if _is_ca_key(name):
                    one.add(f"{directory}/{name}", "not on a hypervisor")


def _saved(settings: t.Mapping[str, t.Any]) -> list[str]:
    named = [settings.get("memory_backing_dir")]
    return [
        *(f"{_STATE}/qemu/{name}" for name in ("save", "snapshot", "checkpoint", "ram")),
        f"{_STATE}/swtpm",
        *(path for path in named if isinstance(path, str) and path.startswith("/")),
    ]


def _private(one: Inspection, users: _Users, directories: t.Iterable[str]) -> None:
    """What QEMU or its TPM has written; each runs as a user of its own, so the owner is not judged."""
    for directory in directories:
        _below(one, directory, Allowed(0o660, None, users.groups), Allowed(0o775, None, users.groups))


def _dumps(one: Inspection, settings: t.Mapping[str, t.Any]) -> None:
    paths = {f"{_STATE}/qemu/dump", "/var/crash", "/var/lib/systemd/coredump", settings.get("auto_dump_path")}
    for path in sorted(path for path in paths if isinstance(path, str) and path.startswith("/")):
        # a crash directory is as open as /tmp where any program may leave its dump there
        _below(one, path.rstrip("/"), Allowed(0o640, None, None))


def _hooks(one: Inspection) -> None:
    _below(one, "/etc/libvirt/hooks", Allowed(0o755), Allowed(0o755))


def _hook_files(reader: Reader) -> list[dict[str, t.Any]]:
    """hooks.rst: libvirt runs them as root."""
    import hashlib

    found = []
    for path in walk(reader, "/etc/libvirt/hooks")[0][:_HOOKS_LIMIT]:
        try:
            digest = hashlib.sha256(reader.host.read(path)).hexdigest()
        except OSError as error:
            reader.note(path, error.strerror or str(error))
            continue
        executable = bool(reader.host.stat(path).st_mode & 0o111)
        found.append({"name": path, "sha256": digest, "executable": executable})
    return found


def _node(reader: Reader, path: str) -> dict[str, t.Any]:
    status = reader.host.stat_optional(path)
    if status is None:
        return {"name": path, "present": False, "mode": None, "owner": None, "group": None, "others": None, "acl": None}
    found = described(reader, path, status, "")
    try:
        acl: bool | None = "system.posix_acl_access" in reader.host.attributes(path)
    except OSError:
        acl = None
    return {
        "name": path,
        "present": True,
        "mode": found["mode"],
        "owner": found["owner"],
        "group": found["group"],
        "others": bool(status.st_mode & (stat.S_IROTH | stat.S_IWOTH)),
        "acl": acl,
    }


def _polkit_files(one: Inspection) -> None:
    for path in _polkit.files(one.reader):
        one.look(path, Allowed(0o755))
        one.look(os.path.dirname(path), Allowed(0o755, None))
