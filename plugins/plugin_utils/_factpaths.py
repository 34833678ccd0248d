# Copyright: hypervisor.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which facts an expression reads, followed through its syntax tree along the documentation of ``hypervisor_info``."""

from __future__ import annotations

import ast
import difflib
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from ansible_collections.hypervisor.hardening.plugins.plugin_utils._query import Node, spelled

KEYED = ("filter_projection", "flatten", "projection")


class UnknownPath(ValueError):
    """An expression reads what is documented nowhere."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is at a path of the facts. ``kind``: dict, list, text (or any other single value), any.

    :ivar contains: the keys of a dict; None where they are free, as those of a configuration file are.
    :ivar element: of a list.
    """

    kind: str
    path: str = ""
    contains: Mapping[str, Shape] | None = None
    element: Shape | None = None


ANY = Shape("any")
SINGLE = Shape("text")


@dataclass(slots=True)
class Reads:
    """``paths`` of facts that an expression reads; ``roots`` are their sections, or ``object`` and ``params``."""

    paths: set[str] = field(default_factory=set)
    roots: set[str] = field(default_factory=set)
    shape: Shape = ANY


def documented(module: Path) -> dict[str, Shape]:
    """The sections of the facts.

    :param module: the file of ``hypervisor_info``.
    :raises UnknownPath: it documents no return values.
    """
    return {name: _documented(name, option) for name, option in sections_of(module).items()}


def sections_of(module: Path) -> dict[str, dict[str, t.Any]]:
    """The documentation of each section in the RETURN block of ``hypervisor_info``, which is read and not executed.

    :raises UnknownPath: there is no such block.
    """
    for statement in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "RETURN":
            block = yaml.load(ast.literal_eval(statement.value), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            return t.cast("dict[str, dict[str, t.Any]]", block["hypervisor"]["contains"])
    raise UnknownPath(f"{module.name} documents no return values.")


def _documented(path: str, option: Mapping[str, t.Any]) -> Shape:
    kind, contains = option.get("type", "raw"), option.get("contains")
    if kind == "list":
        inner = {"type": option.get("elements", "raw"), "contains": contains}
        return Shape("list", path, element=_documented(f"{path}[]", inner))
    if kind == "dict":
        keys = contains and {key: _documented(f"{path}.{key}", below) for key, below in contains.items()}
        return Shape("dict", path, contains=keys or None)
    return Shape("any" if kind in ("raw", "complex", "jsonarg") else "text", path)


def reads(node: Node, sections: Mapping[str, Shape]) -> Reads:
    """Follow an expression.

    :param sections: what the document holds at its top: the sections of the facts, ``object`` and ``params``.
    :raises UnknownPath: a key that the documentation does not have, with the nearest; a list where a dictionary is.
    """
    walk = _Walk(Shape("dict", contains=sections))
    shape = walk.shape(node, walk.root)
    walk.found.paths = {path for path in walk.found.paths if not _has_longer(path, walk.found.paths)}
    walk.found.shape = shape
    return walk.found


def _has_longer(path: str, paths: set[str]) -> bool:
    return any(other != path and other.startswith((f"{path}.", f"{path}[]")) for other in paths)


class _Walk:
    """The value of each node has a shape; what it reads is collected on the way."""

    def __init__(self, root: Shape) -> None:
        self.root = root
        self.found = Reads()

    def shape(self, node: Node, at: Shape) -> Shape:
        children = node["children"]
        match node["type"]:
            case "field":
                return self.key(node["value"], at)
            case "subexpression" | "index_expression" | "pipe":
                for child in children:
                    at = self.shape(child, at)
                return at
            case "identity" | "current":
                return at
            case "index":
                return self.element(at, node)
            case "slice":
                self.element(at, node)
                return at
            case "flatten":
                base = self.shape(children[0], at)
                inner = self.element(base, node)
                return replace(base, kind="list", element=inner.element if inner.kind == "list" else inner)
            case "projection":
                element = self.element(self.shape(children[0], at), node)
                return Shape("list", element=self.shape(children[1], element))
            case "filter_projection":
                element = self.element(self.shape(children[0], at), node)
                self.shape(children[2], element)
                return Shape("list", element=self.shape(children[1], element))
            case "value_projection":
                base = self.shape(children[0], at)
                if base.kind in ("list", "text"):
                    raise UnknownPath(f"{base.path or spelled(children[0])} is no dictionary: .* finds nothing in it")
                return Shape(
                    "list",
                    element=self.common([self.shape(children[1], one) for one in (base.contains or {}).values()]),
                )
            case "multi_select_list":
                return Shape("list", element=self.common([self.shape(child, at) for child in children]))
            case "multi_select_dict":
                return Shape("dict", contains={c["value"]: self.shape(c["children"][0], at) for c in children})
            case "or_expression":
                return self.common([self.shape(child, at) for child in children if child["type"] != "literal"])
            case "and_expression":
                return [self.shape(child, at) for child in children][-1]
            case "function_expression":
                return self.function(node, at)
            case "literal":
                return ANY
        for child in children:
            self.shape(child, at)
        return SINGLE

    def key(self, name: str, at: Shape) -> Shape:
        where = at.path or ("the document" if at is self.root else "what is before it")
        if at.kind == "list":
            raise UnknownPath(f"{where} is a list, which has no key {name}: write {where}[].{name}")
        if at.kind == "text":
            hint = "" if at.path else "; !a.b is (!a).b, write !(a.b)"
            raise UnknownPath(f"{where} is a single value, which has no key {name}{hint}")
        path = f"{at.path}.{name}" if at.path else name
        if at.contains is None:
            shape = Shape("any", path)
        elif name not in at.contains:
            hint = " (the value null is written `null`)" if name in ("null", "true", "false") else ""
            raise UnknownPath(f"{where} has no {name}{hint}{_nearest(name, at.contains)}")
        else:
            shape = at.contains[name]
            shape = shape if shape.path else replace(shape, path=path)
        if at is self.root:
            self.found.roots.add(name)
        self.found.paths.add(shape.path)
        return shape

    def element(self, at: Shape, node: Node) -> Shape:
        if at.kind in ("dict", "text"):
            raise UnknownPath(f"{at.path or 'the value'} is no list, as {spelled(node) or '[]'} takes it for")
        return at.element or Shape("any", f"{at.path}[]" if at.path else "")

    def common(self, shapes: list[Shape]) -> Shape:
        return shapes[0] if shapes and all(shape == shapes[0] for shape in shapes) else ANY

    def function(self, node: Node, at: Shape) -> Shape:
        name = node["value"]
        if name == "root":
            return self.root
        values = [self.shape(child, at) for child in node["children"] if child["type"] != "expref"]
        element = next((value.element for value in values if value.kind == "list" and value.element), ANY)
        expressions = [
            self.shape(child["children"][0], element) for child in node["children"] if child["type"] == "expref"
        ]
        match name:
            case "map":
                return Shape("list", element=expressions[0] if expressions else ANY)
            case "max_by" | "min_by":
                return element
            case "sort_by" | "reverse" | "sort" | "difference" | "intersection" | "duplicates":
                return values[0] if values else ANY
            case "keys" | "lines":
                return Shape("list", element=SINGLE)
            case "values":
                return Shape("list", element=ANY)
        return ANY


def _nearest(name: str, known: Mapping[str, t.Any]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; near: {', '.join(near)}"
    return f"; it has {', '.join(sorted(known))}" if known else ""
