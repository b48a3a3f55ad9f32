"""Generates from shapes: documents that decode, losses between two versions, and Python models (msgspec)."""

import json
import keyword
import random
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from . import shapes as s
from .contract import Checker
from .shapes import words
from .values import INTEGERS

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
            is_nil = depth > _DEEP or chance.random() < 0.3
            return None if is_nil else _make(shape.of, chance, depth)
        case s.Sequence():
            return [_make(shape.of, chance, depth + 1) for _ in range(few)]
        case s.Fixed():
            made = [_make(of, chance, depth + 1) for of in shape.of]
            return sorted(made) if shape.ordered else made
        case s.Mapping():
            keys = _keys(shape.keys, few, chance)
            return {key: _make(shape.of, chance, depth + 1) for key in keys}
        case s.Pairs():
            return [_make(of, chance, depth + 1) for of in (shape.key, shape.of) * few]
        case s.Record():
            return _fields(shape.fields, chance, depth)
        case s.Raw():
            if shape.values is None:
                return _make(shape.of, chance, depth)
            if shape.values:
                return chance.choice(list(shape.values))
        case s.Cases():
            shortest = sorted(shape.cases, key=lambda case: len(case.fields))[:1]
            case = chance.choice(shape.cases if depth <= _DEEP else shortest)
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
    make = _MAKERS.get(name)
    return make(chance) if make else chance.choice([0, 1, -1.5, 0.25, 74.59, 1000])


_MAKERS: dict[str, Callable[[random.Random], Any]] = {
    "Bool": lambda chance: chance.random() < 0.5,
    "String": lambda chance: chance.choice(_WORDS),
    "Date": lambda chance: chance.randint(700_000_000, 900_000_000),
    "UUID": lambda chance: str(uuid.UUID(int=chance.getrandbits(128))).upper(),
    "URL": lambda chance: f"https://example.com/{chance.randint(1, 99)}",
    "Data": lambda chance: chance.choice(["", "aGVsbG8=", "AA=="]),
}


def losses(old: Checker, new: Checker) -> list[str]:
    """Return why ``new`` does not decode random states of ``old``, once for each place."""
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


# --- Python models; the app decodes their JSON

_HEAD = Path(__file__).with_name("models_head.txt")  # the beginning of every module of models
_BORDER = (1 << 63) - 1
_TAKEN = words(
    "encode one_case Annotated Any Literal Union Meta UnsetType UNSET field list dict tuple str int bool "
    "float Double Float Decimal Date UUID Data URL"
)


def python_models(types: dict[str, s.Shape]) -> str:
    """Return a module with a model of each named shape. Raises InvalidInput if a shape has no model."""
    writer = _Writer()
    names = [f"{name} = {writer.type_of(shape)}" for name, shape in types.items()]
    return "\n\n".join([_HEAD.read_text("utf-8"), *writer.classes, "\n".join(names)]) + "\n"


class _Writer:
    def __init__(self) -> None:
        self.classes: list[str] = []
        self._names: dict[int, str] = {}
        self._kept: list[s.Shape] = []  # so that no id is used twice

    def type_of(self, shape: s.Shape) -> str:
        """Return the annotation of a shape, and write its class."""
        match shape:
            case s.Scalar(swift=name) if name in INTEGERS:
                low, high = INTEGERS[name]
                return f"Annotated[int, Meta(ge={max(low, -_BORDER - 1)}, le={min(high, _BORDER)})]"
            case s.Scalar(swift=name):
                return {"String": "str", "Bool": "bool", "CGFloat": "Double"}.get(name, name)
            case s.Nullable():
                return f"Union[{self.type_of(shape.of)}, None]"
            case s.Sequence():
                return f"list[{self.type_of(shape.of)}]"
            case s.Fixed(ordered=False):
                return f"tuple[{', '.join(self.type_of(of) for of in shape.of)}]"
            case s.Mapping(keys=str() as key):
                return f"dict[{self.type_of(s.Scalar(key))}, {self.type_of(shape.of)}]"
            case s.Mapping():
                return f"dict[{_literal(sorted(shape.keys))}, {self.type_of(shape.of)}]"
            case s.Raw(values=None):
                return self.type_of(shape.of)
            case s.Raw(values=values) if values and not isinstance(next(iter(values)), float):
                return _literal(list(values))
            case s.Record() | s.Cases():
                return self._class(shape)
        raise _no_model(shape, getattr(shape, "reason", "it cannot be typed"))

    def _class(self, shape: s.Record | s.Cases) -> str:
        if id(shape) in self._names:
            return self._names[id(shape)]
        name = re.sub(r"\W+", "_", shape.swift.replace(".", "")).strip("_")
        while name in self._names.values():
            name += "_"
        self._names[id(shape)] = name
        self._kept.append(shape)
        lines = [f"class {name}(State, frozen=True, kw_only=True):"]
        lines += [f'    """{shape.swift}."""', ""]
        fields = shape.fields if isinstance(shape, s.Record) else shape.as_fields()
        lines += [] if isinstance(shape, s.Record) else ["    one_case = True"]
        used: set[str] = set()
        for item in fields:
            own = _identifier(item.name or item.key, used)
            kind = self.type_of(item.shape)
            key = f"name={item.key!r}"
            if re.search(r'[\\"\x00-\x1f]', item.key):
                raise _no_model(shape, f"msgspec takes no key like {item.key!r}")
            if isinstance(shape, s.Cases) or item.optional:
                kind = f"Union[{kind}{', None' if item.optional else ''}, UnsetType]"
                key = f"default=UNSET, {key}"
            lines.append(f"    {own}: {kind} = field({key})")
        self.classes.append("\n".join(lines))
        return name


def _no_model(shape: s.Shape, reason: str) -> InvalidInput:
    remedy = "Write this state yourself and check it with apns-live contract check."
    return InvalidInput(f"{shape.swift} has no Python model: {reason}", "contract", remedy)


def _identifier(name: str, used: set[str]) -> str:
    name = re.sub(r"\W", "_", name)
    if name.startswith("_") or not name.isidentifier():
        name = f"value{name}"
    while keyword.iskeyword(name) or name in used or name in _TAKEN:
        name += "_"
    used.add(name)
    return name


def _literal(values: list[str] | list[str | int | float]) -> str:
    return f"Literal[{', '.join(map(repr, values))}]"
