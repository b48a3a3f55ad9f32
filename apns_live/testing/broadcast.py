"""The checks of a broadcast: ``POST /4/broadcasts/apps/{bundle id}``.

Sources: Apple, "Sending broadcast push notification requests to APNs" (authentication, then the
channel) and "Handling error responses from Apple Push Notification service". Seen on the sandbox:
no expiration is a BadExpirationDate, an id that never existed a BadChannelId, a deleted channel a
ChannelNotRegistered. That a missing priority is a BadPriority is our reading of "required".
"""

from __future__ import annotations

from .answers import REQUEST_ID, accept, echo_id, is_uuid, refuse
from .authorization import authorize
from .device import parse_expiration
from .state import ApnsState, ConnectionIdentity, Push, Request, Response
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


def broadcast(
    request: Request,
    fields: dict[bytes, bytes],
    duplicated: bool,
    connection: ConnectionIdentity,
    state: ApnsState,
    now: float,
    wall: float,
) -> Response:
    """Judge one broadcast; an accepted one reaches the phones."""
    get = fields.get
    given_id = get(b"apns-request-id")
    id_field = (REQUEST_ID, echo_id(given_id, state))

    bundle_id = fields[b":path"][len(PREFIX) :].decode("latin-1")
    given_channel = get(b"apns-channel-id")
    reason = (
        authorize(get(b"authorization"), connection, state, wall)
        or check_app(bundle_id, connection, state)
        or check_channel(given_channel, bundle_id, state)
    )
    if reason:
        return refuse(reason, id_field, connection, state)
    channel_id = (given_channel or b"").decode("latin-1")
    channel = state.channels.get(bundle_id, channel_id)
    storage_policy = channel.storage_policy if channel is not None else 0

    if duplicated:
        return refuse("DuplicateHeaders", id_field, connection, state)
    apns_id = get(b"apns-id")
    for value in (given_id, apns_id):
        if value is not None and not is_uuid(value, state.strict):
            return refuse("BadMessageId", id_field, connection, state)
    push_type = get(b"apns-push-type")
    if not push_type:
        return refuse("MissingPushType", id_field, connection, state)
    if push_type not in (_SPELLINGS[:1] if state.strict else _SPELLINGS):
        return refuse("InvalidPushType", id_field, connection, state)
    priority = _PRIORITIES.get(get(b"apns-priority"), 0)
    if not priority:
        return refuse("BadPriority", id_field, connection, state)
    expiration = parse_expiration(get(b"apns-expiration", b""))
    if expiration is None or (expiration and not storage_policy):
        return refuse("BadExpirationDate", id_field, connection, state)
    body = request.body
    if not body:
        return refuse("PayloadEmpty", id_field, connection, state)
    if len(body) > BROADCAST_LIMIT:
        return refuse("PayloadTooLarge", id_field, connection, state)

    state.pushes += 1
    unique_id = state.new_id()
    push = Push(
        number=state.pushes,
        apns_id=(apns_id or id_field[1]).decode("ascii"),
        apns_unique_id=unique_id,
        token="",
        topic=bundle_id + LIVE_ACTIVITY,
        push_type="liveactivity",
        priority=priority,
        expiration=expiration,
        collapse_id=None,
        body=body,
        received_at=now,
        connection_id=connection.connection_id,
        channel_id=channel_id,
        storage_policy=storage_policy,
    )
    state.phones.receive_broadcast(push)
    headers = (id_field, (b"apns-unique-id", unique_id.encode("ascii")))
    return accept(200, headers, connection, push=push)
