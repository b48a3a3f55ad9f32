"""The parts of a connection: its counters, its liveness check, and its transport."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from .endpoint import PoolOptions

PROBE_PATIENCE = 1.0
"""Seconds after which other links take over from an idle link that does not answer its PING."""
STEADY_AFTER = 10.0
WORTHWHILE = 100
"""A connection with this duration in seconds, or this number of answers, was worth opening."""

_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """A snapshot of one connection. Times are seconds."""

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
    """How long the peer's windows have blocked sending; the link is replaced when an answer is due."""
    provider_token_age: float


@dataclass(slots=True)
class LinkRecord:
    """Counts and times of one link; times are monotonic seconds."""

    opened_at: float
    accepted: int = 0
    answered: int = 0
    answered_at: float = 0.0
    """The time of the last answer; before the first one, of opening."""
    losses: int = 0
    round_trip: float = 0.0
    best_limit: int = 0
    """The highest stream limit that it ever allowed."""
    body_size: int = 0
    """Bytes of the last body sent: the estimate for the next one."""
    refused_last: bool = False
    """Whether its latest answer was a 4xx that APNs counts as an error."""
    fresh: bool = True
    """Nothing was accepted since it was opened or became idle for long."""
    full_since: float | None = None
    idle_since: float | None = None

    def __post_init__(self) -> None:
        self.answered_at = self.opened_at

    def answers(self, count: int, accepted: int, round_trip: float, now: float) -> None:
        """Record a batch of answers."""
        self.answered_at = now
        self.answered += count
        self.accepted += accepted
        if self.round_trip:
            round_trip = self.round_trip + _SMOOTHING * (round_trip - self.round_trip)
        self.round_trip = round_trip
        if accepted:
            self.fresh = False
            self.refused_last = False

    def was_worth_opening(self, now: float) -> bool:
        """Return True if it has lasted long enough or brought enough answers."""
        return now - self.opened_at >= STEADY_AFTER or self.answered >= WORTHWHILE

    def statistics(self, now: float, **more: Any) -> LinkStatistics:
        """Return a frozen snapshot; ``more`` has the fields that only the connection knows."""
        return LinkStatistics(
            accepted=self.accepted,
            answered=self.answered,
            lost=self.losses,
            age=now - self.opened_at,
            round_trip=self.round_trip,
            **more,
        )


class Liveness:
    """Tracks whether the peer still answers, and when to send a PING.

    Times are monotonic seconds; ``waiting`` says whether an answer is due at all.
    """

    def __init__(self, now: float, options: PoolOptions) -> None:
        self._options = options
        self._pings = 0
        self.last_heard = now
        self.quiet_since = now
        """When the current wait for an answer began: the later of last received and first sent."""
        self.ping_sent_at: float | None = None
        self.must_answer = False
        """It was idle for long: only the PING's answer makes it usable again."""

    def heard(self, now: float) -> bool:
        """Note received bytes; return True if that ends a suspicion."""
        self.last_heard = self.quiet_since = now
        return self.ping_sent_at is not None and not self.must_answer

    def no_doubt(self) -> None:
        """Note that the PING was answered, or that any bytes arrived if these suffice."""
        self.ping_sent_at = None
        self.must_answer = False

    def was_idle_for_long(self, now: float) -> bool:
        """Tell whether a PING must be sent before the next push."""
        return now - self.last_heard >= self._options.idle_before_probe

    def ping(self, now: float) -> bytes:
        """Note that a PING is sent now; return its data."""
        self._pings += 1
        self.quiet_since = now
        if self.ping_sent_at is None:
            self.ping_sent_at = now
        return self._pings.to_bytes(8, "big")

    def probe_is_young(self, now: float) -> bool:
        """Tell whether it was idle and its PING may still be answered soon."""
        sent_at = self.ping_sent_at
        return self.must_answer and sent_at is not None and now - sent_at < PROBE_PATIENCE

    def is_dead(self, now: float) -> bool:
        """Tell whether the PING has waited too long for its answer."""
        sent_at = self.ping_sent_at
        return sent_at is not None and now - sent_at >= self._options.ping_timeout

    def wants_ping(self, now: float, *, waiting: bool) -> bool:
        """Tell whether it has been silent for so long that a PING is due."""
        if waiting:
            return now - self.quiet_since >= self._options.silence_before_ping
        return now - self.last_heard >= self._options.idle_ping_interval

    def next_look(self, *, waiting: bool) -> float:
        """Return the time of the next check."""
        moments = []
        if waiting:
            moments.append(self.quiet_since + self._options.silence_before_ping)
        if self.ping_sent_at is not None:
            moments.append(self.ping_sent_at + self._options.ping_timeout)
        elif not waiting:
            moments.append(self.last_heard + self._options.idle_ping_interval)
        return min(moments)


class Wire:
    """The asyncio transport of a connection, from opening to closing."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self.leaving: asyncio.Transport | None = None
        """We closed it, and the connection is not gone yet; see ``gone``."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the connection is gone."""
        self.address = ""
        self.paused = False
        """The socket's write buffer is full."""

    def open(self, transport: asyncio.BaseTransport, write_buffer: int) -> None:
        """Take the transport of a new connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=write_buffer)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else ""

    def is_open(self) -> bool:
        """Whether bytes that are written now can arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write bytes; no effect unless it is open."""
        if data and self._transport is not None:
            self._transport.write(data)

    def close(self, *, at_once: bool) -> None:
        """Close it; ``at_once`` skips the TLS goodbye."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self.leaving = transport
            if at_once:
                transport.abort()
            else:
                transport.close()

    def lost(self) -> None:
        """Note that the connection is gone."""
        self._transport = self.leaving = None
        if not self.gone.done():
            self.gone.set_result(None)
