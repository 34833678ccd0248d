# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts of a group agree on: all, most of them, the operator's choice, a tie."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreement
from ansible_collections.hypervisor.hardening.tests.unit.plugins.fleets import host, judged


def agreed(*odd: dict[str, t.Any], like: int = 2, **options: t.Any) -> dict[str, t.Any]:
    hosts = {f"h{number}": host(f"h{number}") for number in range(like)}
    hosts |= {f"odd{number}": host(f"odd{number}", **changes) for number, changes in enumerate(odd)}
    return t.cast("dict[str, t.Any]", judged(hosts, **options)["agreement"])


def test_all_keys_are_agreed_on_and_the_gate_takes_it() -> None:
    found = agreed()
    assert found["errors"] == [] and found["departures"] == []
    agreement = _agreement.of(found["agreement"])
    assert agreement.group == "rack"
    assert agreement.values == {
        "qemu_uid": 64055,
        "qemu_gid": 64055,
        "dynamic_ownership": True,
        "remember_owner": True,
        "security_models": ["apparmor", "dac"],
        "namespaces": ["mount"],
        "seccomp_sandbox": True,
        "cgroup_controllers": ["cpu", "devices"],
        "cgroup_device_acl": ["/dev/kvm", "/dev/null"],
        "sched_core": "none",
        "max_core": "0",
        "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
        "lock_manager": "nop",
        "migrate_tls_force": False,
        "memfd_create": True,
    }
    assert agreement.values.keys() == _agreement.KEYS.keys()


def test_most_hosts_decide_and_who_departs_is_told() -> None:
    found = agreed({"migration__values__seccomp_sandbox": False})
    assert found["agreement"]["values"]["seccomp_sandbox"] is True
    assert found["departures"] == [
        {
            "key": "seccomp_sandbox",
            "agreed": "on",
            "values": [{"value": "on", "hosts": ["h0", "h1"]}, {"value": "off", "hosts": ["odd0"]}],
        }
    ]


def test_a_tie_is_an_error_that_names_both() -> None:
    found = agreed({"capabilities__dac": {"uid": 0, "gid": 64055, "source": "capabilities"}}, like=1)
    assert found["agreement"] is None
    assert found["errors"] == [
        "qemu_uid: as many hosts have 64055 (h0) as have 0 (odd0). Choose one in hypervisor_migration_agreement."
    ]


def test_the_operator_decides() -> None:
    odd = {"capabilities__dac": {"uid": 0, "gid": 64055, "source": "capabilities"}}
    found = agreed(odd, like=1, choice={"qemu_uid": 64055})
    assert found["errors"] == [] and found["agreement"]["values"]["qemu_uid"] == 64055
    found = agreed(odd, choice={"qemu_uid": 0})
    assert found["agreement"]["values"]["qemu_uid"] == 0


@pytest.mark.parametrize(
    ("choice", "error"),
    [
        ({"qemu_user": 0}, "qemu_user is nothing that can be agreed on"),
        ({"qemu_uid": "root"}, "qemu_uid: 'root' is not"),
    ],
)
def test_a_choice_that_is_none(choice: dict[str, t.Any], error: str) -> None:
    found = agreed(choice=choice)
    assert found["agreement"] is None and error in " ".join(found["errors"])


def test_hosts_that_are_not_known_can_change_it() -> None:
    hosts: dict[str, t.Any] = {name: host(name) for name in ("a", "b", "c")}
    hosts["odd"] = host("odd", migration__values__max_core="unlimited")
    hosts["gone"] = "unreachable"
    found = judged(hosts)["agreement"]
    assert found["errors"] == [] and found["agreement"]["values"]["max_core"] == "0"
    hosts["lost"] = "unreachable"
    (error,) = judged(hosts)["agreement"]["errors"]
    assert error.startswith("max_core: 0 (a, b, c) and unlimited (odd) differ, and 2 hosts that are not known can")
    assert judged(hosts, choice={"max_core": "0"})["agreement"]["errors"] == []


def test_where_most_hosts_are_not_known_nobody_agrees() -> None:
    found = judged({"a": host("a"), "gone": "unreachable"})["agreement"]
    assert found["errors"] == ["1 of 2 hosts are not known, and can have other values."]


def test_what_a_host_does_not_tell_the_others_decide() -> None:
    found = agreed({"memfd": {"error": "lost"}})
    assert found["agreement"]["values"]["memfd_create"] is True
    found = agreed({"memfd": {"error": "lost"}}, like=0)
    assert "memfd_create" not in found["agreement"]["values"]
