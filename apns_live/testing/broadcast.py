"""Checks a broadcast: ``POST /4/broadcasts/apps/{bundle id}``.

Sources: Apple, "Sending broadcast push notification requests to APNs" (authentication, then the
channel) and "Handling error responses from Apple Push Notification service". Seen on the sandbox:
no expiration is a BadExpirationDate, an id that never existed a BadChannelId, a deleted channel a
ChannelNotRegistered. That a missing priority is a BadPriority is our reading of "required".
"""

from __future__ import annotations

from .answers import Exchange
from .authorization import authorize
from .device import parse_expiration
from .state import ApnsState, ConnectionIdentity, Push, Response
from .topics import BROADCAST_LIMIT, LIVE_ACTIVITY, split

PREFIX = b"/4/broadcasts/apps/"
_PRIORITIES: dict[bytes | None, int] = {b"10": 10, b"5": 5, b"1": 1}
_SPELLINGS = (b"liveactivity", b"LiveActivity", b"Liveactivity")


def check_app(bundle_id: str, connection: ConnectionIdentity, state: ApnsState) -> str:
    """Return the reason why a bundle id in a path is refused, or ``""``."""
    if split(bundle_id)[1]:
        return "TopicDisallowed"
    if bundle_id not in state.apps_of(connection):
        return "TopicMismatch"
    if not state.apps[bundle_id].broadcast:
        return "FeatureNotEnabled"
    return ""


def check_channel(given: bytes | None, bundle_id: str, state: ApnsState) -> str:
    """Return the reason why a channel id is refused on a broadcast, or ``""``."""
    if not given:
        return "MissingChannelId"
    standing = state.channels.standing(bundle_id, given.decode("latin-1"))
    if standing in ("malformed", "never"):
        return "BadChannelId"
    return "" if standing == "live" else "ChannelNotRegistered"


def broadcast(exchange: Exchange) -> Response:
    """Judge one broadcast; an accepted one reaches the phones."""
    connection, state, refuse = exchange.connection, exchange.state, exchange.refuse
    get = exchange.fields.get
    bundle_id = exchange.fields[b":path"][len(PREFIX) :].decode("latin-1")
    given_channel = get(b"apns-channel-id")
    reason = (
        authorize(get(b"authorization"), connection, state, exchange.wall)
        or check_app(bundle_id, connection, state)
        or check_channel(given_channel, bundle_id, state)
    )
    if reason:
        return refuse(reason)
    channel_id = (given_channel or b"").decode("latin-1")
    channel = state.channels.get(bundle_id, channel_id)
    storage_policy = channel.storage_policy if channel is not None else 0

    if reason := exchange.id_problem():
        return refuse(reason)
    push_type = get(b"apns-push-type")
    if not push_type:
        return refuse("MissingPushType")
    if push_type not in (_SPELLINGS[:1] if state.strict else _SPELLINGS):
        return refuse("InvalidPushType")
    priority = _PRIORITIES.get(get(b"apns-priority"), 0)
    if not priority:
        return refuse("BadPriority")
    expiration = parse_expiration(get(b"apns-expiration", b""))
    if expiration is None or (expiration and not storage_policy):
        return refuse("BadExpirationDate")
    body = exchange.request.body
    if not body:
        return refuse("PayloadEmpty")
    if len(body) > BROADCAST_LIMIT:
        return refuse("PayloadTooLarge")

    state.pushes += 1
    unique_id = state.new_id()
    push = Push(
        number=state.pushes,
        apns_id=get(b"apns-id", exchange.id_field[1]).decode("ascii"),
        apns_unique_id=unique_id,
        token="",
        topic=bundle_id + LIVE_ACTIVITY,
        push_type="liveactivity",
        priority=priority,
        expiration=expiration,
        collapse_id=None,
        body=body,
        received_at=exchange.now,
        connection_id=connection.connection_id,
        channel_id=channel_id,
        storage_policy=storage_policy,
    )
    state.phones.receive_broadcast(push)
    header = (b"apns-unique-id", unique_id.encode("ascii"))
    return exchange.accept(200, header, push=push)
