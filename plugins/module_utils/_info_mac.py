# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on mandatory access control: what this kernel enforces, what is configured, and what weakens it for guests."""

from __future__ import annotations

import re
import typing as t

from . import _aaprofiles, _apparmor, _selinux, _units
from ._aaprofiles import ETC, GUEST_RE, PROFILES
from ._host import Host
from ._infocontext import Context
from ._kernelmac import kernel_mac

_LIMIT = 1 << 20
# What is included in every guest's profile, or decides on one: local changes belong here (libvirt's
# src/security/apparmor/libvirt-qemu.in and its siblings).
_OVERRIDES = (
    "abstractions/libvirt-qemu",
    "local/abstractions/libvirt-qemu",
    "libvirt/TEMPLATE.qemu",
    "local/usr.lib.libvirt.virt-aa-helper",
)
_OVERRIDE_DIRECTORIES = ("abstractions/libvirt-qemu.d",)
# Files of whole profiles; in these only flags count, for a daemon needs what no guest may have.
_PROFILE_FILES = (
    "usr.sbin.libvirtd", "usr.sbin.virtqemud", "usr.lib.libvirt.virt-aa-helper", "libvirtd", "virtqemud",
    "virt-aa-helper",
)  # fmt: skip
_BOOT_RE = re.compile(r"(?:apparmor|selinux|enforcing|security|lsm)=")
_FREE_TYPES = {"unconfined_t", "unconfined_service_t", "initrc_t", "init_t", "kernel_t", "spc_t"}
_MOST = 40


def facts(context: Context) -> dict[str, t.Any]:
    """The section ``mac``; its keys are documented in hypervisor_info."""
    host = context.host
    unread: list[dict[str, str]] = []
    model, mode = kernel_mac(host)
    config = _selinux.configured(host)
    lsm = host.text_optional("/sys/kernel/security/lsm")
    if lsm is None:
        unread.append({"path": "/sys/kernel/security/lsm", "reason": "securityfs is not mounted here"})
    boot = [word for word in (host.text_optional("/proc/cmdline") or "").split() if _BOOT_RE.match(word)]
    return {
        "model": model,
        "mode": mode or ("enabled" if model else ""),
        "enforcing": model == "apparmor" or mode == "enforcing",
        "lsm": None if lsm is None else lsm.strip().split(","),
        "boot_arguments": boot,
        "configured": _configured(host, model, config),
        "apparmor": _of_apparmor(host, model, unread),
        "selinux": _of_selinux(host, model, mode, config, unread),
        "daemons": list(_daemons(context, model, mode)),
        "unread": unread,
    }


def _configured(host: Host, model: str, config: dict[str, str]) -> dict[str, t.Any]:
    """What is on disk for the next boot. A boot loader's arguments are in the section ``kernel``."""
    wants = "/etc/systemd/system/sysinit.target.wants/apparmor.service"
    service = host.stat_optional(wants, follow=False) is not None
    loads = service if service or _units.boot(host).init == "systemd" else None
    selinux = config.get("SELINUX", "")
    return {
        "enforcing": {"apparmor": loads, "selinux": selinux == "enforcing"}.get(model, False),
        "source": {"apparmor": wants, "selinux": _selinux.CONFIG}.get(model, ""),
        "apparmor_service": service,
        "selinux": selinux,
        "selinux_policy": config.get("SELINUXTYPE", ""),
    }


def _of_apparmor(host: Host, model: str, unread: list[dict[str, str]]) -> dict[str, t.Any]:
    profiles = _profiles(host, unread) if model == "apparmor" else []
    of_guests = None if profiles is None else [entry for entry in profiles if GUEST_RE.match(entry["name"])]
    others = None if profiles is None else [entry for entry in profiles if not GUEST_RE.match(entry["name"])]
    texts = dict(_texts(host, unread))
    rules = [(path, rule) for path, text in texts.items() for rule in _apparmor.rules(text)]
    heads = [(path, rule, _apparmor.lax_flags(rule.text)) for path, rule in rules if path in _flagged()]
    broad = [(path, rule, _apparmor.broad(rule.text)) for path, rule in rules if path not in _only_flagged()]
    return {
        "profiles": others,
        "guest_profiles": None if of_guests is None else len(of_guests),
        "guest_profiles_not_enforced": None
        if of_guests is None
        else [entry for entry in of_guests if entry["mode"] not in _aaprofiles.ENFORCED][:_MOST],
        "disabled": _aaprofiles.named(host, "disable"),
        "force_complain": _aaprofiles.named(host, "force-complain"),
        "not_enforced_in": [_grant(*entry) for entry in heads if entry[2]],
        "files": [path for path in texts if path not in _only_flagged()],
        "broad_grants": [_grant(*entry) for entry in broad if entry[2] and not _apparmor.lax_flags(entry[1].text)][
            :_MOST
        ],
        "denies_sound": any(_apparmor.denies_sound(rule.text) for path, rule in rules if path not in _only_flagged()),
    }


def _flagged() -> set[str]:
    """The files whose heads of profiles count."""
    return _only_flagged() | {f"{ETC}/libvirt/TEMPLATE.qemu"}


def _only_flagged() -> set[str]:
    return {f"{ETC}/{name}" for name in _PROFILE_FILES}


def _profiles(host: Host, unread: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """The loaded profiles that are about virtualization; None where the kernel does not tell."""
    try:
        return _aaprofiles.loaded(host)
    except OSError as error:
        unread.append({"path": PROFILES, "reason": str(error.strerror)})
        return None


def _texts(host: Host, unread: list[dict[str, str]]) -> t.Iterator[tuple[str, str]]:
    """The files that say what guests may do beside what libvirt finds out: path and text."""
    names = [*_OVERRIDES, *_PROFILE_FILES]
    for directory in _OVERRIDE_DIRECTORIES:
        names += [f"{directory}/{name}" for name in host.list(f"{ETC}/{directory}")]
    for path in (f"{ETC}/{name}" for name in names):
        try:
            yield path, host.read(path, limit=_LIMIT).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            unread.append({"path": path, "reason": str(error.strerror)})


def _grant(path: str, rule: _apparmor.Rule, reason: str) -> dict[str, t.Any]:
    return {"name": f"{path}:{rule.line}", "path": path, "line": rule.line, "rule": rule.text[:120], "reason": reason}


def _of_selinux(
    host: Host, model: str, mode: str, config: dict[str, str], unread: list[dict[str, str]]
) -> dict[str, t.Any]:
    types: list[dict[str, t.Any]] | None = []
    booleans = []
    if model == "selinux":
        booleans = _selinux.booleans(host, config.get("SELINUXTYPE", ""))
        try:
            types = _selinux.types(host)
        except (OSError, IndexError, ValueError) as error:
            types = None
            reason = error.strerror if isinstance(error, OSError) else "an answer of another form"
            unread.append({"path": f"{_selinux.FILESYSTEM}/access", "reason": str(reason)})
    return {"enforcing": mode == "enforcing", "booleans": booleans, "types": types}


def _daemons(context: Context, model: str, mode: str) -> t.Iterator[dict[str, t.Any]]:
    """The labels of libvirt's daemons that run: without a profile of its own libvirtd gives guests none either."""
    for name, process in sorted(context.processes.items()):
        label, profile_mode = _label(context.host, process.pid, model)
        yield {
            "name": name,
            "pid": process.pid,
            "label": label,
            "mode": profile_mode or (mode if label else ""),
            "confined": _is_confined(label, model),
        }


def _label(host: Host, pid: int, model: str) -> tuple[str, str]:
    if not model:
        return "", ""
    try:
        text = host.text(f"/proc/{pid}/attr/current").strip("\0\n")
    except OSError:
        return "", ""
    if model == "apparmor" and text.endswith(")"):
        value, _blank, mode = text.rpartition(" (")
        return value, mode.rstrip(")")
    return text, ""


def _is_confined(label: str, model: str) -> bool:
    if model == "selinux":
        fields = label.split(":")
        return len(fields) > 2 and fields[2] not in _FREE_TYPES
    return label not in ("", "unconfined")
