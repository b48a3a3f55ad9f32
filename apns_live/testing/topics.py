"""Topics and push types, and which belong together.

Source: Apple, "Sending notification requests to APNs", the table of push types. A Live Activity
topic without its suffix is answered with DeviceTokenNotForTopic, a doubled suffix with
TopicDisallowed, as both were seen on the wire.
"""

import re
from functools import lru_cache

import msgspec

LIVE_ACTIVITY = ".push-type.liveactivity"

SUFFIXES: dict[str, str] = {
    "alert": "",
    "background": "",
    "liveactivity": LIVE_ACTIVITY,
    "location": ".location-query",
    "voip": ".voip",
    "complication": ".complication",
    "fileprovider": ".pushkit.fileprovider",
    "mdm": "",
    "pushtotalk": ".voip-ptt",
    "widgets": ".push-type.widgets",
    "controls": ".push-type.controls",
}
"""The suffix that a push type puts behind the bundle id."""

_BY_LENGTH = sorted(filter(None, SUFFIXES.values()), key=len, reverse=True)
_SHAPE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._*-]{0,253}[A-Za-z0-9*])?")

DEVICE_LIMIT = 4096
VOIP_LIMIT = 5120
BROADCAST_LIMIT = 5120


class TopicVerdict(msgspec.Struct, frozen=True):
    """The verdict on a topic and push type. A reason is ``""`` if nothing is wrong.

    Three reasons, for three places in the order of checks. ``limit`` is the payload's, in bytes.
    """

    topic: str
    push_type: str
    topic_reason: str = ""
    token_reason: str = ""
    push_type_reason: str = ""
    limit: int = DEVICE_LIMIT


def split(topic: str) -> tuple[str, str]:
    """Return bundle id and suffix."""
    for suffix in _BY_LENGTH:
        if topic.endswith(suffix):
            return topic[: -len(suffix)], suffix
    return topic, ""


@lru_cache(maxsize=1024)
def judge(
    topic: bytes | None, push_type: bytes | None, apps: frozenset[str], strict: bool
) -> TopicVerdict:
    """Check the headers apns-topic and apns-push-type against the bundle ids of a key."""
    text = topic.decode("latin-1") if topic else ""
    kind = push_type.decode("latin-1") if push_type else ""
    push_type_reason = "" if kind in SUFFIXES or (not kind and not strict) else "InvalidPushType"
    limit = VOIP_LIMIT if kind == "voip" else DEVICE_LIMIT
    token_reason = ""
    bundle_id, suffix = split(text)
    if not text:
        topic_reason = "MissingTopic"
    elif not _SHAPE.fullmatch(text):
        topic_reason = "BadTopic"
    elif bundle_id not in apps:
        topic_reason = "TopicDisallowed"
    else:
        topic_reason = ""
        if kind and not push_type_reason and suffix != SUFFIXES[kind]:
            if not suffix:
                token_reason = "DeviceTokenNotForTopic"
            else:
                push_type_reason = "InvalidPushType"
    return TopicVerdict(text, kind, topic_reason, token_reason, push_type_reason, limit)
