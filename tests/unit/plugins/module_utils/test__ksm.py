# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of kernel same-page merging."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.module_utils import _ksm
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._kernelvalues import KernelError
from ansible_collections.hypervisor.hardening.plugins.module_utils._ksm import Ksm
from ansible_collections.hypervisor.hardening.plugins.module_utils._reader import Reader
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernelhost import KSM, KernelHost
from ansible_collections.hypervisor.hardening.tests.unit.plugins.treehost import TreeHost

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.fixture
def host(tmp_path: Path) -> KernelHost:
    host = KernelHost(tmp_path)
    host.put_all(KSM, {"run": "1\n", "pages_shared": "10\n", "pages_sharing": "1000\n"})
    return host


def read(host: KernelHost) -> Ksm:
    return _ksm.read(Reader(host))


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 20), st.integers(0, 1 << 42))
def test_merged_pages_need_memory_that_is_there(sharing: int, zero: int, available: int) -> None:
    ksm = Ksm(True, 1, 1, sharing, zero, True, ())
    fits = (sharing + zero) * PAGE_KIB <= available
    assert _ksm.plan(ksm, available, without_headroom=True)
    if fits:
        assert _ksm.plan(ksm, available, without_headroom=False)
    else:
        with pytest.raises(KernelError, match="so the kernel would kill guests"):
            _ksm.plan(ksm, available, without_headroom=False)


def test_the_refusal_has_the_figures() -> None:
    with pytest.raises(KernelError) as refused:
        _ksm.plan(Ksm(True, 0, 1, 1000, 0, True, ()), 1000 * PAGE_KIB - 1, without_headroom=False)
    assert refused.value.facts == {"needed_kib": 1000 * PAGE_KIB, "available_kib": 1000 * PAGE_KIB - 1}


@pytest.mark.parametrize(
    ("run", "sharing", "off"), [(0, 0, True), (1, 0, False), (2, 0, False), (0, 5, False), (1, 5, False)]
)
def test_stopped_is_not_taken_apart(run: int, sharing: int, off: bool) -> None:
    # Documentation/admin-guide/mm/ksm.rst: 0 stops ksmd but keeps what is merged
    step = _ksm.plan(Ksm(True, run, 0, sharing, None, True, ()), 1 << 30, without_headroom=False)
    assert (step is None) is off


def test_a_kernel_without_ksm(tmp_path: Path) -> None:
    found = _ksm.read(Reader(TreeHost(tmp_path)))
    assert not found.present
    assert _ksm.plan(found, 0, without_headroom=False) is None


def test_it_is_taken_apart_and_stays_off(host: KernelHost) -> None:
    host.put("/usr/lib/systemd/system/ksmtuned.service", "[Service]\n")
    host.put("/sys/fs/cgroup/system.slice/ksmtuned.service/cgroup.procs", "4711\n")
    host.put("/etc/systemd/system/.keep")
    host.answers |= {"systemctl stop -- ksmtuned.service": "", "systemctl daemon-reload": ""}
    step = _ksm.plan(read(host), 1 << 30, without_headroom=False)
    assert step
    assert str(step) == "KSM is 1 instead of 0; ksmtuned.service is not masked"
    _ksm.apply(host, step, Journal(host, by="test"))
    found = read(host)
    assert found.off
    assert _ksm.plan(found, 0, without_headroom=False) is None
    assert host.readlink("/etc/systemd/system/ksmtuned.service") == "/dev/null"
    assert host.calls == ["systemctl stop -- ksmtuned.service", "systemctl daemon-reload"]
    assert [(one.kind, one.target, one.before, one.after) for one in Journal(host, by="").entries()] == [
        ("value", "unit:ksmtuned.service", "active", "inactive"),
        ("value", "link:/etc/systemd/system/ksmtuned.service", None, "/dev/null"),
        ("value", f"{KSM}/run", "1", "0"),
    ]


def test_a_service_of_the_hosts_own_is_refused(host: KernelHost) -> None:
    host.put("/etc/systemd/system/ksm.service", "[Service]\n")
    with pytest.raises(KernelError, match=r"^/etc/systemd/system/ksm\.service turns KSM on at boot"):
        _ksm.plan(read(host), 1 << 30, without_headroom=False)


def test_a_kernel_that_cannot_take_it_apart(host: KernelHost) -> None:
    step = _ksm.plan(read(host), 1 << 30, without_headroom=False)
    assert step
    host.refused[f"{KSM}/run"] = 12  # ENOMEM
    with pytest.raises(KernelError, match=r"did not take all merged pages apart \(Cannot allocate memory\)"):
        _ksm.apply(host, step, Journal(host, by="test"))
