# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of qemu_conf against that of a module with nothing in it, on a host with Debian's own qemu.conf.

Both are the very files that ansible-core sends over ssh, run in turns by the host's Python: what is compared is the
cost of the module's source, imports and work, and not the network's.
"""

from __future__ import annotations

import json
import pathlib
import tempfile
import typing as t

import rig
from rig import playbooks

LIMIT = 1.6
ROUNDS = 30
SETTINGS = {
    "security_default_confined": True, "user": "libvirt-qemu", "group": "libvirt-qemu", "dynamic_ownership": True,
    "remember_owner": True, "cgroup_controllers": ["cpu", "devices", "memory"], "namespaces": ["mount"], "max_core": 0,
    "dump_guest_core": False, "relaxed_acs_check": False, "seccomp_sandbox": 1, "stdio_handler": "logd",
    "vnc_listen": "127.0.0.1", "spice_listen": "127.0.0.1", "migration_port_min": 49152, "migration_port_max": 49215,
}  # fmt: skip
_EMPTY = """
from __future__ import annotations
from ansible.module_utils.basic import AnsibleModule
def main():
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False)
if __name__ == "__main__":
    main()
"""
_MEASURE = """
import json, pathlib, statistics, subprocess, sys, time
sent = sorted(pathlib.Path("/root/.ansible/tmp").glob("*/AnsiballZ_*.py"), key=lambda path: path.stat().st_mtime_ns)
names, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
assert len(sent) == len(names), sent
taken = {name: [] for name in names}
for _round in range(rounds):
    for name, path in zip(names, sent):
        begun = time.perf_counter()
        subprocess.run(["/usr/bin/python3", str(path)], stdout=subprocess.DEVNULL, check=True)
        taken[name].append(time.perf_counter() - begun)
print(json.dumps({name: [statistics.median(taken[name]), path.stat().st_size] for name, path in zip(names, sent)}))
"""


def send(host: rig.Host, library: pathlib.Path) -> list[str]:
    """Have ansible-core leave its files on the host; their names in the order in which they were sent."""
    task = {"hypervisor.hardening.qemu_conf": {"settings": SETTINGS}}
    other = {"hypervisor.hardening.qemu_conf": {"settings": {**SETTINGS, "max_files": 4096}}, "check_mode": True}
    environment = {"ANSIBLE_LIBRARY": str(library), "ANSIBLE_PIPELINING": "0"}
    plays: list[dict[str, t.Any]] = [{"hosts": host.name, "gather_facts": False, "tasks": [task]}]
    assert playbooks.play(plays, host.inventory, environment=environment).rc == 0
    plays[0]["tasks"] = [{"empty": {}}, task, other]
    environment["ANSIBLE_KEEP_REMOTE_FILES"] = "1"
    run = playbooks.play(plays, host.inventory, environment=environment)
    assert (run.rc, [bool(result["changed"]) for result in run.results("qemu_conf")]) == (0, [False, True])
    return ["an empty module", "qemu_conf, nothing to change", "qemu_conf, check mode, libvirt asked"]


def main() -> None:
    with rig.host("trixie") as host, tempfile.TemporaryDirectory() as directory:
        library = pathlib.Path(directory)
        (library / "empty.py").write_text(_EMPTY, encoding="utf-8")
        names = send(host, library)
        output = host.run(["/usr/bin/python3", "-c", _MEASURE, json.dumps(names), str(ROUNDS)], timeout=300).stdout
        measured: dict[str, tuple[float, int]] = json.loads(output)
    empty = measured[names[0]][0]
    for name, (seconds, size) in measured.items():
        print(f"  {name:<38} {seconds * 1000:6.0f} ms {seconds / empty:6.2f} times {size / 1024:8.0f} KiB sent")
    ratio = measured[names[1]][0] / empty
    assert ratio < LIMIT, f"{ratio:.2f} times an empty module, the limit is {LIMIT}"


if __name__ == "__main__":
    main()
