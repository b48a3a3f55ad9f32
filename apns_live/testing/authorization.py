"""Checks a request's provider token on its connection.

Source: Apple, "Establishing a token-based connection to APNs": the first push binds a connection
to a team and its key, a token lives for an hour, and a connection may see a new one every 20
minutes at most. Where Apple names no reason (a second team on one connection) the choice is ours:
``Forbidden``.
"""

from __future__ import annotations

from .jwt import RegisteredKey, VerifiedToken
from .state import ApnsState, ConnectionIdentity, SeenKey


def authorize(
    authorization: bytes | None, connection: ConnectionIdentity, state: ApnsState, wall: float
) -> str:
    """Return ``""`` if the token is taken, else the reason. Binds the connection on first use.

    ``wall`` is epoch seconds on the clock that provider tokens are held against.
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
    value = value.strip()
    if not value:
        return "MissingProviderToken"
    token = state.verifier.verify(value)
    if token is None:
        return "InvalidProviderToken"
    reason = _age(token, state, wall)
    if reason:
        return reason
    if token.key.environment not in (None, state.environment):
        return "BadEnvironmentKeyIdInToken"
    reason = _bind(token.key, connection)
    if reason:
        return reason
    return _take(token, value, authorization, connection, state, wall)


def _age(token: VerifiedToken, state: ApnsState, wall: float) -> str:
    age = wall - token.issued_at
    if age > state.token_age:
        return "ExpiredProviderToken"
    if age < -state.future_tolerance:
        return "InvalidProviderToken"
    return ""


def _bind(key: RegisteredKey, connection: ConnectionIdentity) -> str:
    bound = connection.key
    if bound is None or bound is key:
        return ""
    if bound.team_id != key.team_id:
        return "Forbidden"
    if bound.key_id != key.key_id and key.key_id not in bound.related:
        return "UnrelatedKeyIdInToken"
    return ""


def _take(
    token: VerifiedToken,
    value: bytes,
    authorization: bytes,
    connection: ConnectionIdentity,
    state: ApnsState,
    wall: float,
) -> str:
    """Make ``token`` the connection's current one, if the token clock of its key allows."""
    key = token.key
    seen = connection.seen.get(key.key_id)
    if seen is None:
        apps = frozenset(app.bundle_id for app in state.apps.values() if key.covers(app))
        connection.seen[key.key_id] = SeenKey(value, wall, apps)
    elif seen.token != value:
        if wall - seen.since < state.token_interval:
            return "TooManyProviderTokenUpdates"
        seen.token = value
        seen.since = wall
    if connection.key is None:
        connection.key = key
    if connection.token is None or connection.token.key is not key:
        connection.topics.clear()
    connection.token = token
    connection.authorization = authorization
    return ""
