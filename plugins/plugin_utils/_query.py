# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JMESPath that says when its answer hangs on a fact that nobody could read.

JMESPath drops a null from a projection, and takes it for false in a filter: a guest whose seccomp mode could not be
read would drop out of a list of offenders, and the audit would pass. Here an expression is compiled once into closures
that give JMESPath's own answer, and beside it the nulls that it hangs on (Kleene's third truth value): an operand of a
comparison, of a filter or of a function, an element that a projection drops. A filter finds what surely fits; what may
fit is told as a null. An expression says itself what a null means by comparing with `` `null` ``, or by a default:
``a || `0` ``, ``not_null(a, `0`)``; but only of a key that a dictionary does not have or has as null: behind a null
nothing is known.

Inside a filter JMESPath knows nothing but the element: ``root()`` gives the whole document.
"""

from __future__ import annotations

import functools
import json
import operator
import re
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Node = dict[str, t.Any]

NAMED = 64
"""Characters of an object's name in a reason."""
LOOKS_INSIDE = frozenset({"contains", "difference", "duplicates", "intersection"})
TAKES_NULL = frozenset({"not_null", "to_array", "to_string", "type"})
COMPARISONS: dict[str, Callable[[t.Any, t.Any], t.Any]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}
PROJECTIONS = frozenset({"filter_projection", "projection", "value_projection"})


class QueryError(ValueError):
    """An expression that is none, or that does not fit the values it meets."""


class MissingLibrary(ImportError):
    """The library that reads JMESPath is not installed."""


class Run:
    """One evaluation: the document, the nulls that the answer hangs on, and how many elements were looked at."""

    __slots__ = ("nulls", "root", "tested")

    def __init__(self, root: t.Any) -> None:
        self.root = root
        self.nulls: list[tuple[str, t.Any]] = []
        self.tested = 0


Step = Callable[[t.Any, Run], t.Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """``value`` as JMESPath has it; ``nulls`` that it hangs on, in words; ``vacuous``: no element was looked at."""

    value: t.Any
    nulls: tuple[str, ...] = ()
    vacuous: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A compiled expression. Call it with a document."""

    text: str
    node: Node
    step: Step
    iterates: bool

    def __call__(self, document: t.Any) -> Answer:
        """:raises QueryError: a function does not take the value that it gets."""
        run = Run(document)
        value = self.step(document, run)
        nulls = tuple(dict.fromkeys(_named(text, at) for text, at in run.nulls)) if run.nulls else ()
        return Answer(value, nulls, self.iterates and not run.tested)


def compile_query(text: str) -> Query:
    """Compile a JMESPath expression.

    :raises QueryError: a syntax error, an unknown function or a wrong number of arguments, in one line.
    :raises MissingLibrary: without the package ``jmespath``.
    """
    node = _parse(text)
    types = {child["type"] for child in nodes(node)}
    counts = "filter_projection" if "filter_projection" in types else "projection"
    return Query(text, node, _compile(node, counts), bool(types & PROJECTIONS))


def nodes(node: Node) -> Iterator[Node]:
    """A node of the syntax tree and all below it."""
    yield node
    for child in node["children"]:
        if isinstance(child, dict):
            yield from nodes(child)


def spelled(node: Node) -> str:
    """An expression as a person writes it, as far as a reason needs it."""
    children: list[Node] = node["children"]
    value: t.Any = node.get("value")
    match node["type"]:
        case "field":
            return str(value) if re.fullmatch(r"[A-Za-z_]\w*", value) else json.dumps(value)
        case "subexpression":
            return ".".join(map(spelled, children))
        case "index_expression" | "pipe":
            return "".join(map(spelled, children))
        case "index":
            return f"[{value}]"
        case "flatten":
            return f"{spelled(children[0])}[]"
        case "filter_projection":
            return _joined(f"{spelled(children[0])}[?…]", children[1])
        case "projection":
            return _joined(re.sub(r"(?<!\])$", "[]", spelled(children[0])), children[1])
        case "value_projection":
            return _joined(f"{spelled(children[0])}.*", children[1])
        case "function_expression":
            return f"{value}({', '.join(map(spelled, children))})"
        case "literal":
            return f"`{json.dumps(value)}`"
        case "multi_select_list":
            return f"[{', '.join(map(spelled, children))}]"
        case "identity":
            return ""
        case "current":
            return "@"
    return "…"


def _joined(left: str, right: Node) -> str:
    return f"{left}.{spelled(right)}" if right["type"] != "identity" else left


def _named(text: str, at: t.Any) -> str:
    """Where a null was met: the expression, and the name of the object that it was looked for in."""
    name = at.get("name") if isinstance(at, dict) else None
    return f"{text} of {name[:NAMED]}" if isinstance(name, str) else text


def _parse(text: str) -> Node:
    try:
        from jmespath import exceptions, parser
    except ImportError as error:
        raise MissingLibrary(
            "The Python package jmespath is not installed where Ansible runs: pip install 'jmespath>=1.0'"
        ) from error
    try:
        return t.cast(Node, parser.Parser().parse(text).parsed)
    except (exceptions.JMESPathError, TypeError, ValueError) as error:
        # The library draws an arrow below the expression.
        raise QueryError(f"{str(error).splitlines()[0].rstrip(':')}: {text}") from error


def _falsy(value: t.Any) -> bool:
    """JMESPath's: null, false, an empty string, list or dictionary. Zero is true."""
    return value is None or value is False or (not value and isinstance(value, (str, list, dict)))


def _holds_null(value: t.Any) -> bool:
    return isinstance(value, list) and None in value


def _number(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def equal(left: t.Any, right: t.Any) -> bool:
    """JMESPath's ``==``: a boolean is no number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


# The steps, one a type of node. `value` is what the expression is at.


def _compile(node: Node, counts: str) -> Step:
    return _STEPS[node["type"]](node, counts)


def _children(node: Node, counts: str) -> list[Step]:
    return [_compile(child, counts) for child in node["children"]]


def _field(node: Node, counts: str) -> Step:
    name = node["value"]

    def step(value: t.Any, run: Run) -> t.Any:
        return value.get(name) if isinstance(value, dict) else None

    return step


def _chain(node: Node, counts: str) -> Step:
    if all(child["type"] == "field" for child in node["children"]):
        return _fields([child["value"] for child in node["children"]])
    steps = _children(node, counts)

    def step(value: t.Any, run: Run) -> t.Any:
        for each in steps:
            value = each(value, run)
        return value

    return step


def _fields(names: list[str]) -> Step:
    """A path. What is missing in a dictionary is not set; what lies behind anything else could not be read."""
    texts = [".".join(names[: number + 1]) for number in range(len(names))]

    def step(value: t.Any, run: Run) -> t.Any:
        at = value
        for number, name in enumerate(names):
            if not isinstance(value, dict):
                if number:
                    run.nulls.append((texts[number - 1], at))
                return None
            value = value.get(name)
        return value

    return step


def _current(node: Node, counts: str) -> Step:
    return lambda value, run: value


def _literal(node: Node, counts: str) -> Step:
    literal = node["value"]
    return lambda value, run: literal


def _index(node: Node, counts: str) -> Step:
    index = node["value"]

    def step(value: t.Any, run: Run) -> t.Any:
        return value[index] if isinstance(value, list) and -len(value) <= index < len(value) else None

    return step


def _slice(node: Node, counts: str) -> Step:
    wanted = slice(*node["children"])

    def step(value: t.Any, run: Run) -> t.Any:
        if not isinstance(value, list):
            return None
        try:
            return value[wanted]
        except ValueError as error:
            raise QueryError("a slice's step is 0") from error

    return step


def _comparator(node: Node, counts: str) -> Step:
    left, right = _children(node, counts)
    sides = [spelled(child) for child in node["children"]]
    asks_for_null = any(child["type"] == "literal" and child["value"] is None for child in node["children"])
    operation = node["value"]
    compare = COMPARISONS.get(operation)

    def step(value: t.Any, run: Run) -> t.Any:
        first, second = left(value, run), right(value, run)
        if not asks_for_null:
            if first is None:
                run.nulls.append((sides[0], value))
            if second is None:
                run.nulls.append((sides[1], value))
        if compare is None:
            return equal(first, second) is (operation == "eq")
        if (_number(first) and _number(second)) or (isinstance(first, str) and isinstance(second, str)):
            return compare(first, second)
        return None

    return step


def _not(node: Node, counts: str) -> Step:
    (child,) = _children(node, counts)
    text = spelled(node["children"][0])

    def step(value: t.Any, run: Run) -> bool:
        before = len(run.nulls)
        original = child(value, run)
        if original is None and len(run.nulls) == before:
            run.nulls.append((text, value))
        return _falsy(original)

    return step


def _or(node: Node, counts: str) -> Step:
    left, right = _children(node, counts)
    text = spelled(node["children"][0])
    has_default = node["children"][1]["type"] == "literal"

    def step(value: t.Any, run: Run) -> t.Any:
        before = len(run.nulls)
        first = left(value, run)
        between = len(run.nulls)
        decided = not _falsy(first)
        if decided and between == before:
            return first
        second = right(value, run)
        if second is True and len(run.nulls) == between and not has_default:
            # True, whatever the left side was.
            del run.nulls[before:]
        elif first is None and second is not None and _falsy(second) and not has_default:
            run.nulls.append((text, value))
        return first if decided else second

    return step


def _and(node: Node, counts: str) -> Step:
    left, right = _children(node, counts)
    text = spelled(node["children"][0])

    def step(value: t.Any, run: Run) -> t.Any:
        before = len(run.nulls)
        first = left(value, run)
        between = len(run.nulls)
        if first is not None and between == before:
            return first if _falsy(first) else right(value, run)
        second = right(value, run)
        if second is not None and _falsy(second) and len(run.nulls) == between:
            # False, whatever the left side was.
            del run.nulls[before:]
            return second
        if first is None:
            run.nulls.append((text, value))
        return first if _falsy(first) else second

    return step


def _projection(node: Node, counts: str) -> Step:
    base, each = _children(node, counts)
    text = spelled(node)
    whole = node["children"][1]["type"] == "identity"
    counting = counts == "projection"
    of_values = node["type"] == "value_projection"

    def step(value: t.Any, run: Run) -> t.Any:
        elements = base(value, run)
        if of_values and isinstance(elements, dict):
            elements = list(elements.values())
        elif of_values or not isinstance(elements, list):
            return None
        if counting:
            run.tested += len(elements)
        found = elements if whole else [each(element, run) for element in elements]
        if None not in found:
            return found
        run.nulls += [(text, element) for element, one in zip(elements, found, strict=True) if one is None]
        return [one for one in found if one is not None]

    return step


def _filter(node: Node, counts: str) -> Step:
    base, each, condition = _children(node, counts)
    text = spelled(node)
    asked = spelled(node["children"][2])
    whole = node["children"][1]["type"] == "identity"

    def step(value: t.Any, run: Run) -> t.Any:
        elements = base(value, run)
        if not isinstance(elements, list):
            return None
        run.tested += len(elements)
        found = []
        for element in elements:
            before = len(run.nulls)
            held = condition(element, run)
            if held is None and len(run.nulls) == before:
                run.nulls.append((asked, element))
            # What only may be asked for is told as a null, and not as found.
            if len(run.nulls) == before and not _falsy(held):
                one = element if whole else each(element, run)
                if one is None:
                    run.nulls.append((text, element))
                else:
                    found.append(one)
        return found

    return step


def _flatten(node: Node, counts: str) -> Step:
    (base,) = _children(node, counts)

    def step(value: t.Any, run: Run) -> t.Any:
        elements = base(value, run)
        if not isinstance(elements, list):
            return None
        return [one for element in elements for one in (element if isinstance(element, list) else (element,))]

    return step


def _multi_select_list(node: Node, counts: str) -> Step:
    steps = _children(node, counts)
    return lambda value, run: None if value is None else [each(value, run) for each in steps]


def _multi_select_dict(node: Node, counts: str) -> Step:
    steps = {child["value"]: _compile(child["children"][0], counts) for child in node["children"]}
    return lambda value, run: None if value is None else {name: each(value, run) for name, each in steps.items()}


def _function(node: Node, counts: str) -> Step:
    name, arguments = node["value"], node["children"]
    if name == "root":
        if arguments:
            raise QueryError("root() takes no argument.")
        return lambda value, run: run.root
    call = _callable(name, len(arguments))
    steps = [None if child["type"] == "expref" else _compile(child, counts) for child in arguments]
    references = {
        number: _compile(child["children"][0], counts)
        for number, child in enumerate(arguments)
        if child["type"] == "expref"
    }
    texts = [spelled(child) for child in arguments]

    def step(value: t.Any, run: Run) -> t.Any:
        given: list[t.Any] = [each and each(value, run) for each in steps]
        missing = [number for number, one in enumerate(given) if one is None and number not in references]
        if missing and name not in TAKES_NULL:
            run.nulls += [(texts[number], value) for number in missing]
            return None
        for number, reference in references.items():
            given[number] = _Expression(reference, run)
        result = call(given)
        if name in LOOKS_INSIDE and result is not True:
            run.nulls += [(texts[number], value) for number, one in enumerate(given) if _holds_null(one)]
        return result

    return step


class _Expression:
    """What ``&expression`` is to the library's functions, which know it by the name of its class."""

    def __init__(self, expression: Step, run: Run) -> None:
        self.expression = expression
        self.run = run

    def visit(self, expression: Step, value: t.Any) -> t.Any:
        return expression(value, self.run)


_STEPS: dict[str, Callable[[Node, str], Step]] = {
    "and_expression": _and,
    "comparator": _comparator,
    "current": _current,
    "field": _field,
    "filter_projection": _filter,
    "flatten": _flatten,
    "function_expression": _function,
    "identity": _current,
    "index": _index,
    "index_expression": _chain,
    "literal": _literal,
    "multi_select_dict": _multi_select_dict,
    "multi_select_list": _multi_select_list,
    "not_expression": _not,
    "or_expression": _or,
    "pipe": _chain,
    "projection": _projection,
    "slice": _slice,
    "subexpression": _chain,
    "value_projection": _projection,
}


# The functions.


def _difference(first: list[t.Any], second: list[t.Any]) -> list[t.Any]:
    return [one for one in first if one not in second]


def _intersection(first: list[t.Any], second: list[t.Any]) -> list[t.Any]:
    return [one for one in first if one in second]


def _duplicates(values: list[t.Any]) -> list[t.Any]:
    """Each value that is there more than once, once."""
    found: list[t.Any] = []
    for number, one in enumerate(values):
        if one in values[:number] and one not in found:
            found.append(one)
    return found


def _matches(text: str, expression: str) -> bool:
    """Whether a regular expression is found anywhere in a text."""
    return _regex(expression).search(text) is not None


def _lines(text: str) -> list[str]:
    return text.splitlines()


def _at_least_version(version: str, wanted: str) -> bool | None:
    have, want = version_numbers(version), version_numbers(wanted)
    return have >= want if have and want else None


OWN: dict[str, tuple[Callable[..., t.Any], tuple[type, ...]]] = {
    "at_least_version": (_at_least_version, (str, str)),
    "difference": (_difference, (list, list)),
    "duplicates": (_duplicates, (list,)),
    "intersection": (_intersection, (list, list)),
    "lines": (_lines, (str,)),
    "matches": (_matches, (str, str)),
}


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, without a package's epoch and zeros at the end: ``1:7.2.0+ds`` is 7.2."""
    found = re.match(r"(?:\d+:)?v?(\d+(?:\.\d+)*)", version)
    numbers = [int(number[:9]) for number in found[1].split(".")] if found else []
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


@functools.lru_cache(maxsize=1024)
def _regex(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise QueryError(f"{expression!r} is no regular expression: {error}") from error


def _callable(name: str, arguments: int) -> Callable[[list[t.Any]], t.Any]:
    from jmespath import exceptions, functions

    if name in OWN:
        function, types = OWN[name]
        if arguments != len(types):
            raise QueryError(f"{name}() takes {len(types)} argument{'s' * (len(types) > 1)}, not {arguments}.")

        def own(given: list[t.Any]) -> t.Any:
            for number, (one, wanted) in enumerate(zip(given, types, strict=True), 1):
                if not isinstance(one, wanted):
                    kind = "a list" if wanted is list else "text"
                    raise QueryError(f"{name}() takes {kind} as argument {number}, not {type(one).__name__}.")
            return function(*given)

        return own

    library = functions.Functions()
    known = library.FUNCTION_TABLE.get(name)
    if known is None:
        raise QueryError(f"The function {name}() is unknown; there are {', '.join(sorted(function_names()))}.")
    signature = known["signature"]
    variadic = bool(signature) and bool(signature[-1].get("variadic"))
    if arguments < len(signature) or (arguments > len(signature) and not variadic):
        raise QueryError(f"{name}() takes {len(signature)} argument{'s' * (len(signature) > 1)}, not {arguments}.")

    def of_library(given: list[t.Any]) -> t.Any:
        try:
            return library.call_function(name, given)
        except (exceptions.JMESPathError, TypeError, ValueError) as error:
            raise QueryError(f"{name}(): {error}") from error

    return of_library


def function_names() -> set[str]:
    """All functions that an expression may call."""
    from jmespath import functions

    return {"root", *OWN, *functions.Functions.FUNCTION_TABLE}
