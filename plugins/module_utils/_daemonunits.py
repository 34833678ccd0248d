# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's daemons (libvirt's daemons.rst) and the systemd units that start them, from files alone."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from . import _units
from ._host import Host

MODULAR = (
    *("virtqemud", "virtproxyd", "virtnetworkd", "virtstoraged", "virtsecretd", "virtnodedevd", "virtnwfilterd"),
    *("virtinterfaced", "virtlxcd", "virtxend", "virtvboxd", "virtchd"),
)
BESIDE = ("virtlogd", "virtlockd")  # of either layout
DAEMONS = ("libvirtd", *MODULAR, *BESIDE)

_CONTINUED = "\\\n"

# Who reads a driver's file: the daemon of the driver, in either layout.
_DRIVER_FILES = {
    "qemu.conf": ("libvirtd", "virtqemud"),
    "qemu-lockd.conf": ("libvirtd", "virtqemud"),
    "qemu-sanlock.conf": ("libvirtd", "virtqemud"),
    "network.conf": ("libvirtd", "virtnetworkd"),
    "nwfilter.conf": ("libvirtd", "virtnwfilterd"),
    "secret.conf": ("libvirtd", "virtsecretd"),
    "lxc.conf": ("libvirtd", "virtlxcd"),
    "libxl.conf": ("libvirtd", "virtxend"),
}

# What systemd's socket units decide where they listen, by the kinds of sockets (libvirt's daemons.rst and the comments
# of libvirtd.conf: "not required or honoured if using systemd socket activation").
_DECIDED_BY_UNITS = {
    "unix_sock_group": ("rw", "ro"),
    "unix_sock_rw_perms": ("rw",),
    "unix_sock_ro_perms": ("ro",),
    "unix_sock_admin_perms": ("admin",),
    "unix_sock_dir": ("rw", "ro", "admin"),
    "listen_tcp": ("tcp",),
    "tcp_port": ("tcp",),
    "listen_tls": ("tls",),
    "tls_port": ("tls",),
    "listen_addr": ("tcp", "tls"),
}


@dataclass(frozen=True)
class Unit:
    """A systemd unit as its files have it. ``fragment`` "": there is no such unit.

    ``values``: each key's values in the order of the files; an empty assignment has cleared those before it.
    """

    name: str
    fragment: str = ""
    drop_ins: tuple[str, ...] = ()
    masked: bool = False
    enabled: bool = False
    values: t.Mapping[str, t.Sequence[str]] = field(default_factory=dict)

    def last(self, key: str, default: str = "") -> str:
        """What is assigned to ``key`` last."""
        return [default, *self.values.get(key, ())][-1]


class Units:
    """The units of a host, each read once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._read: dict[str, Unit] = {}
        self._wanted: set[str] | None = None

    def unit(self, name: str) -> Unit:
        """A unit by its name."""
        if name not in self._read:
            self._read[name] = self._unit(name)
        return self._read[name]

    def _unit(self, name: str) -> Unit:
        host = self._host
        fragments = _units.fragments(host, name)
        if not fragments:
            return Unit(name)
        drop_ins = self._drop_ins(name)
        paths = [path for path in (fragments[0], *drop_ins) if not _units.is_masked(host, path)]
        texts = [host.text_optional(path) or "" for path in paths]
        return Unit(
            name=name,
            fragment=fragments[0],
            drop_ins=drop_ins,
            masked=_units.is_masked(host, fragments[0]),
            enabled=name in self._enabled(),
            values=assigned("\n".join(texts)),
        )

    def _drop_ins(self, name: str) -> tuple[str, ...]:
        """In the order in which systemd reads them: by file name, of equal ones only the first place's
        (systemd.unit(5)); those of all units of a type before those of one."""
        found: dict[str, str] = {}
        for directory in (f"{name.rpartition('.')[2]}.d", f"{name}.d"):
            for place in reversed(_units.SEARCH):
                for entry in self._host.list(f"{place}/{directory}"):
                    if entry.endswith(".conf"):
                        found[entry] = f"{place}/{directory}/{entry}"
        return tuple(path for _entry, path in sorted(found.items()))

    def _enabled(self) -> set[str]:
        """The units that another one pulls in by a symlink, which is what ``systemctl enable`` makes."""
        if self._wanted is None:
            self._wanted = {
                unit
                for place in _units.SEARCH
                for entry in self._host.list(place)
                if entry.endswith((".wants", ".requires"))
                for unit in self._host.list(f"{place}/{entry}")
            }
        return self._wanted


def assigned(text: str) -> dict[str, list[str]]:
    """The assignments in the files of a unit (systemd.syntax(7))."""
    found: dict[str, list[str]] = {}
    for line in text.replace(_CONTINUED, " ").splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith(("#", ";")):
            continue
        key, value = key.strip(), value.strip()
        if value:
            found.setdefault(key, []).append(value)
        else:
            found[key] = []
    return found


def installed(host: Host, daemon: str) -> bool:
    """Whether a daemon's program is there."""
    return any(host.exists(f"{place}/{daemon}") for place in ("/usr/sbin", "/usr/bin", "/usr/local/sbin"))


def sockets(daemon: str) -> dict[str, str]:
    """The UNIX sockets of a daemon by kind, where nothing else is configured (libvirt's daemons.rst)."""
    run = "/run/libvirt"
    stem = "libvirt" if daemon in ("libvirtd", "virtproxyd") else daemon
    found = {"rw": f"{run}/{stem}-sock", "ro": f"{run}/{stem}-sock-ro"}
    found["admin"] = f"{run}/{'libvirt' if daemon == 'libvirtd' else daemon}-admin-sock"
    if daemon in BESIDE:
        del found["ro"]
    return found


def socket_units(daemon: str) -> dict[str, str]:
    """The socket units of a daemon by kind; only libvirtd and virtproxyd serve the network."""
    kinds = {"rw": "", "ro": "-ro", "admin": "-admin"}
    if daemon in BESIDE:
        del kinds["ro"]
    if daemon in ("libvirtd", "virtproxyd"):
        kinds.update(tcp="-tcp", tls="-tls")
    return {kind: f"{daemon}{suffix}.socket" for kind, suffix in kinds.items()}


def decided_by(daemon: str, key: str) -> list[str]:
    """The socket units that decide what a key of a daemon's file says, where systemd listens; none for other keys."""
    units = socket_units(daemon)
    return [units[kind] for kind in _DECIDED_BY_UNITS.get(key, ()) if kind in units]


def activated(host: Host, daemon: str) -> bool:
    """Whether systemd listens for a daemon and hands it its sockets (sd_listen_fds(3)).

    A running one tells by what it was started with; of one that does not run, its unit does.
    """
    from . import _libvirtd

    process = _libvirtd.running(host, daemon)
    if process is not None:
        environment = (host.text_optional(f"/proc/{process.pid}/environ") or "").split("\0")
        return any(word.startswith("LISTEN_FDS=") for word in environment)
    unit = Units(host).unit(socket_units(daemon)["rw"])
    return not unit.masked and (unit.enabled or _libvirtd.daemon(host, daemon).listening)


def reader(kind: str, file: str) -> str:
    """The daemon that reads a file of /etc/libvirt, "" for none of this layout.

    :param kind: ``monolithic`` or ``modular``.
    """
    if file in _DRIVER_FILES:
        return _DRIVER_FILES[file][kind == "modular"]
    daemon = file[: -len(".conf")] if file.endswith(".conf") else ""
    others = MODULAR if kind == "monolithic" else ("libvirtd",)
    return daemon if daemon in DAEMONS and daemon not in others else ""
