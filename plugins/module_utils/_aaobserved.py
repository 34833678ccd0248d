# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AppArmor's policy for guests as a host has it: where the installed release reads additions, what stands there, what
is loaded, and which guests run under an older one."""

from __future__ import annotations

import hashlib
import posixpath
import typing as t
from dataclasses import dataclass, field

from . import _aaprofiles, _aatext, _conffile, _libvirtd, _memfd, _pools, _qemu, _statefile
from ._aagrants import GrantError
from ._aaprofiles import ETC
from ._host import Host
from ._kernelmac import kernel_mac
from ._reader import Reader

GUESTS = f"{ETC}/libvirt"
TEMPLATE = f"{GUESTS}/TEMPLATE.qemu"
ABSTRACTION = "abstractions/libvirt-qemu"
# What the abstraction includes of the operator's, by release. In a directory, our file is ours alone.
DIRECTORY = f"{ABSTRACTION}.d"
_FILE = f"local/{ABSTRACTION}"
OURS = "hypervisor-hardening"
# The files that virt-aa-helper's profile is in, by release.
_HELPERS = ("usr.lib.libvirt.virt-aa-helper", "usr.libexec.virt-aa-helper", "virt-aa-helper")
_PROGRAMS = ("/usr/lib/libvirt/virt-aa-helper", "/usr/libexec/virt-aa-helper", "/usr/lib64/libvirt/virt-aa-helper")
# What it puts into a profile that it means to leave alone when the guest stops and its .files go: in 11.3, not in 9.0.
_KEEPS = b"include if exists <libvirt/%s.files>"
_DEFINITIONS = "/etc/libvirt/qemu"
_COMPILE = ("apparmor_parser", "--stdout", "--skip-cache")
_SECONDS = 120.0
_MOST_LINKS = 40


@dataclass(frozen=True)
class State:
    """``place`` is the file for rules of all guests, ``read_by`` the include that reads it, ``beside`` what else that
    includes; ``helper`` the file of virt-aa-helper's profile, ``helper_local`` what it includes of the operator's;
    ``deletes`` whether virt-aa-helper deletes the profile of a guest that stops; ``helper_stale`` whether something
    else is loaded for it, None where the kernel does not tell. "" is for what this release does not have. ``texts`` are
    files by path; ``uuids`` guests by name; ``real`` the paths of grants without symlinks; ``older`` the running guests
    whose loaded profile is older than its files."""

    model: str
    mode: str
    profiles: tuple[dict[str, str], ...] = ()
    disabled: tuple[str, ...] = ()
    force_complain: tuple[str, ...] = ()
    place: str = ""
    read_by: str = ""
    beside: tuple[str, ...] = ()
    helper: str = ""
    helper_local: str = ""
    deletes: bool = False
    helper_stale: bool | None = None
    texts: t.Mapping[str, str] = field(default_factory=dict)
    uuids: t.Mapping[str, str] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    older: frozenset[str] = frozenset()
    real: t.Mapping[str, str] = field(default_factory=dict)
    pools: tuple[str, ...] = ()
    memfd_works: bool | None = None
    memfd_reason: str = ""
    memfd_directory: str = "/tmp"


def observe(host: Host, owner: str, paths: t.Collection[str] = (), *, memfd: bool = False) -> State:
    """Read the policy's files, the loaded profiles and the guests; nothing of that where AppArmor does not run.

    :param owner: the module whose additions these are.
    :param paths: what is to be granted.
    :param memfd: whether memfd_create(2) is to be tried.
    """
    model, mode = kernel_mac(host)
    if model != "apparmor":
        return State(model, mode)
    texts = dict(_texts(host))
    place, read_by = _place(texts.get(f"{ETC}/{ABSTRACTION}", ""))
    helper = next((path for path in (f"{ETC}/{name}" for name in _HELPERS) if path in texts), "")
    helper_local = next((name for name in _aatext.includes(texts.get(helper, "")) if name.startswith("local/")), "")
    helper_local = helper_local and f"{ETC}/{helper_local}"
    for path in filter(None, (place, helper_local)):
        text = host.text_optional(path)
        if text is not None:
            texts[path] = text
    local_text = texts.get(helper_local, "")
    reader = Reader(host)
    uuids = dict(_uuids(reader))
    running = frozenset(uuids[guest.name] for guest in _libvirtd.guests(host) if guest.name in uuids)
    works, reason, directory = _memfd_state(host) if memfd else (None, "", "/tmp")
    return State(
        model=model,
        mode=mode,
        profiles=_profiles(host),
        disabled=tuple(_aaprofiles.named(host, "disable")),
        force_complain=tuple(_aaprofiles.named(host, "force-complain")),
        place=place,
        read_by=read_by,
        beside=tuple(name for name in host.list(f"{ETC}/{DIRECTORY}") if name != OURS and not name.startswith(".")),
        helper=helper,
        helper_local=helper_local,
        deletes=_deletes(host),
        helper_stale=_stale(host, helper, texts[helper]) if _aatext.block(local_text, owner) else None,
        texts=texts,
        uuids=uuids,
        running=running,
        older=frozenset(uuid for uuid in running if _is_older(host, uuid, place)),
        real={path: real_path(host, path) for path in paths},
        pools=tuple(pool.path for pool in _pools.read(reader) if pool.is_directory and pool.path != "/"),
        memfd_works=works,
        memfd_reason=reason,
        memfd_directory=directory,
    )


def real_path(host: Host, path: str) -> str:
    """A path without symbolic links, as the kernel names the file (realpath(3)); what is not there stays as it is."""
    waiting, done, links = path.split("/")[::-1], "", 0
    while waiting:
        name = waiting.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = posixpath.dirname(done).rstrip("/")
            continue
        here = f"{done}/{name}"
        try:
            target = host.readlink(here)
        except OSError:  # no symbolic link
            done = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise GrantError(f"{path} leads through more than {_MOST_LINKS} symbolic links. Nothing was done.")
        done = "" if target.startswith("/") else done
        waiting += target.split("/")[::-1]
    return done or "/"


def _texts(host: Host) -> t.Iterator[tuple[str, str]]:
    """The files of profiles and of what guests have in common, and those of guests."""
    names = [ABSTRACTION, *_HELPERS, "libvirt/TEMPLATE.qemu"]
    names += [f"libvirt/{name}" for name in host.list(GUESTS) if _aaprofiles.GUEST_RE.match(name)]
    for path in (f"{ETC}/{name}" for name in names):
        text = host.text_optional(path)
        if text is not None:
            yield path, text


def _place(abstraction: str) -> tuple[str, str]:
    found = _aatext.includes(abstraction)
    if DIRECTORY in found:
        return f"{ETC}/{DIRECTORY}/{OURS}", DIRECTORY
    return (f"{ETC}/{_FILE}", _FILE) if _FILE in found else ("", "")


def _profiles(host: Host) -> tuple[dict[str, str], ...]:
    try:
        return tuple(_aaprofiles.loaded(host))
    except FileNotFoundError:  # securityfs need not be mounted: admin-guide/LSM/index.rst
        return ()


def _stale(host: Host, helper: str, text: str) -> bool | None:
    """Whether something else is loaded than the file of a profile says now: what the compiler makes depends on
    nothing but the files and the kernel's features."""
    told = _aaprofiles.digest(host, _aatext.profile_name(text))
    if told is None:
        return None
    compiled = host.run((*_COMPILE, helper), timeout=_SECONDS)
    if compiled.rc != 0:
        return None
    return hashlib.new(told[1], compiled.out.encode("utf-8", "surrogateescape")).hexdigest() != told[0]


def _deletes(host: Host) -> bool:
    """Whether the installed virt-aa-helper deletes a guest's profile along with its .files (main, command D)."""
    programs = (host.read_optional(path) for path in _PROGRAMS)
    return not any(_KEEPS in program for program in programs if program is not None)


def _uuids(reader: Reader) -> t.Iterator[tuple[str, str]]:
    for directory in (_DEFINITIONS, _libvirtd.RUN_DIRECTORY):
        for name, domain in _statefile.elements(reader, directory, "domain"):
            yield name, (domain.findtext("uuid") or "").strip().lower()


def _is_older(host: Host, uuid: str, place: str) -> bool:
    """Whether what a running guest's profile is made of changed after libvirt loaded it.

    libvirt writes the guest's .files anew right before each load (virt-aa-helper.c, update_include_file). A guest
    without one has no profile of its own.
    """
    loaded = host.stat_optional(f"{GUESTS}/libvirt-{uuid}.files")
    if loaded is None:
        return False
    times = [host.stat_optional(f"{GUESTS}/libvirt-{uuid}")]
    if place:
        times.append(host.stat_optional(place) or host.stat_optional(posixpath.dirname(place)))
    return any(status is not None and status.st_ctime_ns > loaded.st_mtime_ns for status in times)


def _memfd_state(host: Host) -> tuple[bool | None, str, str]:
    uid, gid, _source = _qemu.user(host, _conffile.read(host, "qemu.conf"))
    works, reason = _memfd.probe(host, uid, gid)
    return works, reason, _memfd.fallback_directory(host, _libvirtd.layout(host).pid)
