"""One request as the rules see it: its provider token, its ids, and its answer.

Sources: Apple, "Handling notification responses from APNs", "Handling error responses from Apple Push
Notification service" and "Establishing a token-based connection to APNs": the first push binds a connection
to a team and its key, a token is valid for an hour, and a connection may present a new one every 20
minutes at most. Apple names no reason for a second team on one connection; this fake answers
``Forbidden``.
"""

import re
from functools import lru_cache
from typing import Any

import msgspec

from .jwt import VerifiedToken
from .reasons import TABLE
from .state import ApnsState, ConnectionIdentity, Effect, Push, Request, Response, SeenKey

JSON = (b"content-type", b"application/json")
APNS_ID = b"apns-id"
REQUEST_ID = b"apns-request-id"

_STRICT_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch

_WEIGHTS = {"BadDeviceToken": 5}

MALFORMED = Response(400, (), effects=(Effect.MALFORMED,))


def echo_id(value: bytes | None, state: ApnsState) -> bytes:
    """Return the request's id if it is one, else a new one in upper case, as seen on the wire."""
    return value if value is not None and _UUID(value) else state.new_id().upper().encode("ascii")


@lru_cache(maxsize=256)
def _body(name: str) -> bytes:
    return b'{"reason":"' + name.encode("ascii") + b'"}'


class Exchange(msgspec.Struct, gc=False):
    """One request, its connection and its time, as the rules see it.

    ``fields`` has the first value of each name; ``duplicated`` says whether a name that APNs reads is
    repeated. ``id_name`` is the header that its answer carries. ``now`` is epoch seconds for the phones
    and channels, ``wall`` those for checks of provider tokens.
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
        is_uuid = _STRICT_UUID if self.state.strict else _UUID
        if any(value is not None and not is_uuid(value) for value in given):
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

    def take(self, apns_id: str, unique_id: str, *said: Any, **channel: Any) -> Push:
        """Return the push that was accepted; ``said`` are its fields from token to collapse id."""
        self.state.pushes = number = self.state.pushes + 1
        arrived = self.request.body, self.now, self.connection.connection_id
        return Push(number, apns_id, unique_id, *said, *arrived, **channel)  # type: ignore[call-arg]

    def accept(
        self,
        status: int,
        *headers: tuple[bytes, bytes],
        body: bytes = b"",
        push: Push | None = None,
    ) -> Response:
        """Return the answer to an accepted request."""
        if push is not None and push.apns_unique_id:
            headers = (*headers, (b"apns-unique-id", push.apns_unique_id.encode("ascii")))
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
    """Return the effects of a refusal on the connection. A 410 does not count as an error."""
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


def authorize(
    authorization: bytes | None, connection: ConnectionIdentity, state: ApnsState, wall: float
) -> str:
    """Return ``""`` for an accepted token, else the reason. The first token binds the connection.

    ``wall`` is epoch seconds on the clock by which provider tokens are checked.
    """
    if not authorization:
        return "MissingProviderToken"
    token: VerifiedToken | None
    if authorization == connection.authorization and connection.token is not None:
        token = connection.token
        if not state.verifier.is_current(token):
            return "InvalidProviderToken"
        return _age(token, state, wall)
    scheme, _, value = authorization.partition(b" ")
    if (scheme if state.strict else scheme.lower()) != b"bearer":
        return "MissingProviderToken"
    if not (value := value.strip()):
        return "MissingProviderToken"
    if (token := state.verifier.verify(value)) is None:
        return "InvalidProviderToken"
    if reason := _age(token, state, wall):
        return reason
    if token.key.environment not in (None, state.environment):
        return "BadEnvironmentKeyIdInToken"
    key, bound = token.key, connection.key
    if bound is not None and bound is not key:
        if bound.team_id != key.team_id:
            return "Forbidden"
        if bound.key_id != key.key_id and key.key_id not in bound.related:
            return "UnrelatedKeyIdInToken"
    if (seen := connection.seen.get(key.key_id)) is None:
        apps = frozenset(app.bundle_id for app in state.apps.values() if key.covers(app))
        connection.seen[key.key_id] = SeenKey(value, wall, apps)
    elif seen.token != value:
        if wall - seen.since < state.token_interval:
            return "TooManyProviderTokenUpdates"
        seen.token, seen.since = value, wall
    if bound is None:
        connection.key = key
    connection.token = token
    connection.authorization = authorization
    return ""


def _age(token: VerifiedToken, state: ApnsState, wall: float) -> str:
    if (age := wall - token.issued_at) > state.token_age:
        return "ExpiredProviderToken"
    return "InvalidProviderToken" if age < -state.future_tolerance else ""
