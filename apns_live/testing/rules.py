"""Apple's rules as one function from request, connection identity and state to response.

``respond`` does no I/O and reads no clock. It changes only the connection identity, the state's
counters and channels, and the phones.

Sources: Apple, "Sending notification requests to APNs", "Sending broadcast push notification requests to
APNs", "Sending channel management requests to APNs" and "Handling error responses from Apple Push
Notification service". Seen on the sandbox: a device push is checked by provider token, topic, device token
and collapse id, in this order (that of the others is not known); no expiration on a broadcast is a
BadExpirationDate, a channel id that never existed a BadChannelId, a deleted channel a
ChannelNotRegistered; DELETE of an unknown or deleted channel is 404 BadPath. Our reading: GET answers the
same, and a missing priority on a broadcast is a BadPriority, since Apple calls it required.
"""

from collections.abc import Sequence

import msgspec

from .channels import is_well_formed
from .exchange import APNS_ID, JSON, MALFORMED, REQUEST_ID, Exchange, authorize
from .reasons import TABLE
from .state import LIVE, ApnsState, ConnectionIdentity, Effect, Request, Response, TokenCondition
from .topics import BROADCAST_LIMIT, LIVE_ACTIVITY, TopicVerdict, judge, split

_DEVICE = b"/3/device/"
_BROADCAST = b"/4/broadcasts/apps/"
_MANAGE = b"/1/apps/"
_METHODS = frozenset({b"POST", b"GET", b"DELETE"})

SHORTEST_TOKEN = 64
LONGEST_TOKEN = 512
"""Hex digits. 64, 96, 108 and 160 were seen; Apple: never assume a length."""
COLLAPSE_ID_LIMIT = 64
"""Bytes."""
_PRIORITIES: dict[bytes | None, int] = {b"10": 10, b"5": 5, b"1": 1}
_LATEST = 10**15
_SPELLINGS = (b"liveactivity", b"LiveActivity", b"Liveactivity")
_POLICY, _PUSH_TYPE = "message-storage-policy", "push-type"
_OPERATIONS: dict[bytes, dict[bytes, str]] = {
    b"channels": {b"POST": "create", b"GET": "read", b"DELETE": "delete"},
    b"all-channels": {b"GET": "list"},
}


def respond(
    request: Request,
    connection: ConnectionIdentity,
    state: ApnsState,
    now: float,
    wall: float | None = None,
) -> Response:
    """Answer one request as APNs would.

    ``now`` is epoch seconds for the phones and channels; ``wall`` is epoch seconds for checks of
    provider tokens, by default ``now``.
    """
    unbound = connection.key is None
    response = _respond(request, connection, state, now, now if wall is None else wall)
    if unbound and connection.key is not None and not connection.cut:
        effects = tuple(effect for effect in response.effects if effect is not Effect.RAISE_STREAMS)
        return msgspec.structs.replace(response, effects=(Effect.RAISE_STREAMS, *effects))
    return response


def _respond(
    request: Request, connection: ConnectionIdentity, state: ApnsState, now: float, wall: float
) -> Response:
    headers = request.headers
    fields = dict(headers)
    duplicated = False
    if len(fields) != len(headers):
        fields, duplicated = _first_of_each(headers)
    if state.strict and b":authority" not in fields:
        return MALFORMED
    path = fields.setdefault(b":path", b"")
    if (method := fields.get(b":method", b"")) not in _METHODS:
        method = method if state.strict else method.upper()
        fields[b":method"] = method
    is_push = request.face == "device"
    is_broadcast = path.startswith(_BROADCAST) and len(path) > len(_BROADCAST)
    name = APNS_ID if is_push and not is_broadcast else REQUEST_ID
    exchange = Exchange(request, fields, duplicated, name, connection, state, now, wall)
    if not is_push:
        return _manage(exchange)
    if method != b"POST":
        return exchange.refuse("MethodNotAllowed")
    if path.startswith(_DEVICE):
        return _push_to_device(exchange)
    if is_broadcast:
        return _push_to_channel(exchange)
    if path == _DEVICE[:-1]:
        fields[b":path"] = _DEVICE
        return _push_to_device(exchange)
    return exchange.refuse("BadPath")


def _first_of_each(headers: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bool]:
    """Return the first field of each name, and whether one that APNs reads is repeated."""
    fields: dict[bytes, bytes] = {}
    duplicated = False
    for name, value in headers:
        if name not in fields:
            fields[name] = value
        elif name.startswith(b"apns-") or name == b"authorization":
            duplicated = True
    return fields, duplicated


def _push_to_device(exchange: Exchange) -> Response:
    """Answer one device push. An accepted one is passed to the phones."""
    connection, state, refuse = exchange.connection, exchange.state, exchange.refuse
    fields = exchange.fields
    get = fields.get
    if reason := authorize(get(b"authorization"), connection, state, exchange.wall):
        return refuse(reason)

    told = get(b"apns-topic"), get(b"apns-push-type")
    verdict = judge(*told, state.apps_of(connection), state.strict)
    if verdict.topic_reason:
        return refuse(verdict.topic_reason)

    if not (token := fields[b":path"][len(_DEVICE) :]):
        return refuse("MissingDeviceToken")
    if not (text := normal_token(token)):
        return refuse("BadDeviceToken")
    if verdict.token_reason:
        return refuse(verdict.token_reason)
    status = (state.overrides.get(text) if state.overrides else None) or state.phones.token_status(
        text, verdict.topic
    )
    if status is not LIVE:
        if (condition := status.condition) is TokenCondition.EXPIRED:
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
    priority = _PRIORITIES.get(get(b"apns-priority", b"10"), 0)
    if not priority or (state.strict and not _priority_fits(priority, verdict, fields)):
        return refuse("BadPriority")
    given_expiration = get(b"apns-expiration")
    expiration = None if given_expiration is None else _expiration(given_expiration)
    if expiration is None and given_expiration is not None:
        return refuse("BadExpirationDate")
    if verdict.push_type_reason:
        return refuse(verdict.push_type_reason)
    if not (body := exchange.request.body):
        return refuse("PayloadEmpty")
    if len(body) > verdict.limit:
        return refuse("PayloadTooLarge")

    push = exchange.take(
        exchange.id_field[1].decode("ascii"),
        state.new_id() if state.environment == "development" else "",
        *(text, verdict.topic, verdict.push_type, priority, expiration),
        collapse_id.decode("utf-8", "replace") if collapse_id else None,
    )
    state.phones.receive(push)
    return exchange.accept(200, push=push)


def normal_token(token: bytes) -> str:
    """Return a device token in lower-case hex, ``""`` if it cannot be one."""
    length = len(token)
    if not SHORTEST_TOKEN <= length <= LONGEST_TOKEN:
        return ""
    try:
        raw = bytes.fromhex(token.decode("ascii"))
    except ValueError:
        return ""
    # bytes.fromhex skips white space.
    return raw.hex() if len(raw) * 2 == length else ""


def _expiration(value: bytes) -> int | None:
    """Return apns-expiration as epoch seconds, None if it is not one."""
    if not value.isdigit():
        return None
    number = int(value[:18])
    return number if len(value) <= 18 and number < _LATEST else None


def _priority_fits(priority: int, verdict: TopicVerdict, fields: dict[bytes, bytes]) -> bool:
    if verdict.topic.endswith(LIVE_ACTIVITY):
        return priority in (5, 10)
    return not (verdict.push_type == "background" and fields.get(b"apns-priority") == b"10")


def _push_to_channel(exchange: Exchange) -> Response:
    """Answer one broadcast. An accepted one is passed to the phones."""
    connection, state, refuse = exchange.connection, exchange.state, exchange.refuse
    get = exchange.fields.get
    bundle_id = exchange.fields[b":path"][len(_BROADCAST) :].decode("latin-1")
    channel_id = get(b"apns-channel-id", b"").decode("latin-1")
    reason = authorize(get(b"authorization"), connection, state, exchange.wall) or _app_problem(
        bundle_id, connection, state
    )
    if reason:
        return refuse(reason)
    if not channel_id:
        return refuse("MissingChannelId")
    if (channel := state.channels.get(bundle_id, channel_id)) is None:
        known = state.channels.was_issued(bundle_id, channel_id)
        return refuse("ChannelNotRegistered" if known else "BadChannelId")
    if reason := exchange.id_problem():
        return refuse(reason)
    if not (push_type := get(b"apns-push-type")):
        return refuse("MissingPushType")
    if push_type not in (_SPELLINGS[:1] if state.strict else _SPELLINGS):
        return refuse("InvalidPushType")
    if not (priority := _PRIORITIES.get(get(b"apns-priority"), 0)):
        return refuse("BadPriority")
    expiration = _expiration(get(b"apns-expiration", b""))
    if expiration is None or (expiration and not channel.storage_policy):
        return refuse("BadExpirationDate")
    if not (body := exchange.request.body):
        return refuse("PayloadEmpty")
    if len(body) > BROADCAST_LIMIT:
        return refuse("PayloadTooLarge")

    push = exchange.take(
        get(b"apns-id", exchange.id_field[1]).decode("ascii"),
        state.new_id(),
        *("", bundle_id + LIVE_ACTIVITY, "liveactivity", priority, expiration, None),
        channel_id=channel_id,
        storage_policy=channel.storage_policy,
    )
    state.phones.receive_broadcast(push)
    return exchange.accept(200, push=push)


def _app_problem(bundle_id: str, connection: ConnectionIdentity, state: ApnsState) -> str:
    """Return the reason why a bundle id in a path is refused, or ``""``."""
    if split(bundle_id)[1]:
        return "TopicDisallowed"
    if bundle_id not in state.apps_of(connection):
        return "TopicMismatch"
    return "" if state.apps[bundle_id].broadcast else "FeatureNotEnabled"


def _manage(exchange: Exchange) -> Response:
    """Answer one channel management request, and execute it."""
    connection, state, fields = exchange.connection, exchange.state, exchange.fields
    refuse, accept = exchange.refuse, exchange.accept
    app, _, resource = fields[b":path"][len(_MANAGE) :].partition(b"/")
    operations = _OPERATIONS.get(resource)
    if not fields[b":path"].startswith(_MANAGE) or not app or operations is None:
        return refuse("BadPath")
    if (operation := operations.get(fields[b":method"])) is None:
        return refuse("MethodNotAllowed")
    bundle_id = app.decode("latin-1")
    reason = (
        authorize(fields.get(b"authorization"), connection, state, exchange.wall)
        or _app_problem(bundle_id, connection, state)
        or exchange.id_problem()
    )
    if reason:
        return refuse(reason)

    if operation == "list":
        listed = [channel.channel_id for channel in state.channels.of(bundle_id)]
        body = msgspec.json.encode({"channels": listed})
        return accept(200, JSON, body=body)
    if operation == "create":
        if (made := _create(exchange.request.body, bundle_id, state, exchange.now)) in TABLE:
            return refuse(made)
        return accept(201, (b"apns-channel-id", made.encode("ascii")))

    if not (given_channel := fields.get(b"apns-channel-id", b"").decode("latin-1")):
        return refuse("MissingChannelId")
    if (channel := state.channels.get(bundle_id, given_channel)) is None:
        return refuse("BadPath" if is_well_formed(given_channel) else "BadChannelId")
    if operation == "delete":
        state.channels.delete(bundle_id, given_channel)
        return accept(204)
    body = msgspec.json.encode({_POLICY: channel.storage_policy, _PUSH_TYPE: "LiveActivity"})
    return accept(200, JSON, body=body)


def _create(body: bytes, bundle_id: str, state: ApnsState, now: float) -> str:
    """Return the new channel's id, or a reason."""
    if not body:
        return "PayloadEmpty"
    if len(body) > BROADCAST_LIMIT:
        return "PayloadTooLarge"
    try:
        asked = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError):
        return "BadRequestPayload"
    if not isinstance(asked, dict):
        return "BadRequestPayload"
    if not set(asked) <= {_POLICY, _PUSH_TYPE}:
        return "BadRequestParams"
    if (push_type := asked.get(_PUSH_TYPE)) is None:
        return "MissingPushType"
    lenient = isinstance(push_type, str) and push_type.lower() == "liveactivity"
    if push_type != "LiveActivity" and (state.strict or not lenient):
        return "InvalidPushType"
    policy = asked.get(_POLICY)
    if type(policy) is not int or policy not in (0, 1):
        return "BadRequestParams"
    channel = state.channels.create(bundle_id, policy, now=now)
    return channel.channel_id if channel is not None else "CannotCreateChannelConfig"
