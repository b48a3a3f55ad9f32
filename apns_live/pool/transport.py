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
from .endpoint import PoolOptions
from .link_parts import LinkStatistics
from .push import Carrier, Push

_GIVE_UP_AFTER = 5
"""Connections in a row that failed for something that will not change by itself."""

_DROP_BACKOFF_LIMIT = 5.0
"""Seconds at most between connections that a peer accepts pushes on and then drops."""

_NEVER = float("-inf")


_LOOK = 0.2
"""Seconds of which a share of the processor is taken, at least."""


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


@dataclass(frozen=True, slots=True)
class Bar:
    """Nothing may connect until ``until`` (monotonic seconds), for ``reason`` (Apple's word)."""

    until: float
    reason: str
    detail: str


class Opening:
    """The pool's account of its connects. Times are monotonic seconds, waits have full jitter."""

    def __init__(self, clock: Clock, options: PoolOptions, uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._options = options
        self._uniform = uniform
        # A simulated clock has no processor.
        self._cpu_time: Callable[[], float] = getattr(clock, "cpu_time", lambda: 0.0)
        self._looked = clock.monotonic(), self._cpu_time(), 0.0
        """When the processor was looked at last, its seconds then, and the share that was found."""
        self._failures = 0
        """Connects in a row on which no push was accepted."""
        self._permanent = 0
        """Of these, the last ones that will fail again."""
        self._drops = 0
        """Connections in a row that were accepted pushes on and dropped young."""
        self.opened = 0
        self.failed = 0
        self.last_failure = ""
        self.last_connect_at = _NEVER
        self.backoff_until = _NEVER
        self.bar: Bar | None = None
        """Why nothing connects although somebody waits, where a person must see to it."""

    def works(self) -> None:
        """Note that a push was accepted, or that there are other credentials."""
        self._failures = self._permanent = 0
        self.backoff_until = _NEVER
        self.bar = None

    def busy(self, now: float) -> float:
        """Return the share of a core that this thread used lately."""
        since, before, share = self._looked
        if now - since >= _LOOK:
            used = self._cpu_time()
            share = (used - before) / (now - since)
            self._looked = now, used, share
        return share

    def is_over(self, now: float) -> bool:
        """Tell whether there was a bar, and forget it if its time has passed."""
        if self.bar is None or now < self.bar.until:
            return False
        self.bar = None
        return True

    def ended_unused(self, cause: str) -> float:
        """Note a connection that ended before a push was accepted; return seconds to wait."""
        self.last_failure = cause
        self._failures += 1
        return self._back_off(self._failures, self._options.backoff_limit)

    def connect_failed(self, message: str, *, permanent: bool) -> None:
        """Note why it could not be opened; call it after `ended_unused`."""
        self.failed += 1
        self.last_failure = message
        self._permanent = self._permanent + 1 if permanent else 0
        if self._permanent >= _GIVE_UP_AFTER:
            self.bar = Bar(self.backoff_until, "connect_failed", message)

    def was_dropped(self) -> None:
        """Note a connection that was dropped young: nothing is wrong with the first.

        A peer that goes on like this is not hammered.
        """
        self._drops += 1
        if self._drops > 1:
            self._back_off(self._drops - 1, _DROP_BACKOFF_LIMIT)

    def has_lasted(self) -> None:
        """Note the end of a connection that was worth opening."""
        self._drops = 0

    def refused(self, reason: str, detail: str) -> None:
        """Note that APNs refused our credentials: a bar for a backoff that grows."""
        self._failures += 1
        self._back_off(self._failures, self._options.backoff_limit)
        self.bar = Bar(self.backoff_until, reason, detail)

    def shut_out(self, reason: str, detail: str) -> None:
        """Note a GOAWAY that names credentials: a bar for ``credential_backoff``."""
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
        """Bar connecting for a backoff that grows: connecting again would not help for now."""
        self.opening.refused(reason, detail)
        self._tell_bar()

    def keep_oldest_token(self, refused: ProviderToken) -> None:
        """Let new connections start with the oldest provider token that is still valid."""
        held = [carrier.token for carrier in self._links if carrier.token is not refused]
        valid = [token for token in held if self._tokens.for_connection(token) is token]
        self._preferred = min(valid, key=lambda token: token.issued_at, default=None)

    def links(self) -> tuple[LinkStatistics, ...]:
        """Return the connections as they are now."""
        return tuple(carrier.statistics() for carrier in self._links)

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
    def _pump(self) -> None:
        """Look for work, and for what has changed."""

    @abstractmethod
    def in_flight(self) -> list[Push]:
        """Return the pushes that are on the wire."""

    @abstractmethod
    async def aclose(self, deadline: float) -> None:
        """Close every connection, at the latest at ``deadline`` (monotonic seconds)."""
