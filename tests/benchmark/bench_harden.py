# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of harden that has nothing to change, against stock tasks that bring about the same state.

(a) a task for each key, as most roles do it; (b) a template, a mount, a service, as an expert writes it. All over ssh
with pipelining, in turn, on the same hosts: one, and a small fleet, for what Ansible does once in a run (its start, the
building of modules) is shared by all hosts. Before anything is measured, the end states are compared by byte and by
kernel value.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
import time
import typing as t

import rig
from rig import playbooks

ROUNDS = 3
FLEET = 8
ON_THE_CONTROLLER = {"ansible.builtin.validate_argument_spec", "ansible.builtin.debug", "ansible.builtin.set_fact"}
CONF = "/etc/libvirt/qemu.conf"
SWITCHES = {
    "hypervisor_level": "hardened",
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    "hypervisor_qemu_dynamic_ownership": True,
    "hypervisor_qemu_strict_acs": True,
    "hypervisor_qemu_display_local": True,
    "hypervisor_qemu_swtpm_unprivileged": True,
    "hypervisor_qemu_no_display_password": True,
    "hypervisor_qemu_memory_backing_default": True,
    "hypervisor_taps_enabled": False,
    "hypervisor_kernel_enabled": False,
    "hypervisor_mac_enabled": False,
    "hypervisor_verify_enabled": False,
}
LINES = {
    "security_default_confined": "1",
    "dump_guest_core": "0",
    "stdio_handler": '"logd"',
    "seccomp_sandbox": "1",
    "namespaces": '[ "mount" ]',
    "dynamic_ownership": "1",
    "remember_owner": "1",
    "relaxed_acs_check": "0",
    "vnc_listen": '"127.0.0.1"',
    "spice_listen": '"127.0.0.1"',
    "rdp_listen": '"127.0.0.1"',
}
UNSET = [
    "capability_filters",
    "deprecation_behavior",
    "gluster_debug_level",
    "nographics_allow_host_audio",
    "virtiofsd_debug",
    "vnc_allow_host_audio",
    "user",
    "group",
    "swtpm_user",
    "swtpm_group",
    "vnc_password",
    "spice_password",
    "rdp_password",
    "memory_backing_dir",
]

Tasks = list[dict[str, t.Any]]
MOUNT: Tasks = [
    {"name": "Look at the root", "ansible.builtin.command": "findmnt -n -o PROPAGATION /", "register": "root",
     "changed_when": False},
    {"name": "Mark it shared", "ansible.builtin.command": "mount --make-rshared /",
     "when": "'shared' not in root.stdout"},
]  # fmt: skip
RESTART: Tasks = [
    {"name": "Restart", "ansible.builtin.systemd_service": {"name": "libvirtd.service", "state": "restarted"}}
]


def task_per_key() -> list[dict[str, t.Any]]:
    tasks: Tasks = [
        {
            "name": f"Set {key}",
            "ansible.builtin.lineinfile": {
                "path": CONF, "regexp": f"^{key} *=", "line": f"{key} = {value}", "insertafter": f"^#{key} *=",
            },
            "notify": "Restart",
        }
        for key, value in LINES.items()
    ]  # fmt: skip
    tasks += [
        {
            "name": f"Unset {key}",
            "ansible.builtin.lineinfile": {"path": CONF, "regexp": f"^{key} *=", "state": "absent"},
            "notify": "Restart",
        }
        for key in UNSET
    ]
    return [{"hosts": "hypervisors", "gather_facts": False, "tasks": tasks + MOUNT, "handlers": RESTART}]


def template(content: bytes, directory: pathlib.Path) -> list[dict[str, t.Any]]:
    source = directory / "qemu.conf.j2"
    source.write_bytes(content)
    tasks: Tasks = [
        {
            "name": "Write qemu.conf",
            "ansible.builtin.template": {"src": str(source), "dest": CONF, "mode": "0600"},
            "notify": "Restart",
        }
    ]
    # The socket, for libvirtd itself ends when nobody has asked anything of it for two minutes.
    running = {
        "name": "Keep the service",
        "ansible.builtin.systemd_service": {"name": "libvirtd.socket", "state": "started", "enabled": True},
    }
    return [{"hosts": "hypervisors", "gather_facts": False, "tasks": [*tasks, *MOUNT, running], "handlers": RESTART}]


def end_state(host: rig.Host) -> tuple[bytes, str]:
    return host.get(CONF), host.run(["findmnt", "-n", "-o", "PROPAGATION", "/"]).stdout


def timed(
    play: t.Any, inventory: pathlib.Path, variables: dict[str, t.Any] | None = None
) -> tuple[float, playbooks.Run]:
    begun = time.perf_counter()
    run = playbooks.play(play, inventory, variables=variables)
    took = time.perf_counter() - begun
    assert (run.rc, run.changed) == (0, []), run.text
    return took, run


def compare(hosts: list[rig.Host], pristine: bytes, directory: pathlib.Path) -> None:
    inventory = hosts[0].inventory
    assert playbooks.play("harden", inventory, variables=SWITCHES).rc == 0
    wanted = end_state(hosts[0])
    contenders = {"a task for each key": task_per_key(), "template, mount, service": template(wanted[0], directory)}
    for name, play in contenders.items():
        for host in hosts:
            host.put(CONF, pristine, mode=0o600)
        run = playbooks.play(play, inventory)
        assert run.rc == 0, run.text
        assert all(end_state(host) == wanted for host in hosts), f"{name} ends elsewhere"
    times: dict[str, list[float]] = {name: [] for name in ("harden", *contenders)}
    for _round in range(ROUNDS):
        took, run = timed("harden", inventory, variables=SWITCHES)
        times["harden"].append(took)
        for name, play in contenders.items():
            times[name].append(timed(play, inventory)[0])
    ours = statistics.median(times["harden"])
    trips = [task for task in run.tasks if task.outcome != "skipped" and task.action not in ON_THE_CONTROLLER]
    print(f"hosts: {len(hosts)}")
    print(f"  harden, nothing to change        {ours:6.2f} s   {len(trips) // len(hosts)} round trips to a host")
    for name in contenders:
        theirs = statistics.median(times[name])
        print(f"  {name:<32} {theirs:6.2f} s   {theirs / ours:.1f} times as long")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(rig.host("trixie", "fleet-1"))]
        pristine = hosts[0].get(CONF)
        compare(hosts, pristine, pathlib.Path(directory))
        hosts += [stack.enter_context(rig.host("trixie", f"fleet-{number}")) for number in range(2, FLEET + 1)]
        compare(hosts, pristine, pathlib.Path(directory))


if __name__ == "__main__":
    main()
