"""Counters of a client and of a fan-out, and frozen snapshots of them."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from operator import attrgetter
from types import MappingProxyType

import msgspec

from ..clock import Clock
from ..outcome import Outcome, Verdict
from ..pool import LinkStatistics, Transport
from .attachment import End
from .reading import TokenReader

FIRST_DROPS = 1000
_REASONS_KEPT = 100
_OTHER = "(other reasons)"
_together = attrgetter("round_trip", "connection_id")
_PER_DOUBLING = 16
_UNIT = 1e-6
_BUCKETS = 48 * _PER_DOUBLING
_SCALE = _PER_DOUBLING / math.log(2.0)
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""The upper bounds, in seconds, that `Times` counts by."""


@dataclass(frozen=True, slots=True)
class Times:
    """A frozen histogram: how many durations there were, their sum in seconds, and ``counts``.

    ``counts`` holds for each of `BOUNDS` how many durations did not exceed it.
    """

    count: int
    total: float
    counts: tuple[int, ...]


class Histogram(msgspec.Struct, array_like=True):
    """Counts of durations in seconds, from a microsecond to years."""

    buckets: dict[int, int] = {}
    """How many durations fell into each bucket, by its number."""
    count: int = 0
    total: float = 0.0
    maximum: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration ``times`` times."""
        self.add_each((seconds,), times)

    def add_each(self, durations: Sequence[float], times: int = 1) -> None:
        """Count each of these durations ``times`` times."""
        counts = self.buckets
        for seconds in durations:
            bucket = int(math.log(seconds / _UNIT) * _SCALE) if seconds > _UNIT else 0
            bucket = min(bucket, _BUCKETS)
            counts[bucket] = counts.get(bucket, 0) + times
        self.maximum = max(self.maximum, *durations)
        self.count += times * len(durations)
        self.total += sum(durations) * times

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram."""
        for bucket, times in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + times
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: float) -> float:
        """Return the duration in seconds that ``percent`` percent do not exceed; 0 if empty."""
        if not self.count:
            return 0.0
        wanted = max(1, math.ceil(self.count * percent / 100.0))
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return min(_UNIT * math.exp2((bucket + 1) / _PER_DOUBLING), self.maximum)
        return self.maximum

    def times(self) -> Times:
        """Return what was counted up to each of `BOUNDS`, exact to about 5 percent."""
        counts = [0] * (len(BOUNDS) + 1)
        for bucket, times in self.buckets.items():
            counts[bisect_left(BOUNDS, _UNIT * math.exp2((bucket + 0.5) / _PER_DOUBLING))] += times
        return Times(self.count, self.total, tuple(accumulate(counts[:-1])))


class Counts(msgspec.Struct, array_like=True):
    """The counts of a fan-out. Processes can exchange them."""

    settled: int = 0
    accepted: int = 0
    answered: int = 0
    drops: int = 0
    connections: int = 0
    verdicts: dict[Verdict, int] = {}
    """Acceptances are not included."""
    reasons: dict[str, int] = {}
    round_trips: Histogram = msgspec.field(default_factory=Histogram)

    @classmethod
    def of(cls, verdicts: Mapping[Verdict, int]) -> Counts:
        """Return counts of which only the verdicts are known."""
        refused = {**verdicts}
        accepted = refused.pop(Verdict.ACCEPTED, 0)
        drops = refused.get(Verdict.DROP_TOKEN, 0)
        return cls(accepted + sum(refused.values()), accepted, drops=drops, verdicts=refused)

    def count(self, outcome: Outcome) -> None:
        """Count the verdict and reason of an outcome that is not an acceptance."""
        verdict = outcome.verdict
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + 1
        self._count_reason(outcome.reason or str(outcome.status), 1)

    def _count_reason(self, reason: str, times: int) -> None:
        """Count a reason. After a hundred different reasons, further ones are counted together."""
        if reason not in self.reasons and len(self.reasons) >= _REASONS_KEPT:
            reason = _OTHER
        self.reasons[reason] = self.reasons.get(reason, 0) + times

    def by_verdict(self) -> Mapping[Verdict, int]:
        """Return a copy of the counts by verdict, including acceptances."""
        verdicts = dict(self.verdicts)
        if self.accepted:
            verdicts[Verdict.ACCEPTED] = self.accepted
        return MappingProxyType(verdicts)

    def merge(self, other: Counts) -> None:
        """Add the counts of another fan-out."""
        for name in ("settled", "accepted", "answered", "drops", "connections"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for verdict, count in other.verdicts.items():
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + count
        for reason, count in other.reasons.items():
            self._count_reason(reason, count)
        self.round_trips.merge(other.round_trips)


class Counters(Counts, array_like=True):
    """The running counts of a client's engine."""

    cancelled: int = 0
    lost: int = 0
    replays: int = 0
    retries: int = 0
    queue_times: Histogram = msgspec.field(default_factory=Histogram)

    def count(self, outcome: Outcome) -> None:
        """Count an outcome that is not an acceptance."""
        Counts.count(self, outcome)
        if outcome.verdict is Verdict.UNKNOWN and not outcome.status:
            self.lost += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A snapshot of a client; times are seconds, counts are since the client was created."""

    transport: str
    """``http2`` or ``httpx``."""
    connections: tuple[LinkStatistics, ...]
    connections_opened: int
    connections_failed: int
    last_failure: str
    """The last connection error; "" if there was none."""
    paused_for: float
    """Seconds for which sending is paused because APNs asked for it; connections are ``paused``."""
    paused_because: str
    """The answer that caused the pause: status, reason, Retry-After."""
    waiting: int
    """Pushes that were accepted and are not in flight."""
    in_flight: int
    accepted: int
    cancelled: int
    """Pushes whose caller was cancelled, so that their outcome was not returned."""
    lost: int
    replays: int
    """Pushes that were sent again because they were certainly not processed."""
    retries: int
    verdicts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    round_trip_p50: float
    round_trip_p95: float
    round_trip_p99: float
    round_trip_max: float
    queue_times: Times
    """Time from acceptance to sending, of pushes that APNs answered."""
    round_trips: Times
    """Time from sending to the answer."""

    @property
    def header_decoder(self) -> str:
        """``hpack``: the only decoder of header blocks. Deprecated; removed in 0.2."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The counts of a fan-out so far, or at its end. Times are seconds."""

    read: int
    """Tokens read from the source. Each gets exactly one outcome; left-out repeats get none."""
    settled: int
    duplicates: int
    """Repeated tokens that ``dedupe=True`` left out."""
    accepted: int
    verdicts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    """Counts by reason, without acceptances."""
    drops: tuple[Outcome, ...]
    """The first 1,000 outcomes with DROP_TOKEN."""
    drop_count: int
    source_exhausted: bool
    """Whether the source of tokens was read to its end."""
    deadline_passed: bool
    elapsed: float
    rate: float
    """Outcomes with an answer from APNs per second."""
    p50: float
    """Median round trip; like the other times, exact to about 5 percent."""
    p95: float
    p99: float
    maximum: float
    connections: int
    """Connections that carried at least one of the pushes."""

    def __str__(self) -> str:
        refused = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return (
            f"{self.settled} of {self.read} settled, {self.accepted} accepted"
            f"{' (' + refused + ')' if refused else ''}; "
            f"p50 {self.p50 * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms, {self.rate:.0f}/s"
        )


class Tally:
    """Counts the outcomes of one fan-out. ``drop`` is called for each with DROP_TOKEN."""

    def __init__(self, clock: Clock, drop: Callable[[Outcome], object]) -> None:
        self._clock = clock
        self._drop = drop
        self._began_at: float | None = None
        self._ended_at: float | None = None
        self.counts = Counts()
        self._drops: list[Outcome] = []
        self._connections: set[int] = set()

    def begin(self) -> None:
        """Start the stopwatch."""
        self._began_at = self._clock.monotonic()

    def end(self) -> None:
        """Stop the stopwatch."""
        self._ended_at = self._clock.monotonic()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Count a batch."""
        for (round_trip, connection), group in groupby(outcomes, _together):
            batch = list(group)
            refused = [each for each in batch if each.verdict is not Verdict.ACCEPTED]
            accepted = len(batch) - len(refused)
            answered = accepted + sum(each.status > 0 for each in refused)
            self._count(len(batch), accepted, answered, round_trip, connection)
            for outcome in refused:
                self.counts.count(outcome)
                if outcome.verdict is Verdict.DROP_TOKEN:
                    self.counts.drops += 1
                    self.note_drop(outcome)

    def accepted(self, count: int, round_trip: float, connection_id: int) -> None:
        """Count acceptances that arrived together."""
        self._count(count, count, count, round_trip, connection_id)

    def _count(
        self, settled: int, accepted: int, answered: int, round_trip: float, connection: int
    ) -> None:
        counts = self.counts
        counts.settled += settled
        counts.accepted += accepted
        counts.answered += answered
        if answered:
            counts.round_trips.add(round_trip, answered)
        if connection:
            self._connections.add(connection)
            counts.connections = len(self._connections)

    def note_drop(self, outcome: Outcome) -> None:
        """Keep an outcome with DROP_TOKEN that is already counted."""
        if len(self._drops) < FIRST_DROPS:
            self._drops.append(outcome)
        self._drop(outcome)

    def report(self, reader: TokenReader, end: End, others: Iterable[Counts] = ()) -> Report:
        """Return the report so far, including the counts of others."""
        now = self._clock.monotonic()
        began_at = now if self._began_at is None else self._began_at
        elapsed = (now if self._ended_at is None else self._ended_at) - began_at
        counts = Counts()
        for each in (self.counts, *others):
            counts.merge(each)
        times = counts.round_trips
        return Report(
            read=reader.read,
            settled=counts.settled,
            duplicates=reader.duplicates,
            accepted=counts.accepted,
            verdicts=counts.by_verdict(),
            reasons=MappingProxyType(counts.reasons),
            drops=tuple(self._drops),
            drop_count=counts.drops,
            source_exhausted=reader.exhausted,
            deadline_passed=end is End.DEADLINE,
            elapsed=elapsed,
            rate=counts.answered / elapsed if elapsed > 0 else 0.0,
            p50=times.percentile(50),
            p95=times.percentile(95),
            p99=times.percentile(99),
            maximum=times.maximum,
            connections=counts.connections,
        )
