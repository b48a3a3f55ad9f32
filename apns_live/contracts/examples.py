"""Generates documents that decode, and finds those that do not under another version of the app."""

from __future__ import annotations

import json
import random
import re
import uuid
from typing import Any

from . import shapes as s
from .contract import Checker
from .scalars import INTEGERS

_WORDS = ("home", "Gate B12", "On time", "", "München", "Lap 3", "\U0001f680")
_DEEP = 6
_TRIES = 600


def example(shape: s.Shape, chance: random.Random) -> Any:
    """Return a value whose JSON decodes by the shape. Raises LookupError if none can be made."""
    return _make(shape, chance, 0)


def _make(shape: s.Shape, chance: random.Random, depth: int) -> Any:
    if depth > _DEEP * 4:
        raise LookupError(f"{shape.swift} holds itself without an end")
    few = 0 if depth > _DEEP else chance.randint(0, 3)
    match shape:
        case s.Scalar():
            return _scalar(shape.swift, chance)
        case s.Nullable():
            return (
                None if depth > _DEEP or chance.random() < 0.3 else _make(shape.of, chance, depth)
            )
        case s.Sequence():
            return [_make(shape.of, chance, depth + 1) for _ in range(few)]
        case s.Fixed():
            made = [_make(of, chance, depth + 1) for of in shape.of]
            return sorted(made) if shape.ordered else made
        case s.Mapping():
            keys = _keys(shape.keys, few, chance)
            return {key: _make(shape.of, chance, depth + 1) for key in keys}
        case s.Pairs():
            kinds = (shape.key, shape.of) * few
            return [_make(kind, chance, depth + 1) for kind in kinds]
        case s.Record():
            return _fields(shape.fields, chance, depth)
        case s.Raw():
            if shape.values is None:
                return _make(shape.of, chance, depth)
            if shape.values:
                return chance.choice(list(shape.values))
        case s.Cases():
            cases = (
                shape.cases
                if depth <= _DEEP
                else sorted(shape.cases, key=lambda c: len(c.fields))[:1]
            )
            case = chance.choice(cases)
            return {case.key: _fields(case.fields, chance, depth)}
    raise LookupError(getattr(shape, "reason", f"{shape.swift} has no values"))


def _fields(fields: list[s.Field], chance: random.Random, depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for item in fields:
        if item.optional:
            fate = chance.random()
            if fate < 0.2 or depth > _DEEP:
                continue
            if fate < 0.3:
                made[item.key] = None
                continue
        made[item.key] = _make(item.shape, chance, depth + 1)
    return made


def _keys(keys: str | frozenset[str], few: int, chance: random.Random) -> list[str]:
    if keys == "Int":
        return [str(chance.randint(-3, 50)) for _ in range(few)]
    return chance.sample(sorted(_WORDS if isinstance(keys, str) else keys), min(few, len(keys)))


def _scalar(name: str, chance: random.Random) -> Any:
    if name in INTEGERS:
        low, high = INTEGERS[name]
        return chance.choice([0, 1, chance.randint(0, 100), low, high])
    match name:
        case "Bool":
            return chance.random() < 0.5
        case "String":
            return chance.choice(_WORDS)
        case "Date":
            return chance.randint(700_000_000, 900_000_000)
        case "UUID":
            return str(uuid.UUID(int=chance.getrandbits(128))).upper()
        case "URL":
            return f"https://example.com/{chance.randint(1, 99)}"
        case "Data":
            return chance.choice(["", "aGVsbG8=", "AA=="])
    return chance.choice([0, 1, -1.5, 0.25, 74.59, 1000])


def losses(old: Checker, new: Checker) -> list[str]:
    """Return why states that ``old`` decodes do not decode under ``new``, once for each place.

    It tries many random states of ``old``, which cover all cases and missing keys.
    """
    chance = random.Random(0)  # noqa: S311 - the same states each time
    found: dict[str, None] = {}
    for _ in range(_TRIES):
        try:
            document = json.dumps(example(old.shape, chance))
        except LookupError as error:
            return [f"Cannot tell: {error.args[0]}."]
        verdict = new.check(document)
        if verdict.ok is not True:
            found[re.sub(r"\[\d+\]", "[]", verdict.message)] = None
    return list(found)
