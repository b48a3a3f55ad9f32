"""How ActivityKit reads a payload, by the phone's own rules.

APNs does not check the payload's JSON: it answers 200 even if the phone shows nothing. docs/phones.md
has the rules with their sources.
"""

import math

import msgspec

DATA_LIMIT = 4096
"""Bytes of attributes and content state together."""

_NOTHING = msgspec.Raw(b"")


class Aps(msgspec.Struct, rename="kebab", gc=False):
    """The ``aps`` dictionary of a Live Activity push. Unneeded parts stay undecoded."""

    timestamp: int | float | None = None
    event: str | None = None
    content_state: msgspec.Raw = _NOTHING
    alert: msgspec.Raw = _NOTHING
    attributes_type: str | None = None
    attributes: msgspec.Raw = _NOTHING
    stale_date: int | float | None = None
    dismissal_date: int | float | None = None
    relevance_score: int | float | None = None
    input_push_token: int | float | bool | str | None = None
    input_push_channel: str | None = None


class Payload(msgspec.Struct, gc=False):
    """The outermost object."""

    aps: Aps


class UndecodableError(Exception):
    """The phone cannot decode the payload; the message says why."""


_decode = msgspec.json.Decoder(Payload).decode


def decode_activity(body: bytes) -> Aps:
    """Read a Live Activity payload.

    Raises ``UndecodableError`` when it is not a JSON object with an ``aps`` object, when a key has the
    wrong type, or when the event, the timestamp or a key that the event requires is missing.
    """
    try:
        aps = _decode(body).aps
        if not body.isascii() or b"\\u" in body:
            # The undecoded parts are not validated: they may have invalid UTF-8 or lone surrogates.
            msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableError(str(error)) from None
    event = aps.event
    if event == "update":
        if not is_object(aps.content_state):
            raise UndecodableError("update without a content-state object")
    elif event == "start":
        if not aps.attributes_type:
            raise UndecodableError("start without attributes-type")
        if not is_object(aps.attributes):
            raise UndecodableError("start without an attributes object")
        if not is_object(aps.content_state):
            raise UndecodableError("start without a content-state object")
    elif event == "end":
        if not is_object(aps.content_state) and bytes(aps.content_state) not in {b"", b"null"}:
            raise UndecodableError("content-state is not an object")
    elif event is None:
        raise UndecodableError("no event")
    else:
        raise UndecodableError(f"unknown event {event[:40]!r}")
    if aps.timestamp is None:
        raise UndecodableError("no timestamp")
    if not math.isfinite(aps.timestamp):
        raise UndecodableError("timestamp is not finite")
    return aps


def peek_event(body: bytes) -> str | None:
    """Return the event of a payload as far as it can be read, else None."""
    try:
        return _decode(body).aps.event
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_object(raw: msgspec.Raw) -> bool:
    """Whether a key holds a JSON object."""
    return bytes(raw)[:1] == b"{"


def has_alert(aps: Aps) -> bool:
    """Whether the payload has an alert: text, or an object with something in it."""
    data = bytes(aps.alert)
    if data[:1] == b"{":
        return data[1:-1].strip() != b""
    return data[:1] == b'"' and data != b'""'


def shows_alert(aps: Aps) -> bool:
    """Whether an alert is announced. Without a title it is silent and invisible."""
    alert = as_json(bytes(aps.alert))
    title = alert.get("title") if isinstance(alert, dict) else alert
    if isinstance(title, dict):
        title = title.get("loc-key")
    return isinstance(title, str) and title != ""


def as_json(data: bytes) -> object:
    """Return decoded JSON, or None when it is empty or cannot be decoded."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
