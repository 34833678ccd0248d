# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which libvirt and QEMU are installed, by what they are made of."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_libvirt
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

LIBRARY = "/usr/lib/x86_64-linux-gnu/libvirt.so.0.11003.0"
# What Debian 13's QEMU prints.
VERSION = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) 2003-2025 Fabrice Bellard\n"


class Asked(LibvirtHost):
    version = VERSION

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        if "--version" in argv and not self.hangs:
            return Completed(tuple(argv), 0, self.version, "")
        return super().run(argv, stdin=stdin, timeout=timeout)


@pytest.fixture
def host(tmp_path: Path) -> Asked:
    host = Asked(tmp_path)
    host.put(LIBRARY, "")
    host.put(f"/usr/bin/qemu-system-{os.uname().machine}", "")
    return host


def look(host: LibvirtHost) -> dict[str, t.Any]:
    return _info_libvirt.facts(Context(host))


def test_versions_and_what_says_so(host: Asked) -> None:
    found = look(host)
    assert (found["version"], found["version_from"]) == ("11.3.0", LIBRARY)
    assert (found["qemu_version"], found["qemu_package"]) == ("10.0.2", "Debian 1:10.0.2+ds-2")
    assert found["qemu_version_from"] == f"/usr/bin/qemu-system-{os.uname().machine} --version"
    assert (found["installed"], found["layout"], found["daemon"]) == (True, "monolithic", "libvirtd")


@pytest.mark.parametrize("version", ["", "no such thing"])
def test_a_qemu_that_does_not_say(host: Asked, version: str) -> None:
    host.version = version
    assert look(host)["qemu_version"] is None


def test_a_qemu_that_hangs(host: Asked) -> None:
    host.hangs.add("--version")
    found = look(host)
    assert found["qemu_version"] is None and "no answer within 5 seconds" in found["qemu_version_from"]


@pytest.mark.parametrize(
    ("library", "state"),
    [
        ("virSecureErase\0__explicit_bzero_chk\0", "present"),
        ("virSecureErase\0memset\0", "weak"),
        ("explicit_bzero\0", "absent"),
        ("virSecureEraseString\0", "absent"),
        (None, "unknown"),
    ],
)
def test_secure_erase_by_the_symbols_of_the_library(host: Asked, library: str | None, state: str) -> None:
    if library is None:
        os.unlink(host.path(LIBRARY))
    else:
        host.put(LIBRARY, library)
    found = look(host)["secure_erase"]
    assert found["state"] == (state if library else "unknown")
    assert found["source"]


def test_what_it_was_built_with(host: Asked) -> None:
    host.put(LIBRARY, "libsasl2.so.2\0org.freedesktop.PolicyKit1.Authority\0")
    assert look(host)["built_with"] == {"polkit": True, "sasl": True}
    host.put(LIBRARY, "neither")
    assert look(host)["built_with"] == {"polkit": False, "sasl": False}
    os.unlink(host.path(LIBRARY))
    assert look(host)["built_with"] == {"polkit": None, "sasl": None}


@pytest.mark.parametrize(
    ("text", "mechanisms"),
    [
        ("mech_list: gssapi\n", ["gssapi"]),
        ("# mech_list: digest-md5\nmech_list: SCRAM-SHA-256 gssapi\n", ["gssapi", "scram-sha-256"]),
        ("sasldb_path: /etc/libvirt/passwd.db\n", None),
        (None, None),
    ],
)
def test_mechanisms_of_sasl(host: Asked, text: str | None, mechanisms: list[str] | None) -> None:
    if text is not None:
        host.put("/etc/sasl2/libvirt.conf", text)
    assert look(host)["sasl_mechanisms"] == mechanisms


def test_a_host_without_libvirt_and_qemu(tmp_path: Path) -> None:
    host = LibvirtHost(tmp_path)
    os.unlink(host.path("/usr/sbin/libvirtd"))
    found = look(host)
    assert (found["installed"], found["layout"], found["version"], found["qemu_version"]) == (False, "none", None, None)
    assert (found["restart_required"], found["guests_pending"]) == (False, [])
