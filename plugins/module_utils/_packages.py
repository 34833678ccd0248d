# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installed packages of virtualization, and what the local package lists know of their security updates."""

from __future__ import annotations

import itertools
import re
import time
import typing as t
from dataclasses import dataclass

from ._host import Host, HostError
from ._reader import Reader

DPKG_STATUS = "/var/lib/dpkg/status"
LISTS = "/var/lib/apt/lists"
RPM_DATABASES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
COMMAND_SECONDS = 5.0
LIST_LIMIT = 256 * 1024 * 1024
# Older lists than this prove no absence of updates.
FRESH_DAYS = 14

# family -> what names of its packages begin with, in Debian's and in RPM distributions.
FAMILIES = (
    ("kernel", ("linux-image-", "kernel", "pve-kernel-", "proxmox-kernel-")),
    ("microcode", ("intel-microcode", "amd64-microcode", "microcode_ctl", "ucode-")),
    ("libvirt", ("libvirt", "python3-libvirt")),
    ("qemu", ("qemu", "pve-qemu")),
    ("edk2", ("ovmf", "edk2", "pve-edk2")),
    ("seabios", ("seabios",)),
    ("swtpm", ("swtpm", "libtpms")),
    ("virtiofsd", ("virtiofsd",)),
    ("dnsmasq", ("dnsmasq",)),
    ("openvswitch", ("openvswitch",)),
    ("passt", ("passt", "slirp4netns", "libslirp")),
)
_PREFIXES = {prefix: family for family, prefixes in FAMILIES for prefix in prefixes}
# Not what runs: headers, documentation, debug symbols, clients' bindings for development.
_IDLE_RE = re.compile(
    r"(?:-dev|-devel|-doc|-dbg|-dbgsym|-debuginfo|-debugsource|-headers)$|^kernel-(?:srpm|headers|tools|doc)"
)
_END = ([0], 0)
_STANZA_RE = re.compile(rb"^(Package|Status|Version|Architecture): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    family: str


@dataclass(frozen=True)
class Installed:
    """``source`` is ``dpkg``, ``rpm`` or "", then for ``reason``."""

    source: str
    packages: tuple[Package, ...]
    reason: str = ""


@dataclass(frozen=True)
class Update:
    package: Package
    candidate: str


@dataclass(frozen=True)
class Updates:
    """``pending`` None: not known, for ``reason``; ``age_days``: of the youngest package list."""

    pending: tuple[Update, ...] | None
    age_days: int | None
    reason: str


def installed(host: Host) -> Installed:
    """The packages whose names belong to a family."""
    data = host.read_optional(DPKG_STATUS)
    if data is not None:
        return Installed("dpkg", tuple(sorted(_dpkg(data), key=lambda package: package.name)))
    if not any(map(host.exists, RPM_DATABASES)):
        return Installed("", (), "There is neither a dpkg nor an rpm database.")
    try:
        return Installed("rpm", tuple(sorted(_rpm(host), key=lambda package: package.name)))
    except HostError as error:
        return Installed("", (), str(error))


def _family(name: str) -> str | None:
    if _IDLE_RE.search(name):
        return None
    return next((family for prefix, family in _PREFIXES.items() if name.startswith(prefix)), None)


def _dpkg(data: bytes) -> t.Iterator[Package]:
    # deb822; dpkg writes Package first and Status before Version
    for stanza in data.split(b"\n\n"):
        start = stanza.find(b"Package: ")
        name = stanza[start + 9 :].split(b"\n", 1)[0].decode("utf-8", "replace") if start >= 0 else ""
        family = _family(name)
        if family:
            fields = {key: value.decode("utf-8", "replace") for key, value in _STANZA_RE.findall(stanza)}
            if fields.get(b"Status", "").endswith(" installed"):
                yield Package(name, fields.get(b"Version", ""), family)


def _rpm(host: Host) -> t.Iterator[Package]:
    patterns = [f"{prefix}*" for prefix in _PREFIXES]
    form = "%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n"
    done = host.run(["rpm", "-qa", "--qf", form, *patterns], timeout=COMMAND_SECONDS)
    if done.rc != 0:
        raise HostError(f"rpm -qa failed: {done.err.strip()[:200]}")
    for line in done.out.splitlines():
        name, tab, version = line.partition("\t")
        family = _family(name)
        if tab and family:
            yield Package(name, version, family)


def updates(reader: Reader, found: Installed) -> Updates:
    """The installed packages for which apt's lists on this host hold a later version in a security suite.

    Neither the network nor apt is asked: apt would write its cache. dnf would write too, so RPM systems get no answer.
    """
    if found.source != "dpkg":
        reason = "Asking dnf or zypper would write to their caches and logs." if found.source else found.reason
        return Updates(None, None, reason)
    releases = [name for name in reader.list(LISTS) if name.endswith(("_InRelease", "_Release"))]
    suites = [name.rpartition("_")[0] for name in releases if _is_security(reader, name)]
    if not suites:
        return Updates(None, None, f"{LISTS} holds no list of a security suite.")
    times = [status.st_mtime for name in releases if (status := reader.host.stat_optional(f"{LISTS}/{name}"))]
    age = max(0, int((time.time() - max(times)) // 86400)) if times else None
    candidates = dict(_candidates(reader, suites, {package.name for package in found.packages}))
    if not candidates and not _package_lists(reader, suites):
        reason = f"{LISTS} holds no list of the security suite's packages, or none in a form that can be read here."
        return Updates(None, age, reason)
    pending = tuple(
        Update(package, candidates[package.name])
        for package in found.packages
        if package.name in candidates and compare(package.version, candidates[package.name]) < 0
    )
    if not pending and (age is None or age > FRESH_DAYS):
        return Updates(None, age, f"The package lists are {age} days old; what came since is not known here.")
    return Updates(pending, age, "")


def _is_security(reader: Reader, name: str) -> bool:
    # Debian: Codename trixie-security; Ubuntu: Suite noble-security. All of it is in the first lines.
    head = (reader.text(f"{LISTS}/{name}") or "")[:2000]
    return re.search(r"^(?:Codename|Suite): \S+-security$", head, re.MULTILINE) is not None


def _package_lists(reader: Reader, suites: t.Sequence[str]) -> list[str]:
    names = reader.list(LISTS)
    return [name for name in names if name.startswith(tuple(suites)) and re.search(r"_Packages(?:\.[gx]z)?$", name)]


def _candidates(reader: Reader, suites: t.Sequence[str], wanted: set[str]) -> t.Iterator[tuple[str, str]]:
    best: dict[str, str] = {}
    for list_name in _package_lists(reader, suites):
        data = b"\n" + _list(reader, f"{LISTS}/{list_name}")
        for name in wanted:
            for match in re.finditer(rb"\nPackage: " + re.escape(name.encode()) + rb"\n", data):
                end = data.find(b"\n\n", match.end())
                version = re.search(rb"\nVersion: (\S+)", data[match.start() : end if end >= 0 else len(data)])
                said = version[1].decode("utf-8", "replace") if version else ""
                if said and (name not in best or compare(best[name], said) < 0):
                    best[name] = said
    yield from best.items()


def _list(reader: Reader, path: str) -> bytes:
    try:
        data = reader.host.read(path, limit=LIST_LIMIT)
        if path.endswith(".gz"):
            import gzip

            return gzip.decompress(data)
        if path.endswith(".xz"):
            import lzma

            return lzma.decompress(data)
    except (OSError, EOFError, ValueError) as error:
        reader.note(path, str(error))
        return b""
    return data


def compare(one: str, other: str) -> int:
    """Two versions of Debian packages in dpkg's order (deb-version(7)): below, at or above 0."""
    for left, right in zip(_parts(one), _parts(other)):
        for mine, others in itertools.zip_longest(_key(left), _key(right), fillvalue=_END):
            if mine != others:
                return -1 if mine < others else 1
    return 0


def _parts(version: str) -> tuple[str, str, str]:
    """Epoch, upstream version, revision."""
    epoch, colon, rest = version.partition(":")
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    return epoch if colon else "", upstream if dash else revision, revision if dash else ""


def _key(part: str) -> list[tuple[list[int], int]]:
    """Text and number in turns. In text ``~`` comes before the end, the end before letters, these before others."""
    pairs = re.findall(r"([^0-9]*)([0-9]*)", part)
    return [([_weight(sign) for sign in text] + [0], int(digits or 0)) for text, digits in pairs]


def _weight(sign: str) -> int:
    return -1 if sign == "~" else ord(sign) if sign.isalpha() else ord(sign) + 256
