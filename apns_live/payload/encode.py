"""Encodes a message to the body and header values of a push, once per state.

The result is shared by all tokens of a fan-out. Defaults and limits: Apple, "Sending notification
requests to APNs", "Sending broadcast push notification requests to APNs" and "Starting and updating
Live Activities with ActivityKit push notifications".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ..errors import InvalidPayload, InvalidSetting
from ..refusals import refused
from . import rules
from .dates import epoch_seconds
from .findings import Findings, PayloadWarning
from .messages import ActivityMessage, End, Message, Start, Update
from .notification import Background, Notification
from .size import check_size
from .values import json_bytes, plain_object

Target = Literal["device", "broadcast"]

LIVE_ACTIVITY_SUFFIX = ".push-type.liveactivity"
START_LIFETIME = 600
UPDATE_LIFETIME = 3600
SILENT_UPDATE_LIFETIME = 900
END_LIFETIME = 4 * 3600
NOTIFICATION_LIFETIME = 24 * 3600
_STALE_SOON = 60
"""A stale date nearer than this ends nothing: it tells the phone to draw the state as outdated."""


class EncodedMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """What the client sends for a message: the body, and the values of its headers.

    A journal keeps it as the array of its fields, so a new one goes behind the others.
    """

    body: bytes
    push_type: str
    """``apns-push-type``: liveactivity, alert or background."""
    topic_suffix: str
    """What follows the bundle id in ``apns-topic``."""
    priority: int
    """``apns-priority``: 10, 5 or 1."""
    expiration: int
    """``apns-expiration`` in seconds since 1970; 0 for one attempt."""
    collapse_id: str | None = None
    event: str
    """start, update, end, alert or background."""
    timestamp: int | None = None
    """The activity's ``timestamp`` in seconds since 1970; None for ordinary pushes."""
    stale_date: int | None = None
    """Seconds since 1970, or None."""
    has_alert: bool = False
    replay_safe: bool = True
    """Whether a push that may have arrived can be sent again without showing twice."""
    warnings: tuple[PayloadWarning, ...] = ()
    target: Target = "device"

    def headers(self, bundle_id: str) -> dict[str, str]:
        """Return the headers of a push to a token, without its id and the provider token."""
        values = {
            "apns-topic": bundle_id + self.topic_suffix,
            "apns-push-type": self.push_type,
            "apns-priority": str(self.priority),
            "apns-expiration": str(self.expiration),
        }
        if self.collapse_id is not None:
            values["apns-collapse-id"] = self.collapse_id
        return values


def encode(
    message: Message,
    *,
    now: float,
    timestamp: int | None = None,
    target: Target = "device",
    priority: int | None = None,
    storage_policy: int | None = None,
) -> EncodedMessage:
    """Check a message and encode it.

    ``now`` is seconds since 1970. ``timestamp`` and ``priority`` take the place of the message's
    own (delivery keeps an activity's stamps in order and its budget). ``storage_policy`` is that of
    the channel, where known. Raises `InvalidPayload`, `PayloadTooLarge`, or `InvalidSetting` for
    the arguments beside the message.
    """
    if target not in ("device", "broadcast"):
        raise refused(InvalidSetting, "target", "target", target=target)
    if isinstance(message, (Start, Update, End)):
        return _activity(message, now, timestamp, target, priority, storage_policy)
    if not isinstance(message, (Notification, Background)):
        raise refused(InvalidPayload, "message_kind", "message", kind=type(message).__name__)
    if target == "broadcast":
        raise refused(InvalidPayload, "not_for_channel", "message", kind=type(message).__name__)
    return _ordinary(message, now, priority)


def _activity(
    message: ActivityMessage,
    now: float,
    timestamp: int | None,
    target: Target,
    priority: int | None,
    storage_policy: int | None,
) -> EncodedMessage:
    event = message.event
    broadcast = target == "broadcast"
    if broadcast and event == "start":
        raise refused(InvalidPayload, "start_to_channel", "message")
    alert = message.alert
    given_stamp = message.timestamp if timestamp is None else timestamp
    stamp = int(now)
    if given_stamp is not None:
        stamp = epoch_seconds(given_stamp, now=now, field="timestamp")
    found = Findings(of_message=True)
    aps: dict[str, Any] = {"timestamp": stamp, "event": event}
    if message.content_state is not None:
        aps["content-state"] = plain_object(message.content_state, "content_state")
    collapse_id = None
    if isinstance(message, Start):
        aps["attributes-type"] = message.attributes_type
        aps["attributes"] = plain_object(message.attributes, "attributes")
        if message.input_push_channel is not None:
            aps["input-push-channel"] = message.input_push_channel
        elif message.input_push_token is not False:
            aps["input-push-token"] = 1
        collapse_id = message.activity_id
    if alert is not None:
        aps["alert"] = alert.as_json()
    stale_date = None
    if message.stale_date is not None:
        stale_date = epoch_seconds(message.stale_date, now=now, field="stale_date")
        aps["stale-date"] = stale_date
    if isinstance(message, End) and message.dismissal_date is not None:
        aps["dismissal-date"] = epoch_seconds(
            message.dismissal_date, now=now, field="dismissal_date", zero_allowed=True
        )
    if message.relevance_score is not None:
        aps["relevance-score"] = message.relevance_score
    expiration = _expiration(message, now, stale_date, storage_policy, broadcast=broadcast)
    given = None if message.expiration is None else expiration
    rules.on_activity(aps, now=now, expiration=given, found=found)
    payload = {"aps": aps, **_custom(message.custom, found, activity=True)}
    body = json_bytes(payload)
    if len(body) > 4096:
        check_size(payload, body, target, found)
    default = 5 if event == "update" and alert is None else 10
    return EncodedMessage(
        body=body,
        push_type="liveactivity",
        topic_suffix=LIVE_ACTIVITY_SUFFIX,
        priority=_priority(
            message.priority if priority is None else priority,
            default,
            allowed=(10, 5, 1) if broadcast else (10, 5),
        ),
        expiration=expiration,
        collapse_id=collapse_id,
        event=event,
        timestamp=stamp,
        stale_date=stale_date,
        warnings=tuple(found.warnings),
        has_alert=alert is not None,
        replay_safe=event != "start",
        target=target,
    )


def _ordinary(
    message: Notification | Background, now: float, priority: int | None
) -> EncodedMessage:
    found = Findings(of_message=True)
    payload = {"aps": message.as_aps(), **_custom(message.custom, found, activity=False)}
    body = json_bytes(payload)
    check_size(payload, body, "device", found)
    if message.expiration is None:
        expiration = math.ceil(now) + NOTIFICATION_LIFETIME
    else:
        expiration = _explicit_expiration(message.expiration, now)
        rules.on_expiration(expiration, now, found)
    if isinstance(message, Notification):
        level = _priority(
            message.priority if priority is None else priority, 10, allowed=(10, 5, 1)
        )
        rules.on_ordinary(payload["aps"], found)
    else:
        level = _priority(priority, 5, allowed=(5,))
    alert = isinstance(message, Notification)
    return EncodedMessage(
        body=body,
        push_type="alert" if alert else "background",
        topic_suffix="",
        priority=level,
        expiration=expiration,
        collapse_id=message.collapse_id,
        event=message.event,
        warnings=tuple(found.warnings),
        has_alert=alert,
        # A second copy of a notification is seen, unless a collapse id merges the two.
        replay_safe=not alert or message.collapse_id is not None,
    )


def _expiration(
    message: ActivityMessage,
    now: float,
    stale_date: int | None,
    storage_policy: int | None,
    *,
    broadcast: bool,
) -> int:
    if storage_policy not in (None, 0, 1):
        raise refused(
            InvalidSetting, "storage_policy", "storage_policy", storage_policy=storage_policy
        )
    unstored = broadcast and storage_policy == 0
    if message.expiration is not None:
        expiration = _explicit_expiration(message.expiration, now)
        if unstored and expiration:
            raise refused(InvalidPayload, "expiration_unstored", "expiration")
        return expiration
    if unstored:
        return 0
    base = math.ceil(now)
    if message.event == "start":
        return base + START_LIFETIME
    if message.event == "end":
        return base + END_LIFETIME
    if stale_date is not None and stale_date >= base + _STALE_SOON:
        return min(stale_date, base + UPDATE_LIFETIME)
    return base + (UPDATE_LIFETIME if message.alert is not None else SILENT_UPDATE_LIFETIME)


def _explicit_expiration(value: object, now: float) -> int:
    return epoch_seconds(value, now=now, field="expiration", zero_allowed=True)


def _priority(value: int | None, default: int, *, allowed: tuple[int, ...]) -> int:
    if value is None:
        return default
    if type(value) is int and value in allowed:
        return value
    choices = " or ".join(str(level) for level in allowed)
    raise refused(
        InvalidPayload, "priority", "priority", value=value, choices=choices, default=default
    )


def _custom(custom: Mapping[str, Any] | None, found: Findings, *, activity: bool) -> dict[str, Any]:
    if custom is None:
        return {}
    plain = plain_object(custom, "custom")
    if "aps" in plain:
        raise refused(InvalidPayload, "custom_aps", "custom.aps")
    rules.on_custom(plain, found, activity=activity)
    return plain
