# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Socket units that nobody is to listen with: stopped, and not enabled (systemd.unit(5), [Install])."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import _units
from ._host import Host, HostError
from ._journal import Journal


@dataclass(frozen=True)
class Open:
    """A unit that listens now, or will at the next boot; ``links``: what enables it, and where each leads."""

    unit: str
    active: bool
    links: t.Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join([*(["listening"] if self.active else []), *(["enabled"] if self.links else [])])


def observe(host: Host, units: t.Sequence[str]) -> tuple[Open, ...]:
    """Those of the units that are active or enabled."""
    found = (Open(unit, host.run(["systemctl", "is-active", "--", unit]).rc == 0, _links(host, unit)) for unit in units)
    return tuple(one for one in found if one.active or one.links)


def close(host: Host, one: Open, journal: Journal) -> None:
    """Take the links away, journal first, and stop the unit. A daemon that runs keeps what systemd has handed to it.

    :raises HostError: systemd refuses.
    """
    for path, target in one.links.items():
        journal.record_value(f"link:{path}", target, None)
        host.remove(path)
    host.changed = True
    for words in (["daemon-reload"], ["stop", "--", one.unit]):
        done = host.run(["systemctl", *words])
        if done.rc != 0:
            raise HostError(f"systemctl {' '.join(words)} failed: {(done.err or done.out).strip()}")


def _links(host: Host, unit: str) -> dict[str, str]:
    """By path, where each symbolic link leads by which something else starts the unit."""
    directories = (name for name in host.list(_units.DIRECTORY) if name.endswith((".wants", ".requires")))
    paths = (f"{_units.DIRECTORY}/{name}/{unit}" for name in directories)
    return {path: host.readlink(path) for path in paths if host.stat_optional(path, follow=False)}
