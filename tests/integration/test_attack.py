# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile tenant, a careless operator or an odd host do to a run, on real libvirt."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, playbooks

CONF = "/etc/libvirt/qemu.conf"
# Markup, quotes, a template, format strings, QEMU's own comma, a direction mark: libvirt takes them all.
NAMES = ["<b>&amp;", "quo'te\"s", "{{ lookup('pipe', 'id') }}", "com,ma=%s", "right\u202eleft", "sp ace"]


@pytest.fixture
def host() -> t.Iterator[rig.Host]:
    with rig.host("trixie") as fresh:
        yield fresh


def define(host: rig.Host, name: str) -> None:
    host.run(["virsh", "create", "/dev/stdin"], stdin=guests.Guest(name).xml().encode())


def test_guests_with_hostile_names_are_all_told_as_they_are(host: rig.Host) -> None:
    for name in NAMES:
        define(host, name)
    wanted = {"hypervisor_qemu_settings": {"max_files": 4321}}

    waiting = playbooks.play("harden", host.inventory, variables={**wanted, "hypervisor_restart": False})
    assert waiting.rc == 0, waiting.text
    (configured,) = waiting.results("qemu_conf")
    assert configured["guests_pending"] == sorted(NAMES)
    assert "not in force before a restart of libvirtd.service" in waiting.text

    loaded = playbooks.play("harden", host.inventory, variables=wanted)
    assert loaded.rc == 0, loaded.text
    (restarted,) = loaded.results("daemon_restart")
    assert [(guest["name"], guest["same"]) for guest in restarted["guests"]] == [(name, True) for name in sorted(NAMES)]
    assert "not in force" not in loaded.text

    verified = playbooks.play("verify", host.inventory)
    (seen,) = verified.results("guest_confinement_info")
    assert [guest["name"] for guest in seen["guests"]] == sorted(NAMES)
    (failure,) = verified.failed
    # What would turn the line around for a reader is shown, not done.
    shown = {name.replace("\u202e", r"\u202e") for name in NAMES}
    assert {line.split(" (pid ")[0] for line in failure.result["msg"]} == shown, "nothing is taken for a template"


def test_another_user_than_root_learns_nothing_that_is_not_so(host: rig.Host) -> None:
    host.run(["useradd", "--create-home", "deputy"])
    host.run(["cp", "--recursive", "/root/.ssh", "/home/deputy/"])
    host.run(["chown", "--recursive", "deputy", "/home/deputy/.ssh"])
    host.run(["virsh", "define", "/dev/stdin"], stdin=_with_tap("holder").encode())
    host.run(["ip", "tuntap", "add", "dev", "tap-taken", "mode", "tap"])
    play = [
        {
            "hosts": "hypervisors",
            "gather_facts": False,
            "ignore_errors": True,
            "vars": {"ansible_user": "deputy"},
            "tasks": [{f"hypervisor.hardening.{module}": {}} for module in ("tap_guard", "guest_confinement_info")],
        }
    ]
    run = playbooks.play(play, host.inventory)
    assert len(run.failed) == 2, run.text
    assert all("Set become: true" in task.result["msg"] for task in run.failed)


def _with_tap(name: str) -> str:
    return guests.Guest(name, interfaces=[guests.ethernet("tap-taken")]).xml()


def test_a_journal_that_another_user_owns_is_not_believed(host: rig.Host) -> None:
    before = host.get(CONF)
    host.run(["mkdir", "-p", "/var/lib/hypervisor-hardening/journal"])
    host.run(["chown", "nobody", "/var/lib/hypervisor-hardening/journal"])
    refused = playbooks.play("harden", host.inventory, "--tags", "qemu")
    (failure,) = refused.failed
    assert "/var/lib/hypervisor-hardening/journal is no place for the journal" in failure.result["msg"]
    assert host.get(CONF) == before
