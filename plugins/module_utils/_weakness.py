# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the kernel says of a guest to what is weak about it. Pure."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from ._qemuproc import Guest, Label

_Verdict = t.Optional[tuple[str, str]]

_SECCOMP_MODES = {0: "disabled", 1: "strict", 2: "filter"}
# Bit 4 is the first page of each mapped ELF file, which holds nothing of the guest: core(5).
_DUMPED_MEMORY = ~0x10
# Labels that QEMU has by inheritance, where the daemon gave it none of its own: the profiles and types of the daemons
# themselves (apparmor.d/usr.sbin.libvirtd, refpolicy's virt.te) and those of processes that are not confined.
_UNCONFINED_PROFILES = {"", "unconfined", "libvirtd", "virtqemud", "/usr/sbin/libvirtd", "/usr/sbin/virtqemud"}
_UNCONFINED_TYPES = {"virtd_t", "virtqemud_t", "unconfined_t", "unconfined_service_t", "initrc_t", "init_t", "kernel_t"}
_UNCONFINED_TYPES |= {"spc_t"}
_ENFORCING = {"enforce", "kill", "enforcing"}
# linux/capability.h, from bit 0 on.
_CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service"
    " net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin"
    " sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override"
    " mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)


@dataclass(frozen=True)
class Weakness:
    """One way in which a guest is less confined than it can be."""

    id: str
    observed: str
    expected: str


@dataclass(frozen=True)
class HostFacts:
    """What a guest is measured against.

    ``seccomp_mode`` and ``seccomp_filters`` are those that QEMU inherits (the higher ones of PID 1 and the daemon;
    filters None where the kernel does not count them). ``mac`` is ``apparmor``, ``selinux`` or "" for none in this
    kernel. ``pending`` holds the pids of guests that were started before the present configuration was in force;
    ``in_force_since`` says since when it is (seconds since the epoch), None where a restart of the daemon is due.
    """

    seccomp_mode: int
    seccomp_filters: int | None
    mac: str
    pending: frozenset[int]
    in_force_since: float | None


def weaknesses(guest: Guest, host: HostFacts) -> list[Weakness]:
    """Every weakness of a guest, in the order of the table below."""
    verdicts = ((name, judge(guest, host)) for name, judge in _JUDGES.items())
    return [Weakness(name, *verdict) for name, verdict in verdicts if verdict]


def _runs_as_root(guest: Guest, _host: HostFacts) -> _Verdict:
    # The kernel shows ids as the reader's user namespace has them: 0 is the host's root.
    both = (("uid", guest.uids), ("gid", guest.gids))
    roots = [f"{which} {kind}" for kind, ids in both for which, number in vars(ids).items() if number == 0]
    return (f"{', '.join(roots)} 0", "no uid and no gid of 0") if roots else None


def _capabilities(guest: Guest, _host: HostFacts) -> _Verdict:
    # What is only permitted can be made effective at any time: capabilities(7). In a user namespace of its own a
    # process has capabilities over that namespace alone: user_namespaces(7).
    held = int(guest.cap_eff, 16) | int(guest.cap_prm, 16)
    if not held or guest.user_namespace.private:
        return None
    names = [name for bit, name in enumerate(_CAPABILITIES.split()) if held >> bit & 1]
    which = ", ".join(names) if len(names) <= 5 else f"{bin(held).count('1')} capabilities"
    return f"CapEff {guest.cap_eff}, CapPrm {guest.cap_prm} ({which})", "CapEff and CapPrm 0000000000000000"


def _new_privileges(guest: Guest, _host: HostFacts) -> _Verdict:
    return None if guest.no_new_privs else ("NoNewPrivs 0", "NoNewPrivs 1")


def _no_seccomp(guest: Guest, host: HostFacts) -> _Verdict:
    mode, filters = guest.seccomp.mode, guest.seccomp.filters
    inherited = host.seccomp_filters or 0
    expected = (
        f"mode 2 (filter), with more filters than the {inherited} it inherits" if inherited else "mode 2 (filter)"
    )
    if mode != 2:
        return f"mode {mode} ({_SECCOMP_MODES.get(mode, 'unknown')})", expected
    if filters is None:
        if host.seccomp_mode != 2:
            return None
        return "mode 2 (filter), inherited; this kernel does not count filters", "a filter of QEMU's own"
    if filters > inherited:
        return None
    return f"mode 2 (filter), {filters} filters, all inherited", expected


def _host_mount_namespace(guest: Guest, _host: HostFacts) -> _Verdict:
    if guest.mount_namespace.private:
        return None
    observed = f"{guest.mount_namespace.id}, in which the host, libvirt's daemon or another guest lives as well"
    return observed, "a mount namespace of its own"


def _host_dev(guest: Guest, _host: HostFacts) -> _Verdict:
    return None if guest.private_dev else ("the host's /dev", "a /dev of its own")


def _unexpected_device(guest: Guest, _host: HostFacts) -> _Verdict:
    strange = [f"{node.path} ({node.type} {node.device}: {node.unexpected})" for node in guest.dev if node.unexpected]
    if guest.dev_incomplete:
        strange.append(f"not all of it was looked at: {guest.dev_incomplete}")
    if not strange:
        return None
    more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
    return "; ".join(strange[:10]) + more, "only the nodes of cgroup_device_acl and of the guest's definition"


def _no_mount_propagation(guest: Guest, _host: HostFacts) -> _Verdict:
    # In the host's own mount namespace a guest sees new mounts anyway.
    if not guest.mount_namespace.private or guest.propagation not in ("private", "unbindable"):
        return None
    return f"/ is {guest.propagation}", "/ is slave: what the host mounts later (hugetlbfs, say) reaches the guest"


def _no_mac(guest: Guest, host: HostFacts) -> _Verdict:
    expected = "a label of its own: libvirt-UUID (AppArmor), or svirt_t with two categories (SELinux)"
    if not host.mac:
        return "this kernel has no mandatory access control", expected
    reason = _unconfined(guest.label)
    return (reason, expected) if reason else None


def _unconfined(label: Label) -> str:
    """Why a label confines nothing, "" if it does."""
    if label.model == "apparmor":
        return f"profile {label.value or 'none'}" if label.value in _UNCONFINED_PROFILES else ""
    # user:role:type:level, the level with categories that set guests apart: libvirt's drvqemu.rst, "SELinux sVirt
    # confinement".
    fields = label.value.split(":", 3)
    if len(fields) < 3 or fields[2] in _UNCONFINED_TYPES:
        return f"context {label.value or 'none'}"
    if len(fields) < 4 or ":c" not in fields[3]:
        return f"context {label.value}, without categories that would set it apart from other guests"
    return ""


def _mac_not_enforced(guest: Guest, host: HostFacts) -> _Verdict:
    if not host.mac or guest.label.mode in _ENFORCING or _unconfined(guest.label):
        return None
    return f"{guest.label.value} ({guest.label.mode or 'mode unknown'})", f"{guest.label.value} enforced"


def _no_device_cgroup(guest: Guest, _host: HostFacts) -> _Verdict:
    expected = "a device filter on the guest's cgroup"
    if guest.cgroup.device_rules is None:
        return f"the kernel does not tell what filters devices for the cgroup {guest.cgroup.path or '(none)'}", expected
    return None if guest.cgroup.device_rules else (f"no device filter on {guest.cgroup.path} or above it", expected)


def _core_dumps(guest: Guest, _host: HostFacts) -> _Verdict:
    limit, dump = guest.limits.core.soft, guest.core_dump
    if limit == 0 or not int(dump.filter, 16) & _DUMPED_MEMORY:
        return None
    size = "unlimited" if limit == -1 else f"{limit} bytes"
    memory = "with" if dump.guest_memory else "without"
    return f"core file size {size}, {memory} the guest's memory (coredump_filter {dump.filter})", "core file size 0"


def _deleted_binary(guest: Guest, _host: HostFacts) -> _Verdict:
    if not guest.binary_deleted:
        return None
    return (
        f"{guest.binary} was deleted or replaced",
        "the installed binary: what an update mended, this guest still has",
    )


def _older_than_configuration(guest: Guest, host: HostFacts) -> _Verdict:
    if guest.pid not in host.pending:
        return None
    if host.in_force_since is None:
        expected = "started after libvirt's daemon has loaded the present qemu.conf: restart the daemon first"
    else:
        expected = f"started after {_iso(host.in_force_since)}, since when the present qemu.conf is in force"
    return f"started at {_iso(guest.start_time)}", expected


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


_JUDGES: dict[str, t.Callable[[Guest, HostFacts], _Verdict]] = {
    "runs_as_root": _runs_as_root,
    "capabilities": _capabilities,
    "new_privileges": _new_privileges,
    "no_seccomp": _no_seccomp,
    "host_mount_namespace": _host_mount_namespace,
    "host_dev": _host_dev,
    "unexpected_device": _unexpected_device,
    "no_mount_propagation": _no_mount_propagation,
    "no_mac": _no_mac,
    "mac_not_enforced": _mac_not_enforced,
    "no_device_cgroup": _no_device_cgroup,
    "core_dumps": _core_dumps,
    "deleted_binary": _deleted_binary,
    "older_than_configuration": _older_than_configuration,
}

# The ids of all weaknesses, in the order in which they are told.
IDS = tuple(_JUDGES)
