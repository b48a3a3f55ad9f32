"""Many delayed calls on few timers: calls due within the same millisecond share one."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Protocol

_GRAIN = 0.001
"""Seconds."""
_ROUNDING = 1e-3
"""Of a grain: clocks are floats, and a timer may fire a rounding error early."""


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off."""


class FakeClock(Protocol):
    """What the fake needs of a clock; ``SimulatedClock`` and ``RealClock`` are such."""

    def time(self) -> float:
        """Return epoch seconds."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""


class Wheel:
    """Runs calls after a delay, in the order of their due times and then of their arrival."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._slots: dict[int, list[Callable[[], object]]] = {}
        self._order: list[int] = []
        self._timer: Timer | None = None
        self._timer_slot = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Call ``callback`` after ``delay`` seconds, to the millisecond."""
        slot = math.ceil((self._clock.monotonic() + delay) / _GRAIN - _ROUNDING)
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.append(callback)
            return
        self._slots[slot] = [callback]
        heapq.heappush(self._order, slot)
        if self._timer is None or slot < self._timer_slot:
            self._arrange()

    def close(self) -> None:
        """Drop everything that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._order.clear()

    def _arrange(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._order:
            self._timer_slot = self._order[0]
            delay = self._timer_slot * _GRAIN - self._clock.monotonic()
            self._timer = self._clock.call_later(max(0.0, delay), self._run)

    def _run(self) -> None:
        self._timer = None
        now = self._clock.monotonic() / _GRAIN + _ROUNDING
        while self._order and self._order[0] <= now:
            for callback in self._slots.pop(heapq.heappop(self._order)):
                callback()
        self._arrange()
