# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import io
import os
import sys
import syslog
import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils import _agreement, _gate
from ansible_collections.hypervisor.hardening.plugins.module_utils._gate import ALLOWED, REFUSED
from ansible_collections.hypervisor.hardening.tests.unit.plugins.libvirthost import LibvirtHost

XML = b"<domain><name>web</name><devices><disk type='file'><source file='/gone.img'/></disk></devices></domain>"
PLAIN = b"<domain><name>web</name></domain>"


class Call:
    """One run of the hook's code: ``logged`` is a file, for it logs in a child."""

    def __init__(self, host: LibvirtHost, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self._log, self._patch = host, log, monkeypatch
        monkeypatch.setattr(_gate, "Host", lambda: host)
        monkeypatch.setattr(syslog, "openlog", lambda *_words: None)
        monkeypatch.setattr(syslog, "syslog", self._note)
        self.said = io.StringIO()

    def _note(self, priority: int, text: str) -> None:
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(f"{priority} {text}\n")

    def __call__(self, mode: str, xml: bytes = PLAIN, guest: str = "web") -> int:
        self._patch.setattr(sys, "stderr", self.said)
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(xml)))
        return _gate.main(mode, guest, time.monotonic())

    @property
    def logged(self) -> list[str]:
        return self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    host = LibvirtHost(tmp_path / "root")
    host.directory("/var/lib/libvirt/qemu", owner=(os.geteuid(), os.getegid()))
    agree(host, qemu_uid=os.geteuid())
    return Call(host, tmp_path / "log", monkeypatch)


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()


def agree(host: LibvirtHost, **values: t.Any) -> None:
    host.put(_gate.AGREEMENT, _agreement.make("web", values).render().decode())


HEAD = f"hypervisor.hardening: web may not come to {os.uname().nodename}: "


@pytest.mark.parametrize("mode", ["warn", "enforce"])
def test_a_guest_that_may_come(call: Call, mode: str) -> None:
    assert call(mode) == ALLOWED == 0
    assert call.said.getvalue() == ""
    assert call.logged == [f"{syslog.LOG_INFO} web may come: this host is as agreed"]


def test_a_guest_that_may_not(call: Call) -> None:
    agree(call.host, qemu_uid=1, qemu_gid=os.getegid())
    line = f"{HEAD}qemu_uid is {os.geteuid()} here, agreed is 1; /gone.img is not there."
    assert call("enforce", XML) == REFUSED
    assert call.said.getvalue() == f"{line}\n"
    assert call.logged == [f"{syslog.LOG_ERR} {line}"]


def test_a_guest_that_may_not_and_does(call: Call) -> None:
    assert call("warn", XML) == ALLOWED
    assert call.said.getvalue() == ""
    assert call.logged == [
        f"{syslog.LOG_WARNING} {HEAD}/gone.img is not there. It is let through all the same: the mode is warn."
    ]


def test_a_note_is_logged_and_refuses_nothing(call: Call) -> None:
    pool = "<pool type='dir'><name>p</name><target><path>/</path></target></pool>"
    call.host.put("/etc/libvirt/storage/p.xml", pool)
    call.host.put("/run/libvirt/storage/p.xml", f"<poolstate>{pool}</poolstate>")
    assert call("enforce", XML) == ALLOWED
    assert call.logged[0].startswith(f"{syslog.LOG_NOTICE} web: /gone.img is not there, which is right only if")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "The agreement is missing"),
        ("{", "The agreement is no JSON; it may be cut off"),
        ('{"version": 3}', "The agreement is of version 3"),
    ],
)
def test_an_agreement_that_cannot_be_used_goes_by_the_mode(call: Call, content: str | None, words: str) -> None:
    os.unlink(call.host.path(_gate.AGREEMENT))
    if content is not None:
        call.host.put(_gate.AGREEMENT, content)
    assert call("enforce") == REFUSED
    assert call.said.getvalue().startswith(f"{HEAD}{_gate.AGREEMENT}: {words}")
    assert call("warn") == ALLOWED
    assert words in call.logged[-1]


@pytest.mark.parametrize(
    "xml", [b"", b"<domain", b"<!DOCTYPE a><domain/>", b"<domain>" + b" " * (5 << 20) + b"</domain>"]
)
def test_xml_that_cannot_be_read_goes_by_the_mode(call: Call, xml: bytes) -> None:
    assert call("enforce", xml) == REFUSED
    assert "the gate came to no judgement: the guest's XML" in call.said.getvalue()
    assert call("warn", xml) == ALLOWED


@pytest.mark.parametrize("error", [RuntimeError("x"), RecursionError(), MemoryError(), OSError(5, "I/O error", "/x")])
def test_any_failure_goes_by_the_mode(call: Call, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_words: t.Any) -> t.Any:
        raise error

    monkeypatch.setattr(_gate, "judge", fail)
    assert call("enforce") == REFUSED
    assert "the gate came to no judgement: " in call.said.getvalue()
    assert call("warn") == ALLOWED


def test_what_hangs_is_ended_in_time(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "judge", lambda *_words: time.sleep(60))
    monkeypatch.setattr(syslog, "openlog", lambda *_words: time.sleep(60))
    begun = time.monotonic()
    assert call("enforce") == REFUSED
    assert time.monotonic() - begun < 2
    assert "No answer within" in call.said.getvalue()
    assert call("warn") == ALLOWED


def test_a_slow_start_counts(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gate, "judge", lambda *_words: time.sleep(60))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(PLAIN)))
    begun = time.monotonic()
    assert _gate.main("warn", "web", begun - 30) == ALLOWED
    assert "No answer within 0.1 seconds" in call.logged[-1]


def test_one_line_for_any_name(call: Call) -> None:
    guest = "a\nb\x1b[31m\u202e\udcff'\""
    assert call("enforce", XML, guest) == REFUSED
    (line,) = call.said.getvalue().splitlines()
    assert "a\\nb\\x1b[31m\\u202e" in line
    assert line.isprintable()
    assert call.logged[0].endswith(line)


def test_many_reasons_are_cut_to_a_line() -> None:
    line = _gate.message("web", [f"reason {number:04}." for number in range(1000)])
    assert len(line) < 1100
    assert line.startswith(f"{HEAD}reason 0000; reason 0001; ")
    named = line.count("reason")
    assert line.endswith(f"and {1000 - named} more.")
    assert len(_gate.message("web", ["x" * 5000])) < 1100
