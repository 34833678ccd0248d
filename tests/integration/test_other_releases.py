# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on the release before those that everything else is tried on, and on the one after: libvirt 7.0, 12."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, playbooks
from rig.confinement import WITHOUT_MAC, confined, start_ticks

CONF = "/etc/libvirt/qemu.conf"
WEAK = b"""
user = "root"
namespaces = []
seccomp_sandbox = 0
cgroup_controllers = [ "cpu", "memory" ]
"""
SWITCHES: dict[str, t.Any] = {
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    "hypervisor_qemu_settings": {"cgroup_controllers": None},
}
LIBVIRT = {"bullseye": "7.0.", "forky": "12."}


@pytest.fixture(params=LIBVIRT)
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        yield fresh


@pytest.mark.parametrize("level", ["baseline", "strict"])
def test_harden_from_weak_to_proven(host: rig.Host, level: str) -> None:
    version = guests.virsh(host, "version", "--daemon").split("Running against daemon: ")[1]
    assert version.startswith(LIBVIRT[host.release])
    host.put(CONF, host.get(CONF) + WEAK, mode=0o600)
    host.run(["mount", "--make-rprivate", "/"])
    guests.restart_libvirtd(host)
    pid = guests.start(host, guests.Guest("before"))
    ticks = start_ticks(host, pid)
    assert not confined(host, pid)["user"]

    variables = {"hypervisor_level": level, **SWITCHES}
    checked = playbooks.play("harden", host.inventory, "--check", "--diff", variables=variables)
    assert checked.rc == 0, checked.text
    first = playbooks.play("harden", host.inventory, variables=variables)
    assert first.rc == 0, first.text
    assert first.results("qemu_conf")[0]["guests_pending"] == ["before"]
    second = playbooks.play("harden", host.inventory, variables=variables)
    assert (second.rc, second.changed) == (0, []), second.text
    assert (guests.pid(host, "before"), start_ticks(host, pid)) == (pid, ticks)

    after = guests.start(host, guests.Guest("after"))
    facts = confined(host, after)
    assert all(value for fact, value in facts.items() if fact != "core" or level == "strict"), facts
    guests.stop(host, "before")
    verified = playbooks.play("verify", host.inventory, variables={"hypervisor_verify_fail_on": WITHOUT_MAC})
    assert verified.rc == 0, verified.text
    audited = playbooks.play("audit", host.inventory)
    assert (audited.rc, audited.changed) == (0, []), audited.text


def test_a_guest_on_huge_pages_outlives_a_second_place_for_them(host: rig.Host) -> None:
    """libvirt 7.0 makes and labels a guest's directory in each place when it finds the guest again, and kills a guest
    for which that fails (qemuProcessReconnect). Here it fails in the guest's mount namespace, and goes on outside."""
    free = int(host.run(["cat", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"]).stdout)
    host.run(["sysctl", "-q", f"vm.nr_hugepages={free + 64}"])
    host.run(["mount", "--make-rprivate", "/"])
    guests.restart_libvirtd(host)
    pid = guests.start(host, guests.Guest("before", hugepages_kib=2048))
    ticks = start_ticks(host, pid)
    pool = {"size": "2M", "pages": free + 128, "path": "/hugepages2m"}
    run = playbooks.play("harden", host.inventory, variables={**SWITCHES, "hypervisor_hugepages_pools": [pool]})
    assert guests.running(host) == ["before"], run.text
    assert (guests.pid(host, "before"), start_ticks(host, pid)) == (pid, ticks)
    assert run.rc == 0, run.text
