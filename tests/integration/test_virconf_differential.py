# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""_virconf against libvirt's own parser: the same files, the same answers, and edits that libvirt reads as meant.

VIRCONF_SEED=NUMBER chooses other inputs; the seed in use is printed.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import rig
from hypothesis import strategies as st
from virconf import bugs, inputs
from virconf.libvirt_parser import LibvirtParser, Reading

from ansible_collections.hypervisor.hardening.plugins.module_utils import _virconf
from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Document, Value, VirConfError

RELEASES = {"bookworm": "libvirt.so.0.9000.0", "trixie": "libvirt.so.0.11003.0"}
SEED = int(os.environ.get("VIRCONF_SEED", "20"))
FILES = 20_000
BY_GRAMMAR = 6_000
# The declared exception: beyond these 9.0 wraps (signed and unsigned alike from 2**64 on), 11.3 refuses.
LARGEST = 2**63 - 1
settings = hypothesis.settings(
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    suppress_health_check=list(hypothesis.HealthCheck),
)
BLANKS = b" \t\r\n"


@functools.cache
def root_of(release: str) -> Path:
    return rig.build(release) / "root"


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def libvirt(release: str) -> Iterator[LibvirtParser]:
    with LibvirtParser(root_of(release)) as parser:
        assert parser.library == RELEASES[release]
        yield parser


def test_reads_what_libvirt_reads(libvirt: LibvirtParser, release: str, capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    rng = random.Random(SEED)
    shipped = inputs.shipped(root_of(release))
    for data in [*inputs.BY_HAND, *shipped]:
        tally.compare(libvirt, data, rng)
    for data, key, value in inputs.EDITS_BY_HAND:
        tally.edit(libvirt, data, libvirt(data), Edit(key, value))

    @hypothesis.seed(SEED)
    @hypothesis.settings(settings, max_examples=BY_GRAMMAR)
    @hypothesis.given(inputs.FILES, st.integers(0, 2**32))
    def compare_by_grammar(data: bytes, choice: int) -> None:
        tally.compare(libvirt, data, random.Random(choice))

    compare_by_grammar()
    assert tally.files >= BY_GRAMMAR, "hypothesis made fewer files than it was asked for"
    for data in inputs.mutations(shipped, rng):
        if tally.files >= FILES:
            break
        tally.compare(libvirt, data, rng)

    with capsys.disabled():
        print(f"\n{libvirt.library} (seed {SEED}): {tally}")
    assert tally.accepted >= 0.3 * tally.files
    assert tally.edits >= 3_000
    assert tally.together >= 3_000


@pytest.mark.parametrize("number", [LARGEST + 1, 2**64 - 1, 2**64, -LARGEST - 1, -(2**64), 10**30])
def test_integers_beyond_64_bits(libvirt: LibvirtParser, release: str, number: int) -> None:
    """The declared exception: they parse here, and libvirt 9.0 lets them wrap, 11.3 refuses the file."""
    data = b"a = %d\nb = 1\n" % number
    value = Document.parse(data).get("a")
    assert value and value.content == number
    entries = libvirt(data).entries
    if release == "bookworm":
        assert len(entries) == 2 and (entries[0][2] - number) % 2**64 == 0
    else:
        assert entries == []


def test_a_file_that_libvirt_dies_of_is_named(libvirt: LibvirtParser) -> None:
    # Only a driver that has answered once is sure to die with the process around it (unshare --kill-child).
    assert libvirt(b"a = 1\n").entries
    libvirt._process.kill()
    libvirt._process.wait()
    assert libvirt._process.stdout and libvirt._process.stdout.read() == b"", "the driver inside goes a moment later"
    with pytest.raises(AssertionError, match=r"libvirt\.so\.0\.\d+\.0 did not survive \(status -9.*poison"):
        libvirt(b"poison = 1\n")


def test_without_libvirt_there_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nothing to compare with"):
        LibvirtParser(tmp_path)


def test_finds_each_seeded_bug(
    libvirt: LibvirtParser, release: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    mutated = inputs.mutations(inputs.shipped(root_of(release)), rng)
    at_random = [*by_grammar(1_500), *itertools.islice(mutated, 1_500)]
    read = [[(data, libvirt(data)) for data in files] for files in (inputs.BY_HAND, at_random)]
    lines = []
    missed = []
    for bug in bugs.BUGS:
        with monkeypatch.context() as patched:
            patched.setattr(_virconf, bug.name, bug.instead_of(getattr(_virconf, bug.name)))
            found = misedited(libvirt, read[1][::5]) if bug.row == "edits" else [misread(files) for files in read]
        lines.append(f"  {bug.row:<18} {bug.what:<40} {found[0]:>4} {found[1]:>5}")
        if not any(found):
            missed.append((bug.row, bug.what))
    assert [misread(files) for files in read] == [0, 0], "the code as it is"
    assert misedited(libvirt, read[1][::5]) == [0, 0], "the code as it is"
    with capsys.disabled():
        print(f"\n{libvirt.library} (seed {SEED}): {len(lines) - len(missed)} of {len(lines)} seeded bugs found,")
        print(f"  each by so many of {len(inputs.BY_HAND)} files (or {len(inputs.EDITS_BY_HAND)} edits) by hand, and")
        print(f"  of {len(at_random)} files (or {len(at_random) // 5} edits) at random")
        print("\n".join(lines))
    assert not missed


def by_grammar(count: int) -> list[bytes]:
    """Files that hypothesis makes by the grammar."""
    files: list[bytes] = []

    @hypothesis.seed(SEED)
    @hypothesis.settings(settings, max_examples=count)
    @hypothesis.given(inputs.FILES)
    def collect(data: bytes) -> None:
        files.append(data)

    collect()
    return files


def misread(read: list[tuple[bytes, Reading]]) -> int:
    """How many of the files read otherwise than libvirt reads them."""
    return sum(fails(compare_reading, data, reading) for data, reading in read if not beyond_64_bits(data))


def misedited(libvirt: LibvirtParser, read: list[tuple[bytes, Reading]]) -> list[int]:
    """How many edits by hand, and of these files at random, go wrong."""
    rng = random.Random(SEED)
    by_hand = [
        fails(check_edit, libvirt, data, libvirt(data), Edit(key, value)) for data, key, value in inputs.EDITS_BY_HAND
    ]
    at_random = [
        fails(check_edit, libvirt, data, reading, some_edit(reading, data, rng))
        for data, reading in read
        if reading.error is None and not beyond_64_bits(data)
    ]
    return [sum(by_hand), sum(at_random)]


def fails(check: Callable[..., object], *arguments: object) -> bool:
    try:
        check(*arguments)
    except (AssertionError, VirConfError):
        return True
    return False


class Tally:
    """The counts of a run."""

    def __init__(self) -> None:
        self.files = self.accepted = self.assigning = self.lines = self.excepted = self.edits = self.together = (
            self.unwritable
        ) = 0

    def __str__(self) -> str:
        return (
            f"{self.files} files, {self.accepted} accepted ({self.accepted * 100 // self.files}%),"
            f" {self.assigning} of them with assignments, {self.lines} refused on the same line; {self.edits} edits,"
            f" {self.together} times several at once, {self.unwritable} values that nothing can write; {self.excepted}"
            f" more files left out (integers beyond 64 bits)"
        )

    def compare(self, libvirt: LibvirtParser, data: bytes, rng: random.Random) -> None:
        """Both read the file; where libvirt accepts it, an edit of it is checked too."""
        reading = libvirt(data)
        if beyond_64_bits(data):
            self.excepted += 1
            return
        self.lines += compare_reading(data, reading)
        self.files += 1
        self.accepted += reading.error is None
        self.assigning += bool(reading.entries)
        if reading.error is None and len(data) < 100_000:
            self.edit(libvirt, data, reading, some_edit(reading, data, rng))
            self.together += check_edits_together(
                libvirt, data, reading, [some_edit(reading, data, rng) for _edit in range(4)]
            )

    def edit(self, libvirt: LibvirtParser, data: bytes, reading: Reading, edit: Edit) -> None:
        """The edit is right, or there is no way to write its value."""
        if check_edit(libvirt, data, reading, edit):
            self.edits += 1
        else:
            self.unwritable += 1


def beyond_64_bits(data: bytes) -> bool:
    """Whether an assignment has an integer of the declared exception."""
    try:
        values = [item.value for item in Document.parse(data)._assignments]
    except VirConfError:
        return False
    while values:
        content = values.pop().content
        if isinstance(content, tuple):
            values += content
        elif isinstance(content, int) and abs(content) > LARGEST:
            return True
    return False


def as_read(value: Value) -> list[Any]:
    content = value.content
    return [value.kind, [as_read(item) for item in content] if isinstance(content, tuple) else content]


def compare_reading(data: bytes, reading: Reading) -> bool:
    """Acceptance, keys, kinds and values agree; returns whether both refused and named the same line."""
    try:
        document = Document.parse(data)
    except VirConfError as refused:
        assert reading.error is not None, f"libvirt accepts what _virconf refuses ({refused}): {data[:2000]!r}"
        if reading.line is None or "three quotes" in refused.message:
            return False  # the size; and we name the line where such a string starts, not where the file ends
        assert refused.line == reading.line, f"{refused}, but libvirt: {reading.error}: {data[:2000]!r}"
        return True
    assert reading.error is None, f"_virconf accepts what libvirt refuses ({reading.error}): {data[:2000]!r}"
    entries = [[item.key, *as_read(item.value)] for item in document._assignments]
    assert entries == reading.entries, f"{data[:2000]!r}"
    values = [(key, document.get(key)) for key in document.keys()]  # noqa: SIM118, it is no dict
    first = {key: as_read(value) for key, value in values if value}
    assert first == reading.first, f"{data[:2000]!r}"
    return False


@dataclass(frozen=True)
class Edit:
    """A key and its new value; None unsets it."""

    key: str
    value: _virconf.Plain | None

    def to(self, document: Document) -> None:
        if self.value is None:
            document.unset(self.key)
        else:
            document.set(self.key, self.value)

    def on(self, data: bytes) -> bytes:
        document = Document.parse(data)
        self.to(document)
        return document.render()


def some_edit(reading: Reading, data: bytes, rng: random.Random) -> Edit:
    samples = [key.decode() for key in re.findall(rb"(?m)^[ \t]*#[ \t]*([a-zA-Z]\w*)[ \t]*=", data)]
    keys = list(reading.first) * 6 + ["new_key", "a"] + samples[:1]
    text = "".join(rng.choices("xy0 #;=,[]\\é\udcff'\"\n\r", k=rng.choice((0, 1, 3, 6))))
    texts = [text, "x", "/dev/null", "it's", 'say "x"', '"""', "'\n\"", "x'\"", "\0"]
    lists = [[], [text], rng.choices(texts, k=3)]
    numbers = [True, False, 0, 1, -1, LARGEST, -LARGEST]
    value = rng.choice([None, rng.choice(texts), text, rng.choice(lists), rng.choice(numbers)])
    return Edit(rng.choice(keys), value)


def check_edit(libvirt: LibvirtParser, before: bytes, reading: Reading, edit: Edit) -> bool:
    """One edit of a file that libvirt accepts; returns False for a value that has no spelling in this grammar."""
    try:
        after = edit.on(before)
    except VirConfError:
        texts = [edit.value] if isinstance(edit.value, str) else edit.value
        assert isinstance(texts, list)
        assert not all(libvirt_can_hold(libvirt, text) for text in texts), f"{edit} can be written"
        return False
    where = f"{edit} on {before!r} gives {after!r}"
    assert edit.on(after) == after, f"twice is not once: {where}"
    read = libvirt(after)
    assert read.error is None, f"{read.error}: {where}"
    others = [entry for entry in reading.entries if entry[0] != edit.key]
    assert [entry for entry in read.entries if entry[0] != edit.key] == others, where
    mine = [entry[1:] for entry in read.entries if entry[0] == edit.key]
    assert mine == ([] if edit.value is None else [expected(edit.value)]), where

    # All other bytes are the same: later ones of a key are looked at one by one, under names of their own. Not where
    # lone CRs are: one that loses the line after it may meet an LF, and the two are one line end from then on. Nor
    # where six quotes are: they get a line end where they come last, which may be in between and not in one step.
    data = before
    positions = [item for item in Document.parse(before)._assignments if item.key == edit.key]
    if len(positions) > 1 and re.search(rb'\r(?!\n)|"{6}', before):
        return True
    for number, item in enumerate(reversed(positions[1:])):
        name = f"later{number}"
        data = data[: item.start] + name.encode() + data[item.start + len(edit.key) :]
        without = Edit(name, None).on(data)
        assert_removed(libvirt, data, without, name, where)
        data = without
    alone = edit.on(data)
    assert alone == after, f"{alone!r} with its duplicates gone before, but {where}"
    if not positions:
        assert_added(data, after, edit, where)
    elif edit.value is None:
        assert_removed(libvirt, data, after, edit.key, where)
    else:
        assert_replaced(libvirt, data, after, edit.key, reading.first[edit.key], where)
        assert after == data or expected(edit.value) != reading.first[edit.key], f"it was so already: {where}"
    return True


def check_edits_together(libvirt: LibvirtParser, before: bytes, reading: Reading, edits: list[Edit]) -> bool:
    """Several edits, one render: libvirt reads each, and the other keys as before; False if one cannot be written."""
    document = Document.parse(before)
    try:
        for edit in edits:
            edit.to(document)
    except VirConfError:
        return False
    after = document.render()
    where = f"{edits} on {before!r} give {after!r}"
    wanted = {edit.key: edit.value for edit in edits}
    read = libvirt(after)
    assert read.error is None, f"{read.error}: {where}"
    others = [entry for entry in reading.entries if entry[0] not in wanted]
    assert [entry for entry in read.entries if entry[0] not in wanted] == others, where
    for key, value in wanted.items():
        mine = [entry[1:] for entry in read.entries if entry[0] == key]
        assert mine == ([] if value is None else [expected(value)]), where
        assert document.get(key) == Document.parse(after).get(key), where
    assert set(document.keys()) == set(read.first), where
    return True


def expected(value: _virconf.Plain) -> list[Any]:
    if isinstance(value, (bool, int)):
        return ["signed" if value < 0 else "unsigned", int(value)]
    if isinstance(value, str):
        return ["string", value]
    return ["list", [["string", item] for item in value]]


def libvirt_can_hold(libvirt: LibvirtParser, text: str) -> bool:
    content = text.encode("utf-8", "surrogateescape")
    spellings = [b"k = " + quote + content + quote + b"\n" for quote in (b'"', b"'", b'"""')]
    return any(libvirt(data).entries == [["k", "string", text]] for data in spellings)


def assert_replaced(
    libvirt: LibvirtParser, before: bytes, after: bytes, key: str, former: list[Any], where: str
) -> None:
    """Nothing but the text of one value differs, and libvirt reads exactly that text as the value."""
    item = Document.parse(before)._first[key]
    head, value, tail = before[: item.value_start], before[item.value_start : item.value_end], before[item.value_end :]
    assert re.search(rb"(?:^|[\r\n; \t])" + key.encode() + rb"[ \t]*=[ \t]*$", head), where
    assert value == value.strip(BLANKS), where
    assert libvirt(b"k = " + value + b"\n").entries == [["k", *former]], where
    assert after.startswith(head) and after.endswith(tail) and len(after) >= len(head) + len(tail), where
    new = after[len(head) : len(after) - len(tail)]
    assert new == new.strip(BLANKS), where
    assert len(libvirt(b"k = " + new + b"\n").entries) == 1, where


def assert_added(before: bytes, after: bytes, edit: Edit, where: str) -> None:
    """One line is new, with the line end of the file, and nothing else (but an end for the last line)."""
    if edit.value is None:
        assert after == before, where
        return
    until_lf, lf, _rest = before.partition(b"\n")
    eol = b"\r\n" if lf and until_lf.endswith(b"\r") else b"\r" if b"\r" in before and not lf else b"\n"
    item = Document.parse(after)._first[edit.key]
    assert item.start == 0 or after[item.start - 1 : item.start] in (b"\r", b"\n"), where
    assert after[item.value_end :].startswith(eol), where
    rest = after[: item.start] + after[item.value_end + len(eol) :]
    ended = before if before.endswith((b"\n", b"\r")) or not before else before + eol
    assert rest == (before if item.start < len(before) else ended), where


def assert_removed(libvirt: LibvirtParser, before: bytes, after: bytes, key: str, where: str) -> None:
    """One piece is gone: an assignment, its line end and comment if it had the line to itself, else a ';' beside it."""
    entries = [entry for entry in libvirt(before).entries if entry[0] == key]
    if not entries:
        assert after == before, where
        return
    if after == b"":  # what is left would be blanks, which libvirt refuses
        assert libvirt(before).entries == entries, where
        assert b"#" not in before.split(key.encode())[0], where
        return
    # an empty triple-quoted string that comes to stand last needs a line end, or libvirt misreads it
    ends = [after, after[:-1]] if after.endswith(b'""""""\n') and not before.endswith(b"\n") else [after]
    for kept in ends:
        size = len(before) - len(kept)
        for start in range(len(kept) - common(before[::-1], kept[::-1]), common(before, kept) + 1):
            if is_assignment(libvirt, before, start, start + size, key, entries):
                return
    raise AssertionError(f"more or less than the assignment is gone: {where}")


def is_assignment(
    libvirt: LibvirtParser, data: bytes, start: int, end: int, key: str, entries: list[list[Any]]
) -> bool:
    """Whether the piece is this assignment, with what has to go with it and nothing more."""
    found = re.match(rb"([ \t]*;)?[ \t]*(" + key.encode() + rb"[ \t]*=.*)", data[start:end], re.DOTALL)
    if not found or libvirt(found[2] + b"\n").entries != entries:
        return False
    rest = found[2][Document.parse(found[2] + b"\n")._assignments[0].value_end :]
    if found[1]:
        return rest == b""
    if data[:start].endswith((b"\n", b"\r")) or start == 0:
        own_line = re.fullmatch(rb"[ \t]*;?[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n)?", rest)
        if own_line and (end == len(data) or rest.endswith((b"\n", b"\r"))):
            return rest[-1:] != b"\r" or data[end : end + 1] != b"\n"
    return re.fullmatch(rb"[ \t]*;[ \t]*", rest) is not None and data[end : end + 1].isalpha()


def common(one: bytes, other: bytes) -> int:
    """How many bytes the two begin with alike."""
    return next(
        (number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
