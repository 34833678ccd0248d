# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts on kernel same-page merging."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _info_ksm
from ansible_collections.hypervisor.hardening.plugins.module_utils._infocontext import Context
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

KSM = "/sys/kernel/mm/ksm"


@pytest.fixture
def host(tmp_path: Path) -> TreeHost:
    host = TreeHost(tmp_path)
    host.put_all(KSM, {"run": "1\n", "pages_shared": "10\n", "pages_sharing": "4711\n", "merge_across_nodes": "1\n"})
    return host


def facts(host: TreeHost) -> dict[str, t.Any]:
    return _info_ksm.facts(Context(host))


def test_ksm_at_work(host: TreeHost) -> None:
    found = facts(host)
    assert [found[key] for key in ("present", "run", "pages_shared", "pages_sharing", "merge_across_nodes")] == [
        True,
        1,
        10,
        4711,
        True,
    ]


def test_a_kernel_without_ksm(tmp_path: Path) -> None:
    found = facts(TreeHost(tmp_path))
    assert [found[key] for key in ("present", "run", "pages_sharing")] == [False, None, None]


def test_services(host: TreeHost) -> None:
    for name in ("ksm", "ksmtuned"):
        host.put(f"/usr/lib/systemd/system/{name}.service", "[Service]\nExecStart=/bin/true\n")
    host.link("/etc/systemd/system/ksm.service", "/dev/null")
    host.link(
        "/etc/systemd/system/multi-user.target.wants/ksmtuned.service", "/usr/lib/systemd/system/ksmtuned.service"
    )
    host.put("/sys/fs/cgroup/system.slice/ksmtuned.service/cgroup.procs", "812\n")
    assert facts(host)["services"] == [
        {"name": "ksm", "installed": True, "masked": True, "enabled": False, "running": False},
        {"name": "ksmtuned", "installed": True, "masked": False, "enabled": True, "running": True},
    ]


def test_what_is_no_number_is_said(host: TreeHost) -> None:
    host.put(f"{KSM}/run", "on\n")
    found = facts(host)
    assert found["run"] is None
    assert found["unread"] == [{"path": f"{KSM}/run", "reason": "holds no number: 'on'"}]
