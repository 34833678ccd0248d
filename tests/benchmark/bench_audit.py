# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All rules on stored facts: a thousand hosts against a hundred, and against reading the facts alone.

The facts are made of the documentation of ``hypervisor_info``: each documented key has its sample, or a value of its
type. A host has twenty guests, of which each host and each guest differs in some values from the next.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import tempfile
import time
import typing as t
from collections.abc import Iterator, Mapping
from pathlib import Path

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import documented, sections_of
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._master import Selection, audit
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._rules import Rule, load

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "plugins/modules/hypervisor_info.py"
GUESTS = 20
HOSTS = (100, 1000)
LIMIT_S = 60.0
LIMIT_MIB = 1024.0
# A thousand hosts take ten times as long as a hundred; the rest is noise.
LINEAR = 13.0
NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)


def made(option: Mapping[str, t.Any], path: str, number: int) -> t.Any:
    """A value for a documented key: its sample, or one of its type that changes with the number."""
    kind, contains = option.get("type", "raw"), option.get("contains")
    if kind == "list":
        inner = {"type": option.get("elements", "raw"), "contains": contains}
        if not contains and option.get("sample") is not None:
            return option["sample"]
        many = path in ("guests", "definitions.guests")
        count = GUESTS if many else 2 if contains else 1
        return [made(inner, f"{path}[]", number + one) for one in range(count)]
    if contains:
        entry = {key: made(below, f"{path}.{key}", number) for key, below in contains.items()}
        if "name" in entry:
            entry["name"] = f"guest{number % GUESTS}"
        return entry
    if "sample" in option and number % 3:
        return option["sample"]
    values = {
        "bool": bool(number % 2),
        "int": number % 5,
        "float": float(number),
        "dict": {},
        "str": f"text{number % 7}",
    }
    return values.get(kind)


def facts(sections: Mapping[str, t.Any], number: int) -> dict[str, t.Any]:
    found = {name: made(option, name, number) for name, option in sections.items()}
    # What rules ask first of all.
    found["libvirt"] |= {"installed": True, "active": True}
    return found


class Stored(Mapping[str, t.Any]):
    """Facts in files, of which one is read at a time."""

    def __init__(self, directory: Path, hosts: int) -> None:
        self.directory = directory
        self.names = [f"kvm{number:04}" for number in range(hosts)]

    def __getitem__(self, name: str) -> t.Any:
        return json.loads((self.directory / f"{int(name[3:]) % 100}.json").read_bytes())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def seconds(directory: Path, rules: list[Rule], hosts: int) -> tuple[float, float, int, float]:
    """Of the audit and of the reading alone, in a process of its own; findings and MiB at the most."""
    into, out = os.pipe()
    if not (child := os.fork()):
        begun = time.process_time()
        for name in (stored := Stored(directory, hosts)):
            stored[name]
        read = time.process_time()
        master = audit(stored, rules, Selection("strict"), [], NOW, "0")
        done = time.process_time()
        findings = sum(master["counts"].values())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(out, json.dumps([done - read, read - begun, findings, memory]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    took, reading, findings, memory = json.loads(os.read(into, 1000))
    return took, reading, findings, memory


def main() -> None:
    rules = load([ROOT / "roles/hypervisor_audit/files/rules"], documented(MODULE))
    sections = sections_of(MODULE)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for number in range(100):
            (directory / f"{number}.json").write_text(json.dumps(facts(sections, number)), encoding="utf-8")
        size = (directory / "0.json").stat().st_size / 1024
        print(f"{len(rules)} rules, {GUESTS} guests a host, {size:.0f} kB of facts")
        print(f"{'hosts':>7} {'findings':>9} {'audit':>9} {'a host':>9} {'to reading':>12} {'memory':>9}")
        taken = {}
        for hosts in HOSTS:
            taken[hosts], reading, findings, memory = seconds(directory, rules, hosts)
            print(
                f"{hosts:7} {findings:9} {taken[hosts]:7.2f} s {taken[hosts] / hosts * 1000:6.1f} ms"
                f" {taken[hosts] / reading:6.1f} times {memory:5.0f} MiB"
            )
        ratio = taken[HOSTS[1]] / taken[HOSTS[0]]
        print(f"{HOSTS[1]} hosts take {ratio:.1f} times as long as {HOSTS[0]}")
        assert taken[HOSTS[1]] < LIMIT_S, f"the limit is {LIMIT_S:.0f} s"
        assert memory < LIMIT_MIB, f"the limit is {LIMIT_MIB:.0f} MiB"
        assert ratio < LINEAR, f"the limit is {LINEAR} times"


if __name__ == "__main__":
    main()
