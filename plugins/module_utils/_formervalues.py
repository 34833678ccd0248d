# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running values as kinds of targets of the journal; the rooms that made them put them back."""

from __future__ import annotations

import re
import typing as t

from . import _hugemounts, _hugepages, _libvirtd, _mountinfo, _mounts
from ._former import Change, FormerError, Kind
from ._host import Host
from ._hugemounts import Root, Step
from ._hugewanted import Entry as Pool

if t.TYPE_CHECKING:
    from ._journal import Entry, Journal

_POOL = re.compile(r"(?:/node(\d+)/hugepages|/mm/hugepages)/hugepages-(\d+)kB/nr_hugepages$")


# What no write changes any more once it is this (the kernel's admin-guide/sysctl/kernel.rst and LSM/Yama.rst).
_ONE_WAY = {
    "/proc/sys/kernel/kexec_load_disabled": "1",
    "/proc/sys/kernel/modules_disabled": "1",
    "/proc/sys/kernel/unprivileged_bpf_disabled": "1",
    "/proc/sys/kernel/yama/ptrace_scope": "3",
}


class KernelFile(Kind):
    """A file of /proc/sys or /sys that holds one value, as text or number; one that was not there has no former one."""

    name = "kernel"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        text = host.text_optional(entries[0].target)
        return None if text is None else text.strip()

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        return self.is_same(then, entry.after)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return one is None or str(one).split() == str(other).split()

    def stuck(self, target: str, now: t.Any) -> str:
        return "the kernel takes no other value before the next boot" if _ONE_WAY.get(target) == now else ""

    def check(self, host: Host, change: Change) -> None:
        if change.now is None:
            raise FormerError(f"{change.target} does not exist in this kernel, so its former value cannot return.")
        host.write_kernel(change.target, str(change.wanted), rehearse=True)

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        host.write_kernel(change.target, str(change.wanted))


class Unit(Kind):
    """Whether a unit of systemd is active."""

    name = "unit"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        done = host.run(["systemctl", "is-active", "--", entries[0].target.partition(":")[2]])
        return "active" if done.rc == 0 else "inactive"

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
        verb = "start" if change.wanted == "active" else "stop"
        # It may have been masked until a moment ago.
        for words in (["daemon-reload"], [verb, "--", change.target.partition(":")[2]]):
            done = host.run(["systemctl", *words])
            if done.rc != 0:
                raise FormerError(f"systemctl {' '.join(words)} failed: {(done.err or done.out).strip()}")
        host.changed = True


class HugePages(Kind):
    """The number of pages in a pool."""

    name = "hugepages"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        return _hugepages.pages_now(host, entries[0].target)

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        # The kernel may have given fewer than it was asked for.
        return bool(then == entry.after or entry.before < then < entry.after)

    def check(self, host: Host, change: Change) -> None:
        pools = _hugepages.read(host)
        reservation = _reservation(change)
        if reservation.size not in pools:
            raise FormerError(f"{change.target} does not exist in this kernel, so its former value cannot return.")
        holders = [guest.name for guest in _libvirtd.guests(host) if _hugepages.has_pages(host, guest.pid)]
        _hugepages.refuse_in_use(pools[reservation.size], reservation, holders)

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        got = _hugepages.reserve(host, _reservation(change), journal.taking_back(change.first))
        if got != change.wanted:
            raise FormerError(
                f"{change.target}: the kernel made it {got}, and it was {change.wanted}. Free memory and run again."
            )


class Hugetlbfs(Kind):
    """A mount with its root's owner, group and mode; or, inside one, a directory that was delegated to a user."""

    name = "hugetlbfs"

    def path(self, target: str) -> str:
        return target.partition(":")[2]

    def key(self, entry: Entry) -> str:
        return entry.target.removesuffix(f"/{_hugemounts.BASE}")

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        path = self.path(self.key(entries[0]))
        if any(_is_delegated(entry) for entry in entries):
            status = host.stat_optional(_hugemounts.PID1_ROOT + path, follow=False)
            return {"is": None if status is None else {"delegated": status.st_uid}}
        found = _place(host, path, 0)
        return {"is": vars(found.root) if found.root else None}

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        now, after = then["is"], entry.after["is"]
        return bool(now == after or (now and after and "delegated" in now and now["delegated"] == after.get("uid")))

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return bool(one["is"] == other["is"])

    def is_nothing(self, state: t.Any) -> bool:
        return state["is"] is None

    def is_news(self, change: Change) -> bool:
        roots = (change.now["is"], change.wanted["is"])
        return None in roots and not any(root and "delegated" in root for root in roots)

    def check(self, host: Host, change: Change) -> None:
        path, now, wanted = self.path(change.target), change.now["is"], change.wanted["is"]
        if now and "delegated" in now:
            inside = host.list(_hugemounts.PID1_ROOT + path)
            if inside:
                raise FormerError(f"{path} is in use and stays: {', '.join(inside)}. Stop what uses it first.")
        elif now and (wanted is None or now["size"] != wanted["size"]):
            pool = Pool(now["size"], {}, path, absent=True)
            _hugemounts.absent(pool, _place(host, path, now["size"]))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        path, now, wanted = self.path(change.target), change.now["is"], change.wanted["is"]
        if now and "delegated" in now:
            journal.taking_back(change.first).record_value(change.target, change.now, change.wanted)
            host.remove_directory(_hugemounts.PID1_ROOT + path)
            return
        daemon = _libvirtd.layout(host).process
        last = journal.taking_back(change.first)
        before, after = (Root(**root) if root else None for root in (now, wanted))
        if before and after and before.size == after.size:
            _hugemounts.take(host, Step("owner", path, before, after), last, daemon)
        elif after:
            if before:
                _hugemounts.take(host, Step("unmount", path, before, None), journal, daemon)
            _hugemounts.take(host, Step("mount", path, None, after), last, daemon)
        else:
            _hugemounts.take(host, Step("unmount", path, before, None), last, daemon)

    def diff(self, change: Change) -> tuple[str, str]:
        before, after = (_shown(self.path(change.target), state["is"]) for state in (change.now, change.wanted))
        return before, after


class Propagation(Kind):
    """How a mount propagates; one that is gone has nothing to return to."""

    name = "propagation"

    def now(self, host: Host, entries: t.Sequence[Entry]) -> t.Any:
        mount = _mountinfo.visible(_mountinfo.read(host, 1)).get(entries[0].target.partition(":")[2])
        return mount.propagation if mount else None

    def is_made(self, entry: Entry, then: t.Any) -> bool:
        return then is not None and _mounts.is_kind(then, entry.after)

    def is_same(self, one: t.Any, other: t.Any) -> bool:
        return other is None or _mounts.is_kind(other, _kind(one))

    def put_back(self, host: Host, change: Change, journal: Journal) -> None:
        journal.taking_back(change.first).record_value(change.target, change.now, _kind(change.wanted))
        host.mount("none", change.target.partition(":")[2], "", _mounts.FLAGS[_kind(change.wanted)])

    def check(self, host: Host, change: Change) -> None:
        host.mount("none", change.target.partition(":")[2], "", _mounts.FLAGS[_kind(change.wanted)], rehearse=True)


def _reservation(change: Change) -> _hugepages.Reservation:
    found = _POOL.search(change.target)
    if not found:
        raise FormerError(f"{change.target} is no pool of huge pages that this version knows.")
    node = None if found[1] is None else int(found[1])
    return _hugepages.Reservation(int(found[2]), node, change.now, change.wanted)


def _is_delegated(entry: Entry) -> bool:
    """Whether an entry is of a directory: a mount comes with the daemon that does not know of it."""
    return entry.before["is"] is None and entry.after["is"] is not None and "daemon" not in entry.after


def _place(host: Host, path: str, size: int) -> _hugemounts.Place:
    mounts = _mountinfo.visible(_mountinfo.read(host, 1))
    return _hugemounts.place(host, mounts, Pool(size, {}, path, absent=True))


def _shown(path: str, root: t.Any) -> str:
    if root is None:
        return f"{path}: none\n"
    return f"{path}: owner {root['delegated']}\n" if "delegated" in root else f"{path}: {Root(**root)}\n"


def _kind(word: str) -> str:
    """What mount(8) is to be told for a propagation as the kernel shows it: a shared mount may be a slave besides."""
    return word.partition(",")[0]
