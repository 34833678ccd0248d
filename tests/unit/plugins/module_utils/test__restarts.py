# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several daemons one after the other, on played ones: each judged first, each put back by itself."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _restarts as room
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.plugins.module_utils._libvirtd import LibvirtError
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost, ticks_now

LIBVIRTD_CONF = "/etc/libvirt/libvirtd.conf"
VIRTLOGD_CONF = "/etc/libvirt/virtlogd.conf"


@pytest.fixture
def host(tmp_path: Path) -> LibvirtHost:
    played = LibvirtHost(tmp_path)
    played.daemon(77, 500)
    played.put("/usr/sbin/virtlogd")
    played.daemon(90, 400, name="virtlogd")
    played.put("/proc/90/auxv", "first")
    played.guest("web1", 100, 1000)
    return played


def through(host: LibvirtHost, units: t.Sequence[str] | None) -> tuple[dict[str, t.Any], tuple[str, ...]]:
    """The result of a run, and what a second look would do."""
    wanted = room.Wanted(since=ticks_now(), timeout=0.5, units=units)
    plan = room.plan(room.observe(host, wanted), wanted)
    room.check(host, plan)
    host.calls.clear()
    room.apply(host, plan, Journal(host, by="test"))
    state = room.observe(host, wanted)
    return room.result(state, plan), room.plan(state, wanted).changes


def test_by_default_it_is_the_one_that_drives_qemu(host: LibvirtHost) -> None:
    done, left = through(host, None)
    assert (done["restarted"], left) == (["libvirtd.service"], ())


def test_one_after_the_other_in_their_order(host: LibvirtHost) -> None:
    done, left = through(host, ["virtlogd", "libvirtd.service", "virtlogd.service"])
    assert (done["restarted"], left) == (["virtlogd.service", "libvirtd.service"], ())
    assert [guest["same"] for guest in done["guests"]] == [True]
    assert host.calls == [
        "systemctl reset-failed virtlogd.service",
        "systemctl kill --kill-who=main --signal=USR1 virtlogd.service",
        "virt-admin --connect virtlogd:///system server-list",
        "systemctl reset-failed libvirtd.service",
        "systemctl restart libvirtd.service",
        "virsh --connect qemu:///system?mode=legacy uri",
    ]


def test_nothing_to_restart(host: LibvirtHost) -> None:
    assert through(host, []) == ({"restarted": [], "rolled_back": False, "guests": []}, ())


def test_what_a_daemon_beside_libvirtd_has_loaded_is_remembered(host: LibvirtHost) -> None:
    journal = Journal(host, by="test")
    journal.record_file(VIRTLOGD_CONF, b"max_clients = 5\n")
    host.put(VIRTLOGD_CONF, "max_clients = 5\n")
    through(host, ["virtlogd"])
    assert journal.unproven(VIRTLOGD_CONF) is None


def test_one_that_is_idle_is_started(host: LibvirtHost) -> None:
    os.unlink(host.path("/run/virtlogd.pid"))
    through(host, ["virtlogd"])
    assert "systemctl restart virtlogd.service" in host.calls


@pytest.mark.parametrize(("unit", "path"), [("libvirtd.service", LIBVIRTD_CONF), ("virtlogd.service", VIRTLOGD_CONF)])
def test_each_gets_its_own_file_back(host: LibvirtHost, unit: str, path: str) -> None:
    Journal(host, by="test").record_file(path, b"log_filters = 'broken'\n")
    host.put(path, "log_filters = 'broken'\n")
    with pytest.raises(LibvirtError, match=f"Put back: {path}") as failed:
        through(host, [unit])
    assert failed.value.facts["rolled_back"] is True
    assert not host.exists(path)
    assert host.exists(f"/run/{unit.partition('.')[0]}.pid"), "it runs again"


def test_the_first_that_fails_ends_it(host: LibvirtHost) -> None:
    host.put(VIRTLOGD_CONF, "log_filters = 'broken'\n")
    with pytest.raises(LibvirtError, match="nothing to undo") as failed:
        through(host, ["libvirtd", "virtlogd"])
    assert failed.value.facts["restarted"] == ["libvirtd.service", "virtlogd.service"]
    with pytest.raises(LibvirtError):
        through(host, ["virtlogd", "libvirtd"])
    assert "systemctl restart libvirtd.service" not in host.calls


def test_all_are_judged_before_the_first_restart(host: LibvirtHost) -> None:
    host.put(VIRTLOGD_CONF, "max_clients = [ 1\n")
    with pytest.raises(LibvirtError, match=VIRTLOGD_CONF):
        through(host, ["libvirtd", "virtlogd"])
    assert "systemctl restart libvirtd.service" not in host.calls


@pytest.mark.parametrize(
    ("unit", "words"),
    [("sshd.service", "sshd: no such daemon of libvirt"), ("virtqemud", "virtqemud is not installed on this host")],
)
def test_units_that_are_refused(host: LibvirtHost, unit: str, words: str) -> None:
    with pytest.raises(LibvirtError, match=words):
        through(host, ["libvirtd", unit])
