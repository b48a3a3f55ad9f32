"""One writer between everything that has records and the journal: a commit at a time.

Whoever changed says so, either "before long" (outcomes: within the interval, 200 ms) or "at once"
(intents: something waits to leave). While a commit is under way the next one gathers, so a slow
disk makes larger batches, not a longer queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from ..clock import Clock, Timer
from ..errors import JournalError
from .journal import Journal, Record


class Recorded(Protocol):
    """Something with records."""

    def collect(self) -> Sequence[Record]:
        """Return what changed since the last time."""

    def committed(self) -> None:
        """Note that what was collected last is safe."""


class Writer:
    """Commits what changed. ``interval`` is seconds; ``failed`` is called once, with the error."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        interval: float = 0.2,
        failed: Callable[[JournalError], object],
    ) -> None:
        self.commits = self.records = 0
        self.error: JournalError | None = None
        self._journal = journal
        self._clock = clock
        self._interval = interval
        self._failed = failed
        self._changed: dict[Recorded, None] = {}
        self._go = asyncio.Event()
        self._timer: Timer | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="apns-live-journal")

    def soon(self, home: Recorded) -> None:
        """Commit what ``home`` has within the interval."""
        self._changed[home] = None
        if self._timer is None and not self._go.is_set():
            self._timer = self._clock.call_later(self._interval, self._go.set)

    def now(self, home: Recorded) -> None:
        """Commit what ``home`` has as soon as the last commit is done."""
        self._changed[home] = None
        self._go.set()

    async def flush(self, *homes: Recorded) -> None:
        """Return when what ``homes`` (and everything said before) have is committed.

        Raises JournalError when the journal has failed.
        """
        for home in homes:
            self._changed[home] = None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            raise self.error
        self._waiters.append(waiter)
        self._go.set()
        await waiter

    async def close(self) -> None:
        """Write the rest and stop."""
        self._closing = True
        self._go.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def _run(self) -> None:
        while True:
            await self._go.wait()
            self._go.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            while self._changed or self._waiters:
                if not await self._commit():
                    return
                if not self._go.is_set() and not self._closing:
                    break
                self._go.clear()
            if self._closing and not self._changed:
                return
            if self._changed and self._timer is None:
                self._timer = self._clock.call_later(self._interval, self._go.set)

    async def _commit(self) -> bool:
        homes = list(self._changed)
        self._changed.clear()
        waiters, self._waiters = self._waiters, []
        records: list[Record] = []
        try:
            for home in homes:
                records.extend(home.collect())
            await self._journal.write(records)
        except Exception as problem:  # noqa: BLE001 - whatever it is, nothing may leave without its intent
            error = problem if isinstance(problem, JournalError) else JournalError(repr(problem))
            error.__cause__ = None if error is problem else problem
            self.error = error
            self._failed(error)
            for waiter in (*waiters, *self._waiters):
                if not waiter.done():
                    waiter.set_exception(error)
            return False
        self.commits += 1
        self.records += len(records)
        for home in homes:
            home.committed()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True
