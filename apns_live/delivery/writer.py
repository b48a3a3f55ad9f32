"""Collects records from all homes and commits them to the journal, one batch at a time.

Homes report changes as "soon" (outcomes: within the interval, 200 ms) or "at once" (intents, because
a push waits for them). While a commit is running the next batch is collected, so a slow disk causes
larger batches, not a longer queue.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..clock import Alarm, Clock
from ..errors import JournalError
from ..outcome import Outcome
from .journal import Entry, Journal


class Home(Protocol):
    """A part that sends: lanes, a live activity, a fan-out. The context of its items is (home, key, extra).

    Its changes are recorded in the journal.
    """

    queued: bool = False
    """Written by `Dispatch`."""

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""

    def take(self, limit: int, now: float) -> list[Any]:
        """Return at most ``limit`` items to send now."""

    def leaves(self, key: Any, extra: Any) -> bool:
        """Return whether an item must still be sent, now that its intent is committed."""

    def settle(self, answers: Sequence[tuple[Any, Any, Outcome]], now: float) -> None:
        """Process answers: key, extra and outcome of each item."""

    def next_time(self) -> float:
        """Return when `tick` is due; NEVER if it need not be called."""

    def tick(self, now: float) -> None:
        """Do the work that is due."""

    def collect(self) -> Sequence[Entry]:
        """Return the journal entries of what changed since the last call."""

    def committed(self) -> None:
        """Note that the entries last returned by `collect` are committed."""
        return


@dataclass(eq=False, repr=False)
class Writer:
    """Commits changes to the journal.

    ``interval`` is seconds. ``released`` is called after a commit with the items that waited for
    it, ``failed`` once with the error of a failed commit, after which nothing is written.
    """

    journal: Journal | None
    """None if nothing is recorded."""
    clock: Clock
    released: Callable[[list[Any]], object]
    failed: Callable[[JournalError], object]
    interval: float = 0.2
    commits: int = 0
    records: int = 0
    error: JournalError | None = None
    items: list[Any] = field(default_factory=list)
    """Items that are passed to ``released`` after the next commit."""
    closing: bool = False
    """Whether it only writes the rest and accepts nothing new."""
    _changed: dict[Home, None] = field(default_factory=dict)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._go = asyncio.Event()
        self._alarm = Alarm(self.clock, self._go.set)

    def start(self) -> None:
        """Start the task that writes. Needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="apns-live-journal")

    def note(self, home: Home, *, at_once: bool = False) -> None:
        """Commit the changes of ``home`` within the interval, or right after the running commit."""
        if self.journal is None or self.closing or self.error is not None:
            return
        self._changed[home] = None
        if at_once:
            self._go.set()
        elif not self._go.is_set():
            self._alarm.set(self.clock.monotonic() + self.interval)

    async def flush(self, *homes: Home) -> None:
        """Return when the changes of ``homes``, and all changes noted before, are committed.

        Raises JournalError when the journal has failed, or the writer was closed.
        """
        if self.journal is None:
            return
        if self.error is None and (self._task is None or self._task.done()):
            raise JournalError("the journal is closed")
        if self.error is not None:
            raise self.error
        self._changed.update(dict.fromkeys(homes))
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._go.set()
        await waiter

    async def close(self) -> None:
        """Write the rest and stop. Does not raise: ``failed`` got the error."""
        self.closing = True
        self._go.set()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait((task,))

    async def _run(self) -> None:
        try:
            while not self.closing:
                await self._go.wait()
                self._go.clear()
                self._alarm.cancel()
                await self._commit()
                if self._changed:
                    self._alarm.set(self.clock.monotonic() + self.interval)
            while self._changed or self._waiters:
                await self._commit()
        except Exception as problem:  # noqa: BLE001 - whatever it is, nothing may leave without its intent
            error = problem if isinstance(problem, JournalError) else JournalError(repr(problem))
            error.__cause__ = None if error is problem else problem
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(JournalError("writing the journal was cancelled: the event loop ends"))
            raise

    async def _commit(self) -> None:
        homes, self._changed = list(self._changed), {}
        items, self.items = self.items, []
        waiters = list(self._waiters)
        changes = {home: home.collect() for home in homes}
        entries = [entry for change in changes.values() for entry in change]
        if entries and self.journal is not None:
            await self.journal.commit(entries)
            self.commits += 1
            self.records += len(entries)
        for home, change in changes.items():
            if change:
                home.committed()
        self.released(items)
        del self._waiters[: len(waiters)]
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: JournalError) -> None:
        self.error = error
        self._alarm.cancel()
        self._changed.clear()
        self.items.clear()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # no longer awaited; asyncio would log its error
        self.failed(error)
