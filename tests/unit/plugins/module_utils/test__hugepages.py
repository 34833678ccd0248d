# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _hugepages
from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._hugepages import Count, Pool, PoolError, Reservation
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import Journal
from ansible_collections.hypervisor.hardening.tests.unit.plugins.kernel import PlayedHost


@pytest.mark.parametrize(
    ("text", "kib"),
    [
        ("2M", 2048),
        ("2 M", 2048),
        ("2MiB", 2048),
        ("2mb", 2048),
        ("2048kB", 2048),
        ("2048 K", 2048),
        ("1G", 1048576),
        (" 1024M ", 1048576),
        ("64k", 64),
    ],
)
def test_sizes(text: str, kib: int) -> None:
    assert _hugepages.parse_size(text) == kib


@pytest.mark.parametrize("text", ["2048", "", "M", "0M", "-2M", "2T", "2.5M", "1G 2M", "2048kBB"])
def test_sizes_without_a_unit_or_without_sense(text: str) -> None:
    with pytest.raises(PoolError, match="is no page size"):
        _hugepages.parse_size(text)


@pytest.mark.parametrize(("kib", "text"), [(2048, "2M"), (1048576, "1G"), (64, "64K"), (16777216, "16G"), (32, "32K")])
def test_labels_are_what_mount_takes(kib: int, text: str) -> None:
    assert _hugepages.label(kib) == text
    assert _hugepages.parse_size(text) == kib


def test_the_pools_of_this_very_machine() -> None:
    """/proc/meminfo has the default size's pool by another way (proc_meminfo(5))."""
    host = Host()
    lines = (line.partition(":") for line in host.text("/proc/meminfo").splitlines())
    meminfo = {name: int(value.split()[0]) for name, _colon, value in lines}
    pools = _hugepages.read(host)
    if "Hugepagesize" not in meminfo:
        assert pools == {}
        return
    total = pools[meminfo["Hugepagesize"]].total
    assert total.pages + total.surplus == meminfo["HugePages_Total"]
    assert _hugepages.available(host) > 0


def test_pools(tmp_path: Path) -> None:
    host = PlayedHost(tmp_path)
    host.pool("2048kB", 8, reserved=1, nodes=[6, 2])
    host.pool("1048576kB", 0)
    host.put("/sys/devices/system/node/node9/cpulist", "4-7\n")  # a node without memory
    host.put("/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages", "3\n")
    assert _hugepages.read(host) == {
        2048: Pool(Count(5, 8, 3, 1), {0: Count(6, 6), 1: Count(2, 2)}),
        1048576: Pool(Count(0, 0)),
    }


@pytest.mark.parametrize(
    ("pool", "node", "before", "wanted", "refused"),
    [
        (Pool(Count(64, 10)), None, 64, 54, None),
        (Pool(Count(64, 10)), None, 64, 53, 54),
        (Pool(Count(64, 10, reserved=5)), None, 64, 58, 59),
        (Pool(Count(64, 10, surplus=2)), None, 64, 55, 56),
        (Pool(Count(64, 64)), None, 64, 0, None),
        (Pool(Count(64, 0)), None, 64, 65, None),
        (Pool(Count(64, 40), {0: Count(32, 8), 1: Count(32, 32)}), 0, 32, 23, 24),
        (Pool(Count(64, 40), {0: Count(32, 8), 1: Count(32, 32)}), 1, 32, 0, None),
        # Of the free pages 30 are promised, and the kernel does not say on which node: the two together must hold them.
        (Pool(Count(64, 40, reserved=30), {0: Count(32, 8), 1: Count(32, 32)}), 1, 32, 21, 22),
    ],
)
def test_never_below_what_is_in_use(
    pool: Pool, node: int | None, before: int, wanted: int, refused: int | None
) -> None:
    change = Reservation(2048, node, before, wanted)
    if refused is None:
        _hugepages.refuse_in_use(pool, change, [])
        return
    with pytest.raises(PoolError, match=rf"{refused} are in use or promised.*Guests with huge pages: web1\.") as error:
        _hugepages.refuse_in_use(pool, change, ["web1"])
    assert error.value.facts["in_use"] == refused


def test_asks_on_while_the_kernel_gives_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = PlayedHost(tmp_path)
    host.pool("2048kB", 1)
    change = Reservation(2048, None, 1, 9)
    gifts = iter([4, 7, 7, 9])

    def write(path: str, value: str) -> None:
        host.put(path, str(next(gifts)))

    monkeypatch.setattr(host, "write_kernel", write)
    assert _hugepages.reserve(host, change, Journal(host, "test")) == 7, "two answers alike end it"
    (entry,) = Journal(host, "test").entries()
    assert (entry.target, entry.before, entry.after) == (change.path, 1, 9)
