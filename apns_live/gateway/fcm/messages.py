"""Converts the body of ``messages:send`` to one push. Pure functions.

What FCM fills in is filled in; the payload goes to the phone as it came. Source: FCM, REST reference
"projects.messages", and "Start, update and end Live Activities".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ...payload import EncodedMessage
from ...payload.encode import LIVE_ACTIVITY_SUFFIX
from . import fields
from .answers import INVALID, GoogleError, bad_field, fcm, not_spoken, refused, violation

LIFETIME = 30 * 86_400
MOST_BYTES = 4_096
_TARGETS = ("token", "fid", "topic", "condition")
_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){8,256}\Z")
_HEADER = re.compile(r"[\x20-\x7e]{1,256}\Z")
_RESERVED = re.compile(r"(?:from|message_type)\Z|google\.|gcm\.notification\.")
_SHOWN = ("alert", "badge", "sound")
SCOPES: Mapping[str, str] = {
    "start": "activities:start",
    "update": "activities:update",
    "end": "activities:end",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One push, to one token. ``scope`` is what the key must have, ``aps`` what a phone decodes."""

    token: str
    aps: dict[str, Any]
    message: EncodedMessage
    scope: str
    validate_only: bool


def read_send(body: object, *, bundle_id: str, now: float) -> Asked:
    """Return what a body asks for; ``now`` is seconds since 1970. Raises `GoogleError`."""
    request = fields.read(body, fields.REQUEST)
    message = request.get("message")
    if message is None:
        raise _no_target()
    apns = message.get("apns", {})
    live = apns.get("live_activity_token")
    target = _target(message, live)
    _check_for_apple(message)
    if live is not None:
        aps = _live_aps(apns.get("payload"))
        event, payload = aps["event"], apns["payload"]
        scope, kind, suffix = SCOPES[event], "liveactivity", LIVE_ACTIVITY_SUFFIX
    else:
        payload = _ordinary(message)
        aps = payload["aps"]
        kind = "alert" if any(name in aps for name in _SHOWN) else "background"
        scope, event, suffix = "notifications:send", kind, ""
    headers = _headers(apns.get("headers", {}))
    text = msgspec.json.encode(payload)
    if len(text) > MOST_BYTES:
        raise GoogleError(400, INVALID)
    encoded = EncodedMessage(
        body=text,
        push_type=headers.get("apns-push-type", kind),
        topic_suffix=_suffix(headers.get("apns-topic"), bundle_id, suffix),
        priority=_number(headers, "apns-priority", 5 if kind == "background" else 10, 99),
        expiration=_number(headers, "apns-expiration", int(now) + LIFETIME, 10**11),
        collapse_id=headers.get("apns-collapse-id"),
        event=event,
        has_alert="alert" in aps,
        # Another copy of an update or end shows the same; a start or an alert is seen twice.
        replay_safe=event in ("update", "end", "background"),
    )
    return Asked(
        token=_token(live if live is not None else target, live is not None),
        aps=aps,
        message=encoded,
        scope=scope,
        validate_only=request.get("validate_only", False),
    )


def _target(message: Mapping[str, Any], live: str | None) -> str:
    given = [name for name in _TARGETS if message.get(name)]
    if not given:
        raise _no_target()
    if len(given) > 1:
        raise bad_field(
            "message",
            f"Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set "
            f"'{given[1]}'",
        )
    [name] = given
    if name in ("topic", "condition"):
        if live is not None:
            text = f"A Live Activity has one token: it cannot go to a {name}."
            raise GoogleError(400, text, [violation("message", text), fcm("INVALID_ARGUMENT")])
        raise not_spoken(f"A message to a {name}")
    return str(message[name])


def _no_target() -> GoogleError:
    text = "Recipient of the message is not set."
    return GoogleError(400, text, [violation("message", text), fcm("INVALID_ARGUMENT")])


def _check_for_apple(message: Mapping[str, Any]) -> None:
    """Raise `GoogleError` (501) for a message that has nothing for an Apple device."""
    if any(name in message for name in ("apns", "notification", "data")):
        return
    for name in ("android", "webpush"):
        if name in message:
            raise not_spoken(f"A message of {name} alone")


def _live_aps(payload: object) -> dict[str, Any]:
    """Return ``aps`` of a Live Activity's payload, with what a phone cannot do without."""
    aps = payload.get("aps") if isinstance(payload, dict) else None
    where = "message.apns.payload.aps"
    if not isinstance(aps, dict):
        raise _wrong(where, "is missing or not an object: give event, timestamp and content-state.")
    if not isinstance(aps.get("event"), str) or aps["event"] not in SCOPES:
        raise _wrong(f"{where}.event", "is none of start, update and end.")
    if isinstance(aps.get("timestamp"), bool) or not isinstance(aps.get("timestamp"), (int, float)):
        raise _wrong(f"{where}.timestamp", "is missing or not a number: give seconds since 1970.")
    if aps["event"] != "end" and not isinstance(aps.get("content-state"), dict):
        raise _wrong(
            f"{where}.content-state",
            "is missing or not an object. The Python SDK leaves an empty one out of what it sends: give "
            "the state a field.",
        )
    return aps


def _ordinary(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an ordinary push: the payload, and what the message says beside it."""
    apns = message.get("apns", {})
    payload = dict(apns.get("payload", {}))
    data: Mapping[str, str] = message.get("data", {})
    for name in data:
        if _RESERVED.match(name):
            raise _wrong("message.data", f"holds the reserved key {name[:100]}.")
    aps = payload.get("aps", {})
    if not isinstance(aps, dict):
        raise _wrong("message.apns.payload.aps", "is not an object.")
    notification = message.get("notification", {})
    words = {name: notification[name] for name in ("title", "body") if name in notification}
    if words and "alert" not in aps:
        aps = {**aps, "alert": words}
    if not aps and data:
        aps = {"content-available": 1}
    image = apns.get("fcm_options", {}).get("image") or notification.get("image")
    if image and "fcm_options" not in payload:
        payload["fcm_options"] = {"image": image}
    return {**data, **payload, "aps": aps}


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    headers = {name.lower(): value for name, value in given.items()}
    for name, value in headers.items():
        if not _HEADER.match(value):
            raise _wrong(
                f"message.apns.headers.{name[:60]}", "is not a string that a header can hold."
            )
    if "apns-channel-id" in headers:
        raise _wrong("message.apns.headers.apns-channel-id", "cannot be sent to: use the own API.")
    return headers


def _number(headers: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) > most:
        reason = "BadPriority" if name == "apns-priority" else "BadExpirationDate"
        raise refused(reason, f"message.apns.headers.{name}", "is not a number of that kind.")
    return int(text)


def _suffix(topic: str | None, bundle_id: str, default: str) -> str:
    if topic is None:
        return default
    if not topic.startswith(bundle_id):
        field = "message.apns.headers.apns-topic"
        raise refused("TopicDisallowed", field, f"is not a topic of {bundle_id}.")
    return topic.removeprefix(bundle_id)


def _token(token: str, live: bool) -> str:
    if _TOKEN.match(token):
        return token.lower()
    if live:
        field = "message.apns.live_activity_token"
        raise refused("BadDeviceToken", field, "is not a token in hex.")
    text = "The registration token is not a valid FCM registration token"
    description = "Invalid registration token: give the device token of APNs in hex."
    raise GoogleError(400, text, [fcm("INVALID_ARGUMENT"), violation("message.token", description)])


def _wrong(field: str, text: str) -> GoogleError:
    said = f"{field}: {text}"
    return GoogleError(400, said, [violation(field, said), fcm("INVALID_ARGUMENT")])
