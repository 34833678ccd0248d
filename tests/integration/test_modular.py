# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose libvirt runs as modular daemons: virtqemud is what drives QEMU, and nothing else is restarted."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, modules, playbooks
from rig.confinement import WITHOUT_MAC, confined, start_ticks

CONF = "/etc/libvirt/qemu.conf"
WEAK = b"""
user = "root"
namespaces = []
seccomp_sandbox = 0
"""
SWITCHES: dict[str, t.Any] = {
    "hypervisor_level": "strict",
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
}
# https://libvirt.org/daemons.html
DRIVERS = ("qemu", "network", "storage", "secret", "nodedev", "nwfilter", "interface")
SERVICES = tuple(f"{name}.service" for name in (*(f"virt{driver}d" for driver in DRIVERS), "virtproxyd", "virtlogd"))
# The driver makes directories there when it starts. libvirt's own check passes: it makes them elsewhere.
FROZEN = "/srv/frozen"


@pytest.fixture
def host() -> t.Iterator[rig.Host]:
    with rig.host("modular-trixie") as fresh:
        # An idle daemon ends after two minutes by itself, which is not what is looked for here.
        for driver in DRIVERS:
            fresh.put(f"/etc/default/virt{driver}d", f"VIRT{driver.upper()}D_ARGS=\n".encode())
        fresh.put("/etc/default/virtproxyd", b"VIRTPROXYD_ARGS=\n")
        fresh.run(["systemctl", "stop", *SERVICES[:-1]])
        yield fresh


@pytest.fixture
def guest(host: rig.Host) -> t.Iterator[int]:
    """The pid of a running guest, weak where the test makes it so, which must be the same process afterwards."""
    host.put(CONF, host.get(CONF) + WEAK, mode=0o600)
    host.run(["mount", "--make-rprivate", "/"])
    host.run(["systemctl", "restart", "virtqemud.service"])
    pid = guests.start(host, guests.Guest("throughout"))
    ticks = start_ticks(host, pid)
    yield pid
    assert guests.running(host)[0] == "throughout"
    assert (guests.pid(host, "throughout"), start_ticks(host, pid)) == (pid, ticks)


def processes(host: rig.Host) -> dict[str, str]:
    """The main process of each daemon; all are woken first."""
    for uri in ("qemu:///system", "network:///system", "storage:///system", "secret:///system", "nodedev:///system"):
        host.run(["virsh", "-c", uri, "uri"])
    host.run(["virsh", "-c", "qemu:///system?mode=legacy", "uri"])
    asked = ["systemctl", "show", "--property=MainPID", "--value", *SERVICES]
    return dict(zip(SERVICES, host.run(asked).stdout.split(), strict=True))


def test_virtqemud_is_what_drives_qemu_here(host: rig.Host) -> None:
    facts = modules.call(host, "hypervisor_info")["hypervisor"]
    assert facts["libvirt"]["layout"] == "modular"
    assert facts["libvirt"]["daemon"] == "virtqemud"


def test_harden_restarts_virtqemud_and_nothing_else(host: rig.Host, guest: int) -> None:
    assert not confined(host, guest)["user"]
    before = processes(host)
    assert before["virtqemud.service"] != "0"
    assert before["virtproxyd.service"] != "0"
    checked = playbooks.play("harden", host.inventory, "--check", "--diff", variables=SWITCHES)
    assert checked.rc == 0, checked.text
    assert processes(host) == before

    first = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert first.rc == 0, first.text
    assert [result["restarted"] for result in first.results("daemon_restart")] == [["virtqemud.service"]]
    assert first.results("qemu_conf")[0]["guests_pending"] == ["throughout"]
    now = processes(host)
    assert now["virtqemud.service"] != before["virtqemud.service"]
    assert {**now, "virtqemud.service": ""} == {**before, "virtqemud.service": ""}
    second = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert (second.rc, second.changed) == (0, []), second.text
    assert processes(host) == now

    facts = confined(host, guests.start(host, guests.Guest("after")))
    assert all(facts.values()), facts
    failed = playbooks.play("verify", host.inventory, variables={"hypervisor_verify_fail_on": WITHOUT_MAC}).failed
    assert {line.split(" ")[0] for line in failed[0].result["msg"] if "(pid" in line} == {"throughout"}
    audited = playbooks.play("audit", host.inventory)
    assert (audited.rc, audited.changed) == (0, []), audited.text


def test_what_keeps_virtqemud_down_is_rolled_back(host: rig.Host, guest: int) -> None:
    before, others = host.get(CONF), processes(host)
    host.run(["sh", "-c", f"mkdir {FROZEN} && chattr +i {FROZEN}"])
    try:
        written = modules.call(host, "qemu_conf", settings={"memory_backing_dir": FROZEN})
        assert written["restart_units"] == ["virtqemud.service"]
        failed = modules.call(host, "daemon_restart")
    finally:
        host.run(["chattr", "-i", FROZEN])
    assert (failed["failed"], failed["rolled_back"], failed["restarted"]) == (True, True, ["virtqemud.service"])
    # The words are those of libvirt's own log.
    assert f"Failed to create memory backing dir {FROZEN}/libvirt/qemu: Operation not permitted" in failed["msg"]
    assert [one["same"] for one in failed["guests"]] == [True]
    assert host.get(CONF) == before
    sockets = ["virtqemud.socket", "virtqemud-ro.socket", "virtqemud-admin.socket"]
    assert host.run(["systemctl", "is-active", *sockets]).stdout.split() == ["active"] * 3
    assert {**processes(host), "virtqemud.service": ""} == {**others, "virtqemud.service": ""}


def test_an_idle_virtqemud_reads_its_configuration_by_itself(host: rig.Host) -> None:
    host.run(["systemctl", "stop", "virtqemud.service"])
    run = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert run.rc == 0, run.text
    assert all(confined(host, guests.start(host, guests.Guest("after"))).values())
    second = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert (second.rc, second.changed) == (0, []), second.text


def test_the_layout_survives_a_reboot_and_is_never_mixed(host: rig.Host) -> None:
    assert playbooks.play("harden", host.inventory, variables=SWITCHES).rc == 0
    host.reboot()
    assert host.run(["systemctl", "is-active", "libvirtd.service", "libvirtd.socket"], check=False).stdout.split() == [
        "inactive",
        "inactive",
    ]
    assert playbooks.play("harden", host.inventory, variables=SWITCHES).changed == []
    assert all(confined(host, guests.start(host, guests.Guest("after"))).values())
