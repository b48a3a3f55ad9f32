"""Validates input to the service. Each error has the field's path and a remedy."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..errors import InvalidInput, InvalidToken
from ..misfits import misfit
from .times import EARLIEST_HAND_OVER, LATEST_HAND_OVER

Value = str | int | float | bool

MAX_TAGS = 20
MAX_TAG = 64
MAX_METADATA_ENTRIES = 50
MAX_METADATA_BYTES = 16_384
MAX_METADATA_KEY = 100
MAX_METADATA_TEXT = 4_000
ENVIRONMENTS = ("production", "sandbox")

_SURROGATE = "holds half of a surrogate pair, which is not valid text"
_ENCODABLE = "Give text that can be encoded as UTF-8."
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+\Z")
_VERSION = re.compile(r"[vV]?(\d+(?:\.\d+)*)(.*)\Z", re.DOTALL)


def at_most(count: int, most: int, what: str, field: str, *, more: str = "") -> None:
    """Refuse more than ``most`` items; ``more`` is added to the remedy."""
    if count > most:
        verb = "Use" if what == "characters" else "Give"
        raise InvalidInput(f"has {count} {what}", field, f"{verb} at most {most:,}{more}.")


def identifier(value: object, field: str, *, limit: int = 255) -> str:
    """Return a caller's id: 1 to ``limit`` printable characters without line breaks."""
    if not isinstance(value, str) or not value:
        raise InvalidInput("is missing or not a string", field, "Give an id.")
    at_most(len(value), limit, "characters", field)
    if value in (".", ".."):
        remedy = "Give another: clients take it out of the address of a call."
        raise InvalidInput(f"{value!r} cannot stand in an address", field, remedy)
    if not value.isprintable() or value != value.strip():
        problem = "holds a control character, or begins or ends with a space"
        raise InvalidInput(problem, field, "Use printable characters.")
    return value


def _spelled(pattern: str, remedy: str, *, upper: bool = False) -> Callable[[object, str], str]:
    """Return a check of a text's spelling. It takes a value and its field, and returns the value."""
    spelling = re.compile(rf"{pattern}\Z")

    def check(value: object, field: str) -> str:
        text = value.upper() if upper and isinstance(value, str) else value
        if not isinstance(text, str) or not spelling.match(text):
            shown = f"{text[:32]!r} " if isinstance(text, str) else ""
            raise InvalidInput(f"{shown}is not allowed", field, remedy)
        return text

    return check


slug = _spelled(r"[A-Za-z0-9_-]{1,128}", "Use 1 to 128 letters, digits, underscores or hyphens.")
stream_key = _spelled(
    r"[A-Za-z0-9_-]{1,255}", "Use 1 to 255 letters, digits, underscores or hyphens."
)
language = _spelled(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*", "Give a tag such as en or zh-Hans.")
country = _spelled("[A-Z]{2}", "Give two letters such as DE.", upper=True)
attributes_type = _spelled(
    r"[^\W\d]\w{0,127}", "Give the Swift type's plain name, without its module."
)


def has_channels(os_version: str | None) -> bool:
    """Return True for a device that is known to run iOS 18 or later, which has broadcast channels."""
    found = _VERSION.match(os_version or "")
    return found is not None and int(found[1].split(".")[0]) >= 18


def hand_over_after(value: object, field: str) -> None:
    """Check the age of a card, in seconds, at which a new one takes its place; 0 for never."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value == 0 or EARLIEST_HAND_OVER <= value <= LATEST_HAND_OVER):  # type: ignore[operator]
        remedy = f"Give {EARLIEST_HAND_OVER:g} to {LATEST_HAND_OVER:g} seconds, or 0 for never."
        raise InvalidInput(f"{value!r:.40} is not an age for a hand-over", field, remedy)


def environment(value: object, field: str = "environment") -> str:
    """Return ``production`` or ``sandbox``."""
    if value not in ENVIRONMENTS:
        raise InvalidInput("is not a valid APNs environment", field, "Give production or sandbox.")
    return str(value)


def token(value: object, field: str) -> str:
    """Return a token in lower-case hex; its length is never assumed, only bounded.

    Raises `InvalidToken` and shows no more than the first eight digits.
    """
    if not isinstance(value, str) or not 2 <= len(value) <= 512 or not _HEX.match(value):
        shown = f" ({value[:8]}…)" if isinstance(value, str) and value[:8].isalnum() else ""
        remedy = "Give the bytes of the token as hex digits, two a byte."
        raise InvalidToken(f"is not a token in hex{shown}", field, remedy)
    return value.lower()


def tags(value: object, field: str = "tags") -> list[str]:
    """Return history labels: at most 20 texts of 1 to 64 characters, repeats dropped."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput("is not a list", field, "Give a list of texts.")
    for index, tag in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TAG:
            problem = f"is not a string of 1 to {MAX_TAG} characters"
            raise InvalidInput(problem, where, "Give a short label.")
        encodable(tag, where)
    unique = list(dict.fromkeys(value))
    at_most(len(unique), MAX_TAGS, "labels", field)
    return unique


def metadata(value: object, field: str = "metadata") -> dict[str, Value]:
    """Return a flat map of short keys to texts, finite numbers and booleans; never sent to a phone."""
    if not isinstance(value, Mapping):
        raise InvalidInput("is not an object", field, "Give a flat JSON object.")
    at_most(len(value), MAX_METADATA_ENTRIES, "entries", field)
    size = 0
    for key, entry in value.items():
        where = f"{field}.{key}" if isinstance(key, str) else field
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_METADATA_KEY:
            problem = f"has a key that is not a string of 1 to {MAX_METADATA_KEY} characters"
            raise InvalidInput(problem, where, "Shorten the key.")
        encodable(key, field)
        if isinstance(entry, str):
            encodable(entry, where)
            at_most(len(entry), MAX_METADATA_TEXT, "characters", where)
            size += len(entry.encode("utf-8", "surrogatepass"))
        elif not isinstance(entry, (int, float)) or not math.isfinite(entry):
            problem = "is not a string, a finite number or a boolean"
            raise InvalidInput(problem, where, "Metadata is flat: no lists, objects or null.")
        size += len(key.encode("utf-8", "surrogatepass")) + 16
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(f"has about {size} bytes", field, f"Use at most {MAX_METADATA_BYTES}.")
    return dict(value)


def unknown_keys(value: Mapping[str, object], known: Iterable[str], field: str) -> None:
    """Refuse unknown keys, so that a misspelled one is not ignored."""
    allowed = set(known)
    for key in value:
        if key not in allowed:
            where, remedy = f"{field}.{key}", f"Known here: {', '.join(sorted(allowed))}."
            raise InvalidInput("is unknown", where.removeprefix("."), remedy)


def version_order(text: str) -> str:
    """Return a text that sorts as versions do: ``1.10`` comes after ``1.9``.

    Six numbers of ten digits each, then ``1`` for a release or ``0`` and the rest for a pre-release
    (``1.0-beta`` comes before ``1.0``). It has only digits and lower-case letters, so every
    database collation sorts it the same way.
    """
    found = _VERSION.match(text)
    numbers = found[1].split(".") if found else []
    rest = re.sub(r"[^0-9a-z]", "", (found[2] if found else text).lower())
    padded = [number[:10].zfill(10) for number in [*numbers, *["0"] * 6][:6]]
    return "".join(padded) + (f"0{rest[:40]}" if rest else "1")


def page_limit(value: object, field: str = "limit") -> int:
    """Return how many entries a page may have: 1 to 1,000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000:
        raise InvalidInput(
            f"{value!r:.20} is not a number from 1 to 1,000", field, "Give 1 to 1000."
        )
    return value


def plain_numbers(value: Any) -> Any:
    """Write 9.0 as 9 within a JSON value: some clients send every number with a decimal point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain_numbers(entry) for entry in value]
    return value


def convert(
    value: object,
    kind: Any,
    field: str = "",
    *,
    strict: bool = True,
    error: type[InvalidInput] = InvalidInput,
    remedy: str = "Give a value of the type that is expected.",
) -> Any:
    """Return a value converted to a type, as `msgspec.convert` does. Raises ``error`` with the path."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as wrong:
        found = misfit(wrong)
        dot = "" if found.field[:1] in ("", "[") or not field else "."
        where = f"{field}{dot}{found.field}" or "request"
        raise error(found.problem, where, found.remedy or remedy) from None


def conform(value: msgspec.Struct, field: str = "") -> None:
    """Refuse a request whose fields do not have their declared types.

    A JSON request was checked when it was read; one made in Python was not. The content of a field
    of any type (a content state) is checked elsewhere.
    """
    try:
        convert(msgspec.to_builtins(value, enc_hook=_opaque), type(value), field)
    except RecursionError:
        where = f"{field}.{_deep(value)}".lstrip(".")
        raise InvalidInput("is nested too deeply", where, "Use a flatter structure.") from None
    except UnicodeEncodeError:
        raise InvalidInput(_SURROGATE, field or "request", _ENCODABLE) from None


def _opaque(value: object) -> str | None:
    """Accept other values: later checks have better errors. A typed token becomes its text."""
    return str.__str__(value) if isinstance(value, str) else None


def _deep(value: msgspec.Struct) -> str:
    for name in value.__struct_fields__:
        try:
            msgspec.to_builtins(getattr(value, name), enc_hook=_opaque)
        except RecursionError:
            return name
    return "request"


def encodable(value: str, field: str) -> str:
    """Refuse a text that cannot be stored, because it has a NUL or an unpaired surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(_SURROGATE, field, _ENCODABLE) from None
    if "\x00" in value:
        raise InvalidInput("holds a NUL", field, _ENCODABLE)
    return value


def revision(value: int | None, field: str = "revision") -> None:
    """Refuse a caller's revision that is out of range."""
    if value is not None and not -(2**63) <= value < 2**63:
        raise InvalidInput(f"{value} is out of range", field, "Give a number of at most 64 bits.")
