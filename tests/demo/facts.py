# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo shows of a guest: facts from the kernel, in a person's words."""

from __future__ import annotations

import typing as t

Guest = dict[str, t.Any]

Words = t.Callable[[Guest], str]


def _capabilities(guest: Guest) -> str:
    count = bin(int(guest["cap_eff"], 16)).count("1")
    return f"{count} of them" if count else "none"


def _devices(guest: Guest) -> str:
    return str(len(guest["dev"])) if guest["mount_namespace"]["private"] else "the host's"


def _core(guest: Guest) -> str:
    limit = guest["limits"]["core"]["soft"]
    return {0: "none", -1: "unlimited"}.get(limit, f"up to {limit} bytes")


# Each row: the fact, where the kernel tells it, how it reads, and the weaknesses that make it a bad one.
ROWS: tuple[tuple[str, str, Words, set[str]], ...] = (
    ("user", "status Uid", lambda g: "root" if g["uid"] == 0 else str(g["uid"]), {"runs_as_root"}),
    ("capabilities", "status CapEff", _capabilities, {"capabilities"}),
    ("new privileges", "status NoNewPrivs", lambda g: "no" if g["no_new_privs"] else "possible", {"new_privileges"}),
    ("system call filter", "status Seccomp", lambda g: "on" if g["seccomp"]["mode"] == 2 else "none", {"no_seccomp"}),
    (
        "mount namespace",
        "ns/mnt",
        lambda g: "its own" if g["mount_namespace"]["private"] else "the host's",
        {"host_mount_namespace"},
    ),
    ("devices in /dev", "root/dev", _devices, {"host_dev", "unexpected_device"}),
    ("later mounts", "mountinfo", lambda g: g["propagation"] or "not seen", {"no_mount_propagation"}),
    (
        "device cgroup",
        "cgroup, its BPF",
        lambda g: "filters" if g["cgroup"]["device_rules"] else "none",
        {"no_device_cgroup"},
    ),
    ("core dumps", "limits", _core, {"core_dumps"}),
)


def rows(before: Guest, after: Guest) -> list[tuple[str, str, tuple[str, bool], tuple[str, bool]]]:
    """Fact, source, and for both guests the words and whether they are a weakness."""
    return [(fact, source, _cell(before, words, bad), _cell(after, words, bad)) for fact, source, words, bad in ROWS]


def _cell(guest: Guest, words: Words, bad: set[str]) -> tuple[str, bool]:
    return words(guest), bool(bad & {weakness["id"] for weakness in guest["weaknesses"]})
