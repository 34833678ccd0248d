# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks harden and verify on real hypervisors with real guests. What holds is read from /proc, not from us."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import time
import typing as t

import pytest
import rig
import yaml
from rig import guests, playbooks
from rig.confinement import confined, start_ticks

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
LIST_FILES = (
    r"find /etc /var/lib -xdev -type f -exec sha256sum {} +; find /etc /var/lib -xdev -printf '%p %m %U %G %C@\n'"
)


@pytest.fixture(params=["bookworm", "trixie"])
def host(request: pytest.FixtureRequest) -> t.Iterator[rig.Host]:
    with rig.host(request.param) as fresh:
        yield fresh


def weaken(host: rig.Host) -> None:
    host.put(CONF, host.get(CONF) + WEAK, mode=0o600)
    host.run(["mount", "--make-rprivate", "/"])
    guests.restart_libvirtd(host)


def state(host: rig.Host) -> dict[str, str]:
    """What a hardening could change: every file below /etc and /var/lib, mounts, links, the daemon."""
    files = host.run(["sh", "-c", LIST_FILES])
    mounts = host.run(["findmnt", "-r", "-n", "-o", "TARGET,SOURCE,FSTYPE,PROPAGATION,OPTIONS"]).stdout.splitlines()
    links = host.run(["ip", "-d", "-o", "link"])
    daemon = host.run(["systemctl", "show", "-p", "MainPID", "libvirtd.service"])
    return {
        "files": files.stdout,
        # A session over ssh brings its own with it.
        "mounts": "\n".join(
            sorted(line for line in mounts if not line.startswith(("/run/user/", "/run/credentials/")))
        ),
        "links": links.stdout,
        "pid": daemon.stdout,
    }


def test_harden_from_weak_to_proven(host: rig.Host) -> None:
    weaken(host)
    pid = guests.start(host, guests.Guest("before"))
    ticks = start_ticks(host, pid)
    assert not any(value for fact, value in confined(host, pid).items() if fact not in ("no_new_privs", "core"))

    untouched = state(host)
    checked = playbooks.play(
        "harden", host.inventory, "--check", "--diff", variables={"hypervisor_level": "strict", **SWITCHES}
    )
    assert checked.rc == 0, checked.text
    assert checked.changed
    assert state(host) == untouched
    removed = [line for line in checked.text.splitlines() if re.sub(r"\x1b\[[0-9;]*m", "", line).startswith("-user")]
    assert removed, "the diff shows what would go"

    first = playbooks.play("harden", host.inventory, variables={"hypervisor_level": "strict", **SWITCHES})
    assert first.rc == 0, first.text
    assert len(first.results("daemon_restart")) == 1, "restarted once"
    assert first.results("qemu_conf")[0]["guests_pending"] == ["before"]
    assert (guests.pid(host, "before"), start_ticks(host, pid)) == (pid, ticks)

    hardened = state(host)
    second = playbooks.play("harden", host.inventory, variables={"hypervisor_level": "strict", **SWITCHES})
    assert (second.rc, second.changed) == (0, []), second.text
    assert state(host) == hardened
    assert second.results("qemu_conf")[0]["guests_pending"] == ["before"], "still pending"

    after = guests.start(host, guests.Guest("after"))
    facts = confined(host, after)
    assert all(facts.values()), facts

    verified = playbooks.play("verify", host.inventory, variables={"hypervisor_level": "strict"})
    (failure,) = verified.failed
    lines = failure.result["msg"]
    assert any(line.startswith(f"before (pid {pid}): runs_as_root: ") for line in lines)
    assert any(line.startswith("before") and "older_than_configuration" in line for line in lines)
    assert {line.split(": ")[1] for line in lines if line.startswith("after")} <= {"no_mac"}

    guests.stop(host, "before")
    proven = [weakness for weakness in _all_weaknesses() if weakness != "no_mac"]
    assert playbooks.play("verify", host.inventory, variables={"hypervisor_verify_fail_on": proven}).rc == 0


def _all_weaknesses() -> list[str]:
    names = pathlib.Path(__file__).parents[2] / "roles/hypervisor_verify/vars/main.yml"
    return t.cast("list[str]", yaml.safe_load(names.read_text(encoding="utf-8"))["__hypervisor_verify_weaknesses"])


@pytest.mark.parametrize("path", ["/dev/hugepages", "/hugepages2m"])
def test_memory_is_hot_plugged_after_harden(host: rig.Host, path: str) -> None:
    host.run(["systemctl", "stop", "dev-hugepages.mount"])
    host.run(["mount", "--make-rprivate", "/"])
    guests.restart_libvirtd(host)
    free = int(host.run(["cat", "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"]).stdout)
    pool = {"size": "2M", "pages": free + 64, "path": path}
    guests.start(host, guests.Guest("before", max_memory_mib=1024))
    variables = {**SWITCHES, "hypervisor_hugepages_pools": [pool]}
    checked = playbooks.play("harden", host.inventory, "--check", variables=variables)
    assert checked.rc == 0, checked.text
    run = playbooks.play("harden", host.inventory, variables=variables)
    assert run.rc == 0, run.text
    assert len(run.results("daemon_restart")) == 1
    with pytest.raises(rig.RigError):
        guests.attach(host, "before", guests.dimm(128, hugepages_kib=2048))
    guests.start(host, guests.Guest("after", max_memory_mib=1024))
    guests.attach(host, "after", guests.dimm(128, hugepages_kib=2048))
    again = playbooks.play("harden", host.inventory, variables=variables)
    assert (again.rc, again.changed) == (0, []), again.text


@pytest.fixture
def trixie() -> t.Iterator[rig.Host]:
    with rig.host("trixie") as fresh:
        yield fresh


def test_a_survey_sends_strings(trixie: rig.Host) -> None:
    strings = {
        "hypervisor_level": "hardened",
        "hypervisor_restart": "true",
        "hypervisor_install": "false",
        "hypervisor_hugepages_enabled": "false",
        "hypervisor_verify_enabled": "False",
        "hypervisor_qemu_seccomp": "true",
        "hypervisor_qemu_mount_namespace": "no",
        "hypervisor_mounts_persist": "true",
    }
    run = playbooks.play("harden", trixie.inventory, variables=strings)
    assert run.rc == 0, run.text
    assert "seccomp_sandbox = 1" in trixie.get(CONF).decode().splitlines()
    assert run.results("guest_confinement_info") == []


def test_a_switch_that_is_no_boolean_is_refused_before_anything_changes(trixie: rig.Host) -> None:
    before = trixie.get(CONF)
    run = playbooks.play("harden", trixie.inventory, variables={"hypervisor_qemu_seccomp": "perhaps"})
    assert run.rc != 0
    assert trixie.get(CONF) == before


def test_keys_managed_elsewhere_are_left_alone_and_a_misspelt_one_is_refused(trixie: rig.Host) -> None:
    before = trixie.get(CONF)
    variables = {"hypervisor_level": "strict", "hypervisor_managed_elsewhere": "stdio_handler, max_cor"}
    run = playbooks.play("harden", trixie.inventory, "--tags", "qemu", variables=variables)
    assert "max_cor is no key" in run.failed[0].result["msg"]
    assert "Did you mean max_core" in run.failed[0].result["msg"]
    assert trixie.get(CONF) == before
    variables["hypervisor_managed_elsewhere"] = "stdio_handler, max_core"
    run = playbooks.play("harden", trixie.inventory, "--tags", "qemu", variables=variables)
    assert run.rc == 0, run.text
    lines = trixie.get(CONF).decode().splitlines()
    assert "dump_guest_core = 0" in lines
    assert not [line for line in lines if line.startswith(("stdio_handler", "max_core"))]
    told = next(task.result["msg"] for task in run.tasks if task.name == "Tell which keys were left alone")
    assert told == ["max_core: managed elsewhere", "stdio_handler: managed elsewhere"]


def test_started_at_a_later_task(trixie: rig.Host) -> None:
    before = trixie.get(CONF)
    late = "'--start-at-task=Write qemu.conf'"
    run = playbooks.play("harden", trixie.inventory, late)
    assert "Run the playbook from its first task" in run.failed[0].result["msg"]
    assert trixie.get(CONF) == before
    play = [{"hosts": "hypervisors", "gather_facts": False, "roles": ["hypervisor.hardening.hypervisor_qemu"]}]
    run = playbooks.play(play, trixie.inventory, late)
    assert run.rc == 0, run.text
    assert trixie.get(CONF) != before
    restart = "'--start-at-task=Restart libvirt over the new configuration'"
    run = playbooks.play(play, trixie.inventory, restart)
    assert (run.rc, len(run.results("daemon_restart"))) == (0, 1), run.text


def test_tags_run_their_topic_alone(trixie: rig.Host) -> None:
    before = trixie.get(CONF)
    run = playbooks.play("harden", trixie.inventory, "--tags", "mounts", variables=SWITCHES)
    assert (run.rc, len(run.results("mount_propagation")), run.results("qemu_conf")) == (0, 1, [])
    assert trixie.get(CONF) == before
    run = playbooks.play("harden", trixie.inventory, "--tags", "qemu", variables=SWITCHES)
    assert (run.rc, len(run.results("qemu_conf")), len(run.results("daemon_restart"))) == (0, 1, 1)


def test_serial_one_over_two_hosts() -> None:
    with rig.host("bookworm") as first, rig.host("trixie") as second:
        play = [
            {"hosts": "hypervisors", "gather_facts": False, "serial": 1, "roles": ["hypervisor.hardening.hypervisor"]}
        ]
        run = playbooks.play(play, second.inventory, variables=SWITCHES)
        assert run.rc == 0, run.text
        assert {task.host for task in run.tasks} == {first.name, second.name}


def test_a_host_without_libvirt_is_left_alone(trixie: rig.Host) -> None:
    trixie.run(
        [
            "systemctl",
            "disable",
            "--now",
            "libvirtd.service",
            "libvirtd.socket",
            "libvirtd-ro.socket",
            "libvirtd-admin.socket",
        ]
    )
    trixie.run(["mv", "/usr/sbin/libvirtd", "/root/"])
    before = state(trixie)
    run = playbooks.play("harden", trixie.inventory, variables=SWITCHES)
    assert (run.rc, run.changed) == (0, []), run.text
    assert "No libvirt daemon on this host; it is left alone" in run.text
    assert state(trixie) == before


def test_what_install_asks_for_is_what_the_distribution_has(host: rig.Host) -> None:
    run = playbooks.play("harden", host.inventory, "--tags", "install", variables={"hypervisor_install": True})
    assert (run.rc, run.changed) == (0, []), run.text
    assert len(run.results("ansible.builtin.package")) == 1


def test_with_libvirtd_down_the_configuration_is_proven_by_starting_it(trixie: rig.Host) -> None:
    trixie.run(
        ["systemctl", "stop", "libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket"]
    )
    begun = time.monotonic()
    run = playbooks.play("harden", trixie.inventory, variables=SWITCHES)
    assert time.monotonic() - begun < 120
    assert (run.rc, run.failed) == (0, []) or "libvirt" in str(run.failed[0].result["msg"])
    assert "seccomp_sandbox = 1" in trixie.get(CONF).decode().splitlines()


def test_with_libvirtd_stopped_by_a_signal_the_end_comes_in_bounded_time(trixie: rig.Host) -> None:
    guests.start(trixie, guests.Guest("before"))
    pid = int(trixie.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout)
    trixie.run(["kill", "-STOP", str(pid)])
    begun = time.monotonic()
    run = playbooks.play("harden", trixie.inventory, variables=SWITCHES)
    assert time.monotonic() - begun < 180
    if run.rc == 0:
        assert guests.running(trixie) == ["before"]
    else:
        assert "libvirtd" in str(run.failed[0].result["msg"])


def test_a_tap_made_by_hand_survives_with_its_bridge(host: rig.Host) -> None:
    host.run(["ip", "link", "add", "br-hand", "type", "bridge"])
    host.run(["ip", "tuntap", "add", "dev", "hand0", "mode", "tap"])
    host.run(["ip", "link", "set", "hand0", "master", "br-hand"])
    guest = guests.Guest("collides", interfaces=[guests.ethernet("hand0")])
    host.put("/root/collides.xml", guest.xml().encode())
    guests.virsh(host, "define", "/root/collides.xml")
    before = host.run(["ip", "-d", "-o", "link", "show", "hand0"]).stdout
    run = playbooks.play("harden", host.inventory, variables=SWITCHES)
    (failure,) = run.failed
    assert failure.action == "hypervisor.hardening.tap_guard"
    assert re.search(r"hand0.*collides|collides.*hand0", failure.result["msg"])
    assert "br-hand" in failure.result["msg"]
    assert host.run(["ip", "-d", "-o", "link", "show", "hand0"]).stdout == before
    # The reason for all this: libvirt itself takes the device away.
    refused = host.run(["virsh", "start", "collides"], check=False)
    assert "already exists" in refused.stderr
    assert host.run(["ip", "link", "show", "hand0"], check=False).returncode != 0


def test_a_guest_on_its_own_tap_does_not_stop_the_second_run(host: rig.Host) -> None:
    guest = guests.Guest("tapped", interfaces=[guests.ethernet("own0")])
    assert playbooks.play("harden", host.inventory, variables=SWITCHES).rc == 0
    guests.start(host, guest, persistent=True)
    run = playbooks.play("harden", host.inventory, variables=SWITCHES)
    assert (run.rc, run.changed) == (0, []), run.text
    (interface,) = run.results("tap_guard")[0]["interfaces"]
    assert (interface["name"], interface["verdict"]) == ("own0", "own")


def test_a_run_killed_between_write_and_restart_is_finished_by_the_next(trixie: rig.Host) -> None:
    pid = guests.start(trixie, guests.Guest("before"))
    daemon = trixie.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout
    written = trixie.get(CONF)
    environment = {**os.environ, "ANSIBLE_PIPELINING": "1"}
    arguments = [
        word
        for key, value in SWITCHES.items()
        for word in ("-e", f"{{'{key}': {value!r}}}".replace("True", "true").replace("None", "null"))
    ]
    controller = subprocess.Popen(
        ["ansible-playbook", "-i", str(trixie.inventory), "hypervisor.hardening.harden", "--tags", "qemu", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while trixie.get(CONF) == written and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(controller.pid, signal.SIGKILL)
    controller.wait()
    assert trixie.get(CONF) != written
    assert trixie.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout == daemon, "killed too late"
    run = playbooks.play("harden", trixie.inventory, variables=SWITCHES)
    assert (run.rc, len(run.results("daemon_restart"))) == (0, 1)
    assert trixie.run(["systemctl", "show", "-P", "MainPID", "libvirtd.service"]).stdout != daemon
    assert guests.pid(trixie, "before") == pid
    assert playbooks.play("harden", trixie.inventory, variables=SWITCHES).changed == []


def test_a_read_only_etc_is_refused_with_the_reason(trixie: rig.Host) -> None:
    trixie.run(["mount", "--bind", "/etc", "/etc"])
    trixie.run(["mount", "-o", "remount,ro,bind", "/etc"])
    run = playbooks.play("harden", trixie.inventory, variables=SWITCHES)
    assert "read-only" in run.failed[0].result["msg"]


def test_two_runs_at_once_end_well(trixie: rig.Host) -> None:
    words = [
        "ansible-playbook",
        "-i",
        str(trixie.inventory),
        "hypervisor.hardening.harden",
        "-e",
        "hypervisor_qemu_seccomp=true",
    ]
    environment = {**os.environ, "ANSIBLE_PIPELINING": "1"}
    runs = [
        subprocess.Popen(
            [*words, "-e", f"{{hypervisor_qemu_settings: {{{key}: 4096}}}}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for key in ("max_files", "max_processes")
    ]
    ended = [(run.communicate(timeout=300)[0], run.returncode) for run in runs]
    for text, status in ended:
        assert status == 0 or "changed by someone else" in text or "another run" in text, text
    run = playbooks.play("harden", trixie.inventory, variables={"hypervisor_qemu_seccomp": True})
    assert (run.rc, run.changed) == (0, []), run.text
    guests.virsh(trixie, "list")
