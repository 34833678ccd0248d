# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._host import Host
from ansible_collections.hypervisor.hardening.plugins.module_utils._journal import DIRECTORY, Journal, JournalError

CONF = "/etc/libvirt/qemu.conf"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "etc/libvirt").mkdir(parents=True)
    (tmp_path / "etc/libvirt/qemu.conf").write_bytes(b"# sample \xff\n")
    return Host(str(tmp_path))


@pytest.fixture
def journal(host: Host) -> Journal:
    return Journal(host, by="hypervisor.hardening.qemu_conf")


def test_is_private_to_root(host: Host, journal: Journal) -> None:
    old = os.umask(0)
    try:
        entry = journal.record_file(CONF, b"new")
        journal.mark_loaded(CONF, "digest")
    finally:
        os.umask(old)
    assert stat.S_IMODE(host.stat(DIRECTORY).st_mode) == 0o700
    assert {stat.S_IMODE(host.stat(f"{DIRECTORY}/{name}").st_mode) for name in host.list(DIRECTORY)} == {0o600}
    assert entry.name in host.list(DIRECTORY)


def test_keeps_bytes_owner_mode_and_attributes(host: Host, journal: Journal) -> None:
    os.chown(host.path(CONF), 12, 34)
    os.chmod(host.path(CONF), 0o640)
    os.setxattr(host.path(CONF), "user.note", b"\x00\xff")
    journal.record_file(CONF, b"new")
    (entry,) = journal.entries()
    assert entry.content() == b"# sample \xff\n"
    assert (entry.before["uid"], entry.before["gid"], entry.before["mode"]) == (12, 34, 0o640)
    assert entry.before["xattrs"] == {"user.note": "AP8="}
    assert (entry.kind, entry.target, entry.by) == ("file", CONF, "hypervisor.hardening.qemu_conf")
    # printf new | sha256sum
    assert entry.after == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


def test_restore_brings_back_the_bytes_and_is_itself_recorded(host: Host, journal: Journal) -> None:
    entry = journal.record_file(CONF, b"new\n")
    host.write(CONF, b"new\n")
    journal.restore(entry)
    assert host.read(CONF) == b"# sample \xff\n"
    assert [kept.content() for kept in journal.entries()] == [b"# sample \xff\n", b"new\n"]


def test_restore_removes_what_was_not_there(host: Host, journal: Journal) -> None:
    entry = journal.record_file("/etc/libvirt/new.conf", b"new\n")
    host.write("/etc/libvirt/new.conf", b"new\n")
    journal.restore(entry)
    assert not host.exists("/etc/libvirt/new.conf")


def test_values_keep_their_order(journal: Journal) -> None:
    for pages in range(20):
        journal.record_value("vm.nr_hugepages", pages, pages + 1)
    assert [entry.before for entry in journal.entries()] == list(range(20))


def test_unproven_is_the_first_change_since_the_last_proof(host: Host, journal: Journal) -> None:
    assert journal.unproven(CONF) is None
    journal.record_file(CONF, b"1")
    journal.mark_loaded(CONF, "one")
    assert journal.unproven(CONF) is None
    second = journal.record_file(CONF, b"2")
    journal.record_file(CONF, b"3")
    journal.record_file("/etc/libvirt/other.conf", b"4")
    unproven = journal.unproven(CONF)
    assert unproven is not None
    assert unproven.name == second.name


def test_a_proof_of_the_same_meaning_keeps_its_first_time(journal: Journal) -> None:
    journal.mark_loaded(CONF, "one")
    first = journal.loaded(CONF)
    journal.record_file(CONF, b"x")
    journal.mark_loaded(CONF, "one")
    again = journal.loaded(CONF)
    assert first is not None
    assert again is not None
    assert again.since == first.since
    assert again.entry > first.entry
    journal.mark_loaded(CONF, "two")
    other = journal.loaded(CONF)
    assert other is not None
    assert other.since > first.since


def test_an_unchanged_proof_writes_nothing(host: Host, journal: Journal) -> None:
    journal.mark_loaded(CONF, "one")
    before = host.stat(f"{DIRECTORY}/loaded.json").st_ino
    journal.mark_loaded(CONF, "one")
    assert host.stat(f"{DIRECTORY}/loaded.json").st_ino == before


def test_a_broken_entry_is_named(host: Host, journal: Journal) -> None:
    journal.record_file(CONF, b"x")
    (name,) = host.list(DIRECTORY)
    host.write(f"{DIRECTORY}/{name}", b"{")
    with pytest.raises(JournalError, match=f"{DIRECTORY}/{name} is not an entry"):
        journal.entries()


def test_a_broken_mark_is_named(host: Host, journal: Journal) -> None:
    journal.mark_loaded(CONF, "one")
    host.write(f"{DIRECTORY}/loaded.json", b"{")
    with pytest.raises(JournalError, match=r"loaded\.json cannot be read"):
        journal.loaded(CONF)


def test_reading_makes_no_directory(host: Host, journal: Journal) -> None:
    assert journal.entries() == []
    assert journal.loaded(CONF) is None
    assert not host.exists(DIRECTORY)


def test_entries_since_a_moment(tmp_path: Path) -> None:
    journal = Journal(Host(str(tmp_path)), by="test")
    journal.record_value("/sys/first", 1, 2)
    now = time.time()
    assert [entry.target for entry in journal.since(now - 2)] == ["/sys/first"]
    assert journal.since(now + 2) == []


def test_the_order_of_changes_outlives_a_clock_that_is_set_back(
    host: Host, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_999_999_999)  # 2033-05-18 03:33:20 UTC
    journal.record_file(CONF, b"1")
    journal.mark_loaded(CONF, "one")
    monkeypatch.undo()
    second = journal.record_file(CONF, b"2")
    third = journal.record_file(CONF, b"3")
    assert second.name.startswith("20330518T033321.000000000-")
    assert second.time < "2033"
    assert [entry.after for entry in journal.entries()][-2:] == [second.after, third.after]
    unproven = journal.unproven(CONF)
    assert unproven is not None
    assert unproven.name == second.name


@pytest.mark.parametrize("path", ["/var/lib/hypervisor-hardening", DIRECTORY])
@pytest.mark.parametrize(("uid", "mode"), [(65534, 0o700), (0, 0o770), (0, 0o702)])
def test_a_journal_that_others_can_write_is_refused(
    host: Host, journal: Journal, path: str, uid: int, mode: int
) -> None:
    journal.mark_loaded(CONF, "one")
    entry = journal.record_file(CONF, b"x")
    os.chown(host.path(path), uid, -1)
    os.chmod(host.path(path), mode)
    for forged in (
        journal.entries,
        lambda: journal.loaded(CONF),
        lambda: journal.unproven(CONF),
        lambda: journal.restore(entry),
        lambda: journal.record_value("/sys/x", 1, 2),
    ):
        with pytest.raises(JournalError, match=f"{path} is no place for the journal"):
            forged()


def test_a_file_in_the_place_of_the_journal_is_refused(host: Host, journal: Journal) -> None:
    host.make_directory("/var/lib", 0o755)
    host.write("/var/lib/hypervisor-hardening", b"")
    with pytest.raises(JournalError, match="is no directory"):
        journal.record_value("/sys/x", 1, 2)


@pytest.mark.parametrize("content", [b"[1]", b'{"/etc/libvirt/qemu.conf": {"x": 1}}', b'{"/etc/libvirt/qemu.conf": 1}'])
def test_a_mark_of_another_shape_is_named(host: Host, journal: Journal, content: bytes) -> None:
    journal.mark_loaded(CONF, "one")
    host.write(f"{DIRECTORY}/loaded.json", content)
    with pytest.raises(JournalError, match=r"loaded\.json cannot be read"):
        journal.loaded(CONF)
