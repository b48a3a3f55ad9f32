"""When each part of a delivery wants to be asked again, on one timer."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..clock import Alarm, Clock, SteadyTime

HomeT = TypeVar("HomeT")
_STALE = 256
"""Entries that an earlier time has replaced and that may lie around."""


class Timetable(Generic[HomeT]):
    """Calls ``due(home, now)`` when a home's time has come: once for each time, the earliest first.

    Times are steady seconds since 1970.
    """

    def __init__(
        self, clock: Clock, time: SteadyTime, due: Callable[[HomeT, float], object]
    ) -> None:
        self._clock = clock
        self._time = time
        self._due = due
        self._alarm = Alarm(clock, self._ring)
        self._heap: list[list[Any]] = []
        self._count = 0
        self._entries: dict[HomeT, list[Any]] = {}
        """When, a number, and the home, which is None once another time has replaced this one."""

    def __len__(self) -> int:
        return len(self._entries)

    def at(self, home: HomeT, when: float | None) -> None:
        """Ask ``home`` at ``when``, unless it is asked before that already."""
        if when is None:
            return
        known = self._entries.get(home)
        if known is not None:
            if known[0] <= when:
                return
            known[2] = None
        self._count += 1
        entry = self._entries[home] = [when, self._count, home]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + _STALE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        self._arm()

    def forget(self, home: HomeT) -> None:
        """Do not ask ``home`` any more."""
        entry = self._entries.pop(home, None)
        if entry is not None:
            entry[2] = None

    def close(self) -> None:
        """Ask nobody any more."""
        self._heap.clear()
        self._entries.clear()
        self._alarm.cancel()

    def _arm(self) -> None:
        if self._heap:
            wait = self._heap[0][0] - self._time.now()
            self._alarm.set(self._clock.monotonic() + wait)

    def _ring(self) -> None:
        now = self._time.now()
        while self._heap and self._heap[0][0] <= now:
            home = heapq.heappop(self._heap)[2]
            if home is not None:
                del self._entries[home]
                self._due(home, now)
        self._arm()
