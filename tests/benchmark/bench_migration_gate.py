# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate adds to a migration, and to every other operation of a guest.

The hook is run as libvirt runs it, with the XML of a real guest that has a disk and an interface, and every value is
agreed on. libvirt waits for it, so what it takes is what a migration takes longer. The limit is in time of the
processor; by the clock it takes longer on a machine that is busy.
"""

from __future__ import annotations

import json

import rig
from rig import guests, modules

LIMIT_MS = 150.0
ROUNDS = 21
VALUES = {
    "qemu_uid": 64055,
    "qemu_gid": 64055,
    "dynamic_ownership": True,
    "remember_owner": True,
    "security_models": ["dac"],
    "namespaces": ["mount"],
    "seccomp_sandbox": True,
    "cgroup_controllers": ["blkio", "cpu", "cpuacct", "cpuset", "devices", "memory"],
    "sched_core": "none",
    "memory_backing_dir": "/var/lib/libvirt/qemu/ram",
    "lock_manager": "nop",
    "migrate_tls_force": False,
    "memfd_create": True,
}

_INSIDE = """
import json, resource, statistics, subprocess, sys, time

hook, guest, xml = sys.argv[1:4]
answer = {}
bare = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]
calls = {name: [hook, guest, *name.split(), "-"] for name in ("migrate begin", "reconnect begin")}
for name, words in {**calls, "Python alone": bare}.items():
    walls, cpus = [], []
    for _round in range(int(sys.argv[4])):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(words, stdin=open(xml), check=True)
        walls.append((time.perf_counter() - begun) * 1000)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    answer[name] = statistics.median(walls), statistics.median(cpus)
print(json.dumps(answer))
"""


def main() -> None:
    for release in ("bookworm", "trixie"):
        with rig.host(release) as host:
            disk = guests.disk(host, "/var/lib/libvirt/images/web.img")
            guests.start(host, guests.Guest("web", disks=[disk], interfaces=[guests.ethernet("web0")]))
            host.put("/run/web.xml", guests.virsh(host, "dumpxml", "web", "--migratable").encode())
            guests.stop(host, "web")
            host.put(disk, b"")  # libvirt, and nobody else, took the interface away; the image is to be there
            agreement = {"version": 1, "group": "web", "values": VALUES}
            hook = modules.call(host, "migration_gate", agreement=agreement, mode="warn")["hook"]
            words = ["/usr/bin/python3", "-c", _INSIDE, hook, "web", "/run/web.xml", str(ROUNDS)]
            answer: dict[str, tuple[float, float]] = json.loads(host.run(words, timeout=300).stdout)
        for name, (wall, cpu) in answer.items():
            print(f"  {release:<10}{name:<18}{cpu:6.0f} ms of the processor ({wall:.0f} by the clock)")
        cpu = answer["migrate begin"][1]
        assert cpu < LIMIT_MS, f"the gate adds {cpu:.0f} ms to a migration, the limit is {LIMIT_MS:.0f} ms"


if __name__ == "__main__":
    main()
