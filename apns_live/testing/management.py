"""Channel management: create, read, delete and list, on a separate port.

Sources: Apple, "Sending channel management requests to APNs" and "Handling error responses from
Apple Push Notification service". Seen on the sandbox: DELETE of an unknown or deleted channel is
404 BadPath; that GET answers the same is our reading.
"""

from __future__ import annotations

import msgspec

from .answers import JSON, Exchange
from .authorization import authorize
from .broadcast import check_app
from .channels import is_well_formed
from .reasons import TABLE
from .state import ApnsState, Response
from .topics import BROADCAST_LIMIT

PREFIX = b"/1/apps/"
_POLICY, _PUSH_TYPE = "message-storage-policy", "push-type"


def route(path: bytes, method: bytes) -> tuple[str, str]:
    """Return the bundle id and the operation, or ``""`` and the reason for a refusal."""
    bundle_id, _, resource = path[len(PREFIX) :].partition(b"/")
    operations = _OPERATIONS.get(resource)
    if not path.startswith(PREFIX) or not bundle_id or operations is None:
        return "", "BadPath"
    operation = operations.get(method)
    if operation is None:
        return "", "MethodNotAllowed"
    return bundle_id.decode("latin-1"), operation


_OPERATIONS: dict[bytes, dict[bytes, str]] = {
    b"channels": {b"POST": "create", b"GET": "read", b"DELETE": "delete"},
    b"all-channels": {b"GET": "list"},
}


def manage(exchange: Exchange) -> Response:
    """Judge one channel management request and do what it asks."""
    connection, state, fields = exchange.connection, exchange.state, exchange.fields
    refuse, accept = exchange.refuse, exchange.accept
    bundle_id, operation = route(fields[b":path"], fields[b":method"])
    if not bundle_id:
        return refuse(operation)
    reason = (
        authorize(fields.get(b"authorization"), connection, state, exchange.wall)
        or check_app(bundle_id, connection, state)
        or exchange.id_problem()
    )
    if reason:
        return refuse(reason)

    if operation == "list":
        listed = [channel.channel_id for channel in state.channels.of(bundle_id)]
        body = msgspec.json.encode({"channels": listed})
        return accept(200, JSON, body=body)
    if operation == "create":
        made = _create(exchange.request.body, bundle_id, state, exchange.now)
        if made in TABLE:
            return refuse(made)
        return accept(201, (b"apns-channel-id", made.encode("ascii")))

    given_channel = fields.get(b"apns-channel-id", b"").decode("latin-1")
    if not given_channel:
        return refuse("MissingChannelId")
    channel = state.channels.get(bundle_id, given_channel)
    if channel is None:
        reason = "BadPath" if is_well_formed(given_channel) else "BadChannelId"
        return refuse(reason)
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
    push_type = asked.get(_PUSH_TYPE)
    if push_type is None:
        return "MissingPushType"
    lenient = isinstance(push_type, str) and push_type.lower() == "liveactivity"
    if push_type != "LiveActivity" and (state.strict or not lenient):
        return "InvalidPushType"
    policy = asked.get(_POLICY)
    if type(policy) is not int or policy not in (0, 1):
        return "BadRequestParams"
    channel = state.channels.create(bundle_id, policy, now=now)
    return channel.channel_id if channel is not None else "CannotCreateChannelConfig"
