"""An app's contract: which content states its Live Activities decode.

contract = Contract.read("MatchAttributes.swift", "Models.swift")
verdict = contract.check("MatchAttributes", '{"home": 1, "away": 0}')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec

from ..errors import InvalidInput
from . import decode
from . import shapes as s
from .resolve import Resolver
from .syntax import Declaration, read
from .values import INTEGERS, MAX_DEPTH, BrokenText, NotJson, Real, parse


class Verdict(msgspec.Struct, frozen=True):
    """The result of Swift's decoder for one document.

    ``ok`` is None if the source does not determine it; ``message`` then says why. ``kind`` is the case
    of Swift's DecodingError, ``path`` its coding path (an element of an array is ``Index 3``; for
    keyNotFound the missing key stands at its end; it is empty where a number does not fit).
    """

    ok: bool | None
    kind: str | None = None
    path: tuple[str, ...] = ()
    message: str = ""


_DECODES = Verdict(True)


class Checker:
    """Decodes documents by one shape."""

    def __init__(self, shape: s.Shape) -> None:
        self.shape = shape
        self.accepts = acceptor(shape)
        """A fast check that accepts valid documents, or None."""
        self._decode = decode.compile_shape(shape)

    def check(self, document: str | bytes) -> Verdict:
        """Return Swift's verdict on this JSON text. Never raises for its content."""
        if self.accepts is not None and self.accepts(document, False):
            return _DECODES
        return self.judge(document)

    def judge(self, document: str | bytes) -> Verdict:
        """Return the exact decoder's verdict, which says what is wrong."""
        try:
            fault = self._decode(parse(document))
        except NotJson as error:
            return Verdict(False, decode.DATA_CORRUPTED, (), f"This is not valid JSON: {error}.")
        except RecursionError:
            return Verdict(None, message="Cannot tell: it is nested too deep to be looked at.")
        return _DECODES if fault is None else _verdict(fault)


class StateType:
    """One attributes type of the app: its content state, and the attributes of a start."""

    def __init__(self, resolver: Resolver, declaration: Declaration) -> None:
        self.name = declaration.name.rpartition(".")[2]
        self.qualified = declaration.qualified
        self.place = declaration.place
        self.state = Checker(resolver.attributes(declaration, "ContentState"))
        self.attributes = Checker(resolver.attributes(declaration))
        aps = [
            s.Field("content-state", self.state.shape, optional=True),
            s.Field("attributes", self.attributes.shape, optional=True),
        ]
        self.payload = Checker(s.Record("payload", [s.Field("aps", s.Record("aps", aps))]))


class Contract:
    """Every attributes type of an app, read from its Swift source."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """Read ``sources`` (file name to text). Raises InvalidInput without the extra."""
        self.types: dict[str, StateType] = {}
        try:
            read_all = (read(text, name) for name, text in sources.items())
            resolver = Resolver([each for declared in read_all for each in declared])
            for declaration in resolver.attributes_types():
                found = StateType(resolver, declaration)
                self.types.setdefault(found.name, found)
                self.types.setdefault(found.qualified, found)
        except RecursionError:
            raise InvalidInput("the Swift source is nested too deep", "contract") from None
        self.names = list(dict.fromkeys(found.name for found in self.types.values()))
        """The distinct types, in the order of the source."""
        payloads = [self.types[name].payload.accepts for name in self.names]
        self._acceptors = [accepts for accepts in payloads if accepts is not None]

    @classmethod
    def read(cls, *paths: str | Path) -> Contract:
        """Read files, or folders with all their .swift files. Raises InvalidInput."""
        sources: dict[str, str] = {}
        for path in map(Path, paths):
            for file in sorted(path.rglob("*.swift")) if path.is_dir() else [path]:
                try:
                    sources[str(file)] = file.read_bytes().decode("utf-8-sig", "replace")
                except OSError as error:
                    remedy = "Name the Swift files that declare your ActivityAttributes."
                    problem = f"{file} cannot be read: {error.strerror}"
                    raise InvalidInput(problem, "contract", remedy) from error
        return cls(sources)

    def check(self, attributes_type: str, document: str | bytes) -> Verdict:
        """Return the phone's verdict on a content state of this attributes type."""
        found = self.types.get(attributes_type)
        return found.state.check(document) if found else self._no_such(attributes_type)

    def check_attributes(self, attributes_type: str, document: str | bytes) -> Verdict:
        """Return the phone's verdict on the attributes of a start."""
        found = self.types.get(attributes_type)
        return found.attributes.check(document) if found else self._no_such(attributes_type)

    def check_payload(self, body: str | bytes) -> Verdict:
        """Return the phone's verdict on a whole Live Activity payload.

        Only a start names its type. Without one the state must decode as some type of the app.
        """
        named = ("attributes-type" if isinstance(body, str) else b"attributes-type") in body  # type: ignore[operator]
        try:
            name = _decode_head(body).aps.attributes_type if named else None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            name = None  # a value that is not a payload decodes as no type
        if name is not None:
            found = self.types.get(name)
            return found.payload.check(body) if found else self._no_such(name)
        return self._as_some_type(body, ours=False)

    def check_change(self, body: bytes) -> Verdict:
        """Return the verdict on an update or end of `apns_live.payload`, which names no type."""
        return self._as_some_type(body, ours=True)

    def _as_some_type(self, body: str | bytes, *, ours: bool) -> Verdict:
        acceptors = self._acceptors
        for index, accepts in enumerate(acceptors):
            if accepts(body, ours):
                if index:  # the next one is probably of the same type
                    self._acceptors = [accepts, *acceptors[:index], *acceptors[index + 1 :]]
                return _DECODES
        first = None
        for known in self.names:
            verdict = self.types[known].payload.judge(body)
            if verdict.ok is not False:
                return verdict
            first = first or verdict
        return first or _DECODES

    def _no_such(self, name: str) -> Verdict:
        known = f"(found: {', '.join(self.names) or 'none'})"
        return Verdict(None, message=f"No file declares {name} as ActivityAttributes {known}.")


class _Aps(msgspec.Struct, rename="kebab"):
    attributes_type: str | None = None


class _Head(msgspec.Struct):
    aps: _Aps


_decode_head = msgspec.json.Decoder(_Head).decode


# ---- messages


def _verdict(fault: decode.Fault) -> Verdict:
    where = fault.where[::-1]
    path = () if fault.lost else tuple(where)
    if fault.kind is None:
        return Verdict(None, None, path, f"Cannot tell: {_place(where)}{fault.remedy}.")
    return Verdict(False, fault.kind, path, _message(fault, where))


def _place(where: Iterable[str]) -> str:
    shown = "".join(re.sub(r"\.Index (\d+)\Z", r"[\1]", f".{step}") for step in where)
    return f"{shown.lstrip('.')}: " if shown else ""


def _message(fault: decode.Fault, where: list[str]) -> str:
    place = _place(where)
    if fault.kind == decode.KEY_NOT_FOUND:
        remedy = "Send the key, or make the property optional in the app."
        why = "Swift does not use a property's default here."
        return f"{place.removesuffix(': ')} is missing. {why} {remedy}"
    remedy = fault.remedy or "Send what the app declares."
    if fault.kind == decode.VALUE_NOT_FOUND:
        remedy = "Send a value."
    elif type(fault.found) is str and "Date" in fault.need:
        remedy = "Send the seconds since 2001-01-01 UTC as a number; apple_date() makes them."
    elif type(fault.found) is str and fault.kind == decode.TYPE_MISMATCH:
        remedy = "Send it without quotes." if fault.need in decode.SCALARS else remedy
    return f"{place}Swift needs {fault.need} and finds {_found(fault.found)}. {remedy}"


def _found(value: Any) -> str:
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case Real() | int():
            return str(value) if type(value) is not int or abs(value) < 10**40 else "a long number"
        case str():
            return "a string"
        case BrokenText():
            return "a string with a bad escape or character"
    return "an array" if isinstance(value, list) else "an object"


# ---- the fast path: a typed msgspec decoder accepts most valid states, and never one that Swift refuses.
# msgspec is stricter than Swift, except for a few numbers, which `acceptor` searches for. States that it
# does not accept go to the exact decoder. Types that it cannot express have no fast path.

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
