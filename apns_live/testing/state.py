"""The state behind the rules of the fake APNs: requests, connections, apps, keys.

These types are shared by the rules (which check a request), the faces (which serve the network) and the
phones (which handle accepted pushes like iOS). Records that are created for each push are frozen msgspec
structs, for speed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from .channels import Channels
from .jwt import App, Environment, RegisteredKey, TokenVerifier, VerifiedToken

Face = Literal["device", "manage"]
Spelling = Literal["wire", "documented"]


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request as it arrived.

    ``headers`` are all fields in order, pseudo-header fields included (``:method``, ``:path``);
    names in lower case. ``face`` says at which port it arrived: pushes or channel management.
    """

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    face: Face = "device"


class Effect(enum.Enum):
    """An effect on the connection that the face must apply besides the answer."""

    RAISE_STREAMS = "raise_streams"
    """The first provider token was accepted, or a success ended the penalty: allow many streams."""
    CUT_STREAMS = "cut_streams"
    """The request was refused and the penalty is switched on: allow one stream."""
    DISCONNECT = "disconnect"
    """Too many refusals: send GOAWAY and close (Apple, "Handling notification responses")."""
    MALFORMED = "malformed"
    """No HTTP answer: reset the stream with PROTOCOL_ERROR (RFC 9113, section 8.1.1)."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """The answer: status, header fields without ``:status``, body, and effects on the connection.

    ``reason`` is the reason inside the body, ``""`` for success. ``push`` is what was accepted.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    reason: str = ""
    effects: tuple[Effect, ...] = ()
    push: Push | None = None


class Push(msgspec.Struct, frozen=True, gc=False):
    """One push that APNs accepted with 200.

    ``number`` counts pushes from 1, refused ones too, so there are gaps. ``token`` is lower-case hex, empty for a
    broadcast; ``channel_id`` and ``storage_policy`` are None for a device push. ``topic`` is the
    whole apns-topic; a broadcast has none on the wire and gets that of its bundle id here.
    ``expiration`` is None when the header is absent; else epoch seconds, 0 for "one attempt".
    ``priority`` is 10 when the header is absent, as APNs takes it. ``push_type`` is ``""`` when
    absent. ``received_at`` is epoch seconds on the fake's clock. ``body`` is not validated.
    """

    number: int
    apns_id: str
    apns_unique_id: str
    token: str
    topic: str
    push_type: str
    priority: int
    expiration: int | None
    collapse_id: str | None
    body: bytes
    received_at: float
    connection_id: int
    channel_id: str | None = None
    storage_policy: int | None = None

    @property
    def bundle_id(self) -> str:
        """The topic without the suffix of its push type."""
        return self.topic.partition(".push-type.")[0]


class TokenCondition(enum.Enum):
    """What APNs knows about a device token."""

    LIVE = "live"
    UNKNOWN = "unknown"
    """Never issued. It counts as live while the fake's ``devices`` is ``auto``."""
    EXPIRED = "expired"
    UNREGISTERED = "unregistered"
    WRONG_TOPIC = "wrong_topic"
    OTHER_ENVIRONMENT = "other_environment"


class TokenStatus(msgspec.Struct, frozen=True, gc=False):
    """A token's condition; ``since`` is milliseconds since 1970, for EXPIRED and UNREGISTERED."""

    condition: TokenCondition
    since: int = 0


LIVE = TokenStatus(TokenCondition.LIVE)
UNKNOWN = TokenStatus(TokenCondition.UNKNOWN)


class Phones(Protocol):
    """The interface to the phones. Implement it to replace the simulated ones."""

    def receive(self, push: Push) -> None:
        """Receive a device push that was answered with 200. Must not raise or block."""

    def receive_broadcast(self, push: Push) -> None:
        """Receive a broadcast that was answered with 200. Must not raise or block."""

    def token_status(self, token: str, topic: str) -> TokenStatus:
        """Return the status of ``token`` (lower-case hex) for ``topic`` (the whole apns-topic)."""


class QuietPhones:
    """Phones that show nothing: every token is UNKNOWN unless ``statuses`` says otherwise."""

    def __init__(self) -> None:
        self.statuses: dict[str, TokenStatus] = {}

    def receive(self, push: Push) -> None:
        """Do nothing."""

    def receive_broadcast(self, push: Push) -> None:
        """Do nothing."""

    def token_status(self, token: str, topic: str) -> TokenStatus:
        """Return the token's status from ``statuses``, else UNKNOWN."""
        return self.statuses.get(token, UNKNOWN)


@dataclass(slots=True, eq=False)
class SeenKey:
    """A connection's data of one key: its current token, since when, and its apps.

    ``since`` is epoch seconds on the token clock. ``apps`` are the bundle ids that the key covered
    at its first use; a later App ID needs a new connection.
    """

    token: bytes = field(repr=False)
    since: float
    apps: frozenset[str]


@dataclass(slots=True, eq=False)
class ConnectionIdentity:
    """The state that APNs keeps of one connection. Only the rules change it.

    ``key`` is the key of the first accepted provider token: it binds the connection.
    ``token`` and ``authorization`` are the last accepted provider token and its header value.
    ``seen`` has one entry for the key and each related key that was used.
    ``cut`` is True while a refusal has reduced the streams to one; ``errors`` weighs refusals.
    """

    connection_id: int
    face: Face = "device"
    key: RegisteredKey | None = None
    token: VerifiedToken | None = None
    authorization: bytes = field(default=b"", repr=False)
    seen: dict[str, SeenKey] = field(default_factory=dict, repr=False)
    cut: bool = False
    errors: int = 0
    accepted: int = 0
    refused: int = 0


@dataclass(slots=True, eq=False)
class ApnsState:
    """The state that the rules read and change. Each fake APNs has one.

    ``strict`` refuses deviations that APNs tolerates (see ``apns_live.testing.jwt`` and
    ``rules``). ``devices`` ``auto`` takes every well-formed token for a live device.
    ``cut_streams`` switches the penalty of one stream after a 4xx other than 410. ``error_limit``
    is how much refusal a connection may collect before it is closed (0: any amount); a
    BadDeviceToken weighs five, a 410 nothing, and a success takes one away.
    ``token_age`` and ``token_interval`` are seconds (Apple, "Establishing a token-based connection
    to APNs"); ``future_tolerance`` is how far ahead an ``iat`` may be. ``overrides`` has statuses of
    tokens (lower-case hex) that override the phones'.
    """

    environment: Environment
    channels: Channels
    verifier: TokenVerifier
    new_id: Callable[[], str]
    phones: Phones = field(default_factory=QuietPhones)
    apps: dict[str, App] = field(default_factory=dict)
    spelling: Spelling = "wire"
    strict: bool = False
    devices: Literal["auto", "strict"] = "auto"
    cut_streams: bool = False
    error_limit: int = 0
    token_age: float = 3600.0
    token_interval: float = 1200.0
    future_tolerance: float = 3600.0
    pushes: int = 0
    overrides: dict[str, TokenStatus] = field(default_factory=dict)

    def apps_of(self, connection: ConnectionIdentity) -> frozenset[str]:
        """Return the bundle ids that the connection's current provider token covers."""
        token = connection.token
        seen = connection.seen.get(token.key.key_id) if token is not None else None
        return seen.apps if seen is not None else frozenset()

    def add_app(self, bundle_id: str, team_id: str, *, broadcast: bool = True) -> App:
        """Register an App ID. Connections that are already bound do not accept it."""
        app = App(bundle_id, team_id, broadcast)
        self.apps[bundle_id] = app
        return app
