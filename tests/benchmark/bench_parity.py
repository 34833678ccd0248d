# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of a fleet from stored facts: ten thousand hosts against a thousand, and against reading the facts.

The facts are made of the documentation of ``hypervisor_info``, with twenty guests a host. A host of each hundred runs
QEMU as another user, one of twenty.
"""

from __future__ import annotations

import copy
import datetime
import json
import os
import resource
import tempfile
import time
import typing as t
from collections.abc import Iterator, Mapping
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _parity_terminal
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import sections_of
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._paritymaster import parity
from ansible_collections.hypervisor.hardening.tests.benchmark.bench_audit import GUESTS, MODULE, facts

HOSTS = (1000, 10_000)
LIMIT_S = {1000: 2.0, 10_000: 25.0}
LIMIT_MIB = 2048.0
# Ten thousand hosts take ten times as long as a thousand; the rest is noise.
LINEAR = 13.0
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
KINDS = 20


def made(number: int) -> dict[str, t.Any]:
    """The facts of a host as it should be, and for a number above 0 of one that departs in that way."""
    found = facts(sections_of(MODULE), 1)
    found["host"]["time"] = NOW.timestamp()
    found["capabilities"]["dac"] = {"uid": 64055, "gid": 64055, "source": "capabilities"}
    found["capabilities"]["machines"] = {"pc-q35": [f"{major}.{minor}" for major in range(4, 11) for minor in range(3)]}
    found["capabilities"]["cpu_features"] = [f"feature{one}" for one in range(150)]
    for one, guest in enumerate(found["guests"]):
        guest |= {"name": f"guest{one}", "machine": "pc-q35-10.0"}
    migration = found["migration"]
    migration |= {"first_port": 49152, "last_port": 49215, "taken_ports_total": 0, "address": None, "host": None}
    migration["cpus"] = [
        {
            "mode": "custom",
            "model": "EPYC",
            "lacks": [f"feature{one}" for one in range(50)],
            "beyond": [],
            "guests": ["guest0"],
        }
    ]
    migration["filesystems"], migration["displays"], found["taps"]["wanted"] = [], [], []
    migration["hugepages"] = [{"guest": "guest0", "kib": 2048, "pages": 512}]
    found["hugepages"] |= {"pools": [{"kib": 2048, "free": 1024}], "mounts": [{"name": "/dev/hugepages", "size": "2M"}]}
    found["hugepages"]["configured"] = {"hugetlbfs_mount": None}
    found["tls"] = {"uses": [{"name": "migrate", "present": [], "missing": []}], "certificates": []}
    found["memfd"]["works"] = True
    migration["values"] |= {"max_core": "0", "migrate_tls_force": False}
    if number:
        found["capabilities"]["dac"]["uid"] = number
    return found


class Stored(Mapping[str, t.Any]):
    """Facts in files, of which one is read at a time."""

    def __init__(self, directory: Path, hosts: int) -> None:
        self.directory = directory
        self.names = [f"kvm{number:05}" for number in range(hosts)]

    def __getitem__(self, name: str) -> t.Any:
        number = int(name[3:])
        kind = number // 100 % KINDS if number % 100 == 0 else 0
        found = json.loads((self.directory / f"{kind}.json").read_bytes())
        # What no two hosts have in common.
        found["capabilities"]["host_uuid"] = found["migration"]["hostname"] = name
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Timed(Mapping[str, t.Any]):
    """Counts the time that reading takes, which is not the comparison's."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.seconds = stored, 0.0

    def __getitem__(self, name: str) -> t.Any:
        begun = time.process_time()
        found = self.stored[name]
        self.seconds += time.process_time() - begun
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def measured(directory: Path, hosts: int) -> tuple[float, float, int, float]:
    """Seconds of the comparison with its lines, and of reading; findings; MiB at the most. In a process of its own."""
    into, out = os.pipe()
    if not (child := os.fork()):
        os.close(into)
        timed = Timed(Stored(directory, hosts))
        begun = time.process_time()
        master = parity(timed, dict.fromkeys(timed, "fleet"), NOW, "0")
        lines = _parity_terminal.render(master)
        took = time.process_time() - begun - timed.seconds
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        (group,) = master["groups"]
        assert not group["unknown"] and [one["id"] for one in group["findings"]] == ["qemu-user"], lines
        os.write(out, json.dumps([took, timed.seconds, len(group["findings"][0]["odd"]), memory]).encode())
        os._exit(0)
    os.close(out)
    os.waitpid(child, 0)
    took, reading, odd, memory = json.loads(os.read(into, 1000))
    return took, reading, odd, memory


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number in range(KINDS):
            (directory / f"{number}.json").write_text(json.dumps(copy.deepcopy(made(number))), encoding="utf-8")
        size = (directory / "0.json").stat().st_size / 1024
        print(f"{GUESTS} guests a host, {size:.0f} kB of facts")
        print(f"{'hosts':>7} {'odd ones':>9} {'compared':>9} {'a host':>9} {'reading':>9} {'memory':>9}")
        taken = {}
        for hosts in HOSTS:
            taken[hosts], reading, odd, memory = measured(directory, hosts)
            print(
                f"{hosts:7} {odd:9} {taken[hosts]:7.2f} s {taken[hosts] / hosts * 1000:6.2f} ms"
                f" {reading:7.2f} s {memory:5.0f} MiB"
            )
            assert taken[hosts] < LIMIT_S[hosts], f"the limit is {LIMIT_S[hosts]:.0f} s"
            assert memory < LIMIT_MIB, f"the limit is {LIMIT_MIB:.0f} MiB"
        ratio = taken[HOSTS[1]] / taken[HOSTS[0]]
        print(f"{HOSTS[1]} hosts take {ratio:.1f} times as long as {HOSTS[0]}")
        assert ratio < LINEAR, f"the limit is {LINEAR} times"


if __name__ == "__main__":
    main()
