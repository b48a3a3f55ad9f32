"""Apple's rules as one function from request, connection identity and state to response.

``respond`` does no I/O and reads no clock. It changes nothing but the connection identity, the
state's counters and channels, and what the phones make of an accepted push.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from . import broadcast as _broadcast
from . import device as _device
from .answers import APNS_ID, MALFORMED, REQUEST_ID, Exchange
from .broadcast import broadcast
from .device import push_to_device
from .management import manage
from .state import ApnsState, ConnectionIdentity, Effect, Request, Response

_DEVICE_ROOT = _device.PREFIX.rstrip(b"/")


def respond(
    request: Request,
    connection: ConnectionIdentity,
    state: ApnsState,
    now: float,
    wall: float | None = None,
) -> Response:
    """Answer one request as APNs would.

    ``now`` is epoch seconds for the phones and channels; ``wall`` is epoch seconds that provider
    tokens are held against, ``now`` unless given.
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
    method = fields.get(b":method", b"")
    if method not in _METHODS:
        method = method if state.strict else method.upper()
        fields[b":method"] = method
    is_push = request.face == "device"
    is_broadcast = path.startswith(_broadcast.PREFIX) and len(path) > len(_broadcast.PREFIX)
    name = APNS_ID if is_push and not is_broadcast else REQUEST_ID
    exchange = Exchange(request, fields, duplicated, name, connection, state, now, wall)
    if not is_push:
        return manage(exchange)
    if method != b"POST":
        return exchange.refuse("MethodNotAllowed")
    if path.startswith(_device.PREFIX):
        return push_to_device(exchange)
    if is_broadcast:
        return broadcast(exchange)
    if path == _DEVICE_ROOT:
        fields[b":path"] = _device.PREFIX
        return push_to_device(exchange)
    return exchange.refuse("BadPath")


_METHODS = frozenset({b"POST", b"GET", b"DELETE"})


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
