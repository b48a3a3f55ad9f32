"""The answers of APNs: header fields, JSON bodies, and what an answer does to the connection.

Source: Apple, "Handling notification responses from APNs" and "Handling error responses from
Apple Push Notification service".
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from .reasons import TABLE
from .state import ApnsState, ConnectionIdentity, Effect, Push, Request, Response

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


class Exchange(msgspec.Struct, gc=False):
    """One request on its way through the rules: what it says, on which connection, and when.

    ``fields`` are the first of each name; ``duplicated`` says whether one that APNs reads is repeated.
    ``id_name`` is the header that its answer carries. ``now`` is epoch seconds for the phones and
    channels, ``wall`` those that provider tokens are held against.
    """

    request: Request
    fields: dict[bytes, bytes]
    duplicated: bool
    id_name: bytes
    connection: ConnectionIdentity
    state: ApnsState
    now: float
    wall: float
    id_field: tuple[bytes, bytes] = (b"", b"")

    def __post_init__(self) -> None:
        self.id_field = (self.id_name, echo_id(self.fields.get(self.id_name), self.state))

    def id_problem(self) -> str:
        """Return the reason why repeated headers or an id are refused, or ``""``."""
        if self.duplicated:
            return "DuplicateHeaders"
        given = [self.fields.get(self.id_name)]
        if self.request.face == "device" and self.id_name is not APNS_ID:
            given.append(self.fields.get(APNS_ID))
        if any(value is not None and not is_uuid(value, self.state.strict) for value in given):
            return "BadMessageId"
        return ""

    def refuse(self, name: str, *, timestamp: int | None = None) -> Response:
        """Return the refusal for a reason of the table; ``timestamp`` is milliseconds, for a 410."""
        row = TABLE[name]
        spelled = row.spelled(self.state.spelling == "documented")
        if timestamp is None:
            body = _body(spelled)
        else:
            body = b'{"reason":"%b","timestamp":%d}' % (spelled.encode("ascii"), timestamp)
        self.connection.refused += 1
        effects = penalty(row.status, name, self.connection, self.state)
        return Response(row.status, (self.id_field, JSON), body, spelled, effects)

    def accept(
        self,
        status: int,
        *headers: tuple[bytes, bytes],
        body: bytes = b"",
        push: Push | None = None,
    ) -> Response:
        """Return the answer to a request that was taken."""
        connection = self.connection
        connection.accepted += 1
        if connection.errors:
            connection.errors -= 1
        effects: tuple[Effect, ...] = ()
        if connection.cut:
            connection.cut = False
            effects = (Effect.RAISE_STREAMS,)
        return Response(status, (self.id_field, *headers), body, "", effects, push)


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
