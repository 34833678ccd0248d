# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which libvirt can be asked. What it answers, and that it leaves nothing, is for tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _libvirtcheck
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

# As the packages of Debian 12, Debian 13 and Fedora lay them, with the versions that they have.
DEBIAN = "/usr/lib/x86_64-linux-gnu"
FEDORA = "/usr/lib64"


def install(root: Path, directory: str, soname: str, *, virsh: bool = True, driver: bool = True) -> Host:
    (root / "usr/bin").mkdir(parents=True)
    if virsh:
        (root / "usr/bin/virsh").touch(mode=0o755)
    drivers = Path(f"{root}{directory}/libvirt/connection-driver")
    drivers.mkdir(parents=True)
    if driver:
        (drivers / "libvirt_driver_qemu.so").touch()
    Path(f"{root}{directory}/{soname}").touch()
    Path(f"{root}{directory}/libvirt.so.0").symlink_to(soname)
    Path(f"{root}{directory}/libvirt-qemu.so.0.1.1").touch()
    return Host(str(root))


@pytest.mark.parametrize(
    ("directory", "soname", "version"),
    [
        (DEBIAN, "libvirt.so.0.7000.0", "7.0.0"),
        (DEBIAN, "libvirt.so.0.9000.0", "9.0.0"),
        (DEBIAN, "libvirt.so.0.11003.0", "11.3.0"),
        ("/usr/lib/aarch64-linux-gnu", "libvirt.so.0.12008.0", "12.8.0"),
        (FEDORA, "libvirt.so.0.10006.3", "10.6.3"),
    ],
)
def test_the_version_is_in_the_name_of_the_library(tmp_path: Path, directory: str, soname: str, version: str) -> None:
    assert _libvirtcheck.version(install(tmp_path, directory, soname)) == version


@pytest.mark.parametrize(("virsh", "driver"), [(False, True), (True, False), (False, False)])
def test_without_virsh_or_the_driver_nobody_can_be_asked(tmp_path: Path, virsh: bool, driver: bool) -> None:
    host = install(tmp_path, DEBIAN, "libvirt.so.0.9000.0", virsh=virsh, driver=driver)
    assert _libvirtcheck.version(host) is None
