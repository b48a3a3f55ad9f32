"""An app's contract: which content states its Live Activities decode.

contract = Contract.read("MatchAttributes.swift", "Models.swift")
verdict = contract.check("MatchAttributes", '{"home": 1, "away": 0}')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidInput
from . import decode
from .accept import acceptor
from .resolve import Resolver
from .shapes import Field, Record, Shape
from .syntax import Declaration, read
from .values import BrokenText, NotJson, Real, parse


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

    def __init__(self, shape: Shape) -> None:
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
            Field("content-state", self.state.shape, optional=True),
            Field("attributes", self.attributes.shape, optional=True),
        ]
        self.payload = Checker(Record("payload", [Field("aps", Record("aps", aps))]))


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
        """Return the phone's verdict on an update or end, as `apns_live.payload` encoded it.

        It names no type, so it must decode as some type of the app.
        """
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
