"""The phones' scheduled events, as a heap over the fake's time, and when phones are reachable.

There is no timer per activity. An object with a ``wake_at`` has one valid entry; an earlier time adds
another entry, and the old one is ignored. One timer of the clock covers the first entry. ``run`` runs
the entries that are due at a given time.
"""

import heapq
from collections.abc import Callable

from apns_live.testing.clock import FakeClock, Timer

from .model import Activity, Device
from .settings import PhoneSettings

_ROUNDING = 1e-6
"""Epoch seconds as floats are exact to about a quarter of a microsecond."""


Sleeper = Activity | Device


class Schedule:
    """A heap of (time, age, who). ``wake(who, time)`` is called for each valid entry."""

    __slots__ = ("_armed", "_armed_at", "_clock", "_count", "_running", "heap", "wake")

    def __init__(self, clock: FakeClock, wake: Callable[[Sleeper, float], object]) -> None:
        self.heap: list[tuple[float, int, Sleeper]] = []
        self.wake = wake
        self._clock = clock
        self._count = 0
        self._armed: Timer | None = None
        self._armed_at = 0.0
        self._running = False

    def add(self, who: Sleeper, due: float) -> None:
        """Wake ``who`` at ``due``, unless it has an earlier entry."""
        if who.wake_at is not None and who.wake_at <= due:
            return
        who.wake_at = due
        self._count += 1
        heapq.heappush(self.heap, (due, self._count, who))
        if not self._running:
            self._arm()

    def run(self, now: float) -> None:
        """Wake all objects that are due, in order of time, each with its own time."""
        heap = self.heap
        if self._running or not heap or heap[0][0] > now:
            return
        self._running = True
        try:
            while heap and heap[0][0] <= now:
                due, _, who = heapq.heappop(heap)
                if who.wake_at == due:
                    who.wake_at = None
                    self.wake(who, due)
        finally:
            self._running = False
        self._arm()

    def clear(self) -> None:
        """Remove all entries."""
        for _, _, who in self.heap:
            who.wake_at = None
        self.heap.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def _arm(self) -> None:
        if not self.heap:
            return
        due = self.heap[0][0]
        if self._armed is not None:
            if self._armed_at <= due:
                return
            self._armed.cancel()
        self._armed_at = due
        self._armed = self._clock.call_later(max(0.0, due - self._clock.time()), self._on_timer)

    def _on_timer(self) -> None:
        self._armed = None
        self.run(self._clock.time() + _ROUNDING)
        self._arm()  # a clock may ring early, and then nothing was due


def away_until(device: Device, settings: PhoneSettings, now: float) -> float:
    """Return when a phone's offline time ends: 0 if it is online, infinite if there is no end.

    The offline times of ``settings.offline`` depend only on the seed, the phone and the time.
    """
    if (until := device.offline_until) is not None:
        if now < until:
            return until
        device.offline_until = None
    if (share := settings.offline) <= 0:
        return 0.0
    cycle = settings.offline_cycle
    shift = cycle * settings.draw("offline", device.id)
    start = ((now - shift) // cycle) * cycle + shift
    end = start + cycle * share
    return end if now < end else 0.0


def is_held(device: Device, settings: PhoneSettings, priority: int) -> bool:
    """Whether a push of this priority waits for the next burst."""
    law = settings.priority_5
    return priority < 10 and (law == "bursts" or (law == "awake" and not device.awake))


def next_burst(device: Device, settings: PhoneSettings, now: float) -> float:
    """Return when a phone that saves power next receives its waiting pushes."""
    interval = settings.burst_interval
    shift = interval * settings.draw("burst", device.id)
    return ((now - shift) // interval + 1) * interval + shift
