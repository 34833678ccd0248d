# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback and huge pages, which are the machine's: nobody else may take or add any meanwhile."""

from __future__ import annotations

import typing as t

import pytest
import rig
from rig import guests, modules

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
NR, FREE = f"{POOL}/nr_hugepages", f"{POOL}/free_hugepages"
MOUNT = "/huge2M"


@pytest.fixture
def host() -> t.Iterator[rig.Host]:
    with rig.host("trixie") as fresh:
        before = int(fresh.get(NR))
        try:
            yield fresh
        finally:
            guests.stop_all(fresh)
            fresh.run(["sh", "-c", f"echo {before} > {NR}"])


def call(host: rig.Host, module: str, **options: t.Any) -> dict[str, t.Any]:
    answer = modules.call(host, module, **options)
    assert not answer.get("failed"), answer["msg"]
    return answer


def refused(host: rig.Host) -> str:
    """Why all of it cannot be put back; the guest runs on, with its pages."""
    before = (host.get(NR), guests.pid(host, "huge"))
    answer = modules.call(host, "rollback", all=True)
    assert (answer["failed"], answer["changed"]) == (True, False)
    assert (host.get(NR), guests.pid(host, "huge")) == before
    return str(answer["msg"])


def test_pages_and_mounts_of_a_guest_are_not_taken(host: rig.Host) -> None:
    before, free = int(host.get(NR)), int(host.get(FREE))
    # More than there are without those that are asked for now.
    guest = guests.Guest("huge", memory_mib=2 * (free + 32), hugepages_kib=2048)
    host.run(["sh", "-c", "mountpoint -q /dev/hugepages || mount -t hugetlbfs none /dev/hugepages"])
    call(host, "hugetlbfs", pools=[{"size": "2M", "pages": before + 40}])
    guests.restart_libvirtd(host)
    guests.start(host, guest)
    assert "Guests with huge pages: huge." in refused(host)
    guests.stop(host, "huge")
    call(host, "rollback", all=True)
    assert int(host.get(NR)) == before

    host.run(["umount", "/dev/hugepages"])
    call(host, "hugetlbfs", pools=[{"size": "2M", "pages": before + 40, "path": MOUNT}])
    guests.restart_libvirtd(host)
    guests.start(host, guest)
    assert f"{MOUNT} is in use and stays mounted: {MOUNT}/libvirt/qemu/" in refused(host)
    guests.stop(host, "huge")
    call(host, "rollback", all=True)
    assert int(host.get(NR)) == before
    assert host.run(["test", "-e", MOUNT], check=False).returncode != 0
