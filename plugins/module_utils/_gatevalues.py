# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own values of what a migration group agrees on, as its running daemon has them.

Nothing here connects to libvirt: a hook that does waits for itself. What costs time is imported where it is needed, for
the hook is started anew for every guest that comes.
"""

from __future__ import annotations

import typing as t

from . import _agreedvalues, _libvirtd
from ._host import HardeningError, Host
from ._kernelmac import kernel_mac
from ._memfd import probe
from ._qemu import STATE
from ._virconf import Document, VirConfError

_ELSEWHERE = ("qemu_uid", "qemu_gid", "memfd_create")


def live(host: Host, keys: t.Collection[str]) -> tuple[dict[str, t.Any], dict[str, str]]:
    """Key to value, in the form of ``_agreement.KEYS``, and key to the reason for those that are not known.

    :param keys: those that are asked for; others may be left out.
    """
    values, unknown = _user(host)
    if "memfd_create" in keys:
        works, reason = probe(host, values.get("qemu_uid"), values.get("qemu_gid"))
        if works is None:
            unknown["memfd_create"] = reason
        else:
            values["memfd_create"] = works
    if set(keys) - set(_ELSEWHERE):
        layout = _libvirtd.layout(host)
        settings, reason = _loaded(host, layout)
        if settings is None:
            unknown.update({key: reason for key in keys if key not in _ELSEWHERE})
        else:
            found, missing = _configured(host, settings, keys)
            values.update({**found, "security_models": _security_models(host, layout, settings)})
            unknown.update(missing)
    return values, unknown


def _user(host: Host) -> tuple[dict[str, t.Any], dict[str, str]]:
    status = host.stat_optional(STATE)
    if status is None:
        return {}, dict.fromkeys(("qemu_uid", "qemu_gid"), f"{STATE}, which belongs to QEMU's user, is not there")
    return {"qemu_uid": status.st_uid, "qemu_gid": status.st_gid}, {}


def _loaded(host: Host, layout: _libvirtd.Layout) -> tuple[dict[str, t.Any] | None, str]:
    """What the running daemon has read in qemu.conf (one that does not run: what it will read), or why nobody knows."""
    path = _libvirtd.QEMU_CONF
    try:
        document = Document.parse(host.read_optional(path) or b"")
    except VirConfError as error:
        return None, f"{path} cannot be read: {error}"
    if layout.active and not _has_loaded(host, layout, document):
        return None, f"{path} was changed after {layout.daemon} started, so what that has loaded is not known"
    # SIM118: a Document is no dict, and cannot be iterated over.
    found = {key: document.get(key) for key in document.keys()}  # noqa: SIM118
    return {key: value.plain() for key, value in found.items() if value is not None}, ""


def _has_loaded(host: Host, layout: _libvirtd.Layout, document: Document) -> bool:
    status = host.stat_optional(_libvirtd.QEMU_CONF)
    ctime = 0 if status is None else status.st_ctime_ns
    if layout.started is not None and ctime / 1e9 < layout.started:
        return True
    from ._journal import Journal

    digest = _libvirtd.meaning_digest(document)
    try:
        loaded = Journal(host, by="migration_gate").loaded(_libvirtd.QEMU_CONF)
    except HardeningError:
        return False
    return _libvirtd.judge(layout, (), digest, ctime=ctime, loaded=loaded, unproven=False).in_force == digest


def _configured(
    host: Host, settings: t.Mapping[str, t.Any], keys: t.Collection[str]
) -> tuple[dict[str, t.Any], dict[str, str]]:
    version, device_acl = "", None
    if "max_core" in keys and "max_core" not in settings:
        from ._libvirtcheck import library, library_version

        version = library_version(library(host))
    if "cgroup_device_acl" in keys and "cgroup_device_acl" not in settings:
        from ._confkeys import sample

        default = sample(host)
        value = default.get("cgroup_device_acl") if default else None
        device_acl = None if value is None else t.cast("list[str]", value.plain())
    return _agreedvalues.of_settings(settings, version=version, device_acl=device_acl)


def _security_models(host: Host, layout: _libvirtd.Layout, settings: t.Mapping[str, t.Any]) -> list[str]:
    """The security models that the daemon stacks: DAC always, and what security_driver names, or else the kernel's own
    (src/qemu/qemu_driver.c, qemuSecurityInit; src/security/security_driver.c)."""
    driver = settings.get("security_driver") or []
    named = [driver] if isinstance(driver, str) else [str(item) for item in driver]
    if not named:
        model = kernel_mac(host)[0]
        named = [model] if model and not (model == "apparmor" and _unconfined(host, layout)) else []
    return sorted({"dac", *named} - {"none"})


def _unconfined(host: Host, layout: _libvirtd.Layout) -> bool:
    """Whether the daemon has no profile of its own, without which it takes AppArmor for absent
    (src/security/security_apparmor.c, use_apparmor)."""
    try:
        label = host.text_optional(f"/proc/{layout.pid}/attr/current") if layout.pid else None
    except OSError:
        return True
    return label is not None and label.strip("\0\n") == "unconfined"
