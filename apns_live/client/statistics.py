"""Counters of a client, and a frozen snapshot of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..outcome import Outcome, Verdict
from ..pool import LinkStatistics, Transport
from .histogram import Histogram, Times

_REASONS_KEPT = 100
_OTHER = "(other reasons)"


def count_reason(counts: dict[str, int], reason: str, times: int = 1) -> None:
    """Count a reason. What a server invents beyond a hundred reasons is counted together."""
    if reason not in counts and len(counts) >= _REASONS_KEPT:
        reason = _OTHER
    counts[reason] = counts.get(reason, 0) + times


@dataclass(slots=True)
class Counters:
    """What the engine counts as it goes."""

    accepted: int = 0
    cancelled: int = 0
    lost: int = 0
    replays: int = 0
    retries: int = 0
    verdicts: dict[Verdict, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    queue_times: Histogram = field(default_factory=Histogram)
    round_trips: Histogram = field(default_factory=Histogram)

    def count(self, outcome: Outcome) -> None:
        """Count an outcome that is not an acceptance."""
        verdict = outcome.verdict
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        if verdict is Verdict.UNKNOWN and not outcome.status:
            self.lost += 1
        count_reason(self.reasons, outcome.reason or str(outcome.status))

    def by_verdict(self) -> Mapping[Verdict, int]:
        """Return a copy of the counts by verdict, acceptances among them."""
        verdicts = dict(self.verdicts)
        if self.accepted:
            verdicts[Verdict.ACCEPTED] = self.accepted
        return MappingProxyType(verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A client at one moment; times are seconds, counts are since the client was made."""

    transport: str
    """``http2`` or ``httpx``."""
    connections: tuple[LinkStatistics, ...]
    connections_opened: int
    connections_failed: int
    last_failure: str
    """What the last connection that could not be opened said; "" when there was none."""
    paused_for: float
    """Seconds for which nothing leaves because APNs asked for it; connections are ``paused``."""
    paused_because: str
    """The answer that asked for it: status, reason, Retry-After."""
    waiting: int
    """Pushes that were taken on and are not on the wire."""
    in_flight: int
    accepted: int
    cancelled: int
    """Pushes whose caller was cancelled, so that nobody heard of their outcome."""
    lost: int
    replays: int
    """Pushes that left again because they were certainly not processed."""
    retries: int
    verdicts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    round_trip_p50: float
    round_trip_p95: float
    round_trip_p99: float
    round_trip_max: float
    queue_times: Times
    """From being taken on until leaving, of pushes that APNs answered."""
    round_trips: Times
    """From leaving until the answer."""

    @property
    def header_decoder(self) -> str:
        """``hpack``: there is one decoder of header blocks. Deprecated, goes with 0.2."""
        warnings.warn(
            "Statistics.header_decoder is always hpack now", DeprecationWarning, stacklevel=2
        )
        return "hpack"


def snapshot(
    counters: Counters, *, transport: Transport, waiting: int, pause: tuple[float, str]
) -> Statistics:
    """Return a frozen copy."""
    times = counters.round_trips
    paused_for, paused_because = pause
    connections = transport.links()
    if paused_for:
        connections = tuple(
            replace(link, state="paused") if link.state == "ready" else link for link in connections
        )
    return Statistics(
        transport=transport.name,
        connections=connections,
        connections_opened=transport.opening.opened,
        connections_failed=transport.opening.failed,
        last_failure=transport.opening.last_failure,
        paused_for=paused_for,
        paused_because=paused_because,
        waiting=waiting,
        in_flight=sum(link.open_streams for link in connections),
        accepted=counters.accepted,
        cancelled=counters.cancelled,
        lost=counters.lost,
        replays=counters.replays,
        retries=counters.retries,
        verdicts=counters.by_verdict(),
        reasons=MappingProxyType(dict(counters.reasons)),
        round_trip_p50=times.percentile(50),
        round_trip_p95=times.percentile(95),
        round_trip_p99=times.percentile(99),
        round_trip_max=times.maximum,
        queue_times=counters.queue_times.times(),
        round_trips=times.times(),
    )
