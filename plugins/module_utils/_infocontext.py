# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sections of hypervisor_info share: read or parsed once, and only if a section asks."""

from __future__ import annotations

import functools
import hashlib
import typing as t
from dataclasses import dataclass, field

from . import _conffile, _confinement, _libvirtcheck, _libvirtd, _packages, _proc
from ._daemonunits import Units
from ._host import Host
from ._journal import Journal

if t.TYPE_CHECKING:
    from . import _definitions


@dataclass(frozen=True)
class Context:
    """One host in one call. ``connect``: whether an idle daemon of libvirt may be woken."""

    host: Host
    connect: bool = False
    _files: dict[str, _conffile.ConfFile] = field(default_factory=dict)

    @functools.cached_property
    def layout(self) -> _libvirtd.Layout:
        """The daemon that drives QEMU."""
        return _libvirtd.layout(self.host)

    @functools.cached_property
    def confinement(self) -> dict[str, t.Any]:
        """What guest_confinement_info returns.

        :raises HardeningError: this process may not look at others, or lxml is missing and needed.
        """
        return _confinement.gather(self.host)

    @functools.cached_property
    def units(self) -> Units:
        """systemd's units."""
        return Units(self.host)

    @functools.cached_property
    def loading(self) -> _libvirtd.Loading:
        """What of qemu.conf is in force."""
        found = self.configuration("qemu.conf")
        if found.document is not None:
            digest = _libvirtd.meaning_digest(found.document)
        else:  # broken: no daemon can have loaded this
            digest = hashlib.sha256(found.error.encode()).hexdigest()
        journal = Journal(self.host, by="hypervisor_info")
        return _libvirtd.loading(self.host, self.layout, journal, _libvirtd.QEMU_CONF, digest)

    @functools.cached_property
    def processes(self) -> dict[str, _proc.Process]:
        """The running daemons of libvirt by name, found by the file that each locks while it runs."""
        from ._daemonunits import DAEMONS

        found = {name: _libvirtd.running(self.host, name) for name in DAEMONS}
        return {name: process for name, process in found.items() if process}

    @functools.cached_property
    def library(self) -> bytes:
        """The bytes of libvirt's client library, empty where there is none: what it was built with shows in them."""
        path = _libvirtcheck.library(self.host)
        return self.host.read(path) if path else b""

    @functools.cached_property
    def definitions(self) -> tuple[list[_definitions.Read], list[_definitions.Unread]]:
        """The guests' definitions, and the files that should be some and cannot be read.

        :raises MissingLibrary: there is a definition, and no lxml.
        """
        from . import _definitions

        return _definitions.read(self.host)

    @functools.cached_property
    def answer(self) -> tuple[dict[str, t.Any], str]:
        """What the running libvirt says of itself, or nothing and why."""
        from . import _info_capabilities

        return _info_capabilities.ask(self)

    @functools.cached_property
    def packages(self) -> _packages.Installed:
        """The installed packages of virtualization."""
        return _packages.installed(self.host)

    def configuration(self, name: str) -> _conffile.ConfFile:
        """A file of /etc/libvirt."""
        if name not in self._files:
            self._files[name] = _conffile.read(self.host, name)
        return self._files[name]

    def newer_than_daemon(self, name: str, daemon: str) -> bool | None:
        """Whether a file was changed after the daemon that reads it started; None where no such daemon runs."""
        if name == "qemu.conf" and daemon == self.layout.daemon and self.layout.active:
            return self.loading.restart_required
        process = self.processes.get(daemon)
        found = self.configuration(name)
        if process is None:
            return None
        proven = Journal(self.host, by="hypervisor_info").loaded(found.path)
        present = _libvirtd.daemon(self.host, daemon).process
        if proven is not None and found.document is not None and proven.process == present:
            # one that has executed itself anew is older than what it has loaded
            return proven.digest != _libvirtd.meaning_digest(found.document)
        changed = found.changed
        return changed is not None and changed >= process.start_time
