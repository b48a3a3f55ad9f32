"""Decode a JSON value by a shape as Swift's JSONDecoder does, and say where it stops.

``compile_shape`` turns a shape into nested functions. Each takes a value of ``values.parse`` and
answers None or a Fault. Fields are decoded in Swift's order, so the first fault is Swift's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, repeat
from typing import Any, Final

from . import scalars
from . import shapes as s
from .values import BrokenNumber, BrokenObject, BrokenText, Real, canonical

TYPE_MISMATCH: Final = "typeMismatch"
VALUE_NOT_FOUND: Final = "valueNotFound"
KEY_NOT_FOUND: Final = "keyNotFound"
DATA_CORRUPTED: Final = "dataCorrupted"
MISSING: Final = object()


class Fault:
    """One value that does not decode, or (``kind`` None) of which nobody can tell.

    ``where`` is the way to the value, from its end. Swift names no path where a number does not
    fit or a string cannot be decoded: then ``lost`` is true.
    """

    __slots__ = ("found", "kind", "lost", "need", "remedy", "where")

    def __init__(
        self, kind: str | None, need: str, found: Any, *, lost: bool = False, remedy: str = ""
    ) -> None:
        self.kind = kind
        self.need = need
        self.found = found
        self.lost = lost
        self.remedy = remedy
        self.where: list[str] = []

    def at(self, key: str) -> Fault:
        """Add one step to the way and return the fault."""
        self.where.append(key)
        return self


Check = Callable[[Any], Fault | None]
_Fields = list[tuple[str, Check, bool, bool]]  # key, check, optional, unknown


def compile_shape(shape: s.Shape) -> Check:
    """Return the function that decodes by this shape."""
    return _Compiler().check(shape)


class _Compiler:
    def __init__(self) -> None:
        self._made: dict[int, list[Check]] = {}
        self._making: set[int] = set()

    def check(self, shape: s.Shape) -> Check:
        """Return the check of a shape; one that is being made is called through a cell."""
        cell = self._made.setdefault(id(shape), [])
        if cell:
            return cell[0]
        if id(shape) in self._making:
            return lambda value: cell[0](value)  # noqa: PLW0108 - the cell is filled later
        self._making.add(id(shape))
        cell.append(self._make(shape))
        return cell[0]

    def _make(self, shape: s.Shape) -> Check:
        match shape:
            case s.Scalar():
                return _scalar(shape.swift)
            case s.Nullable():
                return _nullable(self.check(shape.of))
            case s.Sequence():
                return _sequence(self.check(shape.of))
            case s.Fixed():
                return _fixed(shape, [self.check(of) for of in shape.of])
            case s.Mapping():
                return _mapping(shape, self.check(shape.of))
            case s.Pairs():
                return _pairs(self.check(shape.key), self.check(shape.of))
            case s.Record():
                return _record(shape, self._fields(shape.fields))
            case s.Raw():
                return _raw(shape, self.check(shape.of))
            case s.Cases():
                return _cases(shape, {case.key: self._fields(case.fields) for case in shape.cases})
            case s.Unknown():
                return _unknown(shape)
        raise TypeError(f"no check for {shape!r}")

    def _fields(self, fields: list[s.Field]) -> _Fields:
        return [
            (canonical(f.key), self.check(f.shape), f.optional, isinstance(f.shape, s.Unknown))
            for f in fields
        ]


def _mismatch(need: str, value: Any) -> Fault:
    """Return the fault of a value of the wrong JSON type."""
    return Fault(VALUE_NOT_FOUND if value is None else TYPE_MISMATCH, need, value)


def _misfit(need: str, value: Any, remedy: str = "") -> Fault:
    """Return the fault of a number that does not fit: Swift calls the whole text corrupt."""
    return Fault(DATA_CORRUPTED, need, value, lost=True, remedy=remedy)


def _text_fault(need: str, value: Any) -> Fault:
    if type(value) is BrokenText:
        return Fault(DATA_CORRUPTED, need, value, lost=True)
    return _mismatch(need, value)


def _scalar(name: str) -> Check:
    if name in scalars.INTEGERS:
        return _integer(name, *scalars.INTEGERS[name])
    return _SCALARS[name]


def _integer(name: str, low: int, high: int) -> Check:
    def check(value: Any) -> Fault | None:
        kind = type(value)
        if kind is int:
            if low <= value <= high:
                return None
        elif kind is Real:
            if scalars.integer_fits(value, low, high):
                return None
        elif kind is not BrokenNumber:
            return _mismatch(name, value)
        return _misfit(name, value, f"Send a whole number from {low} to {high}.")

    return check


def _floating(name: str, fits: Callable[[int | Real], bool]) -> Check:
    def check(value: Any) -> Fault | None:
        kind = type(value)
        if (kind is int and -(1 << 100) < value < 1 << 100) or (kind is Real and fits(value)):
            return None
        if kind is int and fits(value):
            return None
        if kind in {int, Real, BrokenNumber}:
            return _misfit(name, value)
        return _mismatch(name, value)

    return check


def _bool(value: Any) -> Fault | None:
    if value is True or value is False:
        return None
    return Fault(TYPE_MISMATCH, "Bool", value)  # for null too


def _string(value: Any) -> Fault | None:
    return None if type(value) is str else _text_fault("String", value)


def _text(name: str, takes: Callable[[str], bool | None], remedy: str) -> Check:
    def check(value: Any) -> Fault | None:
        if type(value) is not str:
            return _text_fault(f"String ({name})", value)
        taken = takes(value)
        if taken:
            return None
        kind = DATA_CORRUPTED if taken is False else None
        return Fault(kind, name, value, remedy=remedy)

    return check


def _decimal(value: Any) -> Fault | None:
    kind = type(value)
    if kind is int or kind is Real:
        return None if scalars.decimal_fits(value) else _misfit("Decimal", value)
    return _misfit("Decimal", value) if kind is BrokenNumber else _mismatch("Decimal", value)


_double = _floating("Double", lambda number: scalars.double_of(number) is not None)

_SCALARS: dict[str, Check] = {
    "Double": _double,
    "CGFloat": _double,
    "Date": _floating(
        "Double (Date: seconds since 2001-01-01 UTC)",
        lambda number: scalars.double_of(number) is not None,
    ),
    "Float": _floating("Float", scalars.float_fits),
    "Bool": _bool,
    "String": _string,
    "Decimal": _decimal,
    "UUID": _text("UUID", scalars.is_uuid, "Send 36 characters: 8-4-4-4-12 hex digits."),
    "Data": _text("Data", scalars.is_base64, "Send standard Base64 with its = padding."),
    "URL": _text("URL", scalars.is_url, "Send an absolute URL such as https://host/path."),
}
SCALARS = frozenset(_SCALARS) | frozenset(scalars.INTEGERS)


def _nullable(of: Check) -> Check:
    return lambda value: None if value is None else of(value)


def _worst(faults: Iterable[Fault | None]) -> Fault | None:
    """Return the first refusal, else the first doubt."""
    doubt = None
    for fault in faults:
        if fault is not None:
            if fault.kind is not None:
                return fault
            doubt = doubt or fault
    return doubt


def _elements(value: list[Any], checks: Iterable[Check]) -> Iterator[Fault | None]:
    for index, (item, of) in enumerate(zip(value, checks, strict=False)):
        fault = of(item)
        if fault is not None:
            yield fault.at(f"Index {index}")


def _sequence(of: Check) -> Check:
    def check(value: Any) -> Fault | None:
        if type(value) is not list:
            return _mismatch("an array", value)
        return _worst(_elements(value, repeat(of)))

    return check


def _fixed(shape: s.Fixed, checks: list[Check]) -> Check:
    def check(value: Any) -> Fault | None:
        if type(value) is not list:
            return _mismatch("an array", value)
        fault = _worst(_elements(value, checks))
        if fault is not None and fault.kind is not None:
            return fault
        if len(value) < len(checks):
            need = f"{len(checks)} elements ({shape.swift})"
            return Fault(VALUE_NOT_FOUND, need, value).at(f"Index {len(value)}")
        if fault is None and shape.ordered and _number(value[0]) > _number(value[1]):
            return Fault(DATA_CORRUPTED, shape.swift, value, remedy="Send the lower bound first.")
        return fault

    return check


def _number(value: Any) -> Any:
    return float(value) if type(value) is Real else value


def _keyed(value: Any, need: str) -> Fault:
    if type(value) is BrokenObject:
        return Fault(DATA_CORRUPTED, need, value, lost=True)
    return _mismatch(need, value)


def _mapping(shape: s.Mapping, of: Check) -> Check:
    keys = shape.keys
    refusal = DATA_CORRUPTED if shape.converted else TYPE_MISMATCH

    def entries(value: dict[str, Any]) -> Iterator[Fault | None]:
        for key, item in value.items():
            if keys == "Int" and not scalars.is_int_key(key):
                yield Fault(refusal, "an Int as key", key).at(key)
            if isinstance(keys, frozenset) and key not in keys:
                remedy = f"Use one of: {', '.join(sorted(keys))}."
                yield Fault(refusal, shape.swift, key, remedy=remedy).at(key)
            fault = of(item)
            if fault is not None:
                yield fault.at(key)

    return lambda value: (
        _worst(entries(value)) if type(value) is dict else _keyed(value, "an object")
    )


def _pairs(key: Check, of: Check) -> Check:
    def check(value: Any) -> Fault | None:
        if type(value) is not list:
            return _mismatch("an array (keys and values in turn)", value)
        if len(value) % 2:
            return Fault(DATA_CORRUPTED, "keys and values in turn (an even count)", value)
        return _worst(_elements(value, cycle((key, of))))

    return check


def _decode_fields(fields: _Fields, value: dict[str, Any]) -> Fault | None:
    doubt = None
    for key, of, optional, unknown in fields:
        item = value.get(key, MISSING)
        if optional and (item is None or item is MISSING):
            continue
        if item is MISSING and not unknown:
            fault: Fault | None = Fault(KEY_NOT_FOUND, "", MISSING)
        else:
            fault = of(item)
        if fault is not None:
            if fault.kind is not None:
                return fault.at(key)
            doubt = doubt or fault.at(key)
    return doubt


def _record(shape: s.Record, fields: _Fields) -> Check:
    if shape.bare:
        return lambda value: None

    def check(value: Any) -> Fault | None:
        if type(value) is not dict:
            return _keyed(value, f"an object ({shape.swift})")
        return _decode_fields(fields, value)

    return check


def _raw(shape: s.Raw, of: Check) -> Check:
    values = shape.values
    if values is None:
        return of
    texts = {canonical(raw) for raw in values if isinstance(raw, str)}
    numbers = {raw for raw in values if not isinstance(raw, str)}
    shown = ", ".join(map(str, values))

    def check(value: Any) -> Fault | None:
        fault = of(value)
        if fault is not None:
            return fault
        if type(value) is str:
            if value in texts or canonical(value) in texts:
                return None
        elif (float(value) if type(value) is Real else value) in numbers:
            return None
        return Fault(DATA_CORRUPTED, shape.swift, value, remedy=f"Send one of: {shown}.")

    return check


def _cases(shape: s.Cases, cases: dict[str, _Fields]) -> Check:
    keyed = {canonical(key): fields for key, fields in cases.items()}
    shown = ", ".join(cases)

    def check(value: Any) -> Fault | None:
        if type(value) is not dict:
            return _keyed(value, f"an object ({shape.swift})")
        known = [key for key in value if key in keyed]
        if len(known) != 1:
            remedy = f"Send an object with exactly one of these keys: {shown}."
            return Fault(TYPE_MISMATCH, shape.swift, value, remedy=remedy)
        name = known[0]
        if type(value[name]) is not dict:
            return _keyed(value[name], f"an object ({shape.swift}.{name})").at(name)
        fault = _decode_fields(keyed[name], value[name])
        return None if fault is None else fault.at(name)

    return check


def _unknown(shape: s.Unknown) -> Check:
    return lambda value: Fault(None, shape.swift, value, remedy=shape.reason)
