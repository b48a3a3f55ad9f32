"""The interfaces between client and transport.

A transport pulls: it asks its feed for pushes when it has room, and returns their results in batches.
"""

from __future__ import annotations

import asyncio
import enum
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..clock import Alarm, Clock
from ..credentials import ProviderToken, ProviderTokens
from ..guard import RAISED, logger
from ..http2 import EncodedString, ResponseReceived
from .opening import Bar, Opening
from .options import PoolOptions
from .push import Carrier, Push
from .record import LinkStatistics


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions that are called when something happens.

    They run on the event loop, so they must return quickly. If one raises, the error is logged.
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

    def call(self, name: str, *arguments: object) -> None:
        """Call the hook with this name, if it is set."""
        hook = getattr(self, name)
        if hook is not None:
            try:
                hook(*arguments)
            except RAISED:
                logger.exception("the hook %s raised", name)


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


class Transport(ABC):
    """Carries pushes to one endpoint with one provider key."""

    name = ""

    def __init__(
        self,
        feed: Feed,
        tokens: ProviderTokens,
        *,
        clock: Clock,
        options: PoolOptions,
        hooks: Hooks,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.opening = Opening(clock, options, uniform)
        self._feed = feed
        self._tokens = tokens
        self._clock = clock
        self._options = options
        self._hooks = hooks
        self._numbers = 0
        self._preferred: ProviderToken | None = None
        self._told: Bar | None = None
        """The bar that whoever brings work knows of."""
        self._alarm = Alarm(clock, self._pump)
        self._wake_scheduled = False
        self._closing = False

    def wake(self) -> None:
        """Look for work in this turn of the event loop."""
        if not self._wake_scheduled and not self.is_closed():
            self._wake_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def is_closed(self) -> bool:
        """Whether it is closed and no connection is left."""
        return self._closing and not self._carriers()

    def retire_all(self, cause: str, tokens: ProviderTokens | None = None) -> None:
        """Use new connections from here on, with other provider tokens if given."""
        if tokens is not None:
            self._tokens = tokens
            self._preferred = None
            self.works()
        for carrier in tuple(self._carriers()):
            carrier.retire(cause)
        self.wake()

    def credentials_refused(self, reason: str, detail: str) -> None:
        """Bar connecting for a backoff that grows: connecting again would not help for now."""
        self.opening.refused(reason, detail)
        self._tell_bar()

    def keep_oldest_token(self, refused: ProviderToken) -> None:
        """Let new connections start with the oldest provider token that is still valid."""
        held = [carrier.token for carrier in self._carriers() if carrier.token is not refused]
        valid = [token for token in held if self._tokens.for_connection(token) is token]
        self._preferred = min(valid, key=lambda token: token.issued_at, default=None)

    def links(self) -> tuple[LinkStatistics, ...]:
        """Return the connections as they are now."""
        return tuple(carrier.statistics() for carrier in self._carriers())

    def works(self) -> None:
        """Note that a push was accepted, or that there are other credentials."""
        self.opening.works()
        self._tell_bar()

    def _tell_bar(self) -> None:
        """Tell whoever brings work whether, and why, nothing connects."""
        bar = self.opening.bar
        if bar is not self._told:
            self._told = bar
            self._feed.barred(bar)
            if bar is not None:
                self._alarm.set(bar.until)

    @abstractmethod
    def _carriers(self) -> Sequence[Carrier]:
        """Return the connections."""

    @abstractmethod
    def _pump(self) -> None:
        """Look for work, and for what has changed."""

    @abstractmethod
    def in_flight(self) -> list[Push]:
        """Return the pushes that are on the wire."""

    @abstractmethod
    async def aclose(self, deadline: float) -> None:
        """Close every connection, at the latest at ``deadline`` (monotonic seconds)."""
