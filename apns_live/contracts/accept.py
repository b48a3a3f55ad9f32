"""A typed msgspec decoder that accepts most valid states fast, and never one that Swift refuses.

msgspec is stricter than Swift, except for a few numbers, which `acceptor` searches for. States that it does
not accept go to the exact checker. Types that it cannot express have no such decoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union

import msgspec

from . import shapes as s
from .values import INTEGERS, MAX_DEPTH

_BORDER = (1 << 63) - 1


class Inexpressible(Exception):
    """The shape has a part that no msgspec type expresses."""


Acceptor = Callable[[str | bytes, bool], bool]
"""Takes a document, and whether our own encoder wrote it; True only for one that decodes."""


def acceptor(shape: s.Shape) -> Acceptor | None:
    """Return a function that accepts most valid documents of a shape, or None."""
    try:
        typed = _Typed()
        decode = msgspec.json.Decoder(typed.of(shape)).decode
    except (Inexpressible, NotImplementedError, TypeError, ValueError, RecursionError):
        return None
    floating = typed.floating

    def accepts(document: Any, ours: bool) -> bool:
        if not ours and type(document) is bytes and not document.isascii():
            try:  # Swift decodes every key, msgspec only the known ones
                document = document.decode()
            except UnicodeDecodeError:
                return False
        marks = _BYTES if type(document) is bytes else _TEXT
        tiny, zero, capital, zeros, array, brace, small, near = marks
        # Swift refuses some tiny numbers, which msgspec decodes as zero. The letters that are searched
        # first mostly occur in words.
        if floating and ours:
            if tiny in document and near(document) and small(document):
                return False
        elif floating:
            if zeros in document:
                return False
            if (tiny in document or zero in document or capital in document) and small(document):
                return False
        if len(document) > MAX_DEPTH and document.count(array) + document.count(brace) > MAX_DEPTH:
            return False
        try:
            decode(document)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        return True

    return accepts


_MARKS = ("e-", "0e", "E", "0" * 40, "[", "{")
_SMALL = r"(?:^|[\[:,\s])-?[0-9.]*(?:[eE]-|0[eE]\+?)[0-9]"
"""A number that may be very small, or a zero with an exponent."""
_NEAR = "e-(?<=[0-9]e-)[0-9]"
"""What such a number of our encoder has, which writes no zero with an exponent: quicker to look for."""
_TEXT: tuple[Any, ...] = (*_MARKS, re.compile(_SMALL).search, re.compile(_NEAR).search)
_BYTES: tuple[Any, ...] = (
    *(mark.encode() for mark in _MARKS),
    re.compile(_SMALL.encode()).search,
    re.compile(_NEAR.encode()).search,
)


class _Typed:
    """Converts shapes to msgspec types. ``floating``: one of them has floating-point numbers."""

    def __init__(self) -> None:
        self.floating = False
        self._making: set[int] = set()

    def of(self, shape: s.Shape) -> Any:
        """Return a type that accepts a subset of the shape's values."""
        if id(shape) in self._making:
            raise Inexpressible("a type that holds itself")
        self._making.add(id(shape))
        try:
            return self._of(shape)
        finally:
            self._making.discard(id(shape))

    def _of(self, shape: s.Shape) -> Any:
        match shape:
            case s.Scalar():
                return self._scalar(shape.swift)
            case s.Nullable():
                return Union[self.of(shape.of), None]  # noqa: UP007 - built at run time
            case s.Sequence():
                return list[self.of(shape.of)]  # type: ignore[misc]
            case s.Mapping(keys=frozenset() as keys):
                _ascii(keys)
                return dict[Literal[tuple(keys)], self.of(shape.of)]  # type: ignore[misc]
            case s.Mapping(keys=keys):
                number = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,18}$")]
                key = str if keys == "String" else number
                return dict[key, self.of(shape.of)]  # type: ignore[valid-type,misc]
            case s.Record():
                return msgspec.Raw if shape.bare else self._struct(shape.fields)
            case s.Raw(values=None):
                return self.of(shape.of)
            case s.Raw(values=values) if values and isinstance(next(iter(values)), str | int):
                _ascii(values)
                return Literal[tuple(values)]
            case s.Cases():
                return self._struct(shape.as_fields(), _OneOf, unset=True)
        raise Inexpressible(shape.swift)

    def _scalar(self, name: str) -> Any:
        if name in INTEGERS:
            low, high = INTEGERS[name]
            return Annotated[int, msgspec.Meta(ge=max(low, -_BORDER - 1), le=min(high, _BORDER))]
        if pattern := _PATTERNS.get(name):
            return Annotated[str, msgspec.Meta(pattern=pattern)]
        if limit := _LIMITS.get(name):
            self.floating = True
            return Annotated[float, msgspec.Meta(ge=-limit, le=limit)]
        return {"String": str, "Bool": bool}[name]

    def _struct(
        self, fields: list[s.Field], base: type = msgspec.Struct, unset: bool = False
    ) -> Any:
        # Swift also finds a key in another Unicode form, which msgspec would overlook.
        _ascii(f.key for f in fields)
        made: list[Any] = []
        for number, f in enumerate(fields):
            try:
                kind = self.of(f.shape)
            except Inexpressible:
                if not f.optional:
                    raise
                kind = None  # accepted if it is missing or null
            default = (msgspec.UNSET,) if unset else (None,) if f.optional else ()
            other = msgspec.UnsetType if unset else None
            made.append((f"f{number}", Union[kind, other] if default else kind, *default))  # noqa: UP007
        rename = {f"f{number}": f.key for number, f in enumerate(fields)}
        made.sort(key=len)  # fields without a default come first; the order does not matter here
        return msgspec.defstruct("State", made, bases=(base,), rename=rename, gc=False)


class _OneOf(msgspec.Struct):
    """An object with exactly one known key."""

    def __post_init__(self) -> None:
        values = [getattr(self, name) for name in self.__struct_fields__]
        if len(values) - values.count(msgspec.UNSET) != 1:
            raise ValueError("not exactly one case")


def _ascii(keys: Any) -> None:
    if not all(str(key).isascii() for key in keys):
        raise Inexpressible("a key of other letters")


_PATTERNS = {
    "UUID": r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$(?!\n)",
    "Data": r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$(?!\n)",
    "URL": r"^https?://[A-Za-z0-9.-]+(?:/[^\s]*)?$(?!\n)",
}
_LIMITS = {
    **dict.fromkeys(("Double", "CGFloat", "Date"), 1.7e308),
    "Float": 3.4e38,
    "Decimal": 1e100,
}
