# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreedvalues, _agreement

ACL = ["/dev/null", "/dev/full"]


def of(settings: dict[str, t.Any], version: str = "9.0.0") -> dict[str, t.Any]:
    values, unknown = _agreedvalues.of_settings(settings, version=version, device_acl=ACL)
    assert unknown == {}
    return values


def test_defaults() -> None:
    # src/qemu/qemu_conf.c of 9.0.0, virQEMUDriverConfigNew
    assert of({}) == {
        "dynamic_ownership": True,
        "remember_owner": True,
        "namespaces": ["mount"],
        "seccomp_sandbox": True,
        "cgroup_controllers": ["blkio", "cpu", "cpuacct", "cpuset", "devices", "memory"],
        "cgroup_device_acl": ["/dev/full", "/dev/null"],
        "sched_core": "none",
        "max_core": "0",
        "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
        "lock_manager": "nop",
        "migrate_tls_force": False,
    }


@pytest.mark.parametrize(
    ("key", "setting", "value"),
    [
        ("dynamic_ownership", 0, False),
        ("remember_owner", 0, False),
        ("namespaces", [], []),
        ("seccomp_sandbox", 0, False),
        ("seccomp_sandbox", 1, True),
        ("seccomp_sandbox", -1, True),
        ("seccomp_sandbox", 5, True),
        ("cgroup_controllers", ["memory", "cpu"], ["cpu", "memory"]),
        ("cgroup_device_acl", ["/dev/vfio/vfio"], ["/dev/vfio/vfio"]),
        ("sched_core", "full", "full"),
        ("max_core", "unlimited", "unlimited"),
        ("max_core", 1048576, "1048576"),
        ("memory_backing_dir", "/srv/ram", "/srv/ram"),
        ("lock_manager", "lockd", "lockd"),
        ("migrate_tls_force", 1, True),
    ],
)
def test_what_is_set(key: str, setting: t.Any, value: t.Any) -> None:
    found = of({key: setting})
    assert found[key] == value
    assert {name: entry for name, entry in found.items() if name != key} == {
        name: entry for name, entry in of({}).items() if name != key
    }


def test_values_have_the_form_of_an_agreement() -> None:
    assert _agreement.make("web", of({})).values == of({})


@pytest.mark.parametrize(
    ("version", "core"),
    [("7.0.0", "0"), ("10.0.0", "0"), ("11.3.0", "unlimited"), ("12.8.0", "unlimited"), ("11.0.0", None), ("", None)],
)
def test_core_files_by_version(version: str, core: str | None) -> None:
    values, unknown = _agreedvalues.of_settings({}, version=version, device_acl=ACL)
    assert values.get("max_core") == core
    assert ("max_core" in unknown) == (core is None)


def test_without_the_built_in_list_of_devices() -> None:
    values, unknown = _agreedvalues.of_settings({}, version="9.0.0", device_acl=None)
    assert "cgroup_device_acl" not in values and "does not tell" in unknown["cgroup_device_acl"]
    values, unknown = _agreedvalues.of_settings({"cgroup_device_acl": []}, version="9.0.0", device_acl=None)
    assert values["cgroup_device_acl"] == [] and unknown == {}
