# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's pools of huge pages (Documentation/admin-guide/mm/hugetlbpage.rst). Sizes are in kibibytes."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from . import _proc
from ._host import HardeningError, Host

if t.TYPE_CHECKING:
    from ._journal import Journal

SYSTEM = "/sys/kernel/mm/hugepages"
NODES = "/sys/devices/system/node"

_SIZE = re.compile(r"([1-9][0-9]*) ?([kKmMgG])(?:i?[bB])?")
_KIB = {"k": 1, "m": 1 << 10, "g": 1 << 20}


class PoolError(HardeningError):
    """A pool of huge pages cannot be as it is wanted."""


@dataclass(frozen=True)
class Count:
    """One pool in numbers of pages. ``pages`` are those that stay: surplus ones, which come and go, are not among them.

    ``reserved``: promised to a mapping and not touched yet; they are free as well. The kernel has no such number for a
    single node.
    """

    pages: int
    free: int
    surplus: int = 0
    reserved: int = 0

    @property
    def in_use(self) -> int:
        return self.pages + self.surplus - self.free + self.reserved


@dataclass(frozen=True)
class Pool:
    """All pages of one size, in the whole machine and by node."""

    total: Count
    nodes: t.Mapping[int, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Reservation:
    """A number of pages to reserve: in the whole machine (``node`` None) or on one node."""

    size: int
    node: int | None
    before: int
    wanted: int

    @property
    def path(self) -> str:
        return sysfs(self.size, self.node)

    @property
    def where(self) -> str:
        return f"pages of {label(self.size)}" + ("" if self.node is None else f" on node {self.node}")

    def __str__(self) -> str:
        return f"{self.before} {self.where} instead of {self.wanted}"


def parse_size(text: str) -> int:
    """A page size with its unit (2M, 1G, 2048 kB, 2MiB) in kibibytes.

    :raises PoolError: no number with one of the units K, M, G.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise PoolError(f"size: {text!r} is no page size. Give a number with its unit, such as 2M, 1G or 2048 kB.")
    return int(match[1]) * _KIB[match[2].lower()]


def label(size: int) -> str:
    """A size as the kernel takes it as an option: 2M, 1G, 64K."""
    for letter, kib in (("G", 1 << 20), ("M", 1 << 10)):
        if size % kib == 0:
            return f"{size // kib}{letter}"
    return f"{size}K"


def sysfs(size: int, node: int | None = None) -> str:
    """The file that holds, and takes, the number of pages of a pool."""
    base = SYSTEM if node is None else f"{NODES}/node{node}/hugepages"
    return f"{base}/hugepages-{size}kB/nr_hugepages"


def read(host: Host) -> dict[int, Pool]:
    """Size -> the pool, for all sizes that this kernel has on this processor."""
    names = [name for name in host.list(SYSTEM) if name.startswith("hugepages-")]
    return {int(name[len("hugepages-") : -len("kB")]): _pool(host, name) for name in names}


def _pool(host: Host, name: str) -> Pool:
    nodes = [entry for entry in host.list(NODES) if re.fullmatch(r"node[0-9]+", entry)]
    found = {int(node[4:]): _count(host, f"{NODES}/{node}/hugepages/{name}") for node in nodes}
    total = _count(host, f"{SYSTEM}/{name}")
    return Pool(total or Count(0, 0), {node: count for node, count in found.items() if count})


def _count(host: Host, directory: str) -> Count | None:
    def number(name: str) -> int:
        return int(host.text_optional(f"{directory}/{name}") or 0)

    if host.text_optional(f"{directory}/nr_hugepages") is None:
        return None  # a node without memory
    surplus = number("surplus_hugepages")
    pages = number("nr_hugepages") - surplus
    return Count(pages, number("free_hugepages"), surplus, number("resv_hugepages"))


def available(host: Host) -> int:
    """MemAvailable of proc_meminfo(5) in kibibytes: what can be had without swapping."""
    match = re.search(r"^MemAvailable: *([0-9]+) kB", host.text("/proc/meminfo"), re.MULTILINE)
    return int(match[1]) if match else 0


def has_pages(host: Host, pid: int) -> bool:
    """Whether a process has huge pages (proc_pid_status(5))."""
    return _proc.status(host, pid).get("HugetlbPages", "0 kB").split()[0] != "0"


def refuse_in_use(pool: Pool, change: Reservation, holders: t.Sequence[str]) -> None:
    """Raise PoolError where fewer pages are wanted than are in use: the kernel would not take them, but they would turn
    into surplus pages, and be lost to the guests one by one."""
    if change.wanted >= change.before:
        return
    count = pool.total if change.node is None else pool.nodes[change.node]
    needed = max(count.in_use, pool.total.in_use - (pool.total.pages - count.pages))
    if change.wanted < needed:
        whom = f" Guests with huge pages: {', '.join(holders)}." if holders else ""
        raise PoolError(
            f"{change}: {needed} are in use or promised, so the pool cannot become smaller than that.{whom} Stop what "
            "uses them first, or ask for more pages.",
            in_use=needed,
            wanted=change.wanted,
        )


def reserve(host: Host, change: Reservation, journal: Journal) -> int:
    """Ask the kernel for pages; return how many the pool then has. A shortage is the caller's to judge."""
    journal.record_value(change.path, change.before, change.wanted)
    got = change.before
    while True:
        host.write_kernel(change.path, str(change.wanted))
        before, got = got, pages_now(host, change.path)
        # The kernel gives up early on fragmented memory; what it moved meanwhile often lets the next try get further.
        if got == change.wanted or got <= before:
            return got


def put_back(host: Host, change: Reservation, journal: Journal) -> None:
    """Ask for the former number of pages again."""
    journal.record_value(change.path, pages_now(host, change.path), change.before)
    host.write_kernel(change.path, str(change.before))


def pages_now(host: Host, path: str) -> int:
    """How many pages a pool has, by its file (``sysfs``); 0 for a pool that this kernel does not have."""
    count = _count(host, path.rpartition("/")[0])
    return count.pages if count else 0
