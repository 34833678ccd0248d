# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Audit, journal, clock and the logs of guests."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_logging
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Completed
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

# auditctl 4.0 of Debian 13.
STATUS = "enabled 1\nfailure 1\npid 612\nrate_limit 0\nbacklog_limit 8192\nlost 0\nbacklog 0\n"
RULES = "-w /etc/libvirt -p wa -k virt\n-a always,exit -F arch=b64 -S all -F dir=/etc/qemu -F perm=wa\n"


class Audited(LibvirtHost):
    """``rules``: what auditctl prints, None where the kernel refuses it."""

    rules: dict[str, str] | None = None

    def run(self, argv: t.Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0) -> Completed:
        if argv[0] == "auditctl":
            text = (self.rules or {}).get(argv[1])
            return Completed(tuple(argv), 1 if text is None else 0, text or "", "")
        return super().run(argv, stdin=stdin, timeout=timeout)

    def clock_synchronized(self) -> bool:
        raise OSError("no such call")


@pytest.fixture
def host(tmp_path: Path) -> Audited:
    return Audited(tmp_path)


def look(host: LibvirtHost) -> dict[str, t.Any]:
    return _info_logging.facts(Context(host))


def install(host: LibvirtHost, *names: str) -> None:
    for name in names:
        host.put(f"/usr/sbin/{name}", "")
        os.chmod(host.path(f"/usr/sbin/{name}"), 0o755)


def test_a_host_with_audit(host: Audited) -> None:
    install(host, "auditd", "auditctl")
    host.daemon(612, name="auditd")
    host.rules = {"-s": STATUS, "-l": RULES}
    host.put("/etc/audit/rules.d/virt.rules", "# x\n-w /etc/libvirt/ -p wa\n-D\n")
    assert look(host)["audit"] == {
        "installed": True,
        "running": True,
        "enabled": 1,
        "watched": ["/etc/libvirt", "/etc/qemu"],
        "watched_configured": ["/etc/libvirt"],
    }


def test_auditctl_that_is_not_let(host: Audited) -> None:
    install(host, "auditd", "auditctl")
    found = look(host)["audit"]
    assert (found["installed"], found["running"], found["enabled"], found["watched"]) == (True, False, None, None)


def test_a_host_without_audit(host: Audited) -> None:
    assert look(host)["audit"] == {
        "installed": False,
        "running": False,
        "enabled": None,
        "watched": None,
        "watched_configured": [],
    }


def test_rules_in_one_file(host: Audited) -> None:
    host.put("/etc/audit/audit.rules", '-w "/etc/lib virt" -p wa\n-w \'unclosed\n')
    assert look(host)["audit"]["watched_configured"] == ["/etc/lib virt"]


@pytest.mark.parametrize(
    ("files", "storage"),
    [
        ({}, "auto"),
        ({"/etc/systemd/journald.conf": "[Journal]\n#Storage=auto\n"}, "auto"),
        ({"/etc/systemd/journald.conf": "[Journal]\nStorage=persistent\n"}, "persistent"),
        (
            {
                "/usr/lib/systemd/journald.conf": "[Journal]\nStorage=none\n",
                "/etc/systemd/journald.conf": "[Journal]\n",
                "/etc/systemd/journald.conf.d/20.conf": "[Journal]\nStorage=volatile\n",
                "/usr/lib/systemd/journald.conf.d/10.conf": "[Journal]\nStorage=persistent\n",
            },
            "volatile",
        ),
    ],
)
def test_where_the_journal_is_kept(host: Audited, files: dict[str, str], storage: str) -> None:
    for path, text in files.items():
        host.put(path, text)
    assert look(host)["journal"] == {"storage": storage, "persistent": False}


def test_a_clock_that_nobody_can_ask(host: Audited) -> None:
    assert look(host)["clock_synchronized"] is None


def test_the_clock_of_this_kernel_answers(tmp_path: Path) -> None:
    assert look(LibvirtHost(tmp_path))["clock_synchronized"] in (True, False)


def test_logs_that_any_user_can_read(host: Audited) -> None:
    for name, mode in (("web.log", 0o644), ("db.log", 0o600), ("empty", 0o644)):
        host.put(f"/var/log/libvirt/qemu/{name}", "" if name == "empty" else "-name guest=web\n")
        os.chmod(host.path(f"/var/log/libvirt/qemu/{name}"), mode)
    for path in ("/var", "/var/log", "/var/log/libvirt", "/var/log/libvirt/qemu"):
        os.chmod(host.path(path), 0o755)
    found = {entry["name"]: entry for entry in look(host)["directories"]}
    assert list(found) == ["/var/log/libvirt", "/var/log/libvirt/qemu"]
    assert (found["/var/log/libvirt/qemu"]["readable"], found["/var/log/libvirt/qemu"]["readable_count"]) == (
        ["web.log"],
        1,
    )
    os.chmod(host.path("/var/log/libvirt"), 0o750)
    found = {entry["name"]: entry for entry in look(host)["directories"]}
    assert (found["/var/log/libvirt"]["mode"], found["/var/log/libvirt/qemu"]["readable_count"]) == ("0750", 0)
