"""The API reference of the documentation, made of docstrings: ``python -m tests.workshop.reference``.

A page for each public package, with every name in its ``__all__``: signature, docstring, and public
methods, properties and fields. The pages are made when the site is built and are not in the repository.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.workshop.requirements import ROOT

PACKAGES = {
    "apns_live": "The engine: client, messages, outcomes, delivery",
    "apns_live.errors": "Every error that is raised",
    "apns_live.blocking": "The engine for code that does not await",
    "apns_live.activities": "The service: activities, audiences, devices",
    "apns_live.activities.blocking": "The service for code that does not await",
    "apns_live.gateway": "The HTTP API as an ASGI app",
    "apns_live.testing": "The local APNs and its phones",
}
FOLDER = ROOT / "docs" / "reference"


def public(module: Any) -> list[str]:
    """Return the public names of a module, in the order of their list."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
        ]
    return list(names)


def markdown(text: str | None) -> str:
    """Return a docstring as Markdown: code in double backticks, blocks that are set in."""
    text = re.sub(r"``([^`]+)``", r"`\1`", inspect.cleandoc(text or ""))
    parts: list[str] = []
    for paragraph in re.split(r"\n{2,}", text):
        lines = paragraph.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            code = "\n".join(line.removeprefix("    ") for line in lines)
            if parts and parts[-1].endswith("\n```"):
                parts[-1] = f"{parts[-1].removesuffix('```')}\n{code}\n```"
            else:
                parts.append(f"```text\n{code}\n```")
        elif paragraph != "::":
            parts.append(
                paragraph.replace("<", "&lt;").removesuffix(":" * paragraph.endswith("::"))
            )
    return "\n\n".join(parts)


def signature(value: Any) -> str:
    """Return how something is called, on one line if it fits."""
    try:
        shown = str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"
    shown = re.sub(r"<[^>]+ object at 0x[0-9a-f]+>|<factory>|<[^>]+>", "...", shown)
    shown = re.sub(r"""(: |-> )(['"])(.*?)\2(?=,|\)| =|$)""", r"\1\3", shown)
    shown = re.sub(r"^\((?:self|cls)(?:, )?", "(", shown)
    if len(shown) > 88:
        inside = re.sub(
            r", (?=\*?\*?\w+(?:: |=|,|\)|$)|\*(?:,|$)|/)", ",\n    ", shown[1:].rpartition(")")[0]
        )
        shown = f"(\n    {inside},\n){shown.rpartition(')')[2]}"
    return shown


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the head and docstring of each public member that the class itself or ours defines."""
    fields: list[str] = []
    if dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind) if field.name[0] != "_"]
    elif issubclass(kind, msgspec.Struct):
        fields = list(kind.__struct_fields__)
    if fields:
        yield "", "Fields: " + ", ".join(f"`{name}`" for name in fields) + "."
    for name, found in inspect.getmembers_static(kind):
        if name.startswith("_") or name in fields or issubclass(kind, BaseException):
            continue
        owner = next((one for one in kind.__mro__ if name in vars(one)), kind)
        if not owner.__module__.startswith("apns_live"):
            continue
        value = found.__func__ if isinstance(found, staticmethod | classmethod) else found
        if isinstance(value, property):
            yield f"`{name}`", markdown(value.__doc__)
        elif inspect.isroutine(value):
            word = "await " if inspect.iscoroutinefunction(value) else ""
            yield (
                f"`{word}{name}()`",
                f"```python\n{name}{signature(value)}\n```\n\n{markdown(value.__doc__)}",
            )


def described(name: str, value: Any) -> Iterator[str]:
    """Yield the parts of a name's description."""
    yield f"## {name}\n"
    if isinstance(value, type) and issubclass(value, enum.Enum):
        yield markdown(value.__doc__) + "\n"
        yield "\n".join(f"- `{one.name}`" for one in value) + "\n"
    elif isinstance(value, type):
        if not issubclass(value, BaseException) and value.__init__ is not object.__init__:
            yield f"```python\n{name}{signature(value)}\n```\n"
        bases = [
            base.__name__ for base in value.__bases__ if base.__module__.startswith("apns_live")
        ]
        if bases:
            yield f"A kind of {', '.join(f'`{base}`' for base in bases)}.\n"
        yield markdown(value.__doc__) + "\n"
        for head, text in members(value):
            yield (f"### {head}\n\n" if head else "") + text + "\n"
    elif callable(value):
        yield f"```python\n{name}{signature(value)}\n```\n"
        yield markdown(value.__doc__) + "\n"
    else:
        yield f"`{value!r:.300}`\n"


def page(name: str) -> str:
    """Return the page of a package."""
    module = importlib.import_module(name)
    parts = [f"# {name}\n", PACKAGES[name] + ".\n", markdown(module.__doc__) + "\n"]
    for one in public(module):
        parts += described(one, getattr(module, one))
    return "\n".join(parts)


def write(folder: Path) -> None:
    """Write every page, and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["# API reference", "", "Made of the docstrings of this release.", ""]
    for name, what in PACKAGES.items():
        (folder / f"{name}.md").write_text(page(name), "utf-8")
        rows.append(f"- [`{name}`]({name}.md): {what[0].lower()}{what[1:]}")
    (folder / "index.md").write_text("\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
