"""Reads JSON text as Swift's JSONDecoder does, and decides which values Foundation's types accept.

Swift first scans the structure, and decodes strings and numbers only when they are needed, so
``{"unused": 01}`` decodes. The first of several equal keys counts; keys are equal if they are
canonically equivalent. Trailing commas are allowed, and up to 512 levels of nesting.
Source: swift-foundation 6.0, JSONScanner.swift and JSONDecoder.swift; for the types also Decimal.swift,
Data+Base64.swift and URLParser.swift. The rules are tested against Swift's own results.
"""

import json
import re
import unicodedata
from fractions import Fraction
from typing import Any

from .shapes import words

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
    """Return the text in the form that Swift compares (canonical equivalence)."""
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
    hooks = {"object_pairs_hook": object_of, "parse_constant": constant}
    return json.JSONDecoder(parse_float=Real, **hooks).decode


_ascii, _unicode = _decoder(_object, _no_constant), _decoder(_canonical_object, _no_constant)
_lenient = _decoder(_canonical_object, _constant)
_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD]")


def parse(document: str | bytes) -> Any:
    """Parse a JSON document to plain values, Real and the Broken kinds above. Raises NotJson."""
    text = document if isinstance(document, str) else document.decode("utf-8", "surrogateescape")
    # The standard library's C scanner accepts only what Swift accepts, except for these two.
    plain = text.isascii() and "\\u" not in text
    if text.count("[") + text.count("{") <= MAX_DEPTH and (plain or not _SURROGATE.search(text)):
        try:
            return (_ascii if plain else _unicode)(text)
        except ValueError:
            pass
    try:
        return _lenient(_strict(text.removeprefix("\ufeff")))
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


def _strict(text: str) -> str:
    """Rewrite Swift's JSON for the standard library: broken numbers as NaN, strings as Infinity."""
    depth = 0

    def rewritten(match: re.Match[str]) -> str:
        nonlocal depth
        kind, token = match.lastgroup, match[0]
        if kind in {"string", "key"}:
            if _TEXT.match(match["string"]):
                return token
            return f'"{_BROKEN}":' if match["key"] else "Infinity"
        if kind == "number":
            return token if _NUMBER.match(token) else f"{token}.0" if _LONG.match(token) else "NaN"
        if kind in {"open", "close"}:
            depth += 1 if kind == "open" else -1
            if depth > MAX_DEPTH:
                raise NotJson(f"more than {MAX_DEPTH} arrays and objects are nested")
        if kind == "word" and token not in {"true", "false", "null"}:
            raise NotJson(f"{token[:20]} is not JSON")
        return "" if kind == "comma" else token

    return _TOKEN.sub(rewritten, text)


# --- the values that each type accepts

INTEGERS = {
    **{f"Int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (8, 16, 32, 64, 128)},
    **{f"UInt{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64, 128)},
}
INTEGERS["Int"], INTEGERS["UInt"] = INTEGERS["Int64"], INTEGERS["UInt64"]

_EXACT_DOUBLE = 1 << 53
_FLOAT_OVERFLOW = float((1 << 128) - (1 << 103))  # halfway to 2^128: rounds to infinity
_FLOAT_UNDERFLOW = 2.0**-150  # halfway to the least Float: rounds to zero


def double_of(number: int | Real) -> float | None:
    """Return the Double that Swift decodes, or None if the number does not fit."""
    try:
        value = float(number)
    except OverflowError:
        return None
    if value in {float("inf"), float("-inf")} or (value == 0 and not _true_zero(str(number))):
        return None
    return value


def float_fits(number: int | Real) -> bool:
    """Return whether the number fits Float (32 bits)."""
    if (value := double_of(number)) is None:
        return False
    size: float | Fraction = abs(value)
    if size in (_FLOAT_OVERFLOW, _FLOAT_UNDERFLOW):
        size = abs(Fraction(str(number)))
    return size < _FLOAT_OVERFLOW and (size > _FLOAT_UNDERFLOW or value == 0)


def _true_zero(text: str) -> bool:
    # Foundation checks blocks of four, then the rest from its end. So `0e5` counts as a number that was
    # rounded to zero.
    whole = len(text) // 4 * 4
    for character in text[:whole] + text[whole:][::-1]:
        if character in "eE":
            return True
        if character in "123456789":
            return False
    return True


def integer_fits(number: Real, low: int, high: int) -> bool:
    """Return whether a number with fraction or exponent counts as an integer of this range."""
    value = float(number)
    if abs(value) == float("inf") or not value.is_integer() or not low <= int(value) <= high:
        return False
    if abs(value) < _EXACT_DOUBLE:
        return True
    decimal = _decimal(number)
    return decimal is not None and _decimal_to_integer(decimal, low, high)


def double_fits(number: int | Real) -> bool:
    """Return whether the number fits Double."""
    return double_of(number) is not None


def decimal_fits(number: int | Real) -> bool:
    """Return whether the number fits Foundation's Decimal."""
    return _decimal(str(number)) is not None


def _decimal(text: str) -> tuple[bool, int, int] | None:
    """Return sign, mantissa and exponent as Decimal keeps them, or None for an overlarge value."""
    number, _, power = text.lower().lstrip("-").partition("e")
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    zeros = len(digits) - len(digits.lstrip("0"))
    # 128 bits hold 38 digits, and some numbers of 39; further digits are dropped.
    kept = zeros + (39 if int(digits[zeros : zeros + 39] or 0) < 1 << 128 else 38)
    mantissa, exponent = int(digits[zeros:kept] or 0), len(whole) - min(kept, len(digits))
    if not -128 <= exponent <= 127 or len(power.lstrip("+-0")) > 3 or abs(int(power or 0)) > 254:
        return None
    exponent += int(power or 0)
    if not -128 <= exponent <= 127:
        return None
    while mantissa and mantissa % 10 == 0 and exponent < 127:
        mantissa //= 10
        exponent += 1
    return text.startswith("-"), mantissa, exponent if mantissa else 0


def _decimal_to_integer(decimal: tuple[bool, int, int], low: int, high: int) -> bool:
    negative, mantissa, exponent = decimal
    if (negative and low >= 0) or mantissa >= 1 << 64:
        return False
    value: int = mantissa // 10**-exponent if exponent < 0 else mantissa * 10**exponent
    return value < 1 << 64 and value <= high  # Self(exactly:) comes before the sign


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*=*\Z")
_INT_KEY = re.compile(r"[+-]?[0-9]{1,40}\Z")


def is_uuid(text: str) -> bool:
    """Return whether ``UUID(uuidString:)`` takes the text."""
    return _UUID.match(text) is not None


def is_base64(text: str) -> bool:
    """Return whether ``Data(base64Encoded:)`` takes the text: padded, standard alphabet."""
    return len(text) % 4 == 0 and _BASE64.match(text) is not None


def is_int_key(text: str) -> bool:
    """Return whether ``Int(_:)`` takes the key of a dictionary with Int keys."""
    low, high = INTEGERS["Int"]
    return _INT_KEY.match(text) is not None and low <= int(text) <= high


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9a-fA-F]{2})*\Z")
_LITERAL = re.compile(r"\[[A-Za-z0-9._~!$&'()*+,;=:-]*(?:%[^\]]*)?\]\Z")
_HOSTS_ENCODED = words(
    "tel telemergencycall telprompt callto facetime facetime-prompt facetime-audio facetime- "
    "audio-prompt imap pop addressbook contact phasset"
)


def is_url(text: str) -> bool | None:
    """Return whether ``URL(string:)`` takes the text; None for some hosts with other letters.

    ``URL`` percent-encodes path, query and fragment, and never refuses them.
    """
    scheme = ""
    for at, character in enumerate(text):
        if character == ":":
            scheme = text[:at]
            if at and not _SCHEME.match(scheme):
                return False
            text = text[at + 1 :] if at else text
            break
        if character in "/?#[]@":
            break
    if not text.startswith("//"):
        return True
    host = re.split(r"[/?#]", text[2:], maxsplit=1)[0].rpartition("@")[2]
    if host.startswith("[") and "]" in host:
        literal, _, port = host.partition("]")
        good = port[:1] in ("", ":") and _is_port(port[1:], scheme)
        return good and _LITERAL.match(literal + "]") is not None
    host, _, port = host.partition(":")
    if not _is_port(port, scheme):
        return False
    if _HOST.match(host) or scheme.lower() in _HOSTS_ENCODED:
        return True
    if host.isascii() or not all(_IDNA.match(character) for character in host):
        return False
    return True if all(c.isascii() or c.isalnum() for c in host) else None


_IDNA = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=-]|[^\x00-\x7f]")


def _is_port(port: str, scheme: str) -> bool:
    return all("0" <= digit <= "9" for digit in port) or scheme.lower() == "addressbook"
