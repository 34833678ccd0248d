# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the audit: YAML files, read and checked as a whole before the first of them is used."""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from ansible_collections.hypervisor.hardening.plugins.plugin_utils import _factpaths
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._expected import Expected, ExpectedError
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._factpaths import Shape, UnknownPath
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import Query, QueryError, compile_query
from ansible_collections.hypervisor.hardening.plugins.plugin_utils._report import SEVERITIES

CATEGORIES = [
    "daemon",
    "qemu",
    "guest",
    "kernel",
    "cpu",
    "mac",
    "namespace",
    "memory",
    "storage",
    "network",
    "migration",
    "logging",
    "secrets",
    "host",
    "trap",
]
LEVELS = ("baseline", "hardened", "strict")
TRUTHS = ("configured", "loaded", "running")
PENDING = ("daemon_restart", "guest_restart", "reboot")
"""From the least to the most: of several, the last is what has to happen."""
ACTIVATIONS = ("none", *PENDING)
MODES = ("auto", "auto-optin", "advise")

SELECTED = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
CODE = re.compile(r"[A-Z][A-Z0-9]*(?:-[A-Z0-9]+)*")
NAME = re.compile(r"[a-z][a-z0-9_]*")


class RuleError(ValueError):
    """Rules that cannot be used. ``errors`` has a line for each reason; all of them are told at once."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


@dataclass(frozen=True, slots=True)
class Expression:
    """A query, and what it needs to be asked again for: ``object`` and ``params`` among its roots."""

    query: Query
    roots: frozenset[str]
    paths: frozenset[str]

    @property
    def of_object(self) -> bool:
        """Whether the answer may differ from object to object."""
        return "object" in self.roots


@dataclass(frozen=True, slots=True)
class Condition:
    """``when`` false: the rule does not apply, in the words of ``otherwise``."""

    when: Expression
    otherwise: str


@dataclass(frozen=True, slots=True)
class Unset:
    """What libvirt takes where nothing is set, by its source.

    :ivar parent: has to be a dictionary for that: a file that could not be read sets nothing either.
    """

    value: t.Any
    source: str
    parent: Expression


@dataclass(frozen=True, slots=True)
class Check:
    """One question of a rule."""

    truth: str
    query: Expression
    expected: Expected
    source: str
    excerpt: Expression | None = None
    unset: Unset | None = None
    pending: str | None = None
    absence_is_proof: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """``text`` is what a report tells of the rule, as the master has it."""

    id: str
    code: str
    category: str
    severity: str
    level: str
    text: Mapping[str, t.Any]
    checks: tuple[Check, ...]
    applies: tuple[Condition, ...] = ()
    objects: Expression | None = None
    object_type: str = "host"
    none: str = ""
    manual: str = ""
    params: Mapping[str, t.Any] = field(default_factory=dict)

    @property
    def fixable_now(self) -> bool:
        """Whether this collection can put it right with neither a reboot nor the restart of a guest."""
        remediation = self.text["remediation"]
        return remediation["mode"] != "advise" and remediation["activation"] in ("none", "daemon_restart")


def load(directories: Iterable[Path], sections: Mapping[str, Shape]) -> list[Rule]:
    """Read all rules, in the order of directories, file names and entries.

    :param sections: the documented facts (see :func:`_factpaths.documented`).
    :raises RuleError: each unreadable file, malformed rule, unknown fact path and duplicate id or code.
    :raises MissingLibrary: without the package ``jmespath``.
    """
    errors: list[str] = []
    rules: list[Rule] = []
    places: dict[str, str] = {}
    for path in _files(directories, errors):
        for number, entry in enumerate(_entries(path, errors), 1):
            name = entry.get("id") if isinstance(entry, dict) and isinstance(entry.get("id"), str) else f"rule {number}"
            rule, wrong = read_rule(entry, sections)
            errors += [f"{path}: {name}: {error}" for error in wrong]
            if rule is None:
                continue
            rules.append(rule)
            for key, value in (("id", rule.id), ("code", rule.code)):
                if value in places:
                    errors.append(f"{path}: {name}: {key}: {value} is already that of a rule in {places[value]}")
                places.setdefault(value, str(path))
    if errors:
        raise RuleError(errors)
    return rules


def with_params(rules: Iterable[Rule], params: Mapping[str, t.Any]) -> list[Rule]:
    """The rules with the operator's values in the place of the defaults.

    :param params: rule id -> name -> value.
    :raises RuleError: an unknown rule, an unknown name, or a value of another type than the default.
    """
    errors = []
    rules = list(rules)
    known = {rule.id: rule for rule in rules}
    for id_, values in params.items():
        if id_ not in known:
            errors.append(f"params: there is no rule {id_}")
            continue
        if not isinstance(values, dict):
            errors.append(f"params: {id_}: is no dictionary of parameters")
            continue
        for name, value in values.items():
            defaults = known[id_].params
            if name not in defaults:
                errors.append(f"params: {id_}: has no parameter {name}; it has {', '.join(defaults) or 'none'}")
            elif _kind(value) != _kind(defaults[name]):
                errors.append(f"params: {id_}: {name}: is a {_kind(value)}, not a {_kind(defaults[name])}")
    if not errors:
        rules = [_resolved(rule, params.get(rule.id, {}), errors) for rule in rules]
    if errors:
        raise RuleError(errors)
    return rules


def _resolved(rule: Rule, own: Mapping[str, t.Any], errors: list[str]) -> Rule:
    if not own:
        return rule
    params = {**rule.params, **own}
    try:
        checks = tuple(replace(check, expected=check.expected.resolved(params)) for check in rule.checks)
    except ExpectedError as error:
        errors.append(f"params: {rule.id}: {error}")
        return rule
    return replace(rule, params=params, checks=checks)


def _kind(value: t.Any) -> str:
    kinds = ((bool, "boolean"), (str, "text"), (list, "list"), (dict, "dictionary"), ((int, float), "number"))
    return next((kind for types, kind in kinds if isinstance(value, types)), "null")


def _files(directories: Iterable[Path], errors: list[str]) -> Iterable[Path]:
    for directory in directories:
        found = sorted(path for path in directory.glob("*.y*ml") if path.suffix in (".yml", ".yaml"))
        if not found:
            what = "has no .yml file" if directory.is_dir() else "is no directory"
            errors.append(f"{directory}: {what}")
        yield from found


# misc: mypy does not know which class that is; both are SafeLoader to what is overridden here.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML, of which a key that is there twice is an error: the later one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[t.Any, t.Any]:
        keys = [key.value for key, _value in node.value]
        twice = sorted({key for key in keys if isinstance(key, str) and keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {', '.join(twice)} is there twice", node.start_mark
            )
        return t.cast("dict[t.Any, t.Any]", super().construct_mapping(node, deep=deep))


def _entries(path: Path, errors: list[str]) -> list[t.Any]:
    try:
        entries = yaml.load(path.read_bytes(), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}: " if mark else " "
        errors.append(f"{path}:{line}{getattr(error, 'problem', None) or error}")
        return []
    if not isinstance(entries, list):
        errors.append(f"{path}: is no list of rules")
        return []
    return entries


def read_rule(entry: t.Any, sections: Mapping[str, Shape]) -> tuple[Rule | None, list[str]]:
    """One rule, or what is wrong with it, by its keys."""
    reader = _Reader(entry, sections)
    return reader.rule(), reader.errors


class _Reader:
    """Takes one entry apart; whatever is wrong with it is in ``errors``, by its key."""

    def __init__(self, entry: t.Any, sections: Mapping[str, Shape]) -> None:
        self.entry = entry
        self.sections = dict(sections)
        self.errors: list[str] = []

    def rule(self) -> Rule | None:
        entry = self.entry
        if not isinstance(entry, dict):
            self.errors.append("is no dictionary")
            return None
        text = {key: self.take(entry, key, wanted) for key, wanted in _TEXT.items()}
        for key, default in _OPTIONAL_TEXT.items():
            text[key] = self.take(entry, key, _SHAPES[key]) if key in entry else default
        text["remediation"] = self.remediation(entry.get("remediation"))
        params = self.take(entry, "params", _params) if "params" in entry else {}
        self.sections["params"] = Shape("dict", "params", contains=dict.fromkeys(params or {}, _factpaths.ANY))
        objects = self.objects(entry)
        rule = Rule(
            id=text.pop("id"),
            code=text["code"],
            category=text["category"],
            severity=text["severity"],
            level=text["level"],
            text=text,
            objects=objects,
            object_type=self.take(entry, "object_type", _line) if "object_type" in entry else "host",
            none=self.take(entry, "none", _line) if "none" in entry else "",
            manual=self.take(entry, "manual", _line) if "manual" in entry else "",
            params=params or {},
            applies=tuple(self.each(entry, "applies", self.condition)) if "applies" in entry else (),
            checks=tuple(self.each(entry, "checks", lambda key, check: self.check(key, check, params or {}))),
        )
        self.no_other("", entry, {*_KEYS})
        return None if self.errors else rule

    def objects(self, entry: Mapping[str, t.Any]) -> Expression | None:
        if "objects" not in entry:
            self.errors += [f"{key}: is only with objects" for key in ("object_type", "none") if key in entry]
            return None
        self.errors += [
            f"{key}: is missing, which objects needs" for key in ("object_type", "none") if key not in entry
        ]
        expression, shape = self.followed("objects", entry["objects"])
        if expression is None:
            return None
        if shape.kind not in ("list", "any"):
            self.errors.append("objects: is no list of objects")
            return None
        element = shape.element or _factpaths.ANY
        if element.contains is not None and "name" not in element.contains:
            self.errors.append("objects: has no name: let the expression end in .{name: ..., ...}")
        self.sections["object"] = element if element.path else _placed(element)
        return expression

    def condition(self, key: str, entry: t.Any) -> Condition | None:
        if not self.is_dict(key, entry):
            return None
        self.no_other(key, entry, {"when", "otherwise"})
        when = self.expression(f"{key}.when", entry.get("when"))
        otherwise = self.take(entry, "otherwise", _line, f"{key}.")
        return Condition(when, otherwise) if when else None

    def check(self, key: str, entry: t.Any, params: Mapping[str, t.Any]) -> Check | None:
        if not self.is_dict(key, entry):
            return None
        self.no_other(key, entry, {"truth", "query", "unset", "expected", "evidence", "pending", "absence_is_proof"})
        truth = self.take(entry, "truth", _one_of(TRUTHS), f"{key}.")
        query = self.expression(f"{key}.query", entry.get("query"))
        evidence = entry.get("evidence")
        source, excerpt = "", None
        if self.is_dict(f"{key}.evidence", evidence):
            self.no_other(f"{key}.evidence", evidence, {"source", "excerpt"})
            source = self.take(evidence, "source", _line, f"{key}.evidence.")
            if "excerpt" in evidence:
                excerpt = self.expression(f"{key}.evidence.excerpt", evidence["excerpt"])
        expected = None
        try:
            expected = Expected.of(entry.get("expected"), params)
        except ExpectedError as error:
            self.errors.append(f"{key}.expected: {error}")
        if query is None or expected is None:
            return None
        proof = self.take(entry, "absence_is_proof", _boolean, f"{key}.") if "absence_is_proof" in entry else False
        if proof and not query.query.iterates:
            self.errors.append(f"{key}.absence_is_proof: the query goes through no list")
        return Check(
            truth=truth,
            query=query,
            expected=expected,
            source=source,
            excerpt=excerpt,
            unset=self.unset(f"{key}.unset", entry["unset"], query) if "unset" in entry else None,
            pending=self.take(entry, "pending", _one_of(PENDING), f"{key}.") if "pending" in entry else None,
            absence_is_proof=bool(proof),
        )

    def unset(self, key: str, entry: t.Any, query: Expression) -> Unset | None:
        if not self.is_dict(key, entry):
            return None
        self.no_other(key, entry, {"value", "source"})
        if entry.get("value") is None:
            self.errors.append(f"{key}.value: is missing")
        source = self.take(entry, "source", _line, f"{key}.")
        node = query.query.node
        steps = node["children"]
        if node["type"] != "subexpression" or any(step["type"] != "field" for step in steps):
            self.errors.append(f"{key}: is only for a query that is a plain path; others say a.b || `default`")
            return None
        parent = self.expression(key, ".".join(json.dumps(step["value"]) for step in steps[:-1]))
        return Unset(entry.get("value"), source, parent) if parent else None

    def remediation(self, entry: t.Any) -> dict[str, t.Any]:
        taken: dict[str, t.Any] = {"mode": "advise", "variable": "", "advice": "", "activation": "none"}
        if not self.is_dict("remediation", entry):
            return taken
        self.no_other("remediation", entry, set(taken))
        taken["mode"] = self.take(entry, "mode", _one_of(MODES), "remediation.")
        taken["activation"] = self.take(entry, "activation", _one_of(ACTIVATIONS), "remediation.")
        for key in ("variable", "advice"):
            if key in entry:
                taken[key] = self.take(entry, key, _line, "remediation.")
        needed = "advice" if taken["mode"] == "advise" else "variable"
        if not taken[needed]:
            self.errors.append(f"remediation.{needed}: is missing, which mode {taken['mode']} needs")
        return taken

    def expression(self, key: str, text: t.Any) -> Expression | None:
        return self.followed(key, text)[0]

    def followed(self, key: str, text: t.Any) -> tuple[Expression | None, Shape]:
        if not isinstance(text, str) or not text.strip():
            self.errors.append(f"{key}: is no JMESPath expression")
            return None, _factpaths.ANY
        try:
            query = compile_query(text.strip())
            reads = _factpaths.reads(query.node, self.sections)
        except (QueryError, UnknownPath) as error:
            self.errors.append(f"{key}: {error}")
            return None, _factpaths.ANY
        return Expression(query, frozenset(reads.roots), frozenset(reads.paths)), reads.shape

    def each(self, entry: Mapping[str, t.Any], key: str, of: Callable[[str, t.Any], t.Any]) -> list[t.Any]:
        entries = entry.get(key)
        if not isinstance(entries, list) or not entries:
            self.errors.append(f"{key}: is no list with at least one entry")
            return []
        return [of(f"{key}[{number}]", one) for number, one in enumerate(entries)]

    def take(
        self, entry: Mapping[str, t.Any], key: str, wanted: Callable[[t.Any], str | None], prefix: str = ""
    ) -> t.Any:
        """The value of a key, or None with an error."""
        if key not in entry:
            self.errors.append(f"{prefix}{key}: is missing")
            return None
        problem = wanted(entry[key])
        if problem:
            self.errors.append(f"{prefix}{key}: {problem}")
            return None
        return entry[key].strip() if isinstance(entry[key], str) else entry[key]

    def is_dict(self, key: str, entry: t.Any) -> bool:
        if not isinstance(entry, dict):
            self.errors.append(f"{key}: is no dictionary")
        return isinstance(entry, dict)

    def no_other(self, key: str, entry: Mapping[t.Any, t.Any], known: set[str]) -> None:
        prefix = f"{key}." if key else ""
        self.errors += [
            f"{prefix}{other}: is unknown; there are {', '.join(sorted(known))}"
            for other in entry
            if other not in known
        ]


def _placed(element: Shape) -> Shape:
    """An object that the expression itself made has no path of the documentation."""
    return replace(element, path="object")


# What a value has to be: each returns what is wrong with it, or None.


def _line(value: t.Any) -> str | None:
    return None if isinstance(value, str) and value.strip() else "is no text"


def _boolean(value: t.Any) -> str | None:
    return None if isinstance(value, bool) else "is neither true nor false"


def _pattern(pattern: re.Pattern[str]) -> Callable[[t.Any], str | None]:
    return lambda value: (
        None if isinstance(value, str) and pattern.fullmatch(value) else f"{value!r} is not like {pattern.pattern}"
    )


def _one_of(words: Iterable[str]) -> Callable[[t.Any], str | None]:
    known = tuple(words)
    return lambda value: None if value in known else f"{value!r} is none of {', '.join(known)}"


def _texts(value: t.Any) -> str | None:
    return None if isinstance(value, list) and all(not _line(one) for one in value) else "is no list of texts"


def _mappings(value: t.Any) -> str | None:
    if isinstance(value, dict) and all(isinstance(key, str) and not _texts(one) for key, one in value.items()):
        return None
    return "is no dictionary of lists of texts"


def _params(value: t.Any) -> str | None:
    if not isinstance(value, dict):
        return "is no dictionary"
    wrong = [str(name) for name in value if not (isinstance(name, str) and NAME.fullmatch(name))]
    if wrong:
        return f"{', '.join(wrong)} is not like {NAME.pattern}"
    empty = [name for name, default in value.items() if default is None]
    return f"{', '.join(empty)} has no default" if empty else None


_TEXT: dict[str, Callable[[t.Any], str | None]] = {
    "id": _pattern(SELECTED),
    "code": _pattern(CODE),
    "title": _line,
    "category": _one_of(CATEGORIES),
    "severity": _one_of(SEVERITIES),
    "level": _one_of(LEVELS),
    "why": _line,
}
_OPTIONAL_TEXT: dict[str, t.Any] = {"breaks": "", "references": [], "mappings": {}}
_SHAPES: dict[str, Callable[[t.Any], str | None]] = {"breaks": _line, "references": _texts, "mappings": _mappings}
_KEYS = {
    *_TEXT,
    *_OPTIONAL_TEXT,
    "remediation",
    "params",
    "objects",
    "object_type",
    "none",
    "manual",
    "applies",
    "checks",
}
