# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on each running guest: what guest_confinement_info tells, in the short form that the audit needs."""

from __future__ import annotations

import re
import typing as t

from . import _proc, _qemuproc, _weakness
from ._infocontext import Context

# An entry has to stay short, and a rule only wants to know whether there is anything.
_DEVICES = 20
_CATEGORY_RE = re.compile(r"c(\d+)(?:\.c(\d+))?")
# Options that give whoever connects QEMU's monitor or its debugger, and how a character device that the network reaches
# begins (qemu's chardev/char.c, qemu_chr_parse_compat).
_CONTROLS = ("gdb", "monitor", "qmp", "qmp-pretty")
_NETWORKED = ("tcp:", "telnet:", "tn3270:", "websocket:", "udp:")


def facts(context: Context) -> list[dict[str, t.Any]]:
    """The section ``guests``; its keys are documented in hypervisor_info.

    :raises HardeningError: this process may not look at others.
    """
    found = [_entry(context, guest) for guest in context.confinement["guests"]]
    for entry in found:
        entry["label_shared_with"] = [other["name"] for other in found if other is not entry and _covers(entry, other)]
    return found


def _entry(context: Context, guest: dict[str, t.Any]) -> dict[str, t.Any]:
    argv = _proc.command_line(context.host, guest["pid"])
    rules = guest["cgroup"]["device_rules"]
    weak = {weakness["id"] for weakness in guest["weaknesses"]}
    strange = [node["path"] for node in guest["dev"] if node["unexpected"]]
    same = ("name", "uuid", "pid", "start_time", "managed_by", "uid", "gid", "cap_eff", "no_new_privs")
    kept = ("seccomp", "propagation", "label", "binary")
    return {
        **{key: guest[key] for key in (*same, *kept)},
        "cgroup": guest["cgroup"]["path"],
        "device_filter": None if rules is None else bool(rules),
        "limits": {name: limit["soft"] for name, limit in guest["limits"].items()},
        "dump_guest_core": guest["core_dump"]["guest_memory"],
        "unexpected_devices": strange[:_DEVICES],
        **_command_line(argv),
        "helpers": [_helper(context, helper) for helper in guest["helpers"]],
        **{name: name in weak for name in _weakness.IDS},
    }


def _helper(context: Context, helper: dict[str, t.Any]) -> dict[str, t.Any]:
    keys = ("name", "pid", "uid", "cap_eff", "no_new_privs", "binary_deleted")
    sandbox, seccomp = "", ""
    if helper["name"] == "virtiofsd":
        sandbox, seccomp = virtiofsd(_proc.command_line(context.host, helper["pid"]))
    return {
        **{key: helper[key] for key in keys},
        "seccomp": helper["seccomp"]["mode"],
        "private_user_namespace": helper["user_namespace"]["private"],
        "label": helper["label"]["value"],
        "virtiofsd_sandbox": sandbox,
        "virtiofsd_seccomp": seccomp,
    }


def virtiofsd(argv: t.Sequence[str]) -> tuple[str, str]:
    """The sandbox and the seccomp action that a virtiofsd was told to use; what it uses untold is ``namespace`` and
    ``kill`` (virtiofsd's README; the former one in C, of QEMU 5 to 7, takes both among the options of ``-o``)."""
    told = {"sandbox": "namespace", "seccomp": "kill"}
    for word, following in zip(argv, (*argv[1:], "")):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name[2:] in told:
            told[name[2:]] = value if equals else following
        elif word == "-o":
            told.update(dict(part.split("=", 1) for part in following.split(",") if part.split("=")[0] in told))
    return told["sandbox"], told["seccomp"]


def _command_line(argv: t.Sequence[str]) -> dict[str, t.Any]:
    """What QEMU was told on its command line (qemu(1))."""
    kind, *properties = (_qemuproc.option(argv, "machine") or _qemuproc.option(argv, "M") or "").split(",")
    given = dict(word.partition("=")[::2] for word in (*properties, kind))
    return {
        "machine": given.get("type", "") if "=" in kind else kind,
        "control_on_network": list(control_on_network(argv)),
    }


def control_on_network(argv: t.Sequence[str]) -> t.Iterator[str]:
    """The options of a QEMU by which its monitor or its debugger can be reached through the network."""
    chardevs = _networked_chardevs(argv)
    for word, value in zip(argv, (*argv[1:], "")):
        name = word.lstrip("-") if word.startswith("-") else ""
        by_itself = name in _CONTROLS and (value.startswith(_NETWORKED) or value.partition(":")[2] in chardevs)
        by_chardev = name == "mon" and chardevs.intersection(part.rpartition("=")[2] for part in value.split(","))
        if by_itself or by_chardev:
            yield f"-{name} {value}"
        elif name == "s":
            yield "-s (gdb on tcp::1234)"


def _networked_chardevs(argv: t.Sequence[str]) -> set[str]:
    """The ids of the character devices that are sockets of the network."""
    found = set()
    for word, value in zip(argv, argv[1:]):
        kind, *properties = value.split(",")
        given = dict(part.partition("=")[::2] for part in properties)
        if word.lstrip("-") == "chardev" and (kind == "udp" or (kind == "socket" and "port" in given)):
            found.add(given.get("id", ""))
    return found


def _covers(guest: t.Mapping[str, t.Any], other: t.Mapping[str, t.Any]) -> bool:
    """Whether a guest's label lets it at what belongs to another one.

    AppArmor's profiles are one a guest. SELinux keeps guests apart by categories: who has all those of another one gets
    at its files (libvirt's drvqemu.rst, "SELinux sVirt confinement").
    """
    mine, theirs = guest["label"], other["label"]
    if guest["no_mac"] or other["no_mac"] or not mine["value"]:
        return False
    if mine["model"] != "selinux":
        return bool(mine["value"] == theirs["value"])
    wanted = _categories(theirs["value"])
    return bool(wanted) and wanted <= _categories(mine["value"])


def _categories(context: str) -> set[int]:
    """The categories of a context's (highest) level: s0:c1,c2 or s0-s0:c0.c1023."""
    level = context.split(":", 3)[-1].rpartition("-")[2]
    found: set[int] = set()
    for first, last in _CATEGORY_RE.findall(level.partition(":")[2]):
        found.update(range(int(first), int(last or first) + 1))
    return found
