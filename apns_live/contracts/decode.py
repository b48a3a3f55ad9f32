"""Decodes a JSON value by a shape as Swift's JSONDecoder does, and reports where it fails.

``compile_shape`` turns a shape into nested functions from a value of ``values.parse`` to None or a
Fault. Fields are decoded in Swift's order, so the first fault is Swift's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, repeat
from typing import Any, Final

import msgspec

from . import shapes as s
from . import values as v
from .values import BrokenNumber, BrokenObject, BrokenText, Real, canonical

TYPE_MISMATCH: Final = "typeMismatch"
VALUE_NOT_FOUND: Final = "valueNotFound"
KEY_NOT_FOUND: Final = "keyNotFound"
DATA_CORRUPTED: Final = "dataCorrupted"
MISSING: Final = object()


class Fault(msgspec.Struct, eq=False):
    """A value that does not decode or, with ``kind`` None, an undetermined one.

    ``where`` is the coding path from its end. ``lost`` is true if Swift gives no path: a number does
    not fit or a string cannot be decoded.
    """

    kind: str | None
    need: str
    found: Any
    remedy: str = ""
    lost: bool = False
    where: list[str] = []

    def at(self, key: str) -> Fault:
        """Add one step to the path and return the fault."""
        self.where.append(key)
        return self


Check = Callable[[Any], Fault | None]
_Fields = list[tuple[str, Check, bool, bool]]  # key, check, optional, unknown


def compile_shape(shape: s.Shape, made: dict[int, list[Check]] | None = None) -> Check:
    """Return the function that decodes by this shape."""
    made = {} if made is None else made
    if id(shape) in made:
        filled = made[id(shape)]  # empty while a recursive shape is compiled
        return filled[0] if filled else lambda value: filled[0](value)  # noqa: PLW0108
    cell = made[id(shape)] = []
    cell.append(_check(shape, lambda inner: compile_shape(inner, made)))
    return cell[0]


_Compile = Callable[[s.Shape], Check]


def _check(shape: s.Shape, of: _Compile) -> Check:
    match shape:
        case s.Scalar():
            return _SCALARS[shape.swift]
        case s.Unknown(reason=reason):
            return lambda value: Fault(None, shape.swift, value, reason)
        case s.Nullable():
            inner = of(shape.of)
            return lambda value: None if value is None else inner(value)
        case s.Sequence():
            each = repeat(of(shape.of))
            return _array("an array", lambda value: _worst(_elements(value, each)))
        case s.Fixed():
            return _fixed(shape, of)
        case s.Mapping():
            return _mapping(shape, of)
        case s.Pairs():
            return _pairs(shape, of)
        case s.Record(bare=True):
            return lambda value: None
        case s.Record():
            fields, need = _fields(shape.fields, of), f"an object ({shape.swift})"
            return lambda value: (
                _decode_fields(fields, value) if type(value) is dict else _mismatch(need, value)
            )
        case s.Raw(values=dict() as values):
            return _raw(shape.swift, of(shape.of), values)
        case s.Raw():
            return of(shape.of)
        case s.Cases():
            return _cases(shape, of)
    raise TypeError(shape)


def _array(need: str, check: Check) -> Check:
    return lambda value: check(value) if type(value) is list else _mismatch(need, value)


def _mismatch(need: str, value: Any) -> Fault:
    if type(value) is BrokenText or type(value) is BrokenObject:
        return Fault(DATA_CORRUPTED, need, value, lost=True)
    return Fault(VALUE_NOT_FOUND if value is None else TYPE_MISMATCH, need, value)


def _number(need: str, fits: Callable[[int | Real], bool], remedy: str = "") -> Check:
    """Check a number. For Swift one that does not fit makes the whole text corrupt."""

    def check(value: Any) -> Fault | None:
        kind = type(value)
        if (kind is int or kind is Real) and fits(value):
            return None
        if kind is int or kind is Real or kind is BrokenNumber:
            return Fault(DATA_CORRUPTED, need, value, remedy, lost=True)
        return _mismatch(need, value)

    return check


def _integer(name: str, low: int, high: int) -> Check:
    def fits(value: int | Real) -> bool:
        return low <= value <= high if isinstance(value, int) else v.integer_fits(value, low, high)

    return _number(name, fits, f"Send a whole number from {low} to {high}.")


def _text(name: str, takes: Callable[[str], bool | None], remedy: str) -> Check:
    def check(value: Any) -> Fault | None:
        if type(value) is not str:
            return _mismatch(f"String ({name})", value)
        if taken := takes(value):
            return None
        return Fault(DATA_CORRUPTED if taken is False else None, name, value, remedy)

    return check


_SCALARS: dict[str, Check] = {
    **{name: _integer(name, *borders) for name, borders in v.INTEGERS.items()},
    "Double": _number("Double", v.double_fits),
    "CGFloat": _number("Double", v.double_fits),
    "Date": _number("Double (Date: seconds since 2001-01-01 UTC)", v.double_fits),
    "Float": _number("Float", v.float_fits),
    "Decimal": _number("Decimal", v.decimal_fits),
    "Bool": lambda value: None if type(value) is bool else Fault(TYPE_MISMATCH, "Bool", value),
    "String": lambda value: None if type(value) is str else _mismatch("String", value),
    "UUID": _text("UUID", v.is_uuid, "Send 36 characters: 8-4-4-4-12 hex digits."),
    "Data": _text("Data", v.is_base64, "Send standard Base64 with its = padding."),
    "URL": _text("URL", v.is_url, "Send an absolute URL such as https://host/path."),
}
SCALARS = frozenset(_SCALARS)


def _worst(faults: Iterable[Fault | None]) -> Fault | None:
    """Return the first refusal, else the first undetermined result."""
    doubt = None
    for fault in faults:
        if fault is not None:
            if fault.kind is not None:
                return fault
            doubt = doubt or fault
    return doubt


def _elements(value: list[Any], checks: Iterable[Check]) -> Iterator[Fault | None]:
    for index, (item, of) in enumerate(zip(value, checks, strict=False)):
        if (fault := of(item)) is not None:
            yield fault.at(f"Index {index}")


def _fixed(shape: s.Fixed, of: _Compile) -> Check:
    checks = [of(inner) for inner in shape.of]

    def check(value: list[Any]) -> Fault | None:
        fault = _worst(_elements(value, checks))
        if fault is None or fault.kind is None:
            if len(value) < len(checks):
                need = f"{len(checks)} elements ({shape.swift})"
                return Fault(VALUE_NOT_FOUND, need, value).at(f"Index {len(value)}")
            if fault is None and shape.ordered and float(value[0]) > float(value[1]):
                return Fault(DATA_CORRUPTED, shape.swift, value, "Send the lower bound first.")
        return fault

    return _array("an array", check)


def _mapping(shape: s.Mapping, of: _Compile) -> Check:
    keys, check = shape.keys, of(shape.of)
    refusal = DATA_CORRUPTED if shape.converted else TYPE_MISMATCH

    def entries(value: dict[str, Any]) -> Iterator[Fault | None]:
        for key, item in value.items():
            if keys == "Int" and not v.is_int_key(key):
                yield Fault(refusal, "an Int as key", key).at(key)
            if isinstance(keys, frozenset) and key not in keys:
                yield Fault(refusal, shape.swift, key, f"Use one of: {_list(keys)}.").at(key)
            if (fault := check(item)) is not None:
                yield fault.at(key)

    need = "an object"
    return lambda value: _worst(entries(value)) if type(value) is dict else _mismatch(need, value)


def _pairs(shape: s.Pairs, of: _Compile) -> Check:
    checks = of(shape.key), of(shape.of)

    def check(value: list[Any]) -> Fault | None:
        if len(value) % 2:
            return Fault(DATA_CORRUPTED, "keys and values in turn (an even count)", value)
        return _worst(_elements(value, cycle(checks)))

    return _array("an array (keys and values in turn)", check)


def _fields(fields: list[s.Field], of: _Compile) -> _Fields:
    return [
        (canonical(f.key), of(f.shape), f.optional, isinstance(f.shape, s.Unknown)) for f in fields
    ]


def _decode_fields(fields: _Fields, value: dict[str, Any]) -> Fault | None:
    doubt = None
    for key, of, optional, unknown in fields:
        item = value.get(key, MISSING)
        if optional and (item is None or item is MISSING):
            continue
        fault = of(item) if unknown or item is not MISSING else Fault(KEY_NOT_FOUND, "", MISSING)
        if fault is not None:
            if fault.kind is not None:
                return fault.at(key)
            doubt = doubt or fault.at(key)
    return doubt


def _raw(swift: str, check: Check, given: Iterable[s.RawValue]) -> Check:
    values = {canonical(raw) if isinstance(raw, str) else raw for raw in given}
    remedy = f"Send one of: {_list(given)}."

    def among(value: Any) -> Fault | None:
        if (fault := check(value)) is None:
            plain = canonical(value) if type(value) is str else value
            if (float(value) if type(value) is Real else plain) not in values:
                return Fault(DATA_CORRUPTED, swift, value, remedy)
        return fault

    return among


def _cases(shape: s.Cases, of: _Compile) -> Check:
    cases = {canonical(case.key): _fields(case.fields, of) for case in shape.cases}
    remedy = f"Send an object with exactly one of these keys: {_list(cases)}."

    def check(value: Any) -> Fault | None:
        if type(value) is not dict:
            return _mismatch(f"an object ({shape.swift})", value)
        known = [key for key in value if key in cases]
        if len(known) != 1:
            return Fault(TYPE_MISMATCH, shape.swift, value, remedy)
        name, inner = known[0], value[known[0]]
        if type(inner) is not dict:
            return _mismatch(f"an object ({shape.swift}.{name})", inner).at(name)
        fault = _decode_fields(cases[name], inner)
        return None if fault is None else fault.at(name)

    return check


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
