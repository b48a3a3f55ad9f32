"""Describes the difference between expected and found values, as text and as a diff."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

_ABSENT = object()


class Difference(NamedTuple):
    """One field that is not as expected."""

    field: str
    expected: Any
    found: Any


def differences(thing: object, wanted: Mapping[str, Any]) -> list[Difference]:
    """Return the fields of ``thing`` that do not equal what is wanted. Tokens: any case."""
    different = []
    for name, expected in wanted.items():
        found = getattr(thing, name)
        if name in {"token", "apns_id"} and isinstance(expected, str) and isinstance(found, str):
            same = expected.lower() == found.lower()
        else:
            same = found == expected and isinstance(found, bool) == isinstance(expected, bool)
        if not same:
            different.append(Difference(name, expected, found))
    return different


def describe(found: list[Difference]) -> str:
    """Return text that shows the differences, one block a field."""
    return "\n".join(_describe(each) for each in found)


def _describe(difference: Difference) -> str:
    name, expected, found = difference
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        lines = [f"  {name} differs ({_keys(expected, found)}):"]
        diff = difflib.ndiff(_lines(expected), _lines(found))
        lines += [f"    {line}" for line in diff if not line.startswith("?")]
        lines.append("    (- expected, + found)")
        return "\n".join(lines)
    return f"  {name}: expected {expected!r}, found {found!r}"


def _lines(value: object) -> list[str]:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=repr)
    return text.splitlines()


def _keys(expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> str:
    wrong = [
        str(key)
        for key in {**expected, **found}
        if expected.get(key, _ABSENT) != found.get(key, _ABSENT)
    ]
    return ", ".join(sorted(wrong))
