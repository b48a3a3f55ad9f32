"""Facts about devices and users: records, validated before they are stored, and what reads return.

Times are milliseconds since 1970. Reads return typed dictionaries, ready to be encoded as JSON,
with tokens shortened to their first eight digits.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from ...errors import InvalidInput
from .. import checks

_MAX_NUMBER = 1e300
OLDEST = 10**11
"""The registration time of a token without one (1973): it never replaces a token with a time."""
_PLAIN_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")
TokenKind = Literal["start", "activity", "device"]
_Count = Annotated[int, Meta(ge=0, lt=2**53)]


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts about a device. Fields that are None stay unchanged.

    Times are milliseconds since 1970; ``session_time`` is seconds.
    """

    id: str
    user: str | None = None
    language: str | None = None
    country: str | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    app_version: str | None = None
    os_version: str | None = None
    first_session: _Count | None = None
    last_session: _Count | None = None
    session_count: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    session_time: _Count | None = None
    amount_spent: Annotated[float, Meta(ge=0, lt=2**53)] | None = None
    push_enabled: bool | None = None
    frequent_updates: bool | None = None


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token of a device. ``registered_at`` is in milliseconds since 1970, by the phone's clock.

    ``scope`` is the attributes type of a start token, the id of the activity of an activity token,
    and empty for a device token. ``card`` is ActivityKit's id of the card of an activity token: it
    tells apart two cards of one activity.
    """

    device: str
    kind: TokenKind
    token: str
    registered_at: int
    scope: str = ""
    environment: str | None = None
    card: str | None = None


_CHECKED: Mapping[str, Callable[[object, str], str]] = {
    "user": checks.identifier,
    "language": checks.language,
    "country": checks.country,
    "app_version": partial(checks.identifier, limit=64),
    "os_version": partial(checks.identifier, limit=32),
}


def check_device(record: DeviceRecord, field: str = "") -> DeviceRecord:
    """Return the record with its values in stored form. Raises `InvalidInput`."""
    checks.conform(record, field)
    field = f"{field}." if field else ""
    changes: dict[str, Any] = {"id": checks.identifier(record.id, f"{field}id", limit=64)}
    for name, check in _CHECKED.items():
        if (value := getattr(record, name)) is not None:
            changes[name] = check(value, f"{field}{name}")
    return msgspec.structs.replace(record, **changes)


def check_token(record: TokenRecord, *, now: int, field: str = "") -> TokenRecord:
    """Return the record with its values in stored form; ``now`` is milliseconds.

    A registration time in the future would win over every later one, so it is cut to ``now``.
    """
    checks.conform(record, field)
    field = f"{field}." if field else ""
    changes: dict[str, Any] = {
        "device": checks.identifier(record.device, f"{field}device", limit=64),
        "token": checks.token(record.token, f"{field}token"),
        "registered_at": min(record.registered_at, now),
    }
    if not record.registered_at >= OLDEST:
        problem = f"{record.registered_at} is not a valid time in milliseconds"
        raise InvalidInput(problem, f"{field}registered_at", "Give milliseconds since 1970.")
    if record.environment is not None:
        checks.environment(record.environment, f"{field}environment")
    if record.card is not None:
        checks.identifier(record.card, f"{field}card", limit=64)
    if record.kind == "start":
        checks.attributes_type(record.scope, f"{field}scope")
    elif record.kind == "activity":
        checks.identifier(record.scope, f"{field}scope")
    elif record.scope:
        raise InvalidInput("does not apply to a device token", f"{field}scope", "Leave it out.")
    return msgspec.structs.replace(record, **changes)


def moment(value: object, field: str) -> int:
    """Return milliseconds since 1970 for a number of them or an ISO 8601 time with its zone.

    Raises `InvalidInput`, also for a number of seconds.
    """
    problem = ""
    if isinstance(value, str):
        text = value.strip()
        if text.isascii() and text.isdigit() and len(text) < 20:
            value = int(text)
        else:
            with contextlib.suppress(ValueError):
                utc = text.endswith(" UTC")
                parsed = datetime.fromisoformat(text.removesuffix(" UTC") + "+00:00" * utc)
                if parsed.tzinfo is not None:
                    return int(parsed.timestamp() * 1000)
                problem = "has no time zone"
    if isinstance(value, int) and not isinstance(value, bool):
        if OLDEST <= value < 2**53:
            return value
        problem = f"{value} {'looks like seconds' if value < OLDEST else 'is out of range'}"
    remedy = "Give milliseconds since 1970, or a time such as 2026-01-31T20:00:00Z."
    raise InvalidInput(problem or "is not a valid time", field, remedy)


class StoredValue(msgspec.Struct, frozen=True):
    """A value of a tag or custom attribute in stored form: its text or number, and its kind."""

    kind: str
    text: str | None
    number: float | None


def store_attributes(
    attributes: Mapping[str, object], field: str = "attributes"
) -> dict[str, list[StoredValue]]:
    """Return the rows of each custom attribute: one per value or array item, none for None.

    A date may be ``{"date": text}``, as callers read it. Raises `InvalidInput` for anything but
    text, number, boolean, date and lists of text or number.
    """
    rows: dict[str, list[StoredValue]] = {}
    for name, value in attributes.items():
        where = f"{field}.{name}"
        checks.identifier(name, where, limit=128)
        if not isinstance(value, (list, tuple)):
            rows[name] = [] if value is None else [_store_scalar(value, where)]
            continue
        items = [_store_scalar(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if any(item.kind not in {"string", "number"} for item in items) or len(items) > 500:
            problem = "is not a list of at most 500 texts or numbers"
            raise InvalidInput(problem, where, "Arrays hold texts or numbers.")
        rows[name] = [StoredValue("array", item.text, item.number) for item in items]
    return rows


def _store_scalar(value: object, field: str) -> StoredValue:
    if isinstance(value, bool):
        return StoredValue("boolean", None, float(value))
    if isinstance(value, (int, float)):
        return StoredValue("number", None, _finite(value, field))
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidInput("has no time zone", field, "Give an aware datetime.")
        return StoredValue("date", None, value.timestamp() * 1000)
    if isinstance(value, date):
        return StoredValue("date", None, (value - date(1970, 1, 1)).days * 86_400_000.0)
    if isinstance(value, dict):
        return _store_scalar(_dated(value, field), field)
    if not isinstance(value, str):
        remedy = "Give a text, number, boolean, date, or a list of texts or numbers."
        raise InvalidInput(f"is of type {type(value).__name__}", field, remedy)
    if len(value) > 1024 or "\x00" in value:
        raise InvalidInput("has over 1024 characters, or a NUL", field, "Shorten it.")
    return StoredValue("string", checks.encodable(value, field), None)


def _dated(value: dict[str, object], field: str) -> date:
    """Return the day, or the moment, of ``{"date": text}``."""
    text = value.get("date") if len(value) == 1 else None
    if isinstance(text, str) and not _PLAIN_DATE.match(text):
        return datetime.fromtimestamp(moment(text, field) / 1000, UTC)
    if isinstance(text, str):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(text)
    raise InvalidInput(
        "is not a valid date", field, 'Write {"date": "2026-01-31"} or a full time with its zone.'
    )


def _finite(value: float, field: str) -> float:
    if not abs(value) < _MAX_NUMBER:  # also false for NaN
        raise InvalidInput("is not finite", field, "Give a finite number.")
    return float(value)


def store_tags(tags: Mapping[str, object], field: str = "tags") -> dict[str, list[StoredValue]]:
    """Return the row of each tag; none for an empty text or None. Raises `InvalidInput`.

    A numeric tag value is stored as text and as number, because callers write ``{"level": "12"}``
    and then filter by ``level > 9``.
    """
    rows: dict[str, list[StoredValue]] = {}
    for name, value in tags.items():
        where = f"{field}.{name}"
        checks.identifier(name, where, limit=128)
        if value is None or value == "":
            rows[name] = []
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"  # noqa: PLW2901 - the form that filters ask for
        if isinstance(value, (int, float)):
            rows[name] = [StoredValue("number", f"{value:g}", _finite(value, where))]
            continue
        if not isinstance(value, str) or len(value) > 1024 or "\x00" in value:
            problem = "is not a string or a number"
            raise InvalidInput(problem, where, "Tags hold texts of 1024 characters.")
        number = None
        if len(value) <= 32 and value.isascii():
            with contextlib.suppress(ValueError):
                number = float(value)
        if number is not None and not abs(number) < _MAX_NUMBER:
            number = None
        rows[name] = [StoredValue("string", checks.encodable(value, where), number)]
    return rows


Value = str | float | bool | list[str | float] | dict[str, str]


class StartTokenView(TypedDict):
    """A push-to-start token, by its first digits.

    ``unanswered_starts`` that APNs accepted in a row brought neither an activity token nor a receipt; two
    make it ``suspect``: the phone may have replaced it.
    """

    attributes_type: str
    environment: str
    token: str
    registered_at: int
    unanswered_starts: int
    suspect: bool


class KnownDevice(TypedDict):
    """The facts of a device."""

    id: str
    user: str | None
    language: str | None
    country: str | None
    latitude: float | None
    longitude: float | None
    app_version: str | None
    os_version: str | None
    first_session: int | None
    last_session: int | None
    session_count: int | None
    session_time: int | None
    amount_spent: float | None
    push_enabled: bool | None
    frequent_updates: bool | None


class DeviceView(KnownDevice):
    """The facts of a device, and its push-to-start tokens."""

    start_tokens: list[StartTokenView]


class ListedDevice(KnownDevice):
    """A device in a list, without its tokens, tags and attributes."""

    created_at: int
    updated_at: int


class Belongings(TypedDict):
    """Tags, attributes and direct groups of a device or user."""

    tags: dict[str, str | float]
    attributes: dict[str, Value]
    groups: list[str]


class WholeDevice(DeviceView, Belongings):
    """A device with its tags, attributes and direct groups."""


class TokenView(TypedDict):
    """A token by its first digits. A retired one gets no pushes; the reason says why.

    A ``suspect`` start token belongs to a phone that did not answer its last starts.
    """

    kind: Literal["start", "device", "activity"]
    attributes_type: str | None
    activity: str | None
    environment: str
    token: str
    registered_at: int
    retired_at: int | None
    retired_reason: str | None
    suspect: bool


class ListedUser(TypedDict):
    """A user's external id and internal id, and since when the user is known."""

    external_id: str
    id: str
    created_at: int


class WholeUser(ListedUser, Belongings):
    """A user with all stored facts. ``devices`` and ``groups`` have at most 1,000 entries."""

    aliases: dict[str, list[str]]
    devices: list[str]


class GroupView(TypedDict):
    """A group."""

    slug: str
    name: str
    created_at: int


class MemberView(TypedDict):
    """A device by its id, or a user by external id."""

    id: str


class SegmentView(TypedDict):
    """A saved filter."""

    id: str
    name: str
    filter: dict[str, Any]


class StreamView(TypedDict):
    """A stream. ``activity`` is its current activity, null if there is none."""

    key: str
    activity: str | None
    paused_at: int | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: int
    updated_at: int


class FollowerView(TypedDict):
    """A device of an activity. Without a ``token`` it waits for the app to register one.

    ``acknowledged_version`` is the newest state that APNs accepted for it, 0 for none.
    """

    device: str
    environment: str
    started_at: int | None
    joined_at: int | None
    token: str | None
    registered_at: int | None
    acknowledged_version: int
    retired_at: int | None
    retired_reason: str | None
