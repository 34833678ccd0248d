# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Harden a disposable hypervisor and watch it being proven: `make demo`."""

from __future__ import annotations

import difflib
import json
import pathlib
import re
import signal
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import rig
from demo import facts, screen
from rig import guests, playbooks
from rig._cli import main as rig_main

CONF = "/etc/libvirt/qemu.conf"

# What recipes for passthrough or shared folders on the web ask for, and what then stays.
AS_FOUND = """
user = "root"
group = "root"
namespaces = []
seccomp_sandbox = 0
cgroup_controllers = [ "cpu", "memory" ]
"""

INVENTORY = {
    "hypervisor_level": "strict",
    "hypervisor_qemu_unprivileged_user": True,
    "hypervisor_qemu_seccomp": True,
    "hypervisor_qemu_mount_namespace": True,
    "hypervisor_qemu_settings": {"cgroup_controllers": None},
}


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    if rig_main(["install"]) != 0:
        return 1
    try:
        with rig.host("trixie", "demo") as host:
            return show(host)
    except rig.RigError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; nothing is left behind", file=sys.stderr)
        return 130


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def show(host: rig.Host) -> int:
    before = as_found(host)
    planned(host)
    hardened(host, before)
    guests.start(host, guests.Guest("after"))
    return proven(host)


def as_found(host: rig.Host) -> int:
    versions = host.run(["virsh", "-q", "version", "--daemon"]).stdout
    libvirt = re.findall(r"libvirt (\S+)", versions)[0]
    screen.chapter(1, f"A hypervisor as found: Debian 13, libvirt {libvirt}")
    host.put(CONF, host.get(CONF) + AS_FOUND.encode(), mode=0o600)
    host.run(["mount", "--make-rprivate", "/"])
    host.run(["systemctl", "restart", "libvirtd"])
    pid = guests.start(host, guests.Guest("before"))
    for setting in AS_FOUND.strip().splitlines():
        screen.line(screen.paint(setting, "red"))
    screen.line(f"The guest `before` runs, pid {pid}. What the kernel says of it:")
    found = look(host)["before"]
    for weakness in found["weaknesses"]:
        screen.line(f"{screen.paint('weak', 'red')}  {weakness['id']:<22} {screen.short(weakness['observed'], 72)}")
    return pid


def planned(host: rig.Host) -> None:
    screen.chapter(2, "What would change: ansible-playbook hypervisor.hardening.harden --check --diff")
    run = playbooks.play("harden", host.inventory, "--check", "--diff", variables=INVENTORY)
    _need(run)
    for key, value in INVENTORY.items():
        screen.line(screen.paint(f"{key}: {json.dumps(value)}", "dim"))
    for result in run.results("qemu_conf"):
        for part in result["diff"] if isinstance(result["diff"], list) else [result["diff"]]:
            screen.diff("\n".join(difflib.unified_diff(part["before"].splitlines(), part["after"].splitlines(), n=0)))
    screen.line("Nothing has been touched so far.")


def hardened(host: rig.Host, before: int) -> None:
    screen.chapter(3, "Harden: ansible-playbook hypervisor.hardening.harden")
    run = playbooks.play("harden", host.inventory, watch=_tell, variables=INVENTORY)
    _need(run)
    pending = run.results("qemu_conf")[0]["guests_pending"]
    same = guests.pid(host, "before") == before
    if same:
        screen.line(f"The guest `before` still runs as pid {before}. It keeps what it was started with until its next")
        screen.line(f"start; the run says so: pending {', '.join(pending)}.")
    else:
        screen.line(screen.paint("The guest `before` is LOST.", "red"))
    again = playbooks.play("harden", host.inventory, variables=INVENTORY)
    _need(again)
    screen.line(f"A second run changes {'nothing' if not again.changed else ', '.join(again.changed)}.")


def proven(host: rig.Host) -> int:
    screen.chapter(4, "The proof, from /proc of both guests")
    seen = look(host)
    body = [
        ((fact, ""), (source, "dim"), _coloured(old), _coloured(new))
        for fact, source, old, new in facts.rows(seen["before"], seen["after"])
    ]
    screen.table(("fact", "in /proc/PID", "before", "after"), body)
    screen.chapter(5, "What verify says: ansible-playbook hypervisor.hardening.verify")
    run = playbooks.play("verify", host.inventory, variables=INVENTORY)
    for task in run.failed:
        for text in task.result["msg"] if isinstance(task.result["msg"], list) else [task.result["msg"]]:
            screen.line(screen.paint(screen.short(str(text)), "yellow" if str(text).startswith("before") else "red"))
    left = [weakness["id"] for weakness in seen["after"]["weaknesses"] if weakness["id"] != "no_mac"]
    screen.say()
    if left:
        screen.line(screen.paint(f"The guest `after` is weak in: {', '.join(left)}", "red"))
    else:
        screen.line(screen.paint("The guest `after` is confined; `before` will be after its next start.", "green"))
    if any(weakness["id"] == "no_mac" for weakness in seen["after"]["weaknesses"]):
        screen.line("This machine's kernel has neither AppArmor nor SELinux, which no container can change.")
    return 1 if left else 0


def look(host: rig.Host) -> dict[str, facts.Guest]:
    """What guest_confinement_info says of each running guest."""
    task = {"name": "Look at the guests", "hypervisor.hardening.guest_confinement_info": {}}
    run = playbooks.play([{"hosts": "hypervisors", "gather_facts": False, "tasks": [task]}], host.inventory)
    _need(run)
    return {guest["name"]: guest for guest in run.results("guest_confinement_info")[0]["guests"]}


def _coloured(cell: tuple[str, bool]) -> tuple[str, str]:
    words, weak = cell
    return words, "red" if weak else "green"


def _tell(task: playbooks.Task) -> None:
    if task.outcome == "ok" and task.action != "ansible.builtin.validate_argument_spec":
        word = screen.paint("changed", "yellow") if task.changed else screen.paint("ok     ", "green")
        screen.line(f"{word}  {task.name.rsplit(' : ', 1)[-1]}")


def _need(run: playbooks.Run) -> None:
    if run.rc != 0:
        raise rig.RigError(f"ansible-playbook failed:\n{run.text}")


sys.exit(main())
