# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""migration_gate and huge pages, which are the machine's: nobody else may take or add any meanwhile."""

from __future__ import annotations

from integration.test_migration_gate import Pair, armed, machines, pair, refused, restart, start
from rig import guests

__all__ = ["machines", "pair"]


def test_huge_pages_without_a_mount(pair: Pair) -> None:
    """The pages are the machine's; the mounts are each host's own."""
    armed(pair.there, qemu_uid=64055)
    pair.there.run(["sh", "-c", "umount /dev/hugepages || true"])
    pair.source.run(["sh", "-c", "mountpoint -q /dev/hugepages || mount -t hugetlbfs none /dev/hugepages"])
    restart(pair.source)
    pages = "/proc/sys/vm/nr_hugepages"
    before = int(pair.source.get(pages))
    pair.source.run(["sh", "-c", f"echo {before + 48} > {pages}"])
    try:
        start(pair, "huge", hugepages_kib=2048)
        assert refused(pair, "huge") == "no hugetlbfs with pages of 2M is mounted."
        pair.there.run(["mount", "-t", "hugetlbfs", "none", "/dev/hugepages"])
        restart(pair.there)
        # Now the guest itself holds most pages, and there are no others.
        pair.source.run(["sh", "-c", f"echo {before + 32} > {pages}"])
        assert "huge pages of 2M, and" in refused(pair, "huge")
    finally:
        guests.stop_all(pair.source)
        pair.source.run(["sh", "-c", f"echo {before} > {pages}"])
