"""Generates Python models (msgspec) of an app's content states; the app decodes what they encode."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from ..errors import InvalidInput
from . import shapes as s
from .scalars import INTEGERS
from .shapes import words

_HEAD = Path(__file__).with_name("models_head.txt")  # what every module of models begins with
_BORDER = (1 << 63) - 1
_TAKEN = words(
    "encode one_case Annotated Any Literal Union Meta UnsetType UNSET field list dict tuple str int bool "
    "float Double Float Decimal Date UUID Data URL"
)


def python_models(types: dict[str, s.Shape]) -> str:
    """Return a module with a model of each named shape. Raises InvalidInput for what has none."""
    writer = _Writer()
    names = [f"{name} = {writer.type_of(shape)}" for name, shape in types.items()]
    return "\n\n".join([_HEAD.read_text("utf-8"), *writer.classes, "\n".join(names)]) + "\n"


class _Writer:
    def __init__(self) -> None:
        self.classes: list[str] = []
        self._names: dict[int, str] = {}
        self._kept: list[s.Shape] = []  # so that no id is used twice

    def type_of(self, shape: s.Shape) -> str:
        """Return the annotation of a shape; its class is written on the way."""
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
            case s.Mapping(keys="Int"):
                key = self.type_of(s.Scalar("Int"))
                return f"dict[{key}, {self.type_of(shape.of)}]"
            case s.Mapping():
                key = "str" if isinstance(shape.keys, str) else _literal(sorted(shape.keys))
                return f"dict[{key}, {self.type_of(shape.of)}]"
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
        lines = [
            f"class {name}(State, frozen=True, kw_only=True):",
            f'    """{shape.swift}."""',
            "",
        ]
        if isinstance(shape, s.Record):
            fields = shape.fields
        else:
            lines += ["    one_case = True"]
            inner = [
                (case.key, s.Record(f"{shape.swift}.{case.key}", case.fields))
                for case in shape.cases
            ]
            fields = [s.Field(key, record, name=key) for key, record in inner]
        used: set[str] = set()
        for item in fields:
            own = _identifier(item.name or item.key, used)
            kind = self.type_of(item.shape)
            key = f"name={item.key!r}"
            if re.search(r'[\\"\x00-\x1f]', item.key):
                raise _no_model(shape, f"msgspec takes no key like {item.key!r}")
            if isinstance(shape, s.Cases):
                lines.append(f"    {own}: Union[{kind}, UnsetType] = field(default=UNSET, {key})")
            elif item.optional:
                lines.append(
                    f"    {own}: Union[{kind}, None, UnsetType] = field(default=UNSET, {key})"
                )
            else:
                lines.append(f"    {own}: {kind} = field({key})")
        self.classes.append("\n".join(lines))
        return name


def _no_model(shape: s.Shape, reason: str) -> InvalidInput:
    return InvalidInput(
        f"{shape.swift} has no Python model: {reason}",
        field="contract",
        remedy="Write this state yourself and check it with apns-live contract check.",
    )


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
