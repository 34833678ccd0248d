# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of harden that has nothing to change, against stock tasks that bring about the same state.

(a) a task for each key, as most roles do it; (b) a template, a mount, a service, as an expert writes it. All over ssh
with pipelining, in turn, on the same host. Before anything is measured, the end states are compared by byte and by
kernel value.
"""

from __future__ import annotations

import pathlib
import statistics
import tempfile
import time
import typing as t

import rig
from rig import playbooks

ROUNDS = 5
CONF = "/etc/libvirt/qemu.conf"
SWITCHES = {
    "hypervisor_level": "hardened",
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    "hypervisor_qemu_dynamic_ownership": True,
    "hypervisor_qemu_strict_acs": True,
    "hypervisor_qemu_display_local": True,
    "hypervisor_taps_enabled": False,
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


def timed(play: t.Any, host: rig.Host, variables: dict[str, t.Any] | None = None) -> tuple[float, playbooks.Run]:
    begun = time.perf_counter()
    run = playbooks.play(play, host.inventory, variables=variables)
    took = time.perf_counter() - begun
    assert (run.rc, run.changed) == (0, []), run.text
    return took, run


def main() -> None:
    with rig.host("trixie") as host, tempfile.TemporaryDirectory() as directory:
        pristine = host.get(CONF)
        assert playbooks.play("harden", host.inventory, variables=SWITCHES).rc == 0
        wanted = end_state(host)
        contenders = {
            "a task for each key": task_per_key(),
            "template, mount, service": template(wanted[0], pathlib.Path(directory)),
        }
        for name, play in contenders.items():
            host.put(CONF, pristine, mode=0o600)
            run = playbooks.play(play, host.inventory)
            assert run.rc == 0, run.text
            assert end_state(host) == wanted, f"{name} ends elsewhere"
        times: dict[str, list[float]] = {name: [] for name in ("harden", *contenders)}
        for _round in range(ROUNDS):
            took, run = timed("harden", host, variables=SWITCHES)
            times["harden"].append(took)
            for name, play in contenders.items():
                times[name].append(timed(play, host)[0])
    ours = statistics.median(times["harden"])
    trips = [task for task in run.tasks if task.outcome != "skipped" and not task.action.endswith("debug")]
    print(f"harden, nothing to change        {ours:6.2f} s   {len(trips)} round trips")
    for name in contenders:
        theirs = statistics.median(times[name])
        print(f"{name:<32} {theirs:6.2f} s   {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
