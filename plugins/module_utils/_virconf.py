# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt's configuration grammar (qemu.conf, libvirtd.conf, network.conf ...) as a lossless document.

The judge is libvirt's own parser, src/util/virconf.c as virConfReadFile(path, 0) runs it; a differential test compares
this file with it. One exception is on purpose: an integer of any length parses here (libvirt 9.0 lets it wrap, 11.3
refuses it); whether it is in range is for those who know the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

SIGNED = "signed"
UNSIGNED = "unsigned"
STRING = "string"
LIST = "list"

_MAX_SIZE = 10 * 1024 * 1024
_SPACES = b" \t\r\n"
_TRIPLE = b'"""'
# libvirt looks for a triple quote only where more bytes than this are left
_TRIPLE_LEAST = 6
# Python converts no more than 4300 digits, and any range ends long before this
_MAX_DIGITS = 1000

_EOL = rb"(?:\r\n|\r|\n)"
_BLANKS_RE = re.compile(rb"[ \t]*")
_SPACES_RE = re.compile(rb"[ \t\r\n]*")
_GAP_RE = re.compile(rb"[ \t\r\n]*(?:#[^\r\n]*)?")
_TRAILING_COMMENT_RE = re.compile(rb"(?:[ \t]*#[^\r\n]*)?")
_NAME_RE = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_NUMBER_RE = re.compile(rb"([+-]?)0*([0-9]+)")
_QUOTED_RE = re.compile(rb"'([^'\r\n]*)'|\"([^\"\r\n]*)\"")

_REST_OF_LINE_RE = re.compile(rb"[ \t]*;?[ \t]*(?:#[^\r\n]*)?" + _EOL + rb"?")
_NEXT_COMMENT = _EOL + rb"[ \t]*#"
_COMMENTED_LIST = rb"\[(?:[^]\r\n]|" + _NEXT_COMMENT + rb")*]"
_COMMENTED_TRIPLE = rb"\"\"\"(?:[^\r\n]|" + _NEXT_COMMENT + rb")*?\"\"\""
_COMMENTED_VALUE = rb"[ \t]*=[ \t]*(?:" + _COMMENTED_LIST + rb"|" + _COMMENTED_TRIPLE + rb")?[^\r\n]*"
_SAMPLE_RE = re.compile(rb"#([ \t]*)(" + _NAME_RE.pattern + rb")" + _COMMENTED_VALUE + _EOL)

Plain = Union[bool, int, str, Sequence[str]]
_Edit = tuple[int, int, bytes]


class VirConfError(ValueError):
    """The text is not what libvirt's parser accepts, or a value cannot be written in its grammar.

    ``message`` never quotes the file, so no secret is in it. ``line`` counts from 1 as libvirt counts; it is None
    where a value, not the text of a file, is at fault.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.message = message
        self.line = line


@dataclass(frozen=True)
class Value:
    """A value as virConf sees it (virConfValue).

    ``kind`` is SIGNED (an integer written with a minus), UNSIGNED, STRING or LIST; ``content`` is an int, a str or
    a tuple of Value.
    """

    kind: str
    content: int | str | tuple[Value, ...]

    def plain(self) -> int | str | list[object]:
        """The value as int, str, or list of these."""
        if isinstance(self.content, tuple):
            return [item.plain() for item in self.content]
        return self.content


@dataclass(frozen=True)
class _Assignment:
    """``key = value # comment`` with the offsets of its parts; ``end`` is after the comment."""

    key: str
    value: Value
    start: int
    value_start: int
    value_end: int
    end: int


class Document:
    """A file in libvirt's grammar: read it, set and unset keys, render it with every other byte as it was."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._assignments = _assignments(data)
        self._first = _first_of(self._assignments)
        self._wanted: dict[str, Value | None] = {}

    @classmethod
    def parse(cls, data: bytes) -> Document:
        """The document that ``data`` holds; VirConfError where libvirt's parser refuses it."""
        return cls(data)

    def keys(self) -> tuple[str, ...]:
        """The keys that have a value, in the order of the file, new ones last."""
        keys = dict.fromkeys([*(item.key for item in self._assignments), *self._wanted])
        return tuple(key for key in keys if self.get(key) is not None)

    def get(self, key: str) -> Value | None:
        """The value that libvirt would use, which is the first one (virConfGetValue); None if there is none."""
        if key in self._wanted:
            return self._wanted[key]
        return self._first[key].value if key in self._first else None

    def count(self, key: str) -> int:
        """How often the parsed text assigns ``key``: libvirt uses the first one, edits drop the others."""
        return sum(item.key == key for item in self._assignments)

    def set(self, key: str, value: Plain) -> None:
        """Give ``key`` this value and drop its duplicates; VirConfError if the grammar cannot write it.

        A value that means the same already keeps its bytes. A new key goes below its commented sample, else to the end.
        """
        if not _NAME_RE.fullmatch(key.encode("utf-8", "replace")):
            raise VirConfError(f"{key!r} cannot be a key: a letter, then letters, digits and underscores")
        meant = _meant(value)
        _written(meant)
        self._wanted[key] = meant

    def unset(self, key: str) -> None:
        """Remove every assignment of ``key`` with its line and the comment on it."""
        self._wanted[key] = None

    def render(self, hidden: Mapping[str, str] | None = None) -> bytes:
        """The file with the edits in it.

        ``hidden`` maps keys to the text that stands for their values: for a diff, never for a file. The comment after
        such a value, and comments that assign such a key, are covered too.
        """
        new = {key: value for key, value in self._wanted.items() if value and key not in self._first}
        samples = self._samples() if new else {}
        eol = _first_eol(self._data)
        edits = [*self._removals(), *self._replacements()]
        last = []
        for key, value in new.items():
            line = key.encode() + b" = " + _written(value) + eol
            if key in samples:
                edits.append((samples[key], samples[key], line))
            else:
                last.append(line)
        result = _splice(self._data, edits)
        if last and result and not result.endswith((b"\n", b"\r")):
            result += eol
        result = _readable(result + b"".join(last), self._data)
        return _masked(result, hidden) if hidden else result

    def _is_first(self, item: _Assignment) -> bool:
        return self._first[item.key] is item

    def _replacements(self) -> Iterator[_Edit]:
        for key, value in self._wanted.items():
            item = self._first.get(key)
            if item and value and value != item.value:
                yield item.value_start, item.value_end, _written(value)

    def _removals(self) -> Iterator[_Edit]:
        doomed = {
            item.start
            for item in self._assignments
            if item.key in self._wanted and not (self._wanted[item.key] and self._is_first(item))
        }
        for line in _by_line(self._data, self._assignments) if doomed else ():
            yield from _cut(self._data, line, doomed)

    def _samples(self) -> dict[str, int]:
        """The offset below the commented sample of each key; ``#key =`` is more of a sample than ``# key =``."""
        found: dict[str, tuple[bool, int]] = {}
        for start, end in _gaps(self._data, self._assignments):
            for match in _SAMPLE_RE.finditer(self._data, start, end):
                key, exact = match[2].decode(), not match[1]
                alone = not self._data[_line_start(self._data, match.start()) : match.start()].strip(_SPACES)
                if alone and exact >= found.get(key, (False, 0))[0]:
                    found[key] = (exact, match.end())
        return {key: offset for key, (_exact, offset) in found.items()}


def _assignments(data: bytes) -> list[_Assignment]:
    if len(data) > _MAX_SIZE:
        raise VirConfError(f"the file has {len(data)} bytes, libvirt reads at most {_MAX_SIZE}")
    if data and not data.strip(_SPACES):
        raise _error("the file holds only blanks, which libvirt refuses (an empty file is fine)", data, len(data))
    found: list[_Assignment] = []
    pos = _gap(data, 0)
    while pos < len(data):
        item = _assignment(data, pos)
        found.append(item)
        pos = _gap(data, _separator(data, item.end))
    return found


def _first_of(assignments: list[_Assignment]) -> dict[str, _Assignment]:
    return {item.key: item for item in reversed(assignments)}


def _gap(data: bytes, pos: int) -> int:
    end = _after(_GAP_RE, data, pos)
    while end != pos:
        pos, end = end, _after(_GAP_RE, data, end)
    return pos


def _assignment(data: bytes, start: int) -> _Assignment:
    name = _NAME_RE.match(data, start)
    if not name:
        raise _error("expected a key (a letter, then letters, digits and underscores) or a comment", data, start)
    pos = _after(_BLANKS_RE, data, name.end())
    if data[pos : pos + 1] != b"=":
        raise _error("expected '=' after the key", data, pos)
    value_start = _after(_BLANKS_RE, data, pos + 1)
    value, value_end = _value(data, value_start)
    end = _after(_TRAILING_COMMENT_RE, data, value_end)
    return _Assignment(name.group().decode(), value, start, value_start, value_end, end)


def _separator(data: bytes, pos: int) -> int:
    pos = _after(_BLANKS_RE, data, pos)
    char = data[pos : pos + 1]
    if char == b";":
        return pos + 1
    if char not in (b"", b"\r", b"\n"):
        raise _error("expected the end of the line, ';' or a comment after the value", data, pos)
    return pos


def _value(data: bytes, pos: int) -> tuple[Value, int]:
    # a loop and no recursion: libvirt reads lists that are nested deeper than Python calls
    open_lists: list[list[Value]] = []
    while True:
        char = data[pos : pos + 1]
        if char == b"[":
            open_lists.append([])
            pos = _after(_SPACES_RE, data, pos + 1)
            continue
        if char == b"]" and open_lists:
            value, pos = Value(LIST, tuple(open_lists.pop())), pos + 1
        else:
            value, pos = _scalar(data, pos)
        if not open_lists:
            return value, pos
        open_lists[-1].append(value)
        pos = _after_item(data, pos)


def _after_item(data: bytes, pos: int) -> int:
    pos = _after(_SPACES_RE, data, pos)
    if data[pos : pos + 1] == b",":
        return _after(_SPACES_RE, data, pos + 1)
    if data[pos : pos + 1] != b"]":
        raise _error("expected ',' or ']' in a list (a comment cannot stand there)", data, pos)
    return pos


def _scalar(data: bytes, pos: int) -> tuple[Value, int]:
    if data[pos : pos + 1] in (b"'", b'"'):
        return _string(data, pos)
    number = _NUMBER_RE.match(data, pos)
    if not number:
        raise _error("expected a number, a quoted string or a list", data, pos)
    kind = SIGNED if number[1] == b"-" else UNSIGNED
    return Value(kind, int(number[1] + number[2][:_MAX_DIGITS])), number.end()


def _string(data: bytes, pos: int) -> tuple[Value, int]:
    if data.startswith(_TRIPLE, pos) and pos + _TRIPLE_LEAST < len(data):
        close = data.find(_TRIPLE, pos + len(_TRIPLE))
        if close < 0:
            raise _error("a string is not closed with three quotes", data, pos)
        return Value(STRING, _text(data[pos + len(_TRIPLE) : close])), close + len(_TRIPLE)
    quoted = _QUOTED_RE.match(data, pos)
    if not quoted:
        raise _error("a string is not closed on its line", data, pos)
    return Value(STRING, _text(data[pos + 1 : quoted.end() - 1])), quoted.end()


def _text(content: bytes) -> str:
    # libvirt keeps C strings: what comes after a NUL is lost to it
    return content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _after(pattern: re.Pattern[bytes], data: bytes, pos: int) -> int:
    match = pattern.match(data, pos)
    return match.end() if match else pos


def _error(message: str, data: bytes, pos: int) -> VirConfError:
    return VirConfError(message, data.count(b"\n", 0, pos) + 1)


def _meant(value: Plain) -> Value:
    if isinstance(value, int):
        return Value(SIGNED if value < 0 else UNSIGNED, int(value))
    if isinstance(value, str):
        return Value(STRING, value)
    if not all(isinstance(item, str) for item in value):
        raise VirConfError("a list may hold strings only")
    return Value(LIST, tuple(Value(STRING, item) for item in value))


def _written(value: Value) -> bytes:
    if isinstance(value.content, int):
        return b"%d" % value.content
    if isinstance(value.content, str):
        return _quoted(value.content)
    return b"[ " + b", ".join(_written(item) for item in value.content) + b" ]" if value.content else b"[]"


def _quoted(text: str) -> bytes:
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise VirConfError("a string holds a character that UTF-8 cannot write") from None
    if b"\0" in content:
        raise VirConfError("a string holds a NUL character, where libvirt would cut it off")
    for quote in (b'"', b"'"):
        if quote not in content and b"\r" not in content and b"\n" not in content:
            return quote + content + quote
    if _TRIPLE not in content and not content.endswith(b'"'):
        return _TRIPLE + content + _TRIPLE
    raise VirConfError("a string cannot be written: there are no escapes, and each kind of quotes would end it early")


def _line_start(data: bytes, pos: int) -> int:
    return max(data.rfind(b"\n", 0, pos), data.rfind(b"\r", 0, pos)) + 1


def _first_eol(data: bytes) -> bytes:
    found = re.search(rb"\r?\n", data) or re.search(rb"\r", data)
    return found.group() if found else b"\n"


def _by_line(data: bytes, assignments: list[_Assignment]) -> list[list[_Assignment]]:
    """The assignments, with those together that a ';' joins on one line."""
    lines: list[list[_Assignment]] = []
    for item in assignments:
        if lines and not re.search(_EOL, data[lines[-1][-1].end : item.start]):
            lines[-1].append(item)
        else:
            lines.append([item])
    return lines


def _cut(data: bytes, line: list[_Assignment], doomed: set[int]) -> Iterator[_Edit]:
    """What to remove for the ``doomed`` (by their start) of one line: all of it, or each with the ';' beside it."""
    kept = [item for item in line if item.start not in doomed]
    if not kept:
        yield _line_start(data, line[0].start), _after(_REST_OF_LINE_RE, data, line[-1].end), b""
        return
    for number, item in enumerate(line):
        if item.start in doomed and item.start < kept[0].start:
            yield item.start, line[number + 1].start, b""
        elif item.start in doomed:
            yield line[number - 1].value_end, item.value_end, b""


def _gaps(data: bytes, assignments: list[_Assignment]) -> Iterator[tuple[int, int]]:
    starts = [0, *(item.end for item in assignments)]
    ends = [*(item.start for item in assignments), len(data)]
    return zip(starts, ends)


def _splice(data: bytes, edits: list[_Edit]) -> bytes:
    parts: list[bytes] = []
    pos = 0
    for start, end, text in sorted(edits):
        parts += [data[pos:start], text]
        pos = end
    return b"".join([*parts, data[pos:]])


def _readable(result: bytes, before: bytes) -> bytes:
    """The result, without what libvirt refuses or misreads once something else is gone."""
    if not result.strip(_SPACES):
        return b""
    if result.endswith(2 * _TRIPLE) and not before.endswith(2 * _TRIPLE):
        return result + _first_eol(before)
    return result


def _masked(data: bytes, hidden: Mapping[str, str]) -> bytes:
    assignments = _assignments(data)
    edits = [(item.value_start, item.end, hidden[item.key].encode()) for item in assignments if item.key in hidden]
    comments = [(item.value_end, item.end) for item in assignments if item.key not in hidden]
    names = b"|".join(re.escape(key.encode()) for key in hidden)
    commented = re.compile(rb"(?<![A-Za-z0-9_])(?:" + names + rb")(" + _COMMENTED_VALUE + rb")")
    for start, end in [*_gaps(data, assignments), *comments]:
        edits += [(match.start(1), match.end(1), b" = (not shown)") for match in commented.finditer(data, start, end)]
    return _splice(data, edits)
