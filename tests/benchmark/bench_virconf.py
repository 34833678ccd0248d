# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration document on Debian's qemu.conf, against a pass over its lines that proves nothing.

The other one looks for ``key = value`` at the start of lines and knows no list over several lines, no ``;``, no triple
quotes, no duplicates and no syntax error.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import rig

from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document, Plain

LIMIT_MS = 5.0
VALUES: dict[str, Plain] = {
    "security_driver": ["apparmor"], "security_default_confined": True, "security_require_confined": True,
    "user": "libvirt-qemu", "group": "libvirt-qemu", "dynamic_ownership": True, "remember_owner": True,
    "cgroup_controllers": ["cpu", "devices", "memory"], "cgroup_device_acl": ["/dev/null", "/dev/zero", "/dev/kvm"],
    "max_core": 0, "dump_guest_core": False, "relaxed_acs_check": False, "seccomp_sandbox": 1, "namespaces": ["mount"],
    "stdio_handler": "logd", "vnc_listen": "127.0.0.1", "vnc_tls": True, "spice_listen": "127.0.0.1",
    "migration_address": "127.0.0.1", "not_in_the_file": 1,
}  # fmt: skip
ASSIGNMENT = re.compile(r"^([a-z_]+) *= *(.*)$")
SAMPLE = re.compile(r"^#([a-z_]+) *=")


def document(data: bytes) -> bytes:
    parsed = Document.parse(data)
    for key, value in VALUES.items():
        parsed.set(key, value)
    return parsed.render()


def lines(data: bytes) -> bytes:
    result = []
    left = {key: f"{key} = {value!r}" for key, value in VALUES.items()}
    for line in data.decode().splitlines():
        found = ASSIGNMENT.match(line)
        result.append(left.pop(found[1], line) if found else line)
        sample = SAMPLE.match(line)
        if sample and sample[1] in left:
            result.append(left.pop(sample[1]))
    return "\n".join([*result, *left.values(), ""]).encode()


def milliseconds(work: Callable[[bytes], object], data: bytes) -> float:
    """The best of 50."""
    best = float("inf")
    for _round in range(50):
        begun = time.perf_counter()
        work(data)
        best = min(best, time.perf_counter() - begun)
    return best * 1000


def main() -> None:
    shipped = (rig.build("bookworm") / "root/etc/libvirt/qemu.conf").read_bytes()
    inputs = {
        "as shipped": shipped,
        "with the keys in it": document(shipped),
        "with each sample set": re.sub(rb'(?m)^#(?=[a-z_]+ = ("[^"\n]*"|\d+)$)', b"", shipped),
    }
    title = f"qemu.conf, {len(shipped.splitlines())} lines, {len(VALUES)} keys"
    print(f"{title:<37} {'parse':>8} {'parse, set, render':>20} {'to lines and regex':>20}")
    for name, data in inputs.items():
        whole = milliseconds(document, data)
        parse, ratio = milliseconds(Document.parse, data), whole / milliseconds(lines, data)
        print(f"  {name:<35} {parse:5.2f} ms {whole:17.2f} ms {ratio:14.1f} times")
        assert whole < LIMIT_MS, f"{whole:.2f} ms, the limit is {LIMIT_MS} ms"


if __name__ == "__main__":
    main()
