# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the audit needs to know of a host: sections of facts, each of which can fail alone."""

from __future__ import annotations

import traceback
import typing as t

from . import (
    _info_capabilities,
    _info_configuration,
    _info_cpu,
    _info_daemons,
    _info_definitions,
    _info_files,
    _info_firewall,
    _info_groups,
    _info_guests,
    _info_host,
    _info_hugepages,
    _info_iommu,
    _info_kernel,
    _info_ksm,
    _info_libvirt,
    _info_listeners,
    _info_logging,
    _info_mac,
    _info_memfd,
    _info_memory,
    _info_migration,
    _info_mounts,
    _info_networks,
    _info_packages,
    _info_programs,
    _info_secrets,
    _info_services,
    _info_sockets,
    _info_ssh,
    _info_storage,
    _info_taps,
    _info_tls,
)
from ._host import HardeningError, Host
from ._infocontext import Context

Section = t.Callable[[Context], t.Any]

SECTIONS: dict[str, Section] = {
    "host": _info_host.facts,
    "libvirt": _info_libvirt.facts,
    "daemons": _info_daemons.facts,
    "sockets": _info_sockets.facts,
    "listeners": _info_listeners.facts,
    "configuration": _info_configuration.facts,
    "capabilities": _info_capabilities.facts,
    "logging": _info_logging.facts,
    "tls": _info_tls.facts,
    "secrets": _info_secrets.facts,
    "definitions": _info_definitions.facts,
    "guests": _info_guests.facts,
    "mac": _info_mac.facts,
    "mounts": _info_mounts.facts,
    "hugepages": _info_hugepages.facts,
    "taps": _info_taps.facts,
    "memfd": _info_memfd.facts,
    "memory": _info_memory.facts,
    "kernel": _info_kernel.facts,
    "cpu": _info_cpu.facts,
    "iommu": _info_iommu.facts,
    "ksm": _info_ksm.facts,
    "files": _info_files.facts,
    "groups": _info_groups.facts,
    "storage": _info_storage.facts,
    "packages": _info_packages.facts,
    "programs": _info_programs.facts,
    "firewall": _info_firewall.facts,
    "migration": _info_migration.facts,
    "networks": _info_networks.facts,
    "services": _info_services.facts,
    "ssh": _info_ssh.facts,
}


def gather(host: Host, *, connect: bool) -> dict[str, t.Any]:
    """The module's result: every section's facts, or ``{"error": ...}`` where it has none.

    :param connect: whether an idle daemon of libvirt may be woken.
    """
    context = Context(host, connect)
    return {"hypervisor": {name: _facts(section, context) for name, section in SECTIONS.items()}}


def _facts(section: Section, context: Context) -> t.Any:
    try:
        return section(context)
    except HardeningError as error:
        return {"error": str(error)}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"error": f"{where}{error.strerror or error}"}
    except Exception as error:  # a file that nobody thought of must not cost the other sections
        at = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": f"{type(error).__name__}: {error} ({at.filename.rpartition('/')[2]}, line {at.lineno})"}
