# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of hosts that can take each other's guests, to plant differences in."""

from __future__ import annotations

import copy
import datetime
import typing as t

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import parity

NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.UTC)
FILES = ("ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem")
Facts = dict[str, t.Any]

_COMMON: Facts = {
    "host": {"time": NOW.timestamp() - 60, "architecture": "x86_64"},
    "libvirt": {"installed": True, "restart_required": False, "version": "11.3.0", "qemu_version": "10.0.2"},
    "capabilities": {
        "reason": "",
        "libvirt_version": "11.3.0",
        "qemu_version": "10.0.2",
        "secmodels": [{"model": model, "doi": "0", "baselabels": {}} for model in ("apparmor", "dac")],
        "dac": {"uid": 64055, "gid": 64055, "source": "capabilities"},
        "machines": {"pc-q35": ["9.0", "10.0"], "microvm": [""]},
        "cpu_features": ["aes", "avx", "avx2"],
    },
    "configuration": {"qemu.conf": {"settings": {}}},
    "tls": {
        "uses": [{"name": "migrate", "directory": "/etc/pki/qemu", "present": [], "missing": list(FILES)}],
        "certificates": [],
    },
    "guests": [{"name": "web", "machine": "pc-q35-9.0"}, {"name": "db", "machine": "pc-q35-9.0"}],
    "mac": {"enforcing": True, "configured": {"selinux_policy": ""}, "selinux": {"booleans": []}},
    "hugepages": {
        "pools": [{"kib": 2048, "free": 1024}],
        "mounts": [{"name": "/dev/hugepages", "size": "2M"}],
        "configured": {"hugetlbfs_mount": None},
    },
    "taps": {"wanted": [], "interfaces": []},
    "memfd": {"works": True},
    "cpu": {"model": "AMD EPYC 7543"},
    "listeners": [],
    "migration": {
        "values": {
            "dynamic_ownership": True,
            "remember_owner": True,
            "namespaces": ["mount"],
            "seccomp_sandbox": True,
            "cgroup_controllers": ["cpu", "devices"],
            "cgroup_device_acl": ["/dev/kvm", "/dev/null"],
            "sched_core": "none",
            "max_core": "0",
            "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
            "lock_manager": "nop",
            "migrate_tls_force": False,
        },
        "addresses": ["192.0.2.1"],
        "address": None,
        "host": None,
        "first_port": 49152,
        "last_port": 49215,
        "taken_ports": [],
        "taken_ports_total": 0,
        "cpus": [],
        "displays": [],
        "hugepages": [],
        "filesystems": [],
        "unread": [],
    },
}  # fmt: skip


def host(name: str, **changes: t.Any) -> Facts:
    """A host; ``changes``: path, its parts between two underscores -> value."""
    facts = copy.deepcopy(_COMMON)
    facts["capabilities"]["host_uuid"] = f"uuid of {name}"
    facts["migration"]["hostname"] = name
    for path, value in changes.items():
        put(facts, path.split("__"), value)
    return facts


def put(facts: Facts, path: list[str], value: t.Any) -> None:
    *above, last = path
    for key in above:
        facts = facts["qemu.conf" if key == "qemu_conf" else key]
    facts[last] = value


def judged(hosts: t.Mapping[str, t.Any], **options: t.Any) -> dict[str, t.Any]:
    """The only group."""
    master = parity(hosts, dict.fromkeys(hosts, "rack"), NOW, "0", **options)
    (group,) = master["groups"]
    return t.cast("dict[str, t.Any]", group)


def found(group: dict[str, t.Any], state: str = "differs") -> dict[str, dict[str, t.Any]]:
    """The findings in a state, by id."""
    return {one["id"]: one for one in group["findings"] if one["state"] == state}


def broken(group: dict[str, t.Any], id_: str) -> set[tuple[str, str]]:
    """Source and destination, by the first host of their classes, of each move that a finding stands against."""
    matrix = group["matrix"]
    names = [one["hosts"][0] for one in matrix["classes"]]
    return {
        (a, b)
        for a, row in zip(names, matrix["cells"], strict=True)
        for b, cell in zip(names, row, strict=True)
        if id_ in cell["findings"]
    }


def with_tls(facts: Facts, **more: t.Any) -> Facts:
    """With all certificates for migration, of which ``more`` changes the server's."""
    paths = [f"/etc/pki/qemu/{name}" for name in FILES]
    facts["tls"]["uses"][0] |= {"present": paths, "missing": []}
    facts["tls"]["certificates"] = [
        {"name": path, "expires": NOW.timestamp() + 86400, "reason": "", "digest": "c0ffee"}
        for path in paths
        if "key" not in path
    ]
    facts["tls"]["certificates"][1] |= more
    return facts
