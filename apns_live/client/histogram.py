"""Times in logarithmic buckets: small, bounded, exact to about 5 percent."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

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
