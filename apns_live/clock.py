"""The clock interface: code asks it for the time, tests pass a simulated one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from time import perf_counter, thread_time
from time import time as _wall_time
from typing import Protocol


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off; without effect once it has run."""


class Clock(Protocol):
    """The clock interface of the engine. ``apns_live.testing.SimulatedClock`` implements it too."""

    def time(self) -> float:
        """Return wall-clock time in seconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never go backwards; only differences mean anything."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""

    async def sleep(self, delay: float) -> None:
        """Return after ``delay`` seconds."""


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    time = staticmethod(_wall_time)
    monotonic = staticmethod(perf_counter)
    cpu_time = staticmethod(thread_time)

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        """Return after ``delay`` seconds."""
        await asyncio.sleep(delay)


@contextlib.asynccontextmanager
async def timeout(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Cancel the block after ``seconds`` of the clock, and raise TimeoutError."""
    async with asyncio.timeout(None) as limit:
        timer = clock.call_later(seconds, lambda: limit.reschedule(0.0))
        try:
            yield
        finally:
            timer.cancel()


_SHORTEST = 0.0001


class Alarm:
    """One timer that is moved to the earliest requested moment, and calls ``ring`` then.

    The moment may be slightly early (rounding, two clocks). A moment that ``ring`` sets for now is
    delayed by 0.1 ms, so that an alarm cannot keep the event loop busy.
    """

    __slots__ = ("_clock", "_moment", "_ring", "_ringing", "_timer")

    def __init__(self, clock: Clock, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._ringing = False
        self._timer: Timer | None = None
        self._moment = 0.0

    def set(self, moment: float) -> None:
        """Ring at ``moment`` (monotonic seconds) at the latest."""
        if self._timer is not None:
            if self._moment <= moment:
                return
            self._timer.cancel()
        delay = max(_SHORTEST if self._ringing else 0.0, moment - self._clock.monotonic())
        self._moment = moment
        self._timer = self._clock.call_later(delay, self._due)

    def cancel(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._ringing = True
        try:
            self._ring()
        finally:
            self._ringing = False


class SteadyTime:
    """Wall-clock time without its steps, for waits and deadlines.

    ``now()`` is the wall clock until that is set. Then ``now()`` continues without the step, and
    ``wall()`` follows the clock. Slow corrections (NTP slewing) are followed.
    """

    STEP = 1.0
    """The difference between two readings, in seconds, from which a change counts as a step."""

    __slots__ = ("_anchor", "_clock", "_stepped", "step")

    def __init__(self, clock: Clock, stepped: Callable[[float], object] | None = None) -> None:
        self._clock = clock
        self._stepped = stepped
        self._anchor = clock.time() - clock.monotonic()
        self.step = 0.0
        """Seconds by which the wall clock was set ahead since the start; negative for back."""

    def now(self) -> float:
        """Return steady seconds since 1970."""
        wall = self._clock.time()
        anchor = wall - self._clock.monotonic()
        change = anchor - self._anchor
        self._anchor = anchor
        if not -self.STEP < change < self.STEP:
            self.step += change
            if self._stepped is not None:
                self._stepped(change)
        return wall - self.step

    def wall(self) -> float:
        """Return the wall-clock time, seconds since 1970."""
        return self._clock.time()
