"""Checks and converts a caller's values and dates before they are encoded as JSON.

JSON libraries convert NaN to null, the key 1 to "1", and a datetime to a string. Then the phone cannot
decode the state, while APNs answers 200. So a value is either plain, or converted by a rule of this
module, or refused with its path. Apple's dates are seconds since 1970 in keys and headers, and since
2001 in Swift's Date.
"""

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from ..errors import InvalidPayload
from ..refusals import refused

DateInput: TypeAlias = datetime.datetime | datetime.timedelta | int | float
"""An aware datetime, a timedelta from now, or seconds since 1970."""

APPLE_EPOCH = 978_307_200
"""2001-01-01T00:00:00Z in seconds since 1970: the zero of Swift's default Date coding."""
MILLISECONDS_FROM = 1e11
"""Seconds reach this in the year 5138, so a larger number is milliseconds."""
DURATIONS_UP_TO = 1e9
"""Seconds since 1970 passed this in 2001; a smaller number is a duration or an Apple date."""
MAX_DEPTH = 32
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1  # Swift's Int and UInt64
_SMALL = 1_000_000_000


def _base_value(value: object) -> object:
    """Return a subclass of a plain type (a `ChannelId`, a number of numpy's) as that type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


json_bytes = msgspec.json.Encoder(enc_hook=_base_value).encode
"""Compact UTF-8 in the caller's key order, for what has been walked."""


def plain_object(value: object, field: str) -> dict[str, Any]:
    """Return ``value`` as a dict that JSON encodes without change, in the caller's key order.

    Takes a mapping, a dataclass, a msgspec Struct or a pydantic model. Plain input comes back as
    the same object, not a copy. Raises `InvalidPayload` with the full path of what is refused.
    """
    # A list is refused as a whole, before its items are.
    is_list = type(value) is not dict and isinstance(value, (str, list, tuple, bytes))
    result = None if is_list else _walk(value, field, 0)
    if not isinstance(result, dict):
        raise refused(InvalidPayload, "not_an_object", field, kind=_kind(value))
    return result


def apple_date(moment: datetime.datetime) -> float:
    """Return ``moment`` as the number that Swift's default decoder reads as a ``Date``.

    Seconds since 2001-01-01 UTC (Apple, "Starting and updating Live Activities with ActivityKit
    push notifications": the phone uses default decoders). Use it for every ``Date`` in a content
    state or attributes. Raises `InvalidPayload` for anything but an aware datetime.
    """
    if not isinstance(moment, datetime.datetime):
        raise refused(InvalidPayload, "apple_date_kind", "moment", kind=type(moment).__name__)
    if moment.utcoffset() is None:
        raise refused(InvalidPayload, "apple_date_naive", "moment")
    return moment.timestamp() - APPLE_EPOCH


def epoch_seconds(value: object, *, now: float, field: str, zero_allowed: bool = False) -> int:
    """Return a date input as whole seconds since 1970, rounded down.

    ``now`` is seconds since 1970 and the base of a timedelta. ``zero_allowed`` accepts the number 0,
    which means "at once" for an expiration or a dismissal. Raises `InvalidPayload` for milliseconds,
    durations given as numbers, naive datetimes, and everything that is not a date.
    """
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise refused(InvalidPayload, "date_naive", field)
        number = value.timestamp()
    elif isinstance(value, datetime.timedelta):
        number = now + value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        is_day = isinstance(value, datetime.date)
        kind = "a date without a time" if is_day else f"a {type(value).__name__}"
        raise refused(InvalidPayload, "date_kind", field, kind=kind)
    elif not math.isfinite(value):
        raise refused(InvalidPayload, "date_not_finite", field, value=value)
    elif abs(value) >= MILLISECONDS_FROM:
        raise refused(InvalidPayload, "date_milliseconds", field, value=value)
    elif value < DURATIONS_UP_TO and not (value == 0 and zero_allowed):
        raise refused(InvalidPayload, "date_early", field, value=value)
    else:
        number = value
    if not 0 <= number < MILLISECONDS_FROM:
        raise refused(InvalidPayload, "date_range", field)
    return int(number)


def check_text(text: str, field: str, saying: str = "surrogates") -> str:
    """Return ``text`` as an exact ``str``; refuse lone surrogates."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise refused(InvalidPayload, saying, field) from None
    return text if type(text) is str else str.__str__(text)


def _walk(value: Any, path: str, depth: int) -> Any:
    kind = type(value)
    if kind is dict:
        return _walk_dict(value, path, depth)
    if kind is list or kind is tuple:
        return _walk_list(value, path, depth)
    if kind is str:
        return value if value.isascii() else check_text(value, path)
    if value is None or kind is bool:
        return value
    if kind is int:
        if not _LOWEST <= value <= _HIGHEST:
            raise refused(InvalidPayload, "integer_range", path)
        return value
    if kind is float:
        if not math.isfinite(value):
            raise refused(InvalidPayload, "number_not_finite", path, value=value)
        return value
    return _walk_other(value, path, depth)


def _walk_dict(value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
    _check_depth(path, depth)
    changed: dict[Any, Any] = {}
    for key, item in value.items():
        if type(key) is not str or not key.isascii():
            plain = _key(key, path)
            if plain is not key:
                changed[key] = item
        kind = type(item)
        # Handle the common leaves without a call, because a content state consists mostly of them.
        if kind is str:
            if item.isascii():
                continue
        elif kind is bool or item is None or (kind is int and -_SMALL < item < _SMALL):
            continue
        result = _walk(item, f"{path}.{key}", depth + 1)
        if result is not item:
            changed[key] = result
    if not changed:
        return value
    return {_key(key, path): changed.get(key, item) for key, item in value.items()}


def _walk_list(
    value: list[Any] | tuple[Any, ...], path: str, depth: int
) -> list[Any] | tuple[Any, ...]:
    _check_depth(path, depth)
    changed: list[Any] | None = None
    for index, item in enumerate(value):
        kind = type(item)
        if kind is int and -_SMALL < item < _SMALL:
            continue
        result = _walk(item, f"{path}[{index}]", depth + 1)
        if result is not item:
            if changed is None:
                changed = list(value)
            changed[index] = result
    return value if changed is None else changed


def _walk_other(value: Any, path: str, depth: int) -> Any:
    """Convert subclasses of plain types and models; refuse everything else."""
    if isinstance(value, enum.Enum):
        raise _refused(value, path, "Send its raw value, as Swift decodes it: use .value.")
    if isinstance(value, (int, float, str)):
        return _walk(_base_value(value), path, depth)
    if isinstance(value, Mapping):
        return _walk_dict(dict(value), path, depth)
    if isinstance(value, tuple):
        if hasattr(value, "_asdict"):
            remedy = "It would become an array: use ._asdict() for keys, or list() for that."
            raise _refused(value, path, remedy)
        return _walk_list(tuple(value), path, depth)
    if isinstance(value, list):
        return _walk_list(list(value), path, depth)
    members = _members(value, path)
    if members is None:
        raise _refused(value, path, _remedy(value))
    return _walk(members, path, depth)


def _members(value: Any, path: str) -> Any:
    """Return a model's members by their encoded names; None for any other value."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if isinstance(value, msgspec.Struct):
        return _struct_members(value)
    # Recognise pydantic by its attributes. Importing it would cost users who do not use it.
    if hasattr(kind, "__pydantic_core_schema__") and callable(getattr(kind, "model_dump", None)):
        try:
            return value.model_dump(mode="python", by_alias=True, warnings=False)
        except Exception as error:
            words = {"model": kind.__name__, "kind": type(error).__name__}
            raise refused(InvalidPayload, "model_dump", path, **words) from error
    if not dataclasses.is_dataclass(kind):
        return None
    members = {}
    for field in dataclasses.fields(kind):
        try:
            members[field.name] = getattr(value, field.name)
        except AttributeError:
            raise refused(InvalidPayload, "never_set", f"{path}.{field.name}") from None
    return members


def _struct_members(value: msgspec.Struct) -> Any:
    config = value.__struct_config__
    if config.array_like:
        head = [] if config.tag is None else [config.tag]
        return head + [getattr(value, name) for name in value.__struct_fields__]
    members: dict[str, Any] = {}
    if config.tag is not None and config.tag_field is not None:
        members[config.tag_field] = config.tag
    skipped: dict[str, Any] = {}
    for field in msgspec.structs.fields(value) if config.omit_defaults else ():
        if field.default is not msgspec.NODEFAULT:
            skipped[field.name] = field.default
        elif field.default_factory in (list, dict):
            skipped[field.name] = field.default_factory()
    for name, wire_name in zip(
        value.__struct_fields__, value.__struct_encode_fields__, strict=True
    ):
        item = getattr(value, name)
        if item is msgspec.UNSET or (name in skipped and item == skipped[name]):
            continue
        members[wire_name] = item
    return members


def _key(key: object, path: str) -> str:
    if isinstance(key, enum.Enum) or not isinstance(key, str):
        raise refused(InvalidPayload, "key_kind", path, key=key, kind=_kind(key))
    return check_text(key, path, "key_surrogates")


def _check_depth(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        shown = path if len(path) <= 120 else f"{path[:60]}...{path[-50:]}"
        raise refused(InvalidPayload, "too_deep", shown, most=MAX_DEPTH)


def _refused(value: object, path: str, remedy: str) -> InvalidPayload:
    return InvalidPayload(f"is {_kind(value)}, which has no JSON form", field=path, remedy=remedy)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


_REMEDIES: tuple[tuple[tuple[type, ...], str], ...] = (
    (
        (datetime.datetime,),
        "Use apple_date(value) for a Swift Date, or value.timestamp() for a Double of seconds since 1970.",
    ),
    (
        (datetime.date, datetime.time),
        "Make it an aware datetime and use apple_date() for a Swift Date, or send text.",
    ),
    ((datetime.timedelta,), "Use .total_seconds()."),
    ((decimal.Decimal,), "Use float() for a Swift Double, or str() for text."),
    ((uuid.UUID, pathlib.PurePath), "Use str()."),
    (
        (bytes, bytearray, memoryview),
        "Swift's Data is base64 text: use base64.b64encode(value).decode().",
    ),
    ((set, frozenset), "A set has no order: use sorted(value)."),
    ((complex,), "Send two numbers."),
    ((type,), "Pass an instance, not the class."),
)


def _remedy(value: object) -> str:
    for kinds, remedy in _REMEDIES:
        if isinstance(value, kinds):
            return remedy
    if hasattr(type(value), "__attrs_attrs__"):
        return "Use attrs.asdict(value)."
    if hasattr(value, "__next__") or isinstance(value, type({}.keys())):
        return "Use list(value)."
    return "Send text, numbers, booleans, null, lists, or mappings with text keys."
