# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""guest_confinement_info in process, on a real kernel with 100, 200 and 400 processes that look like libvirt's guests.

Each is a shell by the name of QEMU's file, with a mount namespace, a /dev and a cgroup of its own. Once with the nodes
of the device list alone, and once with a disk in /dev besides, for which the guest's definition has to be parsed.
Nothing in it waits, so the limits are in time of the processor; by the clock it takes longer on a machine that is busy.
"""

from __future__ import annotations

import json

import rig
from rig import guests, modules

LIMIT_MS = 200.0
NUMBERS = (100, 200, 400)
# The most that a guest may cost in a crowd of 400, measured by what it costs among 100.
LINEAR = 1.3

_INSIDE = """
import ctypes, json, os, shutil, signal, stat, sys, time
sys.path.insert(0, "/opt/rig-modules")
from ansible_collections.hypervisor.hardening.plugins.module_utils import _confinement, _syscalls
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host

PROGRAM = "/run/qemu-system-x86_64"
shutil.copy("/bin/dash", PROGRAM)
xml = open("/run/libvirt/qemu/pattern.xml").read()
cgroups = "/sys/fs/cgroup/machine.slice"
os.makedirs(cgroups, exist_ok=True)


def start(number, disk):
    name = f"vm{number}"
    scope = f"{cgroups}/machine-qemu-{number}-{name}.scope"
    os.makedirs(scope, exist_ok=True)
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(f"{scope}/cgroup.procs", "w") as file:
            file.write("0")
        _syscalls.unshare(_syscalls.CLONE_NEWNS)
        _syscalls.mount("", "/", "", _syscalls.MS_REC | _syscalls.MS_SLAVE)
        names = ("null", "zero", "full", "random", "urandom", "kvm")
        nodes = [(f"/dev/{node}", os.stat(f"/dev/{node}")) for node in names]
        _syscalls.mount("devfs", "/dev", "tmpfs", _syscalls.MS_NOSUID, "mode=755,size=65536")
        for path, status in nodes:
            os.mknod(path, status.st_mode, status.st_rdev)
            os.chmod(path, stat.S_IMODE(status.st_mode))
            os.chown(path, status.st_uid, status.st_gid)
        if disk:
            os.mknod("/dev/sdz", stat.S_IFBLK | 0o660, os.makedev(65, 144))
            os.chown("/dev/sdz", 64055, 6)
        os.setgroups([])
        os.setresgid(64055, 64055, 64055)
        os.setresuid(64055, 64055, 64055)
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
        os.dup2(ready, 0)
        os.execv(PROGRAM, [PROGRAM, "-c", "read x", "-name", f"guest={name},debug-threads=on", "-S",
                           "-object", f"/var/lib/libvirt/qemu/domain-{number}-{name}/master-key.aes",
                           "-machine", "pc,dump-guest-core=off"])
    os.close(ready)
    source = "<disk type='block'><source dev='/dev/sdz'/></disk>" if disk else ""
    with open(f"/run/libvirt/qemu/{name}.xml", "w") as file:
        file.write(xml.replace("<devices>", "<devices>" + source))
    with open(f"/run/libvirt/qemu/{name}.pid", "w") as file:
        file.write(str(pid))
    return pid, done, name, scope


def measure(count):
    walls, cpus = [], []
    for _round in range(9):
        wall, cpu = time.perf_counter(), time.process_time()
        found = _confinement.gather(Host())
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    ours = [guest for guest in found["guests"] if guest["name"].startswith("vm")]
    assert len(ours) == count, (len(ours), count)
    for guest in ours:
        weak = {weakness["id"] for weakness in guest["weaknesses"]}
        assert weak <= {"no_mac", "no_seccomp", "no_device_cgroup", "core_dumps"}, guest["weaknesses"]
        assert guest["managed_by"] == "libvirt"
    return min(walls), min(cpus)


answer = {}
for disk in (False, True):
    running = []
    try:
        for count in json.loads(sys.argv[1]):
            running += [start(number, disk) for number in range(len(running), count)]
            time.sleep(1)
            answer.setdefault(str(disk), []).append(measure(count))
    finally:
        for pid, done, name, scope in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(done)
            os.unlink(f"/run/libvirt/qemu/{name}.xml")
            os.unlink(f"/run/libvirt/qemu/{name}.pid")
            os.rmdir(scope)
print(json.dumps(answer))
"""


def main() -> None:
    with rig.host("trixie") as host:
        guests.start(host, guests.Guest("pattern"))
        modules.prepare(host, "guest_confinement_info")
        words = ["/usr/bin/python3", "-B", "-c", _INSIDE, json.dumps(NUMBERS)]
        answer: dict[str, list[tuple[float, float]]] = json.loads(host.run(words, timeout=300).stdout)
    print(
        f"{'guests: processor (clock)':<40}"
        + "".join(f"{number:>16}" for number in NUMBERS)
        + f"{'400 to 100, each':>20}"
    )
    for disk, name in (("False", "nodes of the device list alone"), ("True", "a disk besides, the definition parsed")):
        cpus = [cpu for _wall, cpu in answer[disk]]
        each = cpus[-1] / NUMBERS[-1] / (cpus[0] / NUMBERS[0])
        columns = "".join(f"{f'{cpu:.0f} ms ({wall:.0f})':>16}" for wall, cpu in answer[disk])
        print(f"  {name:<38}{columns}{each:14.2f} times")
        assert each < LINEAR, f"a guest among 400 costs {each:.2f} times what it costs among 100"
        assert cpus[1] < LIMIT_MS, f"{cpus[1]:.0f} ms for 200 guests, the limit is {LIMIT_MS:.0f} ms"


if __name__ == "__main__":
    main()
