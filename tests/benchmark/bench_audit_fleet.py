# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook audit over a fleet, against a ping of the same connections: what of it Ansible takes, and what is ours.

The hosts of the inventory are connections to two real ones, so reading them is bound by this machine's processors. What
comes after the last host was read happens once, on the controller, and is told by itself.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import time
import typing as t

import rig
import yaml
from rig import playbooks

FORKS = 20
SIZES = (20, 100)
PING = [{"hosts": "hypervisors", "gather_facts": False, "tasks": [{"name": "Ping", "ansible.builtin.ping": {}}]}]


def inventory(hosts: list[rig.Host], size: int, directory: pathlib.Path) -> pathlib.Path:
    """An inventory of so many names for these hosts."""
    group = yaml.safe_load(hosts[0].inventory.read_text(encoding="utf-8"))["hypervisors"]
    known = [group["hosts"][host.name] for host in hosts]
    group["hosts"] = {f"node-{number:04}": known[number % len(known)] for number in range(size)}
    path = directory / f"{size}.yml"
    path.write_text(yaml.safe_dump({"hypervisors": group}), encoding="utf-8")
    return path


def timed(play: t.Any, path: pathlib.Path, **variables: t.Any) -> tuple[float, dict[str, float]]:
    """How long a play takes in seconds, and when the last host was done with each task."""
    done: dict[str, float] = {}
    begun = time.perf_counter()

    def watch(task: playbooks.Task) -> None:
        done[task.name] = time.perf_counter() - begun

    run = playbooks.play(play, path, "--forks", str(FORKS), watch=watch, variables=variables)
    took = time.perf_counter() - begun
    assert (run.rc, run.changed) == (0, []), run.text
    return took, done


def measure(path: pathlib.Path, size: int, reports: pathlib.Path) -> None:
    ping, _done = timed(PING, path)
    audit, done = timed("audit", path, hypervisor_audit_report_dir=str(reports))
    read, kept, judged = (done[name] for name in ("Read the host", "Keep what was read", "Judge"))
    print(f"hosts: {size}, forks: {FORKS}")
    print(f"  ping                           {ping:6.1f} s")
    print(f"  audit, with JSON and HTML      {audit:6.1f} s   {audit / ping:.1f} times as long")
    print(f"    until each host is read      {read:6.1f} s")
    print(f"    keep what was read           {kept - read:6.1f} s")
    print(f"    judge and write the reports  {judged - kept:6.1f} s")
    print(f"    tell, hand on, fail          {audit - judged:6.1f} s")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        directory = pathlib.Path(scratch)
        hosts = [stack.enter_context(rig.host("trixie", f"fleet-{number}")) for number in (1, 2)]
        for size in SIZES:
            measure(inventory(hosts, size, directory), size, directory / "reports")


if __name__ == "__main__":
    main()
