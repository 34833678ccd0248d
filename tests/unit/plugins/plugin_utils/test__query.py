# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import builtins
import copy
import sys
import typing as t

import jmespath
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import (
    MissingLibrary,
    QueryError,
    compile_query,
    function_names,
    version_numbers,
)

FACTS: dict[str, t.Any] = {
    "guests": [
        {
            "name": "web",
            "mode": 2,
            "root": False,
            "label": {"value": "svirt"},
            "disks": [{"path": "/a"}, {"path": "/b"}],
        },
        {"name": "db", "mode": 0, "root": True, "label": {"value": "none"}, "disks": []},
    ],
    "settings": {"user": "qemu", "max_core": 0, "a-b": [1, 2, 3]},
    "nested": [[1, 2], [3], 4],
    "empty": [],
    "text": "",
}


@pytest.mark.parametrize(
    "expression",
    [
        "guests",
        "guests[].name",
        "guests[*].label.value",
        "guests[?mode == `0`].name",
        "guests[?mode != `2` && root].name | [0]",
        "guests[?!root].name",
        "guests[?root || mode == `2`].name",
        "guests[].disks[].path",
        "guests[].disks[?path == '/a'].path",
        "guests[?contains(label.value, 'svirt')].name",
        "guests[0].name",
        "guests[-1].name",
        "guests[7]",
        "guests[:1].name",
        "guests[::-1].name",
        "guests[].[name, mode]",
        "guests[].{n: name, m: mode}",
        "guests[?length(disks) > `1`].name",
        "sort_by(guests, &name)[].name",
        "max_by(guests, &mode).name",
        "map(&mode, guests)",
        "settings.*",
        "settings.\"a-b\"",
        "settings.\"a-b\"[1:]",
        "keys(settings)",
        "nested[]",
        "nested[0]",
        "length(guests)",
        "missing",
        "settings.missing.deeper",
        "empty[].x",
        "empty || text || 'default'",
        "text && settings",
        "!text",
        "!settings.max_core",
        "settings.max_core == `false`",
        "settings.user < 'r'",
        "settings.user < `1`",
        "`[1, 2]`",
        "@.text",
        "join(',', guests[].name)",
        "to_string(settings.max_core)",
        "not_null(missing, settings.user)",
        "type(missing)",
    ],
)  # fmt: skip
def test_answers_as_the_library_does(expression: str) -> None:
    try:
        expected = jmespath.search(expression, FACTS)
    except TypeError:
        # Version 1.1 of the library compares a text with a number; the specification has null.
        expected = None
    facts = copy.deepcopy(FACTS)
    assert compile_query(expression)(facts).value == expected
    assert facts == FACTS


NULLS: dict[str, t.Any] = {
    "list": [{"name": "a", "x": None, "y": 1}, {"name": "b", "x": 1, "y": None}],
    "none": None,
    "yes": True,
    "no": False,
    "text": "t",
    "values": {"set": 1},
}


@pytest.mark.parametrize(
    ("expression", "value", "nulls"),
    [
        # A comparison with a null is neither true nor false.
        ("list[?x == `2`].name", [], ["x of a"]),
        ("list[?x != `1`].name", [], ["x of a"]),
        ("list[?x == `1`].name", ["b"], ["x of a"]),
        ("list[?x > `0`].name", ["b"], ["x of a"]),
        ("none == yes", False, ["none"]),
        ("missing != yes", True, ["missing"]),
        # It can be asked for.
        ("list[?x == `null`].name", ["a"], []),
        ("list[?x != `null` && x == `1`].name", ["b"], []),
        ("list[?x == `null` || x == `1`].name", ["a", "b"], []),
        # The truth of one, too.
        ("list[?x].name", ["b"], ["x of a"]),
        ("!none", True, ["none"]),
        ("!(none == `1`)", True, ["none"]),
        # False and unknown is false, true or unknown is true, whatever the order.
        ("no && none", False, []),
        ("none && no", False, []),
        ("(none == `1`) && no", False, []),
        ("none && yes", None, ["none"]),
        ("yes && (none == `1`)", False, ["none"]),
        ("(none != `1`) && yes", True, ["none"]),
        ("yes || none", True, []),
        ("none || yes", True, []),
        ("(none == `1`) || yes", True, []),
        ("none || no", False, ["none"]),
        ("no || (none == `1`)", False, ["none"]),
        ("(none == `1`) || no", False, ["none"]),
        ("(none != `1`) || yes", True, []),
        # A literal says what a null stands for.
        ("none || `false`", False, []),
        ("none || `0`", 0, []),
        ("values.unset || `0`", 0, []),
        ("not_null(none, `0`)", 0, []),
        ("list[?(x || `0`) == `0`].name", ["a"], []),
        # Behind a null nothing is known, whatever would be taken for what is not set.
        ("none.deeper || `0`", 0, ["none"]),
        ("none.deeper || `true`", True, ["none"]),
        ("missing.deeper.still || `0`", 0, ["missing"]),
        ("values.missing.deeper == `null`", True, ["values.missing"]),
        ("not_null(none.deeper, `0`)", 0, ["none"]),
        ("list[?(z.deeper || `0`) == `0`].name", [], ["z of a", "z of b"]),
        ("none.deeper && no", False, []),
        ("none.deeper || yes", True, []),
        ("none.deeper || text", "t", ["none"]),
        ("text.deeper || `0`", 0, ["text"]),
        # So it is with a list.
        ("contains([text, none], 'x')", False, ["[text, none]"]),
        ("contains([text, none], 't')", True, []),
        ("difference([text, none], ['x'])", ["t", None], ["[text, none]"]),
        ("length([text, none])", 2, []),
        # A projection drops nulls.
        ("list[].x", [1], ["list[].x of a"]),
        ("list[*].y", [1], ["list[].y of b"]),
        ("list[?name == 'a'].x", [], ["list[?…].x of a"]),
        ("[none, text][]", ["t"], ["[none, text][]"]),
        ("{a: none}.*", [], ["….*"]),
        # A function gets no null that it does not ask for.
        ("length(none)", None, ["none"]),
        ("matches(none, 'x')", None, ["none"]),
        ("contains(`[1]`, none)", None, ["none"]),
        ("list[?matches(to_string(x), '1')].name", ["b"], []),
        ("type(none)", "null", []),
    ],
)
def test_an_answer_names_the_nulls_it_hangs_on(expression: str, value: t.Any, nulls: list[str]) -> None:
    answer = compile_query(expression)(NULLS)
    assert (answer.value, list(answer.nulls)) == (value, nulls)


def test_a_hostile_name_is_cut_in_a_reason() -> None:
    (null,) = compile_query("list[?x].y")({"list": [{"name": "\u202e" * 10_000, "x": None}]}).nulls
    assert null == "x of " + "\u202e" * 64


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("list[?name == root().want].name", ["b"]),
        ("list[?contains(root().wanted, name)].name", ["b"]),
        ("difference(wanted, `[\"b\"]`)", ["c"]),
        ("intersection(wanted, list[].name)", ["b"]),
        ("duplicates(`[1, 2, 1, 1, 3, 3]`)", [1, 3]),
        ("duplicates(`[]`)", []),
        ("matches('/dev/vfio/7', '^/dev/vfio/[0-9]+$')", True),
        ("matches('a\nb', '^b')", False),
        ("lines('a\nb\n')", ["a", "b"]),
        ("at_least_version('9.0.0', '9')", True),
        ("at_least_version('10.0', '9.9.9')", True),
        ("at_least_version('1:7.2+dfsg-7+deb12u7', '7.2.1')", False),
        ("at_least_version('9.0.0', '9.0.1')", False),
        ("at_least_version('unknown', '1')", None),
    ],
)  # fmt: skip
def test_own_functions(expression: str, value: t.Any) -> None:
    facts = {"list": [{"name": "a"}, {"name": "b"}], "want": "b", "wanted": ["b", "c"]}
    assert compile_query(expression)(facts).value == value


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("9.0.0", (9,)), ("1:7.2.0+ds-1", (7, 2)), ("v6.1.10-amd64", (6, 1, 10)), ("0.0", (0,)), ("", ()), ("x1", ())],
)
def test_numbers_of_a_version(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "empty"),
        ("a.[", "Incomplete expression: a.["),
        ("$.a", "Unknown token"),
        ("a ==", "Incomplete"),
        ("nothing(a)", r"nothing\(\) is unknown; there are .*at_least_version.*root"),
        ("root(a)", r"root\(\) takes no argument"),
        ("difference(a)", r"difference\(\) takes 2 arguments, not 1"),
        ("lines(a, b)", r"lines\(\) takes 1 argument, not 2"),
        ("length(a, b)", r"length\(\) takes 1 argument, not 2"),
        ("merge()", r"merge\(\) takes 1 argument, not 0"),
    ],
)
def test_refuses_what_is_no_expression(expression: str, message: str) -> None:
    with pytest.raises(QueryError, match=message.replace("[", r"\[") if expression == "a.[" else message) as refused:
        compile_query(expression)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("length(number)", r"length\(\): .*invalid type"),
        ("difference(number, list)", r"difference\(\) takes a list as argument 1, not int"),
        ("matches(list, 'x')", r"matches\(\) takes text as argument 1, not list"),
        ("matches('x', '[')", "no regular expression"),
        ("sort(mixed)", r"sort\(\): "),
        ("list[::0]", "step is 0"),
    ],
)
def test_says_which_value_does_not_fit(expression: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        compile_query(expression)({"number": 1, "list": [], "mixed": [1, "a"]})


@pytest.mark.parametrize(
    ("expression", "vacuous"),
    [
        ("empty[].name", True),
        ("empty[*]", True),
        ("empty[?x == `1`].name", True),
        ("full[?x == `2`].name", False),
        ("full[].name", False),
        ("full[].inner[?x == `1`]", True),
        ("full[?x == `1`].inner[]", False),
        ("empty", False),
        ("length(empty)", False),
        ("nothing.*", True),
    ],
)
def test_says_when_there_was_nothing_to_look_at(expression: str, vacuous: bool) -> None:
    assert compile_query(expression)({"empty": [], "nothing": {}, "full": [{"x": 1, "inner": []}]}).vacuous is vacuous


def test_without_the_library_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: t.Any, **more: t.Any) -> t.Any:
        if name.startswith("jmespath"):
            raise ImportError(name)
        return found(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith("jmespath")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibrary, match="jmespath"):
        compile_query("a")


def test_knows_the_names_of_all_functions() -> None:
    assert {"root", "matches", "length", "sort_by"} <= function_names()


# What the answers are worth: whatever an unread fact turns out to be, an answer that named no null stays.

ATOMS = st.sampled_from(["a", "b", "c.d", "`1`", "`true`", "'x'"])
CONDITIONS = st.recursive(
    st.builds("{} {} {}".format, ATOMS, st.sampled_from(["==", "!=", "<", ">="]), ATOMS)
    | st.sampled_from(["a", "b", "c.d"]),
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=6,
)
EXPRESSIONS = st.one_of(
    st.builds("list[?{}].name".format, CONDITIONS),
    st.builds("length(list[?{}])".format, CONDITIONS),
    st.builds("list[?{}] | [?{}].name".format, CONDITIONS, CONDITIONS),
    st.builds("list[0] | ({})".format, CONDITIONS),
    st.sampled_from(["list[].a", "list[].[a, b]", "list[].c.d", "sort(list[].name)", "list[].c[]"]),
)
VALUES = st.sampled_from([0, 1, True, False, "", "x", "y", [], [1]])
ELEMENTS = st.fixed_dictionaries(
    {"a": VALUES | st.none(), "b": VALUES | st.none(), "c": st.fixed_dictionaries({"d": VALUES | st.none()})}
)
DOCUMENTS = st.lists(ELEMENTS, max_size=3).map(
    lambda elements: {"list": [{"name": f"n{number}", **element} for number, element in enumerate(elements)]}
)


def completed(value: t.Any, draw: t.Callable[[], t.Any]) -> t.Any:
    if isinstance(value, dict):
        return {key: completed(one, draw) for key, one in value.items()}
    if isinstance(value, list):
        return [completed(one, draw) for one in value]
    return draw() if value is None else value


FALSE: list[t.Any] = ["", [], {}, None]


def is_true(value: t.Any) -> bool:
    """As the specification has it: zero is true."""
    return value is not False and value not in FALSE


def library(expression: str, document: t.Any) -> t.Any:
    try:
        return jmespath.search(expression, document)
    except TypeError:
        # It compares a text with a number.
        return reject()


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, DOCUMENTS, st.data())
def test_an_answer_without_nulls_is_true_of_every_completion(
    expression: str, document: dict[str, t.Any], data: st.DataObject
) -> None:
    answer = compile_query(expression)(document)
    whole = completed(document, lambda: data.draw(VALUES))
    expected = library(expression, whole)
    # An answer that is null, or that holds one, says of itself that it is not known.
    assume(answer.value is not None and "None" not in repr(answer.value))
    if not answer.nulls:
        if "list[0]" in expression:
            # A condition: what counts as true tells a truth as well as true does.
            assert is_true(answer.value) == is_true(expected)
        else:
            assert answer.value == expected
    elif "length" not in expression and isinstance(answer.value, list) and "|" not in expression.replace("||", ""):
        assert all(one in expected for one in answer.value)


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, DOCUMENTS, st.data())
def test_of_facts_without_nulls_nothing_is_unknown(
    expression: str, document: dict[str, t.Any], data: st.DataObject
) -> None:
    assume("<" not in expression and ">" not in expression)
    whole = completed(document, lambda: data.draw(VALUES))
    assume(whole["list"] or "list[0]" not in expression)
    answer = compile_query(expression)(whole)
    assert answer.value == library(expression, whole)
    assert not answer.nulls or "list[].c[]" in expression
