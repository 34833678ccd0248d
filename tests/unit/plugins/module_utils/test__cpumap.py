# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processor models in files of the form of libvirt's src/cpu_map."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _cpumap
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    found = TreeHost(tmp_path)
    for name, inside in {
        "Old": "<vendor name='Intel'/><feature name='sse'/><feature name='mpx' removed='yes'/>",
        "New": "<model name='Old'/><feature name='avx'/><!-- <feature name='aes'/> -->",
        "Loop": "<model name='Loop'/>",
        "Lost": "<model name='Nobody'/><feature name='avx'/>",
    }.items():
        found.put(f"{_cpumap.DIRECTORY}/x86_{name}.xml", f"<cpus><model name='{name}'>{inside}</model></cpus>")
    return found


def test_a_model_has_the_features_of_the_one_it_is_built_on(host: TreeHost) -> None:
    assert _cpumap.features(host, "Old") == frozenset({"sse"})
    assert _cpumap.features(host, "New") == frozenset({"sse", "avx"})


@pytest.mark.parametrize("model", ["Nobody", "Lost", "Loop", "", "../../etc/passwd", "a b"])
def test_a_model_that_libvirt_does_not_have(host: TreeHost, model: str) -> None:
    assert _cpumap.features(host, model) is None


def test_a_guest_has_more_and_less_than_its_model(host: TreeHost) -> None:
    element = ElementTree.fromstring(
        "<cpu><model>New</model><feature policy='require' name='aes'/><feature policy='disable' name='avx'/>"
        "<feature policy='optional' name='pcid'/><feature name='x2apic'/></cpu>"
    )
    assert _cpumap.of_element(host, element) == ["aes", "sse", "x2apic"]
    assert _cpumap.of_element(host, ElementTree.fromstring("<cpu><model>Nobody</model></cpu>")) is None
