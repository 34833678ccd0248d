# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages and their security updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _packages
from ansible_collections.hypervisor.hardening.plugins.module_utils._packages import Package
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

# As dpkg writes it (deb822), cut down.
STATUS = """\
Package: qemu-system-x86
Status: install ok installed
Priority: optional
Architecture: amd64
Source: qemu
Version: 1:10.0.2+ds-2
Description: QEMU full system emulation binaries (x86)
 Package: not-a-field

Package: linux-image-6.12.38+deb13-amd64
Status: deinstall ok config-files
Architecture: amd64
Version: 6.12.38-1

Package: libvirt-dev
Status: install ok installed
Architecture: amd64
Version: 11.3.0-3

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.37-2
"""
LIST = """\
Package: qemu-system-x86
Source: qemu
Version: {version}
Architecture: amd64

Package: qemu-system-x86-xen
Version: 9:1
Architecture: amd64
"""
NAME = "mirror.example_debian-security_dists_trixie-security"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put(_packages.DPKG_STATUS, STATUS)
    return host


def lists(host: TreeHost, version: str, *, suffix: str = "") -> None:
    host.put(
        f"{_packages.LISTS}/{NAME}_InRelease", "Origin: Debian\nSuite: stable-security\nCodename: trixie-security\n"
    )
    if not suffix:
        host.put(f"{_packages.LISTS}/{NAME}_main_binary-amd64_Packages", LIST.format(version=version))


def updates(host: TreeHost) -> _packages.Updates:
    return _packages.updates(Reader(host), _packages.installed(host))


def test_dpkg(host: TreeHost) -> None:
    found = _packages.installed(host)
    assert found == _packages.Installed("dpkg", (Package("qemu-system-x86", "1:10.0.2+ds-2", "qemu"),))


def test_rpm(tmp_path: Path) -> None:
    host = TreeHost(tmp_path)
    host.directory("/usr/lib/sysimage/rpm")
    assert _packages.installed(host).reason == "The command rpm is not installed on this host."
    patterns = [f"{prefix}*" for _family, prefixes in _packages.FAMILIES for prefix in prefixes]
    command = ["rpm", "-qa", "--qf", "%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n", *patterns]
    host.answers[" ".join(command)] = (
        "qemu-kvm\t17:9.1.0-15.el9\nkernel-headers\t5.14.0-1.el9\nkernel-core\t5.14.0-1.el9\n"
    )
    found = _packages.installed(host)
    assert found.packages == (
        Package("kernel-core", "5.14.0-1.el9", "kernel"),
        Package("qemu-kvm", "17:9.1.0-15.el9", "qemu"),
    )
    assert updates(host).pending is None


def test_no_package_manager(tmp_path: Path) -> None:
    host = TreeHost(tmp_path)
    assert _packages.installed(host).source == ""
    assert updates(host).reason == "There is neither a dpkg nor an rpm database."


def test_an_update_waits(host: TreeHost) -> None:
    lists(host, "1:10.0.2+ds-2+deb13u1")
    found = updates(host)
    (update,) = found.pending or ()
    assert (update.package.name, update.candidate, found.age_days) == ("qemu-system-x86", "1:10.0.2+ds-2+deb13u1", 0)


def test_none_waits(host: TreeHost) -> None:
    lists(host, "1:10.0.2+ds-2")
    assert updates(host) == _packages.Updates((), 0, "")


def test_old_lists_prove_no_absence_but_what_they_know_counts(host: TreeHost) -> None:
    import os
    import time

    lists(host, "1:10.0.2+ds-2")
    path = host.path(f"{_packages.LISTS}/{NAME}_InRelease")
    then = time.time() - 20 * 86400
    os.utime(path, (then, then))
    found = updates(host)
    assert (found.pending, found.age_days) == (None, 20)
    assert "20 days old" in found.reason
    lists(host, "1:10.0.2+ds-3")
    os.utime(path, (then, then))
    assert len(updates(host).pending or ()) == 1


def test_lists_of_other_suites_tell_nothing(host: TreeHost) -> None:
    host.put(f"{_packages.LISTS}/mirror.example_debian_dists_trixie_InRelease", "Suite: stable\nCodename: trixie\n")
    found = updates(host)
    assert found.pending is None
    assert "no list of a security suite" in found.reason


def test_lists_that_cannot_be_read_here(host: TreeHost) -> None:
    lists(host, "", suffix=".lz4")
    host.put(f"{_packages.LISTS}/{NAME}_main_binary-amd64_Packages.lz4", "\x04")
    found = updates(host)
    assert found.pending is None
    assert "in a form" in found.reason


def test_compressed_lists(host: TreeHost) -> None:
    import gzip

    lists(host, "", suffix=".gz")
    path = Path(host.path(f"{_packages.LISTS}/{NAME}_main_binary-amd64_Packages.gz"))
    path.write_bytes(gzip.compress(LIST.format(version="1:10.0.3+ds-1").encode()))
    assert len(updates(host).pending or ()) == 1


# deb-version(7) and what dpkg --compare-versions says.
@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.0~rc1", "1.0"),
        ("1.0~~", "1.0~"),
        ("1.0", "1.0+b1"),
        ("1.0-1", "1.0-1+deb13u1"),
        ("1.0-9", "1.0-10"),
        ("1.0a", "1.0+"),
        ("2.0", "1:1.0"),
        ("1:7.2+dfsg-7+deb12u5", "1:7.2+dfsg-7+deb12u16"),
        ("6.1.76-1", "6.1.140-1"),
        ("1.2-3-1", "1.2-3-2"),
        ("1.0", "1.0-1"),
        ("0.0~git20250503.587980c-2", "0.0~git20250503.587980c-2+deb13u1"),
    ],
)
def test_versions(lower: str, higher: str) -> None:
    assert _packages.compare(lower, higher) < 0
    assert _packages.compare(higher, lower) > 0
    assert _packages.compare(lower, lower) == 0


def test_zeros_make_no_difference() -> None:
    assert _packages.compare("1.0-0", "1.0") == 0
    assert _packages.compare("1.01", "1.1") == 0
