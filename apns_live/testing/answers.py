"""The answers of APNs: header fields, JSON bodies, and what an answer does to the connection.

Source: Apple, "Handling notification responses from APNs" and "Handling error responses from
Apple Push Notification service".
"""

from __future__ import annotations

import re
from functools import lru_cache

from .reasons import TABLE
from .state import ApnsState, ConnectionIdentity, Effect, Push, Response

JSON = (b"content-type", b"application/json")
APNS_ID = b"apns-id"
REQUEST_ID = b"apns-request-id"

_UUID = re.compile(
    rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
).fullmatch
_STRICT_UUID = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
).fullmatch

_WEIGHTS = {"BadDeviceToken": 5}

MALFORMED = Response(400, (), effects=(Effect.MALFORMED,))


def is_uuid(value: bytes, strict: bool) -> bool:
    """Whether an id header is a UUID of the form 8-4-4-4-12; ``strict`` wants lower case."""
    return (_STRICT_UUID(value) if strict else _UUID(value)) is not None


def echo_id(value: bytes | None, state: ApnsState) -> bytes:
    """Return the id header to answer with: the request's if it is one, else a new one.

    APNs was seen to answer generated ids in upper case.
    """
    if value is not None and _UUID(value):
        return value
    return state.new_id().upper().encode("ascii")


@lru_cache(maxsize=256)
def _body(name: str) -> bytes:
    return b'{"reason":"' + name.encode("ascii") + b'"}'


def refuse(
    name: str,
    id_field: tuple[bytes, bytes],
    connection: ConnectionIdentity,
    state: ApnsState,
    *,
    timestamp: int | None = None,
) -> Response:
    """Return the refusal for a reason of the table; ``timestamp`` is milliseconds, for a 410."""
    row = TABLE[name]
    spelled = row.spelled(state.spelling == "documented")
    if timestamp is None:
        body = _body(spelled)
    else:
        body = b'{"reason":"%b","timestamp":%d}' % (spelled.encode("ascii"), timestamp)
    connection.refused += 1
    return Response(
        row.status, (id_field, JSON), body, spelled, penalty(row.status, name, connection, state)
    )


def penalty(
    status: int, name: str, connection: ConnectionIdentity, state: ApnsState
) -> tuple[Effect, ...]:
    """Return what a refusal does to the connection. A 410 does not count as an error."""
    if status == 410 or not 400 <= status < 500:
        return ()
    effects: tuple[Effect, ...] = ()
    if state.cut_streams and not connection.cut:
        connection.cut = True
        effects = (Effect.CUT_STREAMS,)
    if state.error_limit:
        connection.errors += _WEIGHTS.get(name, 1)
        if connection.errors > state.error_limit:
            effects = (*effects, Effect.DISCONNECT)
    return effects


def accept(
    status: int,
    headers: tuple[tuple[bytes, bytes], ...],
    connection: ConnectionIdentity,
    body: bytes = b"",
    push: Push | None = None,
) -> Response:
    """Return the answer to a request that was taken."""
    connection.accepted += 1
    if connection.errors:
        connection.errors -= 1
    effects: tuple[Effect, ...] = ()
    if connection.cut:
        connection.cut = False
        effects = (Effect.RAISE_STREAMS,)
    return Response(status, headers, body, "", effects, push)
