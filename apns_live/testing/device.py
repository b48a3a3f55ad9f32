"""Checks a device push: ``POST /3/device/{token}``.

Source: Apple, "Sending notification requests to APNs". The order of the first checks was seen on
the sandbox: provider token, topic, device token, collapse id. That of the others is not known.
"""

from __future__ import annotations

from .answers import Exchange
from .authorization import authorize
from .state import LIVE, ApnsState, ConnectionIdentity, Push, Response, TokenCondition
from .topics import LIVE_ACTIVITY, TopicVerdict, judge

PREFIX = b"/3/device/"
SHORTEST_TOKEN = 64
LONGEST_TOKEN = 512
"""Hex digits. 64, 96, 108 and 160 were seen; Apple: never assume a length."""

COLLAPSE_ID_LIMIT = 64
"""Bytes."""

_PRIORITIES: dict[bytes | None, int] = {None: 10, b"10": 10, b"5": 5, b"1": 1}
_KNOWN_TOPICS = 256
_LATEST = 10**15


def push_to_device(exchange: Exchange) -> Response:
    """Judge one device push; an accepted one reaches the phones."""
    connection, state, refuse = exchange.connection, exchange.state, exchange.refuse
    fields = exchange.fields
    get = fields.get
    reason = authorize(get(b"authorization"), connection, state, exchange.wall)
    if reason:
        return refuse(reason)

    topic_key = (get(b"apns-topic"), get(b"apns-push-type"))
    verdict = connection.topics.get(topic_key) or _judge_topic(topic_key, connection, state)
    if verdict.topic_reason:
        return refuse(verdict.topic_reason)

    token = fields[b":path"][len(PREFIX) :]
    if not token:
        return refuse("MissingDeviceToken")
    text = normal_token(token)
    if not text:
        return refuse("BadDeviceToken")
    if verdict.token_reason:
        return refuse(verdict.token_reason)
    status = (state.overrides.get(text) if state.overrides else None) or state.phones.token_status(
        text, verdict.topic
    )
    if status is not LIVE:
        condition = status.condition
        if condition is TokenCondition.EXPIRED:
            return refuse("ExpiredToken", timestamp=status.since)
        if condition is TokenCondition.UNREGISTERED:
            return refuse("Unregistered", timestamp=status.since)
        if condition is TokenCondition.WRONG_TOPIC:
            return refuse("DeviceTokenNotForTopic")
        if condition is TokenCondition.OTHER_ENVIRONMENT or (
            condition is TokenCondition.UNKNOWN and state.devices == "strict"
        ):
            return refuse("BadDeviceToken")

    collapse_id = get(b"apns-collapse-id")
    if collapse_id is not None and len(collapse_id) > COLLAPSE_ID_LIMIT:
        return refuse("BadCollapseId")

    if reason := exchange.id_problem():
        return refuse(reason)
    priority = _PRIORITIES.get(get(b"apns-priority"), 0)
    if not priority or (state.strict and not _priority_fits(priority, verdict, fields)):
        return refuse("BadPriority")
    expiration: int | None = None
    given_expiration = get(b"apns-expiration")
    if given_expiration is not None:
        expiration = parse_expiration(given_expiration)
        if expiration is None:
            return refuse("BadExpirationDate")
    if verdict.push_type_reason:
        return refuse(verdict.push_type_reason)
    body = exchange.request.body
    if not body:
        return refuse("PayloadEmpty")
    if len(body) > verdict.limit:
        return refuse("PayloadTooLarge")

    state.pushes += 1
    unique_id, headers = "", []
    if state.environment == "development":
        unique_id = state.new_id()
        headers = [(b"apns-unique-id", unique_id.encode("ascii"))]
    push = Push(
        state.pushes,
        exchange.id_field[1].decode("ascii"),
        unique_id,
        text,
        verdict.topic,
        verdict.push_type,
        priority,
        expiration,
        collapse_id.decode("utf-8", "replace") if collapse_id else None,
        body,
        exchange.now,
        connection.connection_id,
    )
    state.phones.receive(push)
    return exchange.accept(200, *headers, push=push)


def normal_token(token: bytes) -> str:
    """Return a device token in lower-case hex, ``""`` if it cannot be one."""
    length = len(token)
    if not SHORTEST_TOKEN <= length <= LONGEST_TOKEN:
        return ""
    try:
        raw = bytes.fromhex(token.decode("ascii"))
    except ValueError:
        return ""
    # fromhex skips white space.
    return raw.hex() if len(raw) * 2 == length else ""


def parse_expiration(value: bytes) -> int | None:
    """Return apns-expiration as epoch seconds, None if it is not one."""
    if not value.isdigit():
        return None
    number = int(value[:18])
    return number if len(value) <= 18 and number < _LATEST else None


def _judge_topic(
    key: tuple[bytes | None, bytes | None], connection: ConnectionIdentity, state: ApnsState
) -> TopicVerdict:
    verdict = judge(*key, state.apps_of(connection), state.strict)
    if len(connection.topics) >= _KNOWN_TOPICS:
        connection.topics.clear()
    connection.topics[key] = verdict
    return verdict


def _priority_fits(priority: int, verdict: TopicVerdict, fields: dict[bytes, bytes]) -> bool:
    if verdict.topic.endswith(LIVE_ACTIVITY):
        return priority in (5, 10)
    return not (verdict.push_type == "background" and fields.get(b"apns-priority") == b"10")
