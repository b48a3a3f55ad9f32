"""JSON text as Swift's JSONDecoder reads it.

Swift first finds the structure and decodes strings and numbers only when somebody asks for them,
so ``{"unused": 01}`` decodes. Objects keep the first of two equal keys, keys are equal when they
are canonically equivalent, trailing commas are allowed, and 512 levels may nest.
Source: swift-foundation, JSONScanner.swift and JSONDecoder.swift (6.0), and its recorded verdicts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

MAX_DEPTH = 512
_MAX_INT_DIGITS = 4000  # Python refuses to turn longer text into an int


class Real(str):
    """A JSON number with a fraction or exponent, kept as its text."""

    __slots__ = ()


class BrokenNumber(Real):
    """A number that breaks JSON's grammar: an error only when it is decoded."""

    __slots__ = ()


class BrokenText:
    """A string with a bad escape, control character or byte: an error only when decoded."""

    __slots__ = ()


class BrokenObject(dict[str, Any]):
    """An object of which a key cannot be decoded."""


class NotJson(ValueError):
    """The text has no structure that Swift can find."""


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    kept = dict(pairs)
    if len(kept) != len(pairs):
        kept = {}
        for key, value in pairs:
            kept.setdefault(key, value)
    return kept


def _first_of_each_canonical(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return _first_of_each([(canonical(key), value) for key, value in pairs])


def canonical(text: str) -> str:
    """Return the text under which Swift compares it (canonical equivalence)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _no_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


_plain = json.JSONDecoder(
    parse_float=Real, object_pairs_hook=_first_of_each, parse_constant=_no_constant
)
_canonical = json.JSONDecoder(
    parse_float=Real, object_pairs_hook=_first_of_each_canonical, parse_constant=_no_constant
)


def parse(text: str | bytes) -> Any:
    """Parse one JSON document. Raises NotJson.

    Answers dict, list, str, int, Real, bool and None, and the Broken kinds above.
    """
    # The standard library's C scanner agrees with Swift on all that it takes, but for lone
    # surrogates and depth.
    if (
        isinstance(text, str)
        and "\\ud" not in text
        and "\\uD" not in text
        and (len(text) < MAX_DEPTH or text.count("[") + text.count("{") <= MAX_DEPTH)
    ):
        decoder = _plain if text.isascii() and "\\u" not in text else _canonical
        try:
            return decoder.decode(text)
        except (ValueError, RecursionError):
            pass
    return _Scanner(_utf8(text)).document()


def _utf8(text: str | bytes) -> bytes:
    """Return the document as UTF-8 without its byte order mark, as RFC 4627 section 3 tells."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    head = (data[:4] + b"....")[:4]
    if data.startswith(b"\xef\xbb\xbf"):
        return data[3:]
    zeros = tuple(byte == 0 for byte in data[:4])
    encoding, mark = "", 0
    if head == b"\x00\x00\xfe\xff":
        encoding, mark = "utf-32-be", 4
    elif head == b"\xfe\xff\x00\x00":  # as Swift has it
        encoding, mark = "utf-32-le", 4
    elif head[:2] == b"\xfe\xff":
        encoding, mark = "utf-16-be", 2
    elif head[:2] == b"\xff\xfe":
        encoding, mark = "utf-16-le", 2
    elif zeros == (True, True, True, False):
        encoding = "utf-32-be"
    elif zeros in {(True, False, True, False), (True, False)}:
        encoding = "utf-16-be"
    elif zeros == (False, True, True, True):
        encoding = "utf-32-le"
    elif zeros in {(False, True, False, True), (False, True)}:
        encoding = "utf-16-le"
    if not encoding:
        return data
    try:
        return data[mark:].decode(encoding).encode()
    except UnicodeError as error:
        raise NotJson("the text cannot be converted to UTF-8") from error


_SPACE = re.compile(rb"[ \t\r\n]*")
_NUMBER = re.compile(rb"[0-9-][0-9.eE+-]*")
_STRICT = re.compile(r"-?(?:0|[1-9][0-9]*)(?P<real>\.[0-9]+)?(?P<exponent>[eE][+-]?[0-9]+)?\Z")
_STRING = re.compile(rb'"((?:[^"\\]|\\(?:u[^"]{4}|[^u]))*)"', re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u((?![dD][89a-fA-F])[0-9a-fA-F]{4})|([\"\\/bfnrt]))"
)
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: dict[bytes, Any] = {b"true": True, b"false": False, b"null": None}


def _unescape(match: re.Match[str]) -> str:
    high, low, code, simple = match.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    return chr(int(code, 16)) if code else _SIMPLE.get(simple, simple)


class _Scanner:
    """The structure of a document, found as Swift's JSONScanner finds it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def document(self) -> Any:
        """Scan the whole document."""
        stack: list[tuple[list[Any], str | BrokenText | None]] = []
        while True:
            value = self._value(stack)
            if value is _OPENED:
                continue
            while stack:  # put the value where it belongs; a closed collection is a value again
                items, key = stack[-1]
                items.append(value if key is None else (key, value))
                if self._more(stack):
                    break
                items, key = stack.pop()
                value = items if key is None else _object(items)
            else:
                self._next()
                if self._at < len(self._data):
                    raise self._unexpected("after the top-level value")
                return value

    def _value(self, stack: list[tuple[list[Any], str | BrokenText | None]]) -> Any:
        byte = self._next()
        if byte in b"{[" and byte:
            if len(stack) >= MAX_DEPTH:
                raise NotJson(f"more than {MAX_DEPTH} arrays and objects are nested")
            self._at += 1
            closing = b"}" if byte == b"{" else b"]"
            if self._next() == closing:
                self._at += 1
                return {} if byte == b"{" else []
            stack.append(([], self._key() if byte == b"{" else None))
            return _OPENED
        if byte == b'"':
            return self._string()
        number = _NUMBER.match(self._data, self._at)
        if number:
            self._at = number.end()
            return _number(number[0].decode())
        for word, value in _WORDS.items():
            if self._data.startswith(word, self._at):
                self._at += len(word)
                return value
        raise self._unexpected("where a value is expected")

    def _more(self, stack: list[tuple[list[Any], str | BrokenText | None]]) -> bool:
        """Step over what follows a value; return whether another value follows."""
        items, key = stack[-1]
        closing = b"]" if key is None else b"}"
        byte = self._next()
        if byte == b",":
            self._at += 1
            if self._next() != closing:
                if key is not None:
                    stack[-1] = (items, self._key())
                return True
        elif byte != closing:
            raise self._unexpected("in an array" if key is None else "in an object")
        self._at += 1
        return False

    def _key(self) -> str | BrokenText:
        if self._next() != b'"':
            raise self._unexpected("where a key is expected")
        key = self._string()
        if self._next() != b":":
            raise self._unexpected("after a key")
        self._at += 1
        return key if isinstance(key, BrokenText) else canonical(key)

    def _string(self) -> str | BrokenText:
        match = _STRING.match(self._data, self._at)
        if not match:
            raise NotJson("a string does not end")
        self._at = match.end()
        try:
            text = match[1].decode()
        except UnicodeError:
            return BrokenText()
        if any(character < " " for character in text):
            return BrokenText()
        if "\\" not in text:
            return text
        unescaped, last = [], 0
        for escape in _ESCAPE.finditer(text):
            unescaped += [text[last : escape.start()], _unescape(escape)]
            last = escape.end()
            if "\\" in unescaped[-2]:
                return BrokenText()
        return BrokenText() if "\\" in text[last:] else "".join(unescaped) + text[last:]

    def _next(self) -> bytes:
        self._at = _SPACE.match(self._data, self._at).end()  # type: ignore[union-attr]
        return self._data[self._at : self._at + 1]

    def _unexpected(self, where: str) -> NotJson:
        found = self._data[self._at : self._at + 1].decode("latin-1") or "the end"
        return NotJson(f"{found!r} {where}, at byte {self._at}")


_OPENED = object()


def _object(items: list[tuple[str | BrokenText, Any]]) -> dict[str, Any]:
    kind = BrokenObject if any(isinstance(key, BrokenText) for key, _ in items) else dict
    kept: dict[str, Any] = kind()
    for key, value in items:
        if not isinstance(key, BrokenText):
            kept.setdefault(key, value)
    return kept


def _number(text: str) -> int | Real:
    match = _STRICT.match(text)
    if not match:
        return BrokenNumber(text)
    if match["real"] or match["exponent"] or len(text) > _MAX_INT_DIGITS:
        return Real(text)
    return int(text)
