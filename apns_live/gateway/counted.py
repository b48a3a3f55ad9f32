"""Counters of a gateway: its answers, and totals of closed APNs clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..client.histogram import Histogram

Place = tuple[str, str]
Count = tuple[str, str]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Answers:
    """Answers by route, method and status, and their times (seconds) by route."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.times: dict[str, Histogram] = {}

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; routes and methods are a known few."""
        self.counts[route, method if method in _METHODS else "other", status] += 1
        if (times := self.times.get(route)) is None:
            times = self.times[route] = Histogram()
        times.add(seconds)


class Tally:
    """Sums counts of several sources that come and go: what one counted before it went stays."""

    def __init__(self) -> None:
        self._gone: Counter[Count] = Counter()
        self._last: dict[Place, Counter[Count]] = {}

    def add(self, sources: Mapping[Place, Counter[Count]]) -> Counter[Count]:
        """Take what every source counts now; return the sums, none of which ever sinks."""
        for place, before in self._last.items():
            now = sources.get(place)
            if now is None or any(now[name] < count for name, count in before.items()):
                self._gone.update(before)
        self._last = dict(sources)
        total = Counter(self._gone)
        for counts in sources.values():
            total.update(counts)
        return total
