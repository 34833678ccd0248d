# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbook audit on a host with 20 guests, against a ping over the same connection: ssh with pipelining."""

from __future__ import annotations

import json
import statistics
import time
import typing as t

import rig
from rig import guests, modules, playbooks

ROUNDS = 5
GUESTS = 20
PING = [{"hosts": "hypervisors", "gather_facts": False, "tasks": [{"name": "Ping", "ansible.builtin.ping": {}}]}]
REMOTE = {"hypervisor.hardening.hypervisor_info", "ansible.builtin.ping"}


def timed(play: t.Any, host: rig.Host) -> tuple[float, int]:
    """How long a play takes in seconds, and how often it goes to the host."""
    begun = time.perf_counter()
    run = playbooks.play(play, host.inventory)
    took = time.perf_counter() - begun
    assert (run.rc, run.changed) == (0, []), run.text
    return took, sum(task.action in REMOTE for task in run.tasks if task.outcome != "skipped")


def main() -> None:
    with rig.host("trixie") as host:
        for number in range(GUESTS):
            guests.start(host, guests.Guest(f"guest-{number:02}", memory_mib=32), persistent=True)
        size = len(json.dumps(modules.call(host, "hypervisor_info")["hypervisor"]))
        pings, audits = zip(*((timed(PING, host), timed("audit", host)) for _round in range(ROUNDS)), strict=True)
    ping = statistics.median(took for took, _trips in pings)
    audit = statistics.median(took for took, _trips in audits)
    print(f"ping                      {ping:6.2f} s")
    print(f"audit, {GUESTS} guests          {audit:6.2f} s   {audits[0][1]} round trip, {size} bytes of facts")
    print(f"{audit / ping:.1f} times as long")


if __name__ == "__main__":
    main()
