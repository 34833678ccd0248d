# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guest definitions of a host, configured and running, and how each leaves the confinement."""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass, replace

from . import _definition, _domainxml, _libvirtd
from ._definitiondevices import text
from ._departures import Departure, departures
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._definition import Definition
    from ._passthrough import Opened, Surroundings

AUTOSTART = f"{_domainxml.DEFINITIONS}/autostart"
_CPU_MAP = "/usr/share/libvirt/cpu_map"
# Of one guest no more devices of a kind are shown; all of them are judged.
MOST = 128
# No guest has so many; a hostile file of 4 MiB could hold a million, each of which becomes a value here.
_MOST_ELEMENTS = 20_000


class DefinitionError(HardeningError):
    """A guest that was asked for is not on this host."""


@dataclass(frozen=True)
class Read:
    """One definition with what it means. ``source``: ``configured`` or ``running``; ``transient``: it runs without a
    configured one; ``cut``: the fields that hold only the first of what there is."""

    source: str
    definition: Definition
    transient: bool
    autostart: bool
    departures: tuple[Departure, ...]
    opened: tuple[Opened, ...]
    cut: tuple[str, ...]


@dataclass(frozen=True)
class Unread:
    """A file that should be a definition and cannot be read."""

    source: str
    name: str
    path: str
    reason: str


def gather(host: Host, names: t.Collection[str] = ()) -> dict[str, t.Any]:
    """The module's result.

    :param names: the guests that are wanted, all where it is empty.
    :raises DefinitionError: one of them is neither defined nor running.
    :raises MissingLibrary: there is a definition, and no lxml.
    """
    found, unread = read(host, names)
    known = {entry.definition.name for entry in found} | {entry.name for entry in unread}
    missing = sorted(set(names) - known)
    if missing:
        raise DefinitionError(
            f"No guest of this name is defined on this host or runs: {', '.join(missing)}. See 'virsh list --all'."
        )
    return {"guests": [_shown(entry) for entry in found], "unreadable": [asdict(entry) for entry in unread]}


def read(host: Host, names: t.Collection[str] = ()) -> tuple[list[Read], list[Unread]]:
    """The definitions by name, the configured one first, and what cannot be read.

    Memory is that of one parsed file at a time. The status file of a guest that has ended is left out: it stays where
    libvirt's daemon was down then.
    """
    alive = {guest.name for guest in _libvirtd.guests(host)}
    autostart = {name[: -len(".xml")] for name in host.list(AUTOSTART) if name.endswith(".xml")}
    reader = _Reader(host)
    found: list[Read] = []
    unread: list[Unread] = []
    for source, directory in (("configured", _domainxml.DEFINITIONS), ("running", _domainxml.STATUS)):
        for entry in _domainxml.each(host, directory):
            if (names and entry.name not in names) or (source == "running" and entry.name not in alive):
                continue
            if isinstance(entry, _domainxml.Unreadable):
                unread.append(Unread(source, entry.name, entry.path, entry.reason))
            elif _too_large(entry):
                reason = f"has more than {_MOST_ELEMENTS} elements, which no guest has"
                name = entry.path.rpartition("/")[2][: -len(".xml")]
                unread.append(Unread(source, name, entry.path, reason))
            else:
                found.append(reader.read(source, entry, entry.name in autostart))
    persistent = {entry.definition.name for entry in found if entry.source == "configured"}
    persistent |= {entry.name for entry in unread if entry.source == "configured"}
    found = [replace(entry, transient=entry.definition.name not in persistent) for entry in found]
    return sorted(found, key=lambda entry: (entry.definition.name, entry.source)), unread


class _Reader:
    """Reads definitions against one host, of which it looks up each thing once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._around: Surroundings | None = None
        self._numbers: dict[str, bool] = {}
        self._models: dict[str, frozenset[str]] = {}
        flags = re.search(r"^flags\s*:(.*)$", host.text_optional("/proc/cpuinfo") or "", re.MULTILINE)
        has = {"vmx", "svm"} & set(flags[1].split()) if flags else set()
        self._nested = sorted(has) or ["svm", "vmx"]

    def read(self, source: str, guest: _domainxml.Guest, autostart: bool) -> Read:
        definition = _definition.of(guest)
        if source == "configured":
            definition = replace(definition, pid=None)
        opened: tuple[Opened, ...] = ()
        if any(argument.paths or argument.device for argument in definition.passthrough.args):
            from . import _passthrough

            if self._around is None:
                self._around = _passthrough.surroundings(self._host)
            opened = _passthrough.opened(self._host, definition, guest.domain, self._around)
        ways = departures(
            definition, is_root=self._is_root, nested_features=self._nested, of_model=self._features_of_model
        )
        definition, cut = _cut(definition)
        return Read(source, definition, False, autostart, ways, opened, cut)

    def _features_of_model(self, model: str) -> frozenset[str]:
        """What of virtualization a processor model has in libvirt's own list (src/cpu_map)."""
        if model not in self._models:
            found: list[str] = []
            if re.fullmatch(r"[\w.-]+", model):
                text = self._host.text_optional(f"{_CPU_MAP}/x86_{model}.xml") or ""
                found = re.findall(r"<feature name='(vmx|svm)'", re.sub(r"(?s)<!--.*?-->", "", text))
            self._models[model] = frozenset(found)
        return self._models[model]

    def _is_root(self, name: str) -> bool:
        if name not in self._numbers:
            self._numbers[name] = 0 in (self._host.uid(name), self._host.gid(name))
        return self._numbers[name]


def _too_large(guest: _domainxml.Guest) -> bool:
    return sum(1 for _element in guest.domain.iter()) > _MOST_ELEMENTS


def _cut(definition: Definition) -> tuple[Definition, tuple[str, ...]]:
    """The definition with at most ``MOST`` of each, and what that shortened."""
    through = definition.passthrough
    long = {name: value[:MOST] for name, value in vars(definition).items() if _is_long(value)}
    inner = {name: value[:MOST] for name, value in vars(through).items() if _is_long(value)}
    short = replace(definition, **long, passthrough=replace(through, **inner))
    return short, tuple(sorted({*long, *({"commandline"} if inner else ())}))


def _is_long(value: object) -> bool:
    return isinstance(value, tuple) and len(value) > MOST


def _shown(entry: Read) -> dict[str, t.Any]:
    """A definition as the module returns it."""
    definition = entry.definition
    through = definition.passthrough
    plain = asdict(replace(definition, passthrough=replace(through, args=())))
    del plain["passthrough"]
    return {
        **plain,
        "source": entry.source,
        "transient": entry.transient,
        "autostart": entry.autostart,
        "commandline": {
            "args": [text(argument.shown) for argument in through.args],
            "env": through.env,
            "digest": through.digest,
        },
        "capabilities": through.capabilities,
        "override": through.override,
        "opens": [asdict(one) for one in entry.opened],
        "cut": entry.cut,
        "departures": [asdict(one) for one in entry.departures],
    }
