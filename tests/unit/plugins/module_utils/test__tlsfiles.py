# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where libvirt has QEMU look for certificates (qemu_conf.c), and what it calls a host (virGetHostname)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _tlsfiles
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    return TreeHost(tmp_path)


def called(host: TreeHost, name: str, resolver: t.Any = None, **settings: str) -> str:
    host.put("/proc/sys/kernel/hostname", f"{name}\n")
    if resolver is not None:
        host.answers[f"getent ahosts {name}"] = resolver
    return _tlsfiles.migration_name(host, settings)


def test_the_name_of_a_host(host: TreeHost) -> None:
    whole = "192.0.2.1       STREAM h1.example\n192.0.2.1       DGRAM  \n192.0.2.1       RAW    \n"
    assert called(host, "h1", whole) == "h1.example"
    assert called(host, "h1", whole, migration_host="h1.migration.example") == "h1.migration.example"


@pytest.mark.parametrize("name", ["h1.site", "localhost"])
def test_a_name_that_is_left_as_it_is(host: TreeHost, name: str) -> None:
    """One with a dot is whole; one of localhost could only lead back here."""
    assert called(host, name, "192.0.2.1       STREAM other.example\n") == name


@pytest.mark.parametrize(
    "resolver", [None, 2, "", "192.0.2.1\n", "127.0.0.1       STREAM localhost\n", "::1 STREAM localhost.localdomain\n"]
)
def test_a_resolver_that_is_no_help(host: TreeHost, resolver: t.Any) -> None:
    assert called(host, "h1", resolver) == "h1"


@pytest.mark.parametrize(
    ("settings", "own", "expected"),
    [
        ({}, False, "/etc/pki/qemu"),
        ({}, True, "/etc/pki/libvirt-migrate"),
        ({"default_tls_x509_cert_dir": "/srv/all"}, False, "/srv/all"),
        ({"default_tls_x509_cert_dir": "/srv/all"}, True, "/etc/pki/libvirt-migrate"),
        ({"default_tls_x509_cert_dir": "/srv/all", "migrate_tls_x509_cert_dir": "/srv/own"}, True, "/srv/own"),
    ],
)
def test_the_directory(host: TreeHost, settings: dict[str, str], own: bool, expected: str) -> None:
    if own:
        host.directory("/etc/pki/libvirt-migrate")
    assert _tlsfiles.directory(host, settings, "migrate") == expected
