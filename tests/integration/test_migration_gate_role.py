# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate as the playbook migration puts it up on hosts that agree, tightens it, and takes it away."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, migration, playbooks

QEMU = (64055, 64055)
ROOT = (0, 0)
CONF = "/etc/libvirt/qemu.conf"
HOOKS = "/etc/libvirt/hooks"
AS_ROOT = b'user = "root"\ngroup = "root"\n'


class Pair(t.NamedTuple):
    source: rig.Host
    there: rig.Host


@pytest.fixture(scope="module")
def pair() -> t.Iterator[Pair]:
    with (
        rig.host("bookworm", "role-source", shared=True) as source,
        rig.host("bookworm", "role-there", shared=True) as there,
    ):
        migration.listen(source)
        migration.listen(there)
        yield Pair(source, there)


def playbook(pair: Pair, gate: str, *flags: str) -> playbooks.Run:
    """The playbook, with the mode as a survey sends it."""
    names = ",".join(host.name for host in pair)
    variables = {"hypervisor_hosts": names, "hypervisor_migration_gate": gate}
    return playbooks.play("migration", pair.source.inventory, "--limit", names, *flags, variables=variables)


def hooks(host: rig.Host) -> str:
    return host.run(["find", HOOKS, "-mindepth", "1", "-not", "-path", "*/__pycache__*"], check=False).stdout


def test_from_warn_to_enforce_and_away(pair: Pair) -> None:
    there = pair.there
    before = hooks(there)
    guests.start(there, guests.Guest("resident"))
    resident = guests.pid(there, "resident")

    first = playbook(pair, "warn", "--check")
    assert first.rc == 0, first.text
    assert hooks(there) == before

    first = playbook(pair, "warn")
    assert first.rc == 0, first.text
    assert [one["restarted"] for one in first.results("daemon_restart")] == [["libvirtd.service"]] * 2
    again = playbook(pair, "warn")
    assert (again.rc, again.changed) == (0, []), again.text
    assert [one["armed"] for one in again.results("migration_gate")] == [True, True]

    enforced = playbook(pair, "enforce")
    assert enforced.rc == 0, enforced.text
    assert enforced.results("daemon_restart") == []
    path = guests.disk(pair.source, f"{migration.SHARED}/victim.img")
    guests.start(pair.source, guests.linux("victim", "rig.write", disks=[path]))
    guests.wait_for_console(pair.source, "victim", "rig: wrote 5")

    agreed = there.get(CONF)
    there.put(CONF, AS_ROOT + agreed)
    guests.restart_libvirtd(there)
    guests.virsh(there, "uri")
    with migration.owners(pair.source, path) as seen:
        refused = migration.migrate(pair.source, there, "victim")
    assert refused.returncode != 0
    assert "victim may not come to role-there: qemu_uid is 0 here, agreed is 64055" in refused.stderr
    assert seen == [QEMU]
    migration.verify_pattern(pair.source, "victim", path)

    # Now nobody is in the majority: the play says so, and the gate keeps to what was agreed.
    undecided = playbook(pair, "enforce")
    assert undecided.rc != 0
    assert "Choose one in hypervisor_migration_agreement" in undecided.text
    assert migration.migrate(pair.source, there, "victim").returncode != 0

    there.put(CONF, agreed)
    guests.restart_libvirtd(there)
    guests.virsh(there, "uri")
    come = migration.migrate(pair.source, there, "victim")
    assert come.returncode == 0, come.stderr
    migration.verify_pattern(there, "victim", path)

    away = playbook(pair, "off")
    assert away.rc == 0, away.text
    assert hooks(there) == before
    assert guests.pid(there, "resident") == resident
