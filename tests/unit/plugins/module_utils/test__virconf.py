# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a differential test with libvirt's parser cannot ask: places, errors, and what a diff must not show."""

from __future__ import annotations

import pytest

from ansible_collections.hypervisor.hardening.plugins.module_utils._virconf import (
    LIST,
    SIGNED,
    STRING,
    UNSIGNED,
    Document,
    Plain,
    Value,
    VirConfError,
)


def edited(data: bytes, **values: Plain | None) -> bytes:
    document = Document.parse(data)
    for key, value in values.items():
        if value is None:
            document.unset(key)
        else:
            document.set(key, value)
    return document.render()


def test_kinds_and_contents() -> None:
    document = Document.parse(b"a = 1\nb = -0\nc = 'x'\nd = [ \"y\", [ 2 ], ]\na = 3\n")
    assert document.keys() == ("a", "b", "c", "d")
    assert document.get("a") == Value(UNSIGNED, 1)
    assert document.get("b") == Value(SIGNED, 0)
    assert document.get("c") == Value(STRING, "x")
    nested = document.get("d")
    assert nested == Value(LIST, (Value(STRING, "y"), Value(LIST, (Value(UNSIGNED, 2),))))
    assert nested.plain() == ["y", [2]]
    assert document.get("e") is None


def test_get_and_keys_know_what_was_set() -> None:
    document = Document.parse(b"a = 1\nb = 2\n")
    document.set("new", True)
    document.set("a", "x")
    document.unset("b")
    document.unset("none")
    assert document.keys() == ("a", "new")
    assert document.get("a") == Value(STRING, "x")
    assert document.get("b") is None
    new = document.get("new")
    assert new == Value(UNSIGNED, 1)
    assert isinstance(new.plain(), int) and not isinstance(new.plain(), bool)
    document.set("b", 2)
    assert document.render() == b'a = "x"\nb = 2\nnew = 1\n'


def test_without_an_edit_nothing_changes() -> None:
    data = b'#a\r\n\ta=1;b = """\n""" # c\r\nd=[\n]\na = 2\n \t'
    assert Document.parse(data).render() == data


REFUSED = [
    (b"a = 1\nb = \n", 2, "a number"),
    (b"a = 1\n\n- = 2\n", 3, "a key"),
    (b"a 1\n", 1, "'='"),
    (b"\n\na = yes\n", 3, "a number"),
    (b"a = 1 2\n", 1, "';'"),
    (b"a = [\n1,\n# c\n2]\n", 3, "a number"),
    (b"a = [\n1\n# c\n]\n", 3, "comment"),
    (b"a = [\n1\n", 3, "']'"),
    (b'# c\na = "secret\n', 2, "not closed"),
    (b'# c\na = """secret\n\n\n', 2, "three quotes"),
    (b"\n\n", 3, "blanks"),
    (b"#" * (10 * 1024 * 1024 + 1), None, "10485760"),
]


@pytest.mark.parametrize(("data", "line", "words"), REFUSED, ids=range(len(REFUSED)))
def test_errors_name_the_line_and_quote_nothing(data: bytes, line: int | None, words: str) -> None:
    with pytest.raises(VirConfError) as refused:
        Document.parse(data)
    assert refused.value.line == line
    assert words in refused.value.message
    assert "secret" not in str(refused.value)
    assert str(refused.value) == (refused.value.message if line is None else f"line {line}: {refused.value.message}")


WRITTEN: list[tuple[Plain, bytes]] = [
    (True, b"1"),
    (False, b"0"),
    (7, b"7"),
    (-7, b"-7"),
    ("", b'""'),
    ("a b", b'"a b"'),
    ("it's", b'"it\'s"'),
    ('say "x"', b"'say \"x\"'"),
    ('it\'s "x" here', b'"""it\'s "x" here"""'),
    ("two\nlines", b'"""two\nlines"""'),
    ("C:\\dir", b'"C:\\dir"'),
    ("gr\xfcn", b'"gr\xc3\xbcn"'),
    ("\udcff", b'"\xff"'),
    ([], b"[]"),
    (["x"], b'[ "x" ]'),
    (["x", 'y"', ""], b'[ "x", \'y"\', "" ]'),
    (("x",), b'[ "x" ]'),
]


@pytest.mark.parametrize(("value", "text"), WRITTEN)
def test_how_values_are_written(value: Plain, text: bytes) -> None:
    assert edited(b"", a=value) == b"a = " + text + b"\n"


@pytest.mark.parametrize(
    "value",
    ["\0", "it's an end\"", '\'"""', '\n"', ["x", "\0"], "\ud800", [1], [["x"]]],
)
def test_values_that_cannot_be_written(value: Plain) -> None:
    document = Document.parse(b"a = 1\n")
    with pytest.raises(VirConfError) as refused:
        document.set("a", value)
    assert refused.value.line is None
    assert document.render() == b"a = 1\n"


@pytest.mark.parametrize("key", ["", "a b", "1a", "_a", "a-b", "a\n", "\xe4", "\ud800"])
def test_keys_that_cannot_be_written(key: str) -> None:
    with pytest.raises(VirConfError):
        Document.parse(b"").set(key, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"+1", True),
        (b"007", 7),
        (b"'x'", "x"),
        (b'"""x"""', "x"),
        (b"[\n\t'x',\n\t\"y\",\n]", ["x", "y"]),
        (b"[ ]", []),
    ],
)
def test_a_value_that_is_so_already_keeps_its_bytes(text: bytes, value: Plain) -> None:
    data = b"\ta =" + text + b"  # why\n"
    assert edited(data, a=value) == data


@pytest.mark.parametrize(
    ("text", "value"), [(b"-0", 0), (b'"1"', 1), (b"1", "1"), (b'"x"', ["x"]), (b'[ "x" ]', "x"), (b"[ 1 ]", ["1"])]
)
def test_the_same_content_of_another_kind_is_another_value(text: bytes, value: Plain) -> None:
    assert edited(b"a = " + text + b" # why\n", a=value).endswith(edited(b"", a=value)[:-1] + b" # why\n")


EDITS: list[tuple[bytes, dict[str, Plain | None], bytes]] = [
    # the first of several counts and stays; comments after a value stay with it
    (b"a = 1 # one\nb = 2\na = 3 # two\n", {"a": 4}, b"a = 4 # one\nb = 2\n"),
    (b"a = 1 # one\nb = 2\na = 3 # two\n", {"a": 1}, b"a = 1 # one\nb = 2\n"),
    (b"a = 1 # one\nb = 2\na = 3 # two\n", {"a": None}, b"b = 2\n"),
    # one line, several assignments
    (b"a = 1; b = 2 # c\n", {"a": None}, b"b = 2 # c\n"),
    (b"a = 1; b = 2 # c\n", {"b": None}, b"a = 1 # c\n"),
    (b"a = 1; b = 2 # c\n", {"a": None, "b": None}, b""),
    (b"  a=1 ;b=2;  c=3;\nd=4\n", {"a": None, "b": None}, b"  c=3;\nd=4\n"),
    (b"  a=1 ;b=2;  c=3;\nd=4\n", {"b": None, "c": None}, b"  a=1;\nd=4\n"),
    (b"  a=1 ;b=2;  c=3;\nd=4\n", {"a": None, "c": None}, b"  b=2;\nd=4\n"),
    (b"  a=1 ;b=2;  c=3;\nd=4\n", {"a": None, "b": 5, "c": None}, b"  b=5;\nd=4\n"),
    (b"a = [\n1 ]; b = 2\nc = 3\n", {"a": None}, b"b = 2\nc = 3\n"),
    # line ends
    (b"a = 1\r\nb = 2\r\n", {"a": None, "c": "x"}, b'b = 2\r\nc = "x"\r\n'),
    (b"a = 1\rb = 2\r", {"a": None, "c": "x"}, b'b = 2\rc = "x"\r'),
    (b'a = """\r"""\nb = 2', {"c": 3}, b'a = """\r"""\nb = 2\nc = 3\n'),
    (b"a = 1", {"a": 2}, b"a = 2"),
    (b"a = 1", {"b": 2}, b"a = 1\nb = 2\n"),
    (b"a = 1;  ", {"b": 2}, b"a = 1;  \nb = 2\n"),
    (b"# c\nb = 1\na = 1", {"a": None}, b"# c\nb = 1\n"),
    # what libvirt would refuse or misread does not stay behind
    (b"\n\n  a = 1 # c\n\n", {"a": None}, b""),
    (b"\n\n  a = 1 # c\n\n", {"a": None, "b": 2}, b"\n\n\nb = 2\n"),
    (b'a = """""";b = 1', {"b": None}, b'a = """"""\n'),
    # new keys, in the order they were set
    (b"", {"b": 1, "a": 2}, b"b = 1\na = 2\n"),
]


@pytest.mark.parametrize(("data", "values", "after"), EDITS, ids=range(len(EDITS)))
def test_edits(data: bytes, values: dict[str, Plain | None], after: bytes) -> None:
    assert edited(data, **values) == after
    Document.parse(after)


SAMPLES = [
    (b'# The user.\n#user = "root"\n\n# next\n', b'# The user.\n#user = "root"\nuser = 1\n\n# next\n'),
    (b'# user = "root"\n\n# next\n', b'# user = "root"\nuser = 1\n\n# next\n'),
    (b"  #user=1\nb = 2\n", b"  #user=1\nuser = 1\nb = 2\n"),
    # an example in the prose above the sample, or below it
    (
        b'#    user = "qemu"   # A user\n#\n#user = "root"\n\n',
        b'#    user = "qemu"   # A user\n#\n#user = "root"\nuser = 1\n\n',
    ),
    (b'#user = "root"\n#    user = "qemu"\n', b'#user = "root"\nuser = 1\n#    user = "qemu"\n'),
    # the last of several
    (b"#user = 1\nb = 2\n#user = 3\nc = 4\n", b"#user = 1\nb = 2\n#user = 3\nuser = 1\nc = 4\n"),
    # over several lines
    (b'#user = [\n#    "x",\n#    "y"\n#]\n#\nb = 2\n', b'#user = [\n#    "x",\n#    "y"\n#]\nuser = 1\n#\nb = 2\n'),
    (b'# user = [\r\n#  "x" ]\r\nb = 2\r\n', b'# user = [\r\n#  "x" ]\r\nuser = 1\r\nb = 2\r\n'),
    (b"#user = [\n#  not closed\n\nb = 2\n", b"#user = [\nuser = 1\n#  not closed\n\nb = 2\n"),
    # at the very end
    (b"b = 2\n#user = 3", b"b = 2\n#user = 3\nuser = 1\n"),
    # no samples
    (b"# see user = 3\nb = 2\n", b"# see user = 3\nb = 2\nuser = 1\n"),
    (b"##user = 3\nb = 2\n", b"##user = 3\nb = 2\nuser = 1\n"),
    (b"#user2 = 3\n#auser = 3\nb = 2\n", b"#user2 = 3\n#auser = 3\nb = 2\nuser = 1\n"),
    (b"b = 2 #user = 3\nc = 4\n", b"b = 2 #user = 3\nc = 4\nuser = 1\n"),
    (b'b = """\n#user = 3\n"""\nc = 4\n', b'b = """\n#user = 3\n"""\nc = 4\nuser = 1\n'),
]


@pytest.mark.parametrize(("data", "after"), SAMPLES, ids=range(len(SAMPLES)))
def test_a_new_key_goes_below_its_sample(data: bytes, after: bytes) -> None:
    assert edited(data, user=1) == after
    back = data if data.endswith(b"\n") else data + b"\n"
    assert edited(after, user=None) == back


HIDDEN = [
    b'a = "hunter2"\n',
    b'a = "hunter2" # not hunter2\n',
    b'a = "x"; b = 1; a = "hunter2"\n',
    b'b = 1\na = """x\nhunter2\n"""\n',
    b'a = [ "x",\n "hunter2" ]\n',
    b'#a = "hunter2"\n',
    b"# Once this was a=hunter2\n",
    b'b = 1 # a = "hunter2"\n',
    b'#a = [ "x",\n#  "hunter2" ]\n',
    b'#a = """x\n#  hunter2"""\n',
    b'#a = "hunter2"',
]


@pytest.mark.parametrize("data", HIDDEN)
def test_hidden_values_are_not_rendered(data: bytes) -> None:
    document = Document.parse(data)
    assert b"hunter2" in document.render()
    shown = document.render(hidden={"a": "(changed, not shown)"})
    assert b"hunter2" not in shown
    assert b"not shown)" in shown
    if b"b = 1" in data:
        assert b"b = 1" in shown


def test_hidden_shows_the_rest_and_the_new_value_does_not_leak() -> None:
    document = Document.parse(b'# a is the password\n#a = "x"\n#ba = 4\nba = 1\na_b = 2 # see a\nb = "a"\n')
    document.set("a", "hunter2")
    document.set("b", 3)
    shown = document.render(hidden={"a": "(changed, not shown)", "none": ""})
    assert shown == (
        b"# a is the password\n#a = (not shown)\na = (changed, not shown)\n#ba = 4\nba = 1\na_b = 2 # see a\nb = 3\n"
    )


def test_lists_nested_deeper_than_python_calls() -> None:
    data = b"a = " + b"[" * 5000 + b"]" * 5000 + b"\nb = 1\n"
    assert edited(data, b=2) == data[:-2] + b"2\n"
