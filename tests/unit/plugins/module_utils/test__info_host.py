# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on the host itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_host
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

# As base-files of Debian 13 and redhat-release of Rocky 9 have it.
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n'
ROCKY = 'NAME="Rocky Linux"\nVERSION="9.4"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    host = LibvirtHost(tmp_path)
    host.put("/proc/sys/kernel/hostname", "node1\n")
    host.put("/proc/sys/kernel/osrelease", "6.12.1-amd64\n")
    host.put("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\n")
    host.put("/etc/os-release", DEBIAN)
    return host


def test_a_host(host: LibvirtHost) -> None:
    facts = _info_host.facts(Context(host))
    assert abs(facts.pop("time") - time.time()) < 5
    assert facts == {
        "hostname": "node1",
        "os": {"id": "debian", "id_like": [], "version": "13", "name": "Debian GNU/Linux 13 (trixie)"},
        "kernel": "6.12.1-amd64",
        "architecture": os.uname().machine,
        "cpu_vendor": "AuthenticAMD",
        "cgroup": {"version": None, "controllers": []},
        "boot_id": "b5b0",
        "init": "systemd",
        "container": "",
    }


def test_a_container_without_os_release(host: LibvirtHost) -> None:
    os.unlink(host.path("/etc/os-release"))
    host.put("/run/systemd/container", "systemd-nspawn\n")
    host.put("/proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\n")
    facts = _info_host.facts(Context(host))
    assert (facts["os"]["id"], facts["cpu_vendor"], facts["container"]) == ("", "", "systemd-nspawn")


def test_the_vendors_os_release_counts_where_etc_has_none(host: LibvirtHost) -> None:
    os.unlink(host.path("/etc/os-release"))
    host.put("/usr/lib/os-release", ROCKY)
    os_facts = _info_host.facts(Context(host))["os"]
    assert os_facts == {"id": "rocky", "id_like": ["rhel", "centos", "fedora"], "version": "9.4", "name": ""}


def test_the_controllers_of_version_2(host: LibvirtHost) -> None:
    host.put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
    cgroup = _info_host.facts(Context(host))["cgroup"]
    assert cgroup == {"version": 2, "controllers": ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"]}


def test_the_controllers_of_version_1(host: LibvirtHost) -> None:
    lines = ("cpu,cpuacct", "blkio", "name=systemd")
    host.put(
        "/proc/1/mountinfo",
        "".join(f"30 29 0:2{at} / /sys/fs/cgroup/{at} rw - cgroup cgroup rw,{line}\n" for at, line in enumerate(lines)),
    )
    assert _info_host.facts(Context(host))["cgroup"] == {"version": 1, "controllers": ["cpu", "cpuacct", "io"]}
