"""What assertions share: how long they wait, and the differences that a failed one shows."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds of the machine's time that an assertion waits for a push that is still on its way."""
PAUSE = 0.005
_ABSENT = object()


class Difference(msgspec.Struct, frozen=True):
    """One field that is not as expected."""

    field: str
    expected: Any
    found: Any


def waited(look: Callable[[bool], T | None], timeout: float) -> T:
    """Return what ``look`` finds, as soon as it is something.

    It is told whether it is late: after ``timeout`` seconds, or at once inside an event loop, where waiting
    would stop everything. Then it finds something or raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        give_up = monotonic() + timeout
    else:
        give_up = monotonic()
    while (found := look(monotonic() >= give_up)) is None:
        sleep(PAUSE)
    return found


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
    """Return text that shows the differences, one block a field; of objects as a diff."""
    lines = []
    for each in found:
        expected, actual = each.expected, each.found
        if not (isinstance(expected, Mapping) and isinstance(actual, Mapping)):
            lines.append(f"  {each.field}: expected {expected!r}, found {actual!r}")
            continue
        wrong = [
            str(key)
            for key in {**expected, **actual}
            if expected.get(key, _ABSENT) != actual.get(key, _ABSENT)
        ]
        lines.append(f"  {each.field} differs ({', '.join(sorted(wrong))}):")
        diff = difflib.ndiff(_lines(expected), _lines(actual))
        lines += [f"    {line}" for line in diff if not line.startswith("?")]
        lines.append("    (- expected, + found)")
    return "\n".join(lines)


def _lines(value: object) -> list[str]:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=repr)
    return text.splitlines()
