# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux from a tree of fixtures and a played /sys/fs/selinux/access: no kernel of ours has it.

The kernel's answer is that of security/selinux/selinuxfs.c, sel_write_access: allowed, all ones, auditallow, auditdeny,
sequence number, flags.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _selinux
from ansible_collections.hypervisor.hardening.tests.unit.plugins.selinuxes import SelinuxHost


@pytest.fixture
def host(tmp_path: Path) -> SelinuxHost:
    return SelinuxHost(tmp_path)


def test_the_configuration(host: SelinuxHost) -> None:
    assert _selinux.configured(host) == {"SELINUX": "enforcing", "SELINUXTYPE": "targeted"}
    os.unlink(host.path("/etc/selinux/config"))
    assert _selinux.configured(host) == {}


def test_a_comment_configures_nothing(host: SelinuxHost) -> None:
    host.put("/etc/selinux/config", "# SELINUX=enforcing\n SELINUX = Permissive # for now\n")
    assert _selinux.configured(host) == {"SELINUX": "permissive"}


def test_booleans_of_guests(host: SelinuxHost) -> None:
    host.boolean("virt_use_nfs", running=True)
    host.boolean("virt_use_usb", running=False)
    host.boolean("staff_use_svirt", running=False)
    host.boolean("httpd_use_nfs", running=True)
    host.put("/var/lib/selinux/targeted/active/booleans.local", "# by hand\nvirt_use_usb=1\nvirt_use_nfs = 0\n")
    assert _selinux.booleans(host, "targeted") == [
        {"name": "staff_use_svirt", "running": False, "configured": ""},
        {"name": "virt_use_nfs", "running": True, "configured": "off"},
        {"name": "virt_use_usb", "running": False, "configured": "on"},
    ]


def test_types_that_the_policy_has(host: SelinuxHost) -> None:
    host.types = {"svirt_t": 0, "virtlogd_t": 1, "httpd_t": 1}
    assert _selinux.types(host) == [
        {"name": "svirt_t", "permissive": False},
        {"name": "virtlogd_t", "permissive": True},
    ]
    context = "system_u:system_r:svirt_t:s0"
    assert (f"{_selinux.FILESYSTEM}/access", f"{context} {context} 2") in host.asked


def test_a_policy_without_levels(host: SelinuxHost) -> None:
    host.types = {"svirt_t": 0}
    host.put("/sys/fs/selinux/mls", "0")
    assert [entry["name"] for entry in _selinux.types(host)] == ["svirt_t"]
    assert all(question.split()[0].count(":") == 2 for _path, question in host.asked)


def test_a_kernel_that_does_not_answer(host: SelinuxHost) -> None:
    host.refusal = errno.EACCES
    with pytest.raises(PermissionError):
        _selinux.types(host)
