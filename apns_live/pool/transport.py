"""The interfaces between client and transport.

A transport pulls: it asks its feed for pushes when it has room, and returns their results in batches.
"""

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
from .endpoint import PoolOptions
from .link_parts import LinkStatistics
from .push import Carrier, Push

_GIVE_UP_AFTER = 5
"""Consecutive failed connections whose cause will not change by itself."""

_DROP_BACKOFF_LIMIT = 5.0
"""Maximum seconds between connections to a peer that accepts pushes and then disconnects."""

_NEVER = float("-inf")
_LOOK = 0.2
"""Minimum seconds over which the processor's load is measured."""


class Loss(enum.Enum):
    """Why a push has no answer."""

    UNPROCESSED = "unprocessed"
    """The peer certainly did not process it: it is above a GOAWAY's last stream (RFC 9113, 6.8), or
    the connection ended before its whole body was sent.
    """
    INCOMPLETE = "request_incomplete"
    """No answer in time, and no window for its whole body: the peer cannot have processed it."""
    REFUSED = "refused_stream"
    """REFUSED_STREAM: equally certain (RFC 9113, 8.7)."""
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
    """Functions that are called on events.

    They run on the event loop, so they must return quickly. If one raises an error, it is logged.
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


@dataclass(frozen=True, slots=True)
class Bar:
    """No connecting until ``until`` (monotonic seconds), for ``reason`` (Apple's word)."""

    until: float
    reason: str
    detail: str


class Opening:
    """The pool's connection attempts. Times are monotonic seconds, waits have full jitter."""

    def __init__(self, clock: Clock, options: PoolOptions, uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._options = options
        self._uniform = uniform
        # A simulated clock has no processor.
        self._cpu_time: Callable[[], float] = getattr(clock, "cpu_time", lambda: 0.0)
        self._looked = clock.monotonic(), self._cpu_time(), 0.0
        """When the processor was last measured, its seconds then, and the share found."""
        self._failures = 0
        """Consecutive connections without an accepted push."""
        self._permanent = 0
        """The last of these that will fail again."""
        self._drops = 0
        """Consecutive connections that had accepted pushes and were dropped early."""
        self.opened = 0
        self.failed = 0
        self.last_failure = ""
        self.last_connect_at = _NEVER
        self.backoff_until = _NEVER
        self.bar: Bar | None = None
        """Why no connection is opened although pushes wait, if a person must fix the cause."""

    def works(self) -> None:
        """Note that a push was accepted, or that the credentials changed."""
        self._failures = self._permanent = 0
        self.backoff_until = _NEVER
        self.bar = None

    def busy(self, now: float) -> float:
        """Return the share of a core that this thread used recently."""
        since, before, share = self._looked
        if now - since >= _LOOK:
            used = self._cpu_time()
            share = (used - before) / (now - since)
            self._looked = now, used, share
        return share

    def is_over(self, now: float) -> bool:
        """Tell whether a bar existed and has expired; then forget it."""
        if self.bar is None or now < self.bar.until:
            return False
        self.bar = None
        return True

    def ended_unused(self, cause: str) -> float:
        """Note a connection that ended without an accepted push; return the seconds to wait."""
        self.last_failure = cause
        self._failures += 1
        return self._back_off(self._failures, self._options.backoff_limit)

    def connect_failed(self, message: str, *, permanent: bool) -> None:
        """Note why a connection could not be opened; call it after `ended_unused`."""
        self.failed += 1
        self.last_failure = message
        self._permanent = self._permanent + 1 if permanent else 0
        if self._permanent >= _GIVE_UP_AFTER:
            self.bar = Bar(self.backoff_until, "connect_failed", message)

    def ended_used(self, *, early: bool) -> None:
        """Note the end of a connection with accepted pushes. From the second early one on, wait."""
        self._drops = self._drops + 1 if early else 0
        if self._drops > 1:
            self._back_off(self._drops - 1, _DROP_BACKOFF_LIMIT)

    def refused(self, reason: str, detail: str) -> None:
        """Note that APNs refused our credentials: sets a bar that grows."""
        self._failures += 1
        self._back_off(self._failures, self._options.backoff_limit)
        self.bar = Bar(self.backoff_until, reason, detail)

    def shut_out(self, reason: str, detail: str) -> None:
        """Note a GOAWAY that names credentials: sets a bar for ``credential_backoff``."""
        self.backoff_until = self._clock.monotonic() + self._options.credential_backoff
        self.bar = Bar(self.backoff_until, reason, detail)

    def _back_off(self, times: int, limit: float) -> float:
        ceiling = self._options.backoff_first * 2.0 ** min(times - 1, 30)
        delay = self._uniform() * min(ceiling, limit)
        self.backoff_until = max(self.backoff_until, self._clock.monotonic() + delay)
        return delay


class Feed(Protocol):
    """Where a transport gets pushes, and where it reports. Implemented by the client's engine."""

    def take(
        self, limit: int, now: float, carrier: Carrier | None = None, stream_id: int = 0
    ) -> Sequence[Push]:
        """Return up to ``limit`` pushes to send at once.

        For a ``carrier`` that sends all of them now, in streams from ``stream_id`` on, they may
        already be marked as sent (`Push.leaves`). Then all have one message and one source.
        """

    def give_back(self, pushes: Sequence[Push]) -> None:
        """Take back pushes that were not sent; they are sent next."""

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
        """Report acceptances, with their ``apns-unique-id`` if they have one."""

    def answered(
        self, carrier: Carrier, batch: Sequence[tuple[Push, ResponseReceived]], now: float
    ) -> None:
        """Report answers."""

    def lost(
        self, carrier: Carrier, pushes: Sequence[Push], loss: Loss, now: float, detail: str = ""
    ) -> None:
        """Report pushes that will get no answer."""

    def barred(self, bar: Bar | None) -> None:
        """Report that connecting is barred for a while, or with None that it is allowed again."""


class Transport(ABC):
    """Carries pushes to one endpoint with one provider key."""

    name = ""
    _links: Sequence[Carrier]
    """The connections."""

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
        """The bar that was last reported to the feed."""
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
        return self._closing and not self._links

    def retire_all(self, cause: str, tokens: ProviderTokens | None = None) -> None:
        """Use new connections from here on, with other provider tokens if given."""
        if tokens is not None:
            self._tokens = tokens
            self._preferred = None
            self.works()
        for carrier in tuple(self._links):
            carrier.retire(cause)
        self.wake()

    def credentials_refused(self, reason: str, detail: str) -> None:
        """Bar connecting for a time that grows, because reconnecting would not help now."""
        self.opening.refused(reason, detail)
        self._tell_bar()

    def keep_oldest_token(self, refused: ProviderToken) -> None:
        """Let new connections start with the oldest provider token that is still valid."""
        held = [carrier.token for carrier in self._links if carrier.token is not refused]
        valid = [token for token in held if self._tokens.for_connection(token) is token]
        self._preferred = min(valid, key=lambda token: token.issued_at, default=None)

    def links(self) -> tuple[LinkStatistics, ...]:
        """Return the current connections."""
        return tuple(carrier.statistics() for carrier in self._links)

    def works(self) -> None:
        """Note that a push was accepted, or that the credentials changed."""
        self.opening.works()
        self._tell_bar()

    def _tell_bar(self) -> None:
        """Report to the feed whether, and why, connecting is barred."""
        bar = self.opening.bar
        if bar is not self._told:
            self._told = bar
            self._feed.barred(bar)
            if bar is not None:
                self._alarm.set(bar.until)

    @abstractmethod
    def _pump(self) -> None:
        """Look for work, and for changes."""

    @abstractmethod
    def in_flight(self) -> list[Push]:
        """Return the pushes in flight."""

    @abstractmethod
    async def aclose(self, deadline: float) -> None:
        """Close every connection, at the latest at ``deadline`` (monotonic seconds)."""
