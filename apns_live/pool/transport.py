"""What the client sees of a transport, and what a transport sees of the client.

Work is pulled: a transport asks its feed for pushes when it has room for them, and hands back
what became of them in batches.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..credentials import ProviderToken, ProviderTokens
from ..http2 import EncodedString, ResponseReceived
from .push import Carrier, Push


class Loss(enum.Enum):
    """Why a push has no answer."""

    UNPROCESSED = "unprocessed"
    """The peer certainly did not act on it: it is above a GOAWAY's last stream (RFC 9113, 6.8), or
    the connection ended before all of its body had left."""
    INCOMPLETE = "request_incomplete"
    """No answer in time, and no window for all of its body: the peer cannot have acted on it."""
    REFUSED = "refused_stream"
    """REFUSED_STREAM: as certain (RFC 9113, 8.7)."""
    CONNECTION = "connection_lost"
    PEER_SILENT = "peer_silent"
    RESET = "stream_reset"
    RESPONSE_TIMEOUT = "response_timeout"
    DEADLINE = "deadline"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    PROTOCOL = "protocol_error"


@dataclass(frozen=True, slots=True)
class Bar:
    """Nothing may connect until ``until`` (monotonic seconds), for ``reason`` (Apple's word)."""

    until: float
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """One connection as it was at the moment of asking. Times are seconds."""

    connection_id: int
    state: str
    address: str
    open_streams: int
    max_streams: int
    accepted: int
    answered: int
    lost: int
    age: float
    round_trip: float
    stalled_for: float
    """For how long the peer's windows have let nothing leave; it is replaced when an answer is due."""
    provider_token_age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Plain callables that are told what happens; each costs nothing while it is None.

    They run on the event loop and should return at once. What they raise is logged and dropped.
    """

    connection_opened: Callable[[int, str], object] | None = None
    """connection id, peer address"""
    connection_closed: Callable[[int, str], object] | None = None
    """connection id, cause"""
    connect_failed: Callable[[str, float], object] | None = None
    """message, seconds until the next try"""
    going_away: Callable[[int, str, int], object] | None = None
    """connection id, Apple's reason or "", last stream id"""
    retry: Callable[[str, str, float], object] | None = None
    """apns-id, reason, seconds until the next try"""


class Feed(Protocol):
    """Where a transport gets pushes, and where it reports. Implemented by the client's engine."""

    def take(
        self, limit: int, now: float, carrier: Carrier | None = None, stream_id: int = 0
    ) -> Sequence[Push]:
        """Return up to ``limit`` pushes that may leave at once.

        For a ``carrier`` that sends all of them now, in streams from ``stream_id`` on, they may be
        made so already (`Push.leaves`): then they are all of one message and one source.
        """

    def give_back(self, pushes: Sequence[Push]) -> None:
        """Take back pushes that did not leave after all; they are the next to go."""

    def may_have_work(self) -> bool:
        """Whether ``take`` might return something; cheap, and True when in doubt."""

    def has_work(self) -> bool:
        """Whether ``take`` would return something now."""

    def accepted(
        self,
        carrier: Carrier,
        pushes: Sequence[Push],
        unique_ids: Sequence[EncodedString],
        now: float,
    ) -> None:
        """Report plain acceptances, with their ``apns-unique-id`` if they have one."""

    def answered(
        self, carrier: Carrier, batch: Sequence[tuple[Push, ResponseReceived]], now: float
    ) -> None:
        """Report answers."""

    def lost(
        self, carrier: Carrier, pushes: Sequence[Push], loss: Loss, now: float, detail: str = ""
    ) -> None:
        """Report pushes that will not be answered."""

    def barred(self, bar: Bar | None) -> None:
        """Report that nothing can connect for a while, or (None) that it can again."""


class Transport(Protocol):
    """Carries pushes to one endpoint with one provider key."""

    name: str
    header_decoder: str

    @property
    def opened(self) -> int:
        """Connections that became ready."""

    @property
    def failed(self) -> int:
        """Connections that could not be opened."""

    @property
    def last_failure(self) -> str:
        """What the last connection that could not be opened said; "" when there was none."""

    def wake(self) -> None:
        """Say that there may be work."""

    def retire_all(self, cause: str, tokens: ProviderTokens | None = None) -> None:
        """Use new connections from here on, with other provider tokens if given."""

    def credentials_refused(self, reason: str, detail: str) -> None:
        """Say that connecting again would not help for now."""

    def keep_oldest_token(self, refused: ProviderToken) -> None:
        """Say that provider tokens changed too often."""

    def in_flight(self) -> list[Push]:
        """Return the pushes that are on the wire."""

    def links(self) -> tuple[LinkStatistics, ...]:
        """Return the connections as they are now."""

    async def aclose(self, deadline: float) -> None:
        """Close every connection, at the latest at ``deadline`` (monotonic seconds)."""
