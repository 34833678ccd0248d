# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs for _virconf, at least one for each row of the grammar: a differential test that misses one is too weak."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import Value, VirConfError

from .inputs import MAX_FILE


@dataclass(frozen=True)
class Bug:
    """What is wrong, and what takes the place of ``name`` in _virconf, made from what is there."""

    row: str
    what: str
    name: str
    instead_of: Callable[[Any], Any]


def _pattern(text: bytes) -> Callable[[Any], Any]:
    return lambda _real: re.compile(text)


def _constant(value: object) -> Callable[[Any], Any]:
    return lambda _real: value


def _given(change: Callable[[bytes], bytes]) -> Callable[[Any], Any]:
    """The real function, given other bytes."""
    return lambda real: lambda data, *pos: real(change(data), *pos)


def _returning(change: Callable[[Value], Value]) -> Callable[[Any], Any]:
    """The real reader of values, returning another value."""

    def instead_of(real: Any) -> Any:
        def read(data: bytes, pos: int) -> tuple[Value, int]:
            value, end = real(data, pos)
            return change(value), end

        return read

    return instead_of


def _words(real: Any) -> Any:
    def scalar(data: bytes, pos: int) -> Any:
        word = re.compile(rb"yes|no|true|false").match(data, pos)
        return (Value("unsigned", int(word[0] in (b"yes", b"true"))), word.end()) if word else real(data, pos)

    return scalar


def _any_blank_separates(real: Any) -> Any:
    return lambda data, pos: pos if data[pos : pos + 1] in (b" ", b"\t") else real(data, pos)


def _two_separate(real: Any) -> Any:
    def separator(data: bytes, pos: int) -> int:
        end = int(real(data, pos))
        return end + 1 if data[end - 1 : end + 1] == b";;" else end

    return separator


def _no_trailing_comma(real: Any) -> Any:
    def after_item(data: bytes, pos: int) -> int:
        end = int(real(data, pos))
        if b"," in data[pos:end] and data[end : end + 1] == b"]":
            raise VirConfError("a trailing comma", 1)
        return end

    return after_item


def _two_commas(real: Any) -> Any:
    def after_item(data: bytes, pos: int) -> int:
        end = int(real(data, pos))
        return int(real(data, end)) if data[end : end + 1] == b"," else end

    return after_item


def _no_comma(real: Any) -> Any:
    def after_item(data: bytes, pos: int) -> int:
        try:
            return int(real(data, pos))
        except VirConfError:
            return pos + 1 if data[pos : pos + 1] == b" " else pos

    return after_item


def _not_nested(value: Value) -> Value:
    if isinstance(value.content, tuple) and any(item.kind == "list" for item in value.content):
        raise VirConfError("a list in a list", 1)
    return value


def _unpacked(value: Value) -> Value:
    return value.content[0] if isinstance(value.content, tuple) and len(value.content) == 1 else value


def _number_if_digits(value: Value) -> Value:
    return Value("unsigned", int(str(value.content))) if re.fullmatch("[0-9]+", str(value.content)) else value


def _without_minus_nought(value: Value) -> Value:
    return Value("unsigned", 0) if value.content == 0 else value


def _refuse_duplicates(real: Any) -> Any:
    def first_of(assignments: Sequence[Any]) -> Any:
        first = real(assignments)
        if len(first) != len(assignments):
            raise VirConfError("a key occurs twice", 1)
        return first

    return first_of


BUGS = (
    Bug("file size", "a byte more", "_MAX_SIZE", _constant(MAX_FILE + 1)),
    Bug("file size", "a byte less", "_MAX_SIZE", _constant(MAX_FILE - 1)),
    Bug("encoding", "a form feed is a blank", "_GAP_RE", _pattern(rb"[ \t\r\n\f]*(?:#[^\r\n]*)?")),
    Bug("encoding", "a NUL is a blank", "_GAP_RE", _pattern(rb"[ \t\r\n\0]*(?:#[^\r\n]*)?")),
    Bug("encoding", "a byte order mark is skipped", "_GAP_RE", _pattern(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*(?:#[^\r\n]*)?")),
    Bug(
        "encoding",
        "a NUL does not end a string",
        "_text",
        lambda real: lambda content: content.decode("utf-8", "replace"),
    ),
    Bug(
        "encoding",
        "bytes that are not UTF-8 are lost",
        "_text",
        _given(lambda text: text.decode("utf-8", "ignore").encode()),
    ),
    Bug("line ends", "CR does not end a line", "_GAP_RE", _pattern(rb"[ \t\n]*(?:#[^\r\n]*)?")),
    Bug("line ends", "CR does not end a comment", "_GAP_RE", _pattern(rb"[ \t\r\n]*(?:#[^\n]*)?")),
    Bug("line ends", "CR does not end a string", "_QUOTED_RE", _pattern(rb"'[^'\n]*'|\"[^\"\n]*\"")),
    Bug("no newline at end", "refused", "_separator", _given(lambda data: data + b"x")),
    Bug("no newline at end", "six quotes there are an empty string", "_TRIPLE_LEAST", _constant(5)),
    Bug("empty file", "refused", "_assignments", _given(lambda data: data or b"\n")),
    Bug(
        "empty file",
        "blanks alone accepted",
        "_assignments",
        _given(lambda data: data if data.strip(b" \t\r\n") else b""),
    ),
    Bug("comments", "accepted in a list", "_SPACES_RE", _pattern(rb"(?:[ \t\r\n]+|#[^\r\n]*)*")),
    Bug("comments", "accepted between key and '='", "_BLANKS_RE", _pattern(rb"[ \t]*(?:#[^\r\n]*[\r\n])?[ \t]*")),
    Bug("comments", "refused after a value", "_TRAILING_COMMENT_RE", _pattern(rb"")),
    Bug("comments", "refused after blanks", "_GAP_RE", _pattern(rb"[\r\n]*(?:#[^\r\n]*)?[ \t]*(?!#)")),
    Bug("comments", "end at ';'", "_TRAILING_COMMENT_RE", _pattern(rb"(?:[ \t]*#[^\r\n;]*)?")),
    Bug("separator", "a blank is enough", "_separator", _any_blank_separates),
    Bug("separator", "';;' is one", "_separator", _two_separate),
    Bug("separator", "',' is one", "_separator", _given(lambda data: data.replace(b",", b";"))),
    Bug("separator", "';' is none", "_separator", _given(lambda data: data.replace(b";", b"x"))),
    Bug("key", "a dash in it", "_NAME_RE", _pattern(rb"[A-Za-z][A-Za-z0-9_-]*")),
    Bug("key", "a dot in it", "_NAME_RE", _pattern(rb"[A-Za-z][A-Za-z0-9_.]*")),
    Bug("key", "an underscore first", "_NAME_RE", _pattern(rb"[A-Za-z_][A-Za-z0-9_]*")),
    Bug("key", "a digit first", "_NAME_RE", _pattern(rb"[A-Za-z0-9][A-Za-z0-9_]*")),
    Bug("key", "no digit in it", "_NAME_RE", _pattern(rb"[A-Za-z][A-Za-z_]*")),
    Bug("key", "no capital", "_NAME_RE", _pattern(rb"[a-z][a-z0-9_]*")),
    Bug("=", "the value on the next line", "_BLANKS_RE", _pattern(rb"[ \t\r\n]*")),
    Bug("=", "no tab beside it", "_BLANKS_RE", _pattern(rb" *")),
    Bug("=", "':' is one", "_assignment", _given(lambda data: data.replace(b":", b"="))),
    Bug("strings", "a backslash escapes", "_QUOTED_RE", _pattern(rb"'(?:[^'\r\n\\]|\\.)*'|\"(?:[^\"\r\n\\]|\\.)*\"")),
    Bug("strings", "no single quotes", "_QUOTED_RE", _pattern(rb"\"[^\"\r\n]*\"")),
    Bug("strings", "no triple quotes", "_TRIPLE_LEAST", _constant(MAX_FILE)),
    Bug("strings", "triple single quotes", "_QUOTED_RE", _pattern(rb"'''.*?'''|'[^'\r\n]*'|\"[^\"\r\n]*\"")),
    Bug("strings", "single quotes over lines", "_QUOTED_RE", _pattern(rb"'[^']*'|\"[^\"\r\n]*\"")),
    Bug("strings", "'#' ends one", "_QUOTED_RE", _pattern(rb"'[^'#\r\n]*'|\"[^\"#\r\n]*\"")),
    Bug("integers", "hexadecimal", "_NUMBER_RE", _pattern(rb"([+-]?)0*([0-9]+)(?:x[0-9]+)?")),
    Bug("integers", "a suffix", "_NUMBER_RE", _pattern(rb"([+-]?)0*([0-9]+)k?")),
    Bug("integers", "a fraction", "_NUMBER_RE", _pattern(rb"([+-]?)0*([0-9]+)(?:\.[0-9]+)?")),
    Bug("integers", "no plus", "_NUMBER_RE", _pattern(rb"(-?)0*([0-9]+)")),
    Bug("integers", "a blank after the sign", "_NUMBER_RE", _pattern(rb"([+-]?) *0*([0-9]+)")),
    Bug("integers", "no leading nought", "_NUMBER_RE", _pattern(rb"([+-]?)(0(?![0-9])|[1-9][0-9]*)")),
    Bug("integers", "a minus is not signed", "SIGNED", _constant("unsigned")),
    Bug("integer range", "digits are lost", "_MAX_DIGITS", _constant(9)),
    Bug("bool", "words", "_scalar", _words),
    Bug("bool", "minus nought is unsigned", "_scalar", _returning(_without_minus_nought)),
    Bug("lists", "a trailing comma refused", "_after_item", _no_trailing_comma),
    Bug("lists", "two commas are one", "_after_item", _two_commas),
    Bug("lists", "no comma needed", "_after_item", _no_comma),
    Bug("lists", "on one line only", "_SPACES_RE", _pattern(rb"[ \t]*")),
    Bug("lists", "not nested", "_value", _returning(_not_nested)),
    Bug("lists", "the end of the file closes one", "_value", _given(lambda data: data + b"]")),
    Bug(
        "duplicate key",
        "the last one wins",
        "_first_of",
        lambda _real: lambda items: {item.key: item for item in items},
    ),
    Bug("duplicate key", "refused", "_first_of", _refuse_duplicates),
    Bug(
        "unknown key",
        "dropped",
        "_assignments",
        lambda real: lambda data: [i for i in real(data) if "nobody" not in i.key],
    ),
    Bug("type", "digits in quotes are a number", "_string", _returning(_number_if_digits)),
    Bug("type", "a list of one is its item", "_value", _returning(_unpacked)),
    Bug("type", "a string is a list of one", "_string", _returning(lambda value: Value("list", (value,)))),
    Bug(
        "edits", "always double quotes", "_quoted", lambda _real: lambda text: b'"%s"' % text.encode("utf-8", "ignore")
    ),
    Bug(
        "edits",
        "never triple quotes",
        "_quoted",
        lambda real: lambda text: real(text.replace("\n", " ").replace('"', "'")),
    ),
    Bug("edits", "a quote last before three quotes", "_TRIPLE", _constant(b'"" "')),
    Bug("edits", "LF in a file of CRLF", "_first_eol", lambda _real: lambda data: b"\n"),
    Bug("edits", "the line end stays", "_REST_OF_LINE_RE", _pattern(rb"[ \t]*;?[ \t]*(?:#[^\r\n]*)?")),
    Bug("edits", "CRLF is cut in two", "_REST_OF_LINE_RE", _pattern(rb"[ \t]*;?[ \t]*(?:#[^\r\n]*)?[\r\n]?")),
    Bug(
        "edits", "the comment of a removed line stays", "_REST_OF_LINE_RE", _pattern(rb"[ \t]*;?[ \t]*(?:\r\n|\r|\n)?")
    ),
    Bug("edits", "blanks before a removed key stay", "_line_start", lambda _real: lambda data, pos: pos),
    Bug(
        "edits",
        "what shares the line goes",
        "_cut",
        lambda real: lambda data, line, doomed: real(data, line, {i.start for i in line}),
    ),
    Bug(
        "edits",
        "the ';' stays",
        "_cut",
        lambda _real: lambda data, line, doomed: [(i.start, i.value_end, b"") for i in line if i.start in doomed],
    ),
    Bug("edits", "blanks may be all that is left", "_readable", lambda _real: lambda result, before: result or b"\n"),
    Bug(
        "edits",
        "six quotes may come last",
        "_readable",
        lambda _real: lambda result, before: result if result.strip() else b"",
    ),
)
