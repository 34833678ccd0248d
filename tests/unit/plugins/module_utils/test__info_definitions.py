# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The short form of guests' definitions: processors, disks and what counts as remarkable in them. The rest is met on
real guests in tests/integration."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_definitions
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.documented import mismatches
from ansible_collections.hypervisor.hardening.tests.unit.plugins.domains import CPU, DISK, DomainHost, domain

HASWELL = (
    "<cpu><model>Haswell</model><feature name='spec-ctrl' policy='require'/><feature name='ssbd'/>"
    "<feature name='md-clear' policy='disable'/><feature name='rdctl-no' policy='forbid'/></cpu>"
)
LUN = "type='block' device='lun'"


@pytest.fixture
def host(tmp_path: Path) -> DomainHost:
    return DomainHost(tmp_path)


def guest(host: DomainHost, *devices: str, cpu: str = CPU, extra: str = "") -> dict[str, t.Any]:
    host.define(domain(*devices, cpu=cpu, extra=extra))
    found = _info_definitions.facts(Context(host))
    assert mismatches("definitions", found) == []
    (entry,) = found["guests"]
    return t.cast("dict[str, t.Any]", entry)


def disk(inside: str, *, target: str = "vdb", attributes: str = "type='file'") -> str:
    return f"<disk {attributes}>{inside}<target dev='{target}'/></disk>"


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        ("", {"mode": "", "model": "", "given": [], "taken_away": []}),
        (CPU, {"mode": "host-passthrough", "model": "", "given": [], "taken_away": []}),
        (
            HASWELL,
            {
                "mode": "custom",
                "model": "Haswell",
                "given": ["spec-ctrl", "ssbd"],
                "taken_away": ["md-clear", "rdctl-no"],
            },
        ),
    ],
)
def test_the_processor(host: DomainHost, cpu: str, expected: dict[str, t.Any]) -> None:
    assert guest(host, cpu=cpu)["cpu"] == {**expected, "pmu": None, "pinned": ""}


@pytest.mark.parametrize(("state", "pmu"), [("on", True), ("off", False)])
def test_performance_counters(host: DomainHost, state: str, pmu: bool) -> None:
    assert guest(host, extra=f"<features><pmu state='{state}'/></features>")["cpu"]["pmu"] is pmu


@pytest.mark.parametrize(
    ("extra", "pinned"),
    [
        ("<vcpu cpuset='4-7'>2</vcpu>", "4-7"),
        ("<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='5'/></cputune>", "4,5"),
        # one of the two goes where it likes
        ("<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='4'/></cputune>", ""),
        ("<vcpu cpuset='6'>2</vcpu><cputune><vcpupin vcpu='0' cpuset='4'/></cputune>", "4,6"),
        ("<vcpu>2</vcpu>", ""),
        ("<vcpu>many</vcpu>", ""),
    ],
)
def test_processors_of_its_own(host: DomainHost, extra: str, pinned: str) -> None:
    assert guest(host, extra=extra)["cpu"]["pinned"] == pinned


def test_a_plain_disk_is_not_told(host: DomainHost) -> None:
    assert guest(host, DISK)["disks"] == []


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (disk("<source dev='/dev/sdx'/>", attributes=LUN), {"scsi": ["lun"]}),
        (disk("<source dev='/dev/sdx'/>", attributes="type='block' rawio='yes'"), {"scsi": ["rawio"]}),
        (disk("<source dev='/dev/sdx'/>", attributes="type='block' sgio='unfiltered'"), {"scsi": ["sgio unfiltered"]}),
        (
            disk(
                "<source dev='/dev/sdx'><reservations managed='yes'/></source>", attributes="type='block' device='lun'"
            ),
            {"scsi": ["lun", "reservations"]},
        ),
        (
            disk("<driver type='raw' cache='none'/><source file='/s.raw'/><shareable/>"),
            {"shareable": True, "format": "raw", "cache": "none", "source": "/s.raw"},
        ),
        (
            disk("<auth username='u'/><source protocol='rbd' name='p/v'/>", attributes="type='network'"),
            {"protocol": "rbd", "authenticated": True, "tls": False},
        ),
        (
            disk("<source protocol='iscsi' name='t/1'><auth username='u'/></source>", attributes="type='network'"),
            {"protocol": "iscsi", "authenticated": True},
        ),
        (
            disk("<source protocol='nbd' name='x' tls='yes'/>", attributes="type='network'"),
            {"protocol": "nbd", "authenticated": False, "tls": True},
        ),
    ],
)
def test_remarkable_disks(host: DomainHost, xml: str, expected: dict[str, t.Any]) -> None:
    (found,) = guest(host, DISK, xml)["disks"]
    assert (found["name"], found["guest"]) == ("web/vdb", "web")
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("xml", "encrypted"),
    [
        ("<source file='/a'/><encryption format='luks'/>", True),
        ("<source file='/a'><encryption format='luks'/></source>", True),
        ("<source file='/a'/>", False),
        # an install medium holds nothing of the guest's
        ("<source file='/a.iso'/><readonly/>", True),
    ],
)
def test_encryption(host: DomainHost, xml: str, encrypted: bool) -> None:
    other = disk("<source file='/b'><encryption format='luks'/></source>", target="vdc")
    assert guest(host, disk(xml), other)["encrypted"] is encrypted


def test_a_socket_to_the_host(host: DomainHost) -> None:
    assert "vsock" in guest(host, "<vsock><cid auto='yes'/></vsock>")["traits"]
    assert "vsock" not in guest(host)["traits"]
