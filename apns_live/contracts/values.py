"""Reads JSON text as Swift's JSONDecoder does.

Swift first scans the structure, and decodes strings and numbers only when they are needed, so
``{"unused": 01}`` decodes. The first of several equal keys counts; keys are equal if they are
canonically equivalent. Trailing commas are allowed, and up to 512 levels of nesting.
Source: swift-foundation 6.0, JSONScanner.swift and JSONDecoder.swift.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

MAX_DEPTH = 512


class Real(str):
    """A JSON number with a fraction or exponent (or very many digits), kept as its text."""

    __slots__ = ()


class BrokenNumber(Real):
    """A number that breaks JSON's grammar: an error only when it is decoded."""

    __slots__ = ()


class BrokenText:
    """A string with a bad escape, character or byte: an error only when it is decoded."""


class BrokenObject(dict[str, Any]):
    """An object of which a key cannot be decoded."""


class NotJson(ValueError):
    """The text has no structure that Swift can find."""


def canonical(text: str) -> str:
    """Return the text by which Swift compares it (canonical equivalence)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    kept = dict(pairs)
    return kept if len(kept) == len(pairs) else dict(reversed(dict(reversed(pairs)).items()))


def _canonical_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = _object([(canonical(key), value) for key, value in pairs])
    return BrokenObject(made) if _BROKEN in made else made


def _constant(name: str) -> BrokenNumber | BrokenText:
    return BrokenNumber(name) if name == "NaN" else BrokenText()


def _no_constant(name: str) -> Any:
    raise NotJson(f"{name} is not JSON")


_BROKEN = "\ufdd0"  # a key that cannot be decoded; no character, so no real key


def _decoder(object_of: Any, constant: Any) -> Any:
    return json.JSONDecoder(
        parse_float=Real, object_pairs_hook=object_of, parse_constant=constant
    ).decode


_ascii, _unicode = _decoder(_object, _no_constant), _decoder(_canonical_object, _no_constant)
_lenient = _decoder(_canonical_object, _constant)
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD]")


def parse(document: str | bytes) -> Any:
    """Parse one JSON document. Raises NotJson.

    Answers dict, list, str, int, Real, bool and None, and the Broken kinds above.
    """
    text = document if isinstance(document, str) else document.decode("utf-8", "surrogateescape")
    # The standard library's C scanner agrees with Swift on all that it takes, but for these two.
    plain = text.isascii() and "\\u" not in text
    if text.count("[") + text.count("{") <= MAX_DEPTH and (plain or not _SURROGATE.search(text)):
        try:
            return (_ascii if plain else _unicode)(text)
        except ValueError:
            pass
    try:
        return _lenient(_Strict().rewritten(text.removeprefix("\ufeff")))
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None


_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\(?:u[^"]{4}|[^u]))*")(?P<key>\s*:)?'
    r"|(?P<number>[0-9-][0-9.eE+-]*)|(?P<open>[\[{])|(?P<close>[\]}])"
    r"|(?P<comma>(?<![\[{,:\s])\s*,(?=[ \t\r\n]*[\]}]))|(?P<word>[A-Za-z]+)",
    re.DOTALL,
)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,4000})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_LONG = re.compile(r"-?[1-9][0-9]{4000,}\Z")
_TEXT = re.compile(
    r'"(?:[^"\\\x00-\x1f\ud800-\udfff]|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}'
    r"\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})*\"\Z"
)


class _Strict:
    """Rewrites what Swift's scanner takes into what the standard library takes."""

    def __init__(self) -> None:
        self._depth = 0

    def rewritten(self, text: str) -> str:
        """Return strict JSON in which NaN and Infinity stand for broken numbers and strings."""
        return _TOKEN.sub(self._token, text)

    def _token(self, match: re.Match[str]) -> str:
        kind, token = match.lastgroup, match[0]
        if kind in {"string", "key"}:
            if _TEXT.match(match["string"]):
                return token
            return f'"{_BROKEN}":' if match["key"] else "Infinity"
        if kind == "number":
            return token if _NUMBER.match(token) else f"{token}.0" if _LONG.match(token) else "NaN"
        if kind in {"open", "close"}:
            self._depth += 1 if kind == "open" else -1
            if self._depth > MAX_DEPTH:
                raise NotJson(f"more than {MAX_DEPTH} arrays and objects are nested")
        if kind == "word" and token not in {"true", "false", "null"}:
            raise NotJson(f"{token[:20]} is not JSON")
        return "" if kind == "comma" else token
