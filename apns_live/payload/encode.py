"""Encodes a message to the body and header values of a push, once per state.

The result is shared by all tokens of a fan-out. Defaults and limits: Apple, "Sending notification
requests to APNs", "Sending broadcast push notification requests to APNs" and "Starting and updating
Live Activities with ActivityKit push notifications".
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from ..errors import InvalidPayload, InvalidSetting, PayloadTooLarge
from ..refusals import refused
from . import rules
from .messages import ActivityMessage, Background, End, Message, Notification, Start, Update
from .rules import Findings, PayloadWarning
from .values import epoch_seconds, json_bytes, plain_object

Target = Literal["device", "broadcast"]

LIMITS = {"device": 4096, "broadcast": 5120}
"""Bytes of JSON. Apple, "Generating a remote notification" and "Sending broadcast push notification
requests to APNs"."""
ACTIVITY_DATA_LIMIT = 4096
"""Bytes of attributes and content state together (Apple, "Displaying live data with Live
Activities"), however they travel."""
LIVE_ACTIVITY_SUFFIX = ".push-type.liveactivity"
START_LIFETIME = 600
UPDATE_LIFETIME = 3600
SILENT_UPDATE_LIFETIME = 900
END_LIFETIME = 4 * 3600
NOTIFICATION_LIFETIME = 24 * 3600
_STALE_SOON = 60
"""A stale date nearer than this ends nothing: it tells the phone to draw the state as outdated."""


class EncodedMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
    """A message as the client sends it: the body, and the values of its headers.

    A journal stores it as the array of its fields, so new fields must be added at the end.
    """

    body: bytes
    push_type: str
    """``apns-push-type``: liveactivity, alert or background."""
    topic_suffix: str
    """The suffix of the bundle id in ``apns-topic``."""
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

    ``now`` is seconds since 1970. ``timestamp`` and ``priority`` replace the message's own (delivery
    orders an activity's timestamps and keeps its budget). ``storage_policy`` is the channel's, if
    known. Raises `InvalidPayload`, `PayloadTooLarge`, or `InvalidSetting` for the arguments beside the
    message.
    """
    if target not in LIMITS:
        raise refused(InvalidSetting, "target", "target", target=target)
    broadcast, kind = target == "broadcast", type(message).__name__
    if isinstance(message, (Notification, Background)):
        if broadcast:
            raise refused(InvalidPayload, "not_for_channel", "message", kind=kind)
        return _ordinary(message, now, priority)
    if not isinstance(message, (Start, Update, End)):
        raise refused(InvalidPayload, "message_kind", "message", kind=kind)
    event, alert = message.event, message.alert
    if broadcast and event == "start":
        raise refused(InvalidPayload, "start_to_channel", "message")
    if storage_policy not in (None, 0, 1):
        field = "storage_policy"
        raise refused(InvalidSetting, field, field, storage_policy=storage_policy)
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
    given = _given_expiration(message, now)
    unstored = broadcast and storage_policy == 0
    if unstored and given:
        raise refused(InvalidPayload, "expiration_unstored", "expiration")
    rules.on_activity(aps, now=now, expiration=given, found=found)
    payload = {"aps": aps, **_custom(message.custom, found, activity=True)}
    body = json_bytes(payload)
    if len(body) > ACTIVITY_DATA_LIMIT:
        _check_size(payload, body, target, found)
    if given is None:
        given = 0 if unstored else math.ceil(now) + _lifetime(message, now, stale_date)
    levels = (10, 5, 1) if broadcast else (10, 5)
    default = 5 if event == "update" and alert is None else 10
    return EncodedMessage(
        body=body,
        push_type="liveactivity",
        topic_suffix=LIVE_ACTIVITY_SUFFIX,
        priority=_priority(message.priority if priority is None else priority, default, levels),
        expiration=given,
        collapse_id=collapse_id,
        event=event,
        timestamp=stamp,
        stale_date=stale_date,
        warnings=tuple(found.warnings),
        has_alert=alert is not None,
        replay_safe=event != "start",
        target=target,
    )


def _given_expiration(message: Message, now: float) -> int | None:
    if message.expiration is None:
        return None
    return epoch_seconds(message.expiration, now=now, field="expiration", zero_allowed=True)


def _lifetime(message: ActivityMessage, now: float, stale_date: int | None) -> int:
    """Return for how many seconds APNs stores a message without an expiration of its own."""
    if message.event == "start":
        return START_LIFETIME
    if message.event == "end":
        return END_LIFETIME
    if stale_date is not None and (left := stale_date - math.ceil(now)) >= _STALE_SOON:
        return min(left, UPDATE_LIFETIME)
    return UPDATE_LIFETIME if message.alert is not None else SILENT_UPDATE_LIFETIME


def _ordinary(
    message: Notification | Background, now: float, priority: int | None
) -> EncodedMessage:
    found = Findings(of_message=True)
    payload = {"aps": message.as_aps(), **_custom(message.custom, found, activity=False)}
    body = json_bytes(payload)
    _check_size(payload, body, "device", found)
    expiration = _given_expiration(message, now)
    if expiration is None:
        expiration = math.ceil(now) + NOTIFICATION_LIFETIME
    else:
        rules.on_expiration(expiration, now, found)
    alert = isinstance(message, Notification)
    if isinstance(message, Notification):
        level = _priority(message.priority if priority is None else priority, 10, (10, 5, 1))
        rules.on_ordinary(payload["aps"], found)
    else:
        level = _priority(priority, 5, (5,))
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
        # A second copy of a notification is visible, unless a collapse id merges the two.
        replay_safe=not alert or message.collapse_id is not None,
    )


def _priority(value: int | None, default: int, allowed: tuple[int, ...]) -> int:
    if value is None:
        return default
    if type(value) is int and value in allowed:
        return value
    words = {"choices": " or ".join(map(str, allowed)), "default": default}
    raise refused(InvalidPayload, "priority", "priority", value=value, **words)


def _custom(custom: Mapping[str, Any] | None, found: Findings, *, activity: bool) -> dict[str, Any]:
    if custom is None:
        return {}
    plain = plain_object(custom, "custom")
    if "aps" in plain:
        raise refused(InvalidPayload, "custom_aps", "custom.aps")
    rules.on_custom(plain, found, activity=activity)
    return plain


def bytes_by_key(payload: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of each key's ``"key":value`` text, largest first.

    Paths are those of the payload. Members of ``aps`` and of its objects are listed too. So the figures
    do not add up to the payload's size, because an object contains its members.
    """
    sizes: dict[str, int] = {}

    def add(members: Mapping[str, Any], path: str, depth: int) -> None:
        for key, value in members.items():
            sizes[path + key] = len(json_bytes(key)) + 1 + len(json_bytes(value))
            if isinstance(value, Mapping) and depth < 2 and (path or key == "aps"):
                add(value, f"{path}{key}.", depth + 1)

    add(payload, "", 0)
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _check_size(payload: Mapping[str, Any], body: bytes, target: Target, found: Findings) -> None:
    """Raise `PayloadTooLarge` over the target's limit; warn over the phone's own."""
    limit = LIMITS[target]
    if len(body) > limit:
        sizes = bytes_by_key(payload)
        leaves = [path for path in sizes if not any(key.startswith(f"{path}.") for key in sizes)]
        largest = ", ".join(f"{path} {sizes[path]}" for path in leaves[:5])
        raise PayloadTooLarge(
            f"has {len(body)} bytes, {len(body) - limit} over the limit of {limit}",
            field="payload",
            remedy=f"Shorten the largest keys (bytes): {largest}.",
            size=len(body),
            limit=limit,
            breakdown=sizes,
        )
    if len(body) > ACTIVITY_DATA_LIMIT:
        check_activity_data(payload["aps"], found)


def check_activity_data(aps: Mapping[str, Any], found: Findings) -> None:
    """Warn if attributes and content state, as JSON without their keys, are over the phone's limit."""
    size = sum(len(json_bytes(aps[key])) for key in ("attributes", "content-state") if key in aps)
    if size > ACTIVITY_DATA_LIMIT:
        words = {"size": size, "limit": ACTIVITY_DATA_LIMIT}
        found.warning("activity_data_too_large", "aps.content-state", **words)
