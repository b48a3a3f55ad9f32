"""Movable clocks for tests and for the served fake.

``SimulatedClock`` stands still until it is advanced. ``RealClock`` runs with the machine and can be
moved forward. Both implement ``apns_live.clock.Clock``. Neither may be used from several threads.
Advance a fake on its own thread through its handle, which uses that thread.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Generator
from contextlib import closing
from time import perf_counter
from time import time as wall_time
from typing import Protocol

from apns_live.errors import FakeError

EPOCH = 1_800_000_000.0
"""Where a ``SimulatedClock`` starts: 2027-01-15 08:00:00 UTC, a full clock hour."""

_PASSES = 12
_PATIENCE = 10.0
_UNREST = 0.1
_LONGEST_DELAY = 86_400.0


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off."""


class FakeClock(Protocol):
    """The clock interface of the fake. ``SimulatedClock`` and ``RealClock`` implement it."""

    def time(self) -> float:
        """Return epoch seconds."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""


async def _quiet() -> None:
    """Return when the event loop has nothing left to do now, or after ``_UNREST`` seconds.

    asyncio has no such query, so this reads private fields of its loops; others get the passes only.
    """
    loop = asyncio.get_running_loop()
    ready, selector = getattr(loop, "_ready", None), getattr(loop, "_selector", None)
    if ready is None or selector is None:
        return
    give_up = perf_counter() + _UNREST
    while perf_counter() < give_up:
        if ready or selector.select(0):
            await asyncio.sleep(0)
        elif _threads_work(getattr(loop, "_default_executor", None)):
            await asyncio.sleep(0.0005)
        else:
            return


def _threads_work(executor: object) -> bool:
    threads = getattr(executor, "_threads", ())
    idle = getattr(getattr(executor, "_idle_semaphore", None), "_value", len(threads))
    return idle < len(threads)


class ClockTimer:
    """A pending call of a clock in this module."""

    __slots__ = ("callback", "clock")

    def __init__(self, clock: _MovableClock, callback: Callable[[], object]) -> None:
        self.clock = clock
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Call it off; without effect once it has run."""
        if self.callback is not None:
            self.callback = None
            self.clock.forget_one()


class _MovableClock:
    """The common base of both clocks: a heap of timers, and moving forward through it.

    Timers are ordered by due time and then by age. Cancelled ones are removed when they are half of the
    heap.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ClockTimer]] = []
        self._count = 0
        self._cancelled = 0
        self._moving = False

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""
        raise NotImplementedError

    def call_later(self, delay: float, callback: Callable[[], object]) -> ClockTimer:
        """Call ``callback`` after ``delay`` seconds of this clock."""
        timer = ClockTimer(self, callback)
        self._count += 1
        heapq.heappush(self._heap, (self.monotonic() + max(0.0, delay), self._count, timer))
        return timer

    def forget_one(self) -> None:
        """Count a cancelled timer."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    async def sleep(self, delay: float) -> None:
        """Return after ``delay`` seconds of this clock (and after one pass of the event loop)."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(delay, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            timer.cancel()

    @property
    def pending(self) -> int:
        """The number of pending timers."""
        return len(self._heap) - self._cancelled

    @property
    def next_due(self) -> float | None:
        """Monotonic time of the next timer, or None."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][0] if heap else None

    async def settle(
        self, passes: int = _PASSES, *, until: Callable[[], object] | None = None
    ) -> None:
        """Let the event loop work while this clock stands still.

        Bytes on a loopback socket need passes of the event loop, not seconds.
        Without ``until`` it makes ``passes`` passes and goes on while there is work that needs no
        time: ready callbacks, bytes on sockets, lookups in the loop's threads; a tenth of a second
        of the machine's time at most. With ``until`` it goes on until the condition holds; raises
        ``TimeoutError`` after ten seconds of the machine's time, so that a test fails and not hangs.
        """
        for _ in range(passes):
            if until is not None and until():
                return
            await asyncio.sleep(0)
        if until is None:
            await _quiet()
            return
        give_up = perf_counter() + _PATIENCE
        while not until():
            if perf_counter() > give_up:
                raise TimeoutError("the condition given to settle() did not come true within 10 s")
            await asyncio.sleep(0.001)

    async def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``; due timers run in time order, each at its own time.

        The event loop settles before the first timer, after each moment at which timers ran, and
        at the end, so the effects of one timer are complete before the next one runs.
        """
        with closing(self._steps(seconds)) as steps:
            for _ in steps:
                await self.settle()
        await self.settle()

    def advance_sync(self, seconds: float) -> None:
        """Move forward by ``seconds`` without an event loop: only timers run, no tasks."""
        for _ in self._steps(seconds):
            pass

    async def advance_until(
        self, condition: Callable[[], object], *, at_most: float = 3600.0, step: float = 1.0
    ) -> None:
        """Move from timer to timer until ``condition()`` holds.

        Each move goes to the next timer, or ``step`` seconds on when none is nearer. Raises
        ``TimeoutError`` when ``at_most`` seconds have passed on this clock.
        """
        give_up = self.monotonic() + at_most
        await self.settle()
        while not condition():
            if (now := self.monotonic()) >= give_up:
                raise TimeoutError(f"the condition did not come true within {at_most:g} s")
            due = self.next_due
            nearest = now + step if due is None else min(due, now + step)
            await self.advance(max(0.0, min(nearest, give_up) - now))

    def _steps(self, seconds: float) -> Generator[None, None, None]:
        """Move forward; yield before the first timer, and after each moment at which timers ran."""
        if seconds < 0:
            raise FakeError(f"a clock cannot be advanced by {seconds:g} s: time only moves forward")
        if self._moving:
            raise FakeError("the clock is being advanced already; wait for that call to return")
        self._moving = True
        target = self.monotonic() + seconds
        try:
            yield
            while (due := self.next_due) is not None and due <= target:
                self._jump(due)
                self._run_due(due)
                yield
            self._jump(target)
        finally:
            self._moving = False
            self._arrange()

    def _arrange(self) -> None:
        """Schedule the next timer where time passes by itself."""

    def _run_due(self, moment: float) -> None:
        # Timers that are added for this same moment run in this round too.
        while (due := self.next_due) is not None and due <= moment:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _jump(self, moment: float) -> None:
        raise NotImplementedError


class SimulatedClock(_MovableClock):
    """A clock that stands still until it is advanced. It implements ``apns_live.clock.Clock``.

    ``start`` is its first wall-clock time, seconds since 1970.
    """

    def __init__(self, start: float = EPOCH) -> None:
        super().__init__()
        self._start = start
        self._elapsed = 0.0

    def time(self) -> float:
        """Return simulated wall-clock time, seconds since 1970."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return simulated seconds since the clock was made."""
        return self._elapsed

    def _jump(self, moment: float) -> None:
        self._elapsed = max(self._elapsed, moment)

    def __repr__(self) -> str:
        return f"<SimulatedClock at {self.time():.3f}, {self.pending} timers>"


class RealClock(_MovableClock):
    """The machine's time plus an offset that ``advance`` adds to. For the served fake.

    Timers run on the event loop in which they were made. Its heap of timers has one timer of the
    event loop behind it, so that moving the clock runs due timers at once and in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offset = 0.0
        """Seconds by which this clock is ahead of the machine's."""
        self._wakeup: asyncio.TimerHandle | None = None
        self._wakeup_due = 0.0

    def time(self) -> float:
        """Return the machine's wall-clock time plus the offset, seconds since 1970."""
        return wall_time() + self.offset

    def monotonic(self) -> float:
        """Return the machine's monotonic time plus the offset."""
        return perf_counter() + self.offset

    def call_later(self, delay: float, callback: Callable[[], object]) -> ClockTimer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""
        timer = super().call_later(delay, callback)
        self._arrange()
        return timer

    def close(self) -> None:
        """Release the event loop. Pending timers will not run."""
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None

    def _jump(self, moment: float) -> None:
        if (ahead := moment - self.monotonic()) > 0:
            self.offset += ahead

    def _arrange(self) -> None:
        due = self.next_due
        if due is None or self._moving:
            return
        if self._wakeup is not None:
            if self._wakeup_due <= due:
                return
            self._wakeup.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Without a running loop, timers run in advance_sync or after the next call_later in a loop.
            self._wakeup = None
            return
        self._wakeup_due = due
        # Event loops may limit delays, so the timer is set again after a day.
        delay = min(max(0.0, due - self.monotonic()), _LONGEST_DELAY)
        self._wakeup = loop.call_later(delay, self._on_wakeup)

    def _on_wakeup(self) -> None:
        self._wakeup = None
        if not self._moving:
            self._run_due(self.monotonic())
        self._arrange()

    def __repr__(self) -> str:
        return f"<RealClock {self.offset:+.3f} s, {self.pending} timers>"
