"""Print how large the package is, which classes hold much state, and which modules import in a circle.

``python -m tests.workshop.house`` compares these figures with ``house.json`` beside it and fails when
one has grown. ``--record`` writes down what has fallen; the limit of lines is set by hand.

A class's attributes are what its methods set on ``self``, its slots, and the fields of a dataclass or
Struct that can change. Frozen ones are values and are not counted. A circle is a group of modules that
all import one another, directly or through others; imports for type checkers count.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import grimp

from tests.workshop.requirements import ROOT

PACKAGE = "apns_live"
MANY = 18
LIMITS = Path(__file__).with_name("house.json")


class Figures(TypedDict):
    """What is counted. Circles are written as their modules with a space between them."""

    lines: int
    attributes: dict[str, int]
    circles: list[str]


def lines() -> int:
    """Return the lines of Python in the package."""
    return sum(text.count("\n") for text in map(Path.read_text, _files()))


def attributes(source: str) -> dict[str, int]:
    """Return how many attributes each class of a module has."""
    found: dict[str, int] = {}

    def look(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = outer
            if isinstance(child, ast.ClassDef):
                inner = f"{outer}{child.name}."
                found[inner[:-1]] = len(set(_attributes_of(child)))
            look(child, inner)

    look(ast.parse(source), "")
    return found


def _attributes_of(one: ast.ClassDef) -> Iterator[str]:
    for statement in one.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)) if _has_fields(one):
                yield name
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                yield from (part.value for part in ast.walk(value) if _is_text(part))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _set_on_self(statement)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _has_fields(one: ast.ClassDef) -> bool:
    """Whether annotations in the class's body are attributes of its objects, which may change."""
    said = [ast.unparse(node) for node in (*one.decorator_list, *one.bases, *one.keywords)]
    record = any("dataclass" in text or text.endswith("Struct") for text in said)
    return record and not any("frozen=True" in text for text in said)


def _set_on_self(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    if any(ast.unparse(one) in {"classmethod", "staticmethod"} for one in function.decorator_list):
        return
    arguments = [*function.args.posonlyargs, *function.args.args]
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()):
                if arguments and owner == arguments[0].arg:
                    yield name


def circles(graph: grimp.ImportGraph) -> list[str]:
    """Return the groups of modules that import one another."""
    groups = set()
    for module in graph.modules:
        around = graph.find_upstream_modules(module) & graph.find_downstream_modules(module)
        if around:
            groups.add(" ".join(sorted({module, *around})))
    return sorted(groups)


def _files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def measure() -> Figures:
    """Count everything."""
    many: dict[str, int] = {}
    for file in _files():
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for name, count in attributes(file.read_text()).items():
            if count > MANY:
                many[f"{module}.{name}"] = count
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return Figures(lines=lines(), attributes=many, circles=circles(graph))


def grown(now: Figures, limits: Figures) -> list[str]:
    """Return one sentence for each figure that is larger than its limit."""
    problems = []
    if now["lines"] > limits["lines"]:
        problems.append(f"{now['lines']:,} lines, and {limits['lines']:,} are the limit")
    # A class or module that moves to another folder keeps what it had.
    known = {_last(name): most for name, most in limits["attributes"].items()}
    for name, count in now["attributes"].items():
        if count > (limit := known.get(_last(name), MANY)):
            problems.append(f"{name} has {count} attributes, and {limit} are the limit")
    before = [{_last(name) for name in one.split()} for one in limits["circles"]]
    problems += [
        f"these modules import in a circle: {circle}"
        for circle in now["circles"]
        if not any({_last(name) for name in circle.split()} <= one for one in before)
    ]
    return problems


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def main() -> int:
    """Return 1 when a figure has grown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="write down what has fallen")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    now = measure()
    if options.json:
        print(json.dumps(now, indent=2))
    else:
        print(f"{now['lines']:,} lines of Python in {PACKAGE}")
        print(f"{len(now['attributes'])} classes with more than {MANY} attributes")
        for name, count in sorted(now["attributes"].items(), key=lambda one: -one[1]):
            print(f"  {count:3} {name}")
        print(f"{len(now['circles'])} import circles, imports for type checkers included")
        for circle in now["circles"]:
            print(f"  {circle}")
    limits: Figures = json.loads(LIMITS.read_text())
    problems = grown(now, limits)
    for problem in problems:
        print(f"grown: {problem}")
    if options.record and not problems:
        now["lines"] = limits["lines"]
        LIMITS.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
