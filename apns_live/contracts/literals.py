"""Swift literals: raw values of enums and the types that initial values show."""

import re

from .shapes import words
from .source import string_end
from .syntax import TypeName, parse_type
from .values import INTEGERS

_INTEGER = re.compile(r"(-?)\s*(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
_REAL = re.compile(r"-?\s*[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9_]+)?\Z")
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,8})\}|(.)|\Z)", re.DOTALL)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}
_CALL = re.compile(
    r"([A-Z]\w*(?:\.[A-Z]\w*)*(?:<.*>)?|\[[^\[\]]*\](?=\())(\(.*\)|\.\w+(?:\(.*\))?)\Z", re.DOTALL
)


def raw_literal(text: str, raw: str) -> str | int | float | None:
    """Return the value of a raw value's literal, or None if it is not a plain literal."""
    text = text.strip()
    if raw == "String":
        return _string(text)
    if raw == "Bool":
        return None
    if integer := _INTEGER.match(text):
        base = 0 if integer[2][:2] in ("0x", "0o", "0b") else 10
        value = int(integer[2].replace("_", ""), base)
        value = -value if integer[1] else value
        return value if raw in INTEGERS else float(value)
    if raw not in INTEGERS and _REAL.match(text):
        return float(text.replace("_", "").replace(" ", ""))
    return None


def _string(text: str) -> str | None:
    hashes = len(text) - len(text.lstrip("#"))
    body = text[hashes : len(text) - hashes]
    if body.startswith('"""') or len(body) < 2 or body[0] != '"' or body[-1] != '"':
        return None
    body = body[1:-1]
    if hashes:
        return None if "\\" + "#" * hashes in body else body
    if not all(code or letter in _SIMPLE for code, letter in _ESCAPE.findall(body)):
        return None
    return _ESCAPE.sub(lambda at: chr(int(at[1], 16)) if at[1] else _SIMPLE[at[2]], body)


def infer(value: str) -> TypeName | None:
    """Return the type of a property with this initial value, or None if it is not plain."""
    value = value.strip()
    if value in {"true", "false"}:
        return parse_type("Bool")
    if _INTEGER.match(value):
        return parse_type("Int")
    if _REAL.match(value):
        return parse_type("Double")
    if value.startswith(('"', "#")):
        return parse_type("String") if string_end(value, 0) == len(value) else None
    if value.startswith("[") and value.endswith("]") and ":" not in value:
        items = [infer(item) for item in value[1:-1].split(",") if item.strip()]
        kinds = {item.text if item else "" for item in items}
        return parse_type(f"[{kinds.pop()}]") if len(kinds) == 1 and kinds <= _PLAIN else None
    if value.endswith(".none"):
        named = parse_type(value.removesuffix(".none"))
        return named if named.kind == "optional" or value.startswith("Optional<") else None
    call = _CALL.match(value)
    if call is None or _CHAINED.search(call[2]):
        return None
    if call[2].startswith("."):
        # Date.now, Status.idle: a member is taken as a value of its type, which is true of enum cases
        # and the well-known constants.
        return parse_type(call[1]) if f"{call[1]}{call[2]}" in _CONSTANTS else None
    return parse_type(call[1])


_PLAIN = frozenset({"Int", "Double", "String", "Bool"})
_CHAINED = re.compile(r"\)\s*[.\[?!+*/-]")
_CONSTANTS = words("Date.now Date.distantPast Date.distantFuture Decimal.zero Double.pi")
