# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules on the daemons' files. tests/integration asks real daemons whether they do not start with what is refused."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _daemonrules
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost


def problems(root: Path, wanted: dict[str, t.Any]) -> list[str]:
    host = TreeHost(root)
    host.put("/etc/pki/key.pem")
    document = Document.parse(b'cert_file = "/etc/pki/cert.pem"\n')
    for key, value in wanted.items():
        document.set(key, value)
    return _daemonrules.problems(wanted, document, _daemonrules.lacking(host, wanted))


@pytest.mark.parametrize(
    "wanted",
    [
        {"auth_unix_rw": "polkit", "auth_tls": "sasl", "access_drivers": ["polkit"], "audit_level": 2},
        {"unix_sock_rw_perms": "0770", "unix_sock_group": "kvm", "key_file": "/etc/pki/key.pem"},
        {"host_uuid_source": "machine-id", "host_uuid": "00000000-0000-0000-0000-000000000000", "tcp_min_ssf": 112},
        {"firewall_backend": "nftables", "log_level": 3, "max_clients": 20, "unix_sock_group": "107"},
    ],
)
def test_what_libvirt_takes(tmp_path: Path, wanted: dict[str, t.Any]) -> None:
    assert problems(tmp_path, wanted) == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"auth_unix_rw": "pam"}, "auth_unix_rw: 'pam' is not one of none, sasl, polkit."),
        ({"auth_tls": "polkit"}, "auth_tls: 'polkit' is not one of none, sasl."),
        ({"access_drivers": ["polkit", "nop"]}, "access_drivers: 'nop' is not one of none, polkit."),
        ({"audit_level": 3}, "audit_level: 3 is not one of 0, 1, 2."),
        ({"unix_sock_rw_perms": "rw"}, "unix_sock_rw_perms: 'rw' is no octal mode"),
        ({"unix_sock_group": "nosuch"}, "unix_sock_group: this host has no group 'nosuch'"),
        ({"key_file": "key.pem"}, "key_file: 'key.pem' is not an absolute path."),
        ({"key_file": "/nosuch"}, "key_file: /nosuch does not exist"),
        ({"key_files": ["/etc/pki/key.pem", "/nosuch"]}, "key_files: /nosuch does not exist"),
        ({"cert_files": ["/etc/pki/key.pem"]}, "cert_file: libvirt takes either this key or cert_files."),
        ({"max_clients": 10}, "max_clients: 10 is less than max_anonymous_clients (20; 20 where it is not set)"),
        ({"max_anonymous_clients": 5001}, "max_clients: 5000 is less than max_anonymous_clients (5001;"),
        ({"max_workers": 0}, "max_workers: it takes at least one worker"),
        ({"tcp_min_ssf": 56}, "tcp_min_ssf: libvirt does not start with less than 112."),
        ({"host_uuid": "1234"}, "host_uuid: '1234' is no UUID."),
    ],
)
def test_what_keeps_a_daemon_down(tmp_path: Path, wanted: dict[str, t.Any], words: str) -> None:
    assert [problem[: len(words)] for problem in problems(tmp_path, wanted)] == [words]


def test_what_locks_everybody_out() -> None:
    wanted: dict[str, t.Any] = {"tls_allowed_dn_list": [], "sasl_allowed_username_list": ["a"]}
    wanted["max_client_requests"] = 0
    assert [words.partition(":")[0] for words in _daemonrules.lock_outs(wanted)] == [
        "tls_allowed_dn_list",
        "max_client_requests",
    ]


@pytest.mark.parametrize(
    ("text", "unit_mode", "is_open"),
    [
        ('auth_unix_rw = "none"', 0o666, True),
        ('auth_unix_rw = "none"', 0o660, False),
        ('auth_unix_rw = "polkit"', 0o666, False),
        ("", 0o666, False),
        # without systemd: remote_daemon_config.c makes it 0700 where nobody has to prove who he is
        ('auth_unix_rw = "none"', None, False),
        ('auth_unix_rw = "none"\nunix_sock_rw_perms = "0777"', None, True),
        ('auth_unix_rw = "none"\nunix_sock_rw_perms = "0770"', None, False),
    ],
)
def test_a_door_that_stands_open(text: str, unit_mode: int | None, is_open: bool) -> None:
    assert bool(_daemonrules.open_door(Document.parse(text.encode()), unit_mode)) == is_open
