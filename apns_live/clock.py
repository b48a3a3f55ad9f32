"""Time as an argument: what every room asks for the time, and what a test puts in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from time import time as _wall_time
from typing import Protocol


class Timer(Protocol):
    """A pending call that can be called off."""

    def cancel(self) -> None:
        """Call it off; without effect once it has run."""


class Clock(Protocol):
    """What the engine needs of time. ``apns_live.testing.SimulatedClock`` is one too."""

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

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` on the running event loop after ``delay`` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        """Return after ``delay`` seconds."""
        await asyncio.sleep(delay)
