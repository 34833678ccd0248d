# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room of who may read and write libvirt's files: what the audit finds too open is closed, and no more."""

from __future__ import annotations

import stat
import typing as t
from dataclasses import dataclass

from . import _conffile, _info_files
from ._host import Host
from ._journal import Journal
from ._reader import Reader

CLASSES = ("configuration", "definitions", "secrets", "client_credentials", "tls_keys", "hooks")
_CA_KEYS = "ca_keys"


@dataclass(frozen=True)
class Wanted:
    """The classes of files to look at."""

    classes: t.Sequence[str] = CLASSES


@dataclass(frozen=True)
class File:
    """A file that others can get at who should not, and the owner (uid) and mode that end that."""

    path: str
    uid: int
    mode: int
    owner: str
    closed_uid: int
    closed_mode: int
    closed_owner: str

    def __str__(self) -> str:
        before, after = self.states
        return f"{self.path}: {before} -> {after}"

    @property
    def states(self) -> tuple[str, str]:
        """What it is, and what it is to be."""
        return f"owner {self.owner}, mode {self.mode:04o}", f"owner {self.closed_owner}, mode {self.closed_mode:04o}"


@dataclass(frozen=True)
class State:
    """``checked``: how many files were looked at; ``truncated``: the classes that hold more than is looked at;
    ``links``: those too open that lie elsewhere."""

    files: tuple[File, ...]
    links: tuple[str, ...]
    checked: int
    truncated: tuple[str, ...]
    ca_keys: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The files to close."""

    changes: tuple[File, ...]
    diff: list[dict[str, str]]
    warnings: tuple[str, ...]


class _Context:
    """What the inspections need to know of the host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def configuration(self, name: str) -> _conffile.ConfFile:
        return _conffile.read(self.host, name)


def observe(host: Host, wanted: Wanted) -> State:
    """Look at the files, as hypervisor_info does."""
    reader = Reader(host)
    found = _info_files.inspections(_Context(host), reader, [*wanted.classes, _CA_KEYS])
    ca_keys = tuple(one["path"] for one in found.pop(_CA_KEYS).found)
    files: dict[str, File] = {}
    links: set[str] = set()
    for inspection in found.values():
        for path, status, allowed in inspection.wrong:
            if stat.S_ISLNK(host.stat(path, follow=False).st_mode):
                links.add(path)
                continue
            uid, mode = allowed.mended(status)
            files[path] = File(
                path=path,
                uid=status.st_uid,
                mode=stat.S_IMODE(status.st_mode),
                owner=host.user_name(status.st_uid),
                closed_uid=uid,
                closed_mode=mode,
                closed_owner=host.user_name(uid),
            )
    return State(
        files=tuple(files.values()),
        links=tuple(sorted(links)),
        checked=sum(inspection.checked for inspection in found.values()),
        truncated=tuple(name for name, inspection in found.items() if inspection.truncated),
        ca_keys=ca_keys,
        unread=tuple(f"{one['path']}: {one['reason']}" for one in reader.unread),
    )


def plan(state: State, wanted: Wanted) -> Plan:
    """What has to change, and how it looks."""
    return Plan(
        changes=state.files,
        diff=[_diff(file) for file in state.files],
        warnings=(
            *(f"{path} is the key of a certificate authority: keep it on another machine." for path in state.ca_keys),
            *(f"{path} is a symbolic link to a file that others can get at: close that one." for path in state.links),
            *(f"{name}: there are more files than are looked at." for name in state.truncated),
            *(f"{what}, and so nothing is known of it." for what in state.unread),
        ),
    )


def check(host: Host, plan: Plan) -> None:
    """Make sure that the files can be changed. Changes nothing."""
    for file in plan.changes:
        host.check_makeable(file.path)


def apply(host: Host, plan: Plan, journal: Journal) -> None:
    """Give each file its owner and mode, journal first."""
    for file in plan.changes:
        journal.record_value(f"mode:{file.path}", [file.uid, file.mode], [file.closed_uid, file.closed_mode])
        host.set_owner(file.path, file.closed_uid, -1, file.closed_mode)


def result(state: State, plan: Plan) -> dict[str, t.Any]:
    """The module's return values."""
    return {
        "files": [{"path": file.path, "before": file.states[0], "after": file.states[1]} for file in plan.changes],
        "checked": state.checked,
        "ca_keys": list(state.ca_keys),
    }


def _diff(file: File) -> dict[str, str]:
    before, after = file.states
    return {
        "before_header": file.path,
        "after_header": file.path,
        "before": f"{before}\n",
        "after": f"{after}\n",
    }
