"""Channel management: create, read, delete and list, on a port of its own.

Sources: Apple, "Sending channel management requests to APNs" and "Handling error responses from
Apple Push Notification service". Seen on the sandbox: DELETE of an unknown or deleted channel is
404 BadPath; that GET answers the same is our reading.
"""

from __future__ import annotations

import msgspec

from .answers import JSON, REQUEST_ID, accept, echo_id, is_uuid, refuse
from .authorization import authorize
from .broadcast import check_app
from .channels import is_well_formed
from .state import ApnsState, ConnectionIdentity, Request, Response
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


def manage(
    request: Request,
    fields: dict[bytes, bytes],
    duplicated: bool,
    connection: ConnectionIdentity,
    state: ApnsState,
    now: float,
    wall: float,
) -> Response:
    """Judge one channel management request and do what it asks."""
    given_id = fields.get(b"apns-request-id")
    id_field = (REQUEST_ID, echo_id(given_id, state))
    bundle_id, operation = route(fields[b":path"], fields[b":method"])
    if not bundle_id:
        return refuse(operation, id_field, connection, state)
    reason = authorize(fields.get(b"authorization"), connection, state, wall) or check_app(
        bundle_id, connection, state
    )
    if reason:
        return refuse(reason, id_field, connection, state)
    if duplicated:
        return refuse("DuplicateHeaders", id_field, connection, state)
    if given_id is not None and not is_uuid(given_id, state.strict):
        return refuse("BadMessageId", id_field, connection, state)

    if operation == "list":
        listed = [channel.channel_id for channel in state.channels.of(bundle_id)]
        body = msgspec.json.encode({"channels": listed})
        return accept(200, (id_field, JSON), connection, body)
    if operation == "create":
        made = _create(request.body, bundle_id, state, now)
        if made in _CREATE_REASONS:
            return refuse(made, id_field, connection, state)
        return accept(201, (id_field, (b"apns-channel-id", made.encode("ascii"))), connection)

    given_channel = fields.get(b"apns-channel-id", b"").decode("latin-1")
    if not given_channel:
        return refuse("MissingChannelId", id_field, connection, state)
    channel = state.channels.get(bundle_id, given_channel)
    if channel is None:
        reason = "BadPath" if is_well_formed(given_channel) else "BadChannelId"
        return refuse(reason, id_field, connection, state)
    if operation == "delete":
        state.channels.delete(bundle_id, given_channel)
        return accept(204, (id_field,), connection)
    body = msgspec.json.encode({_POLICY: channel.storage_policy, _PUSH_TYPE: "LiveActivity"})
    return accept(200, (id_field, JSON), connection, body)


_CREATE_REASONS = frozenset(
    {
        "PayloadEmpty",
        "PayloadTooLarge",
        "BadRequestPayload",
        "BadRequestParams",
        "MissingPushType",
        "InvalidPushType",
        "CannotCreateChannelConfig",
    }
)


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
