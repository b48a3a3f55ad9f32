"""Writes down what came back, in batches: every 200 ms, or as soon as there is much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import select

from ...clock import Clock, Timer
from ..observed import Observed
from ..store import schema
from ..store.database import Database
from ..store.failures import STORE_FAILURES, is_temporary
from ..store.ownership import NOT_HELD, NotOwner, Ownership
from ..store.statements import chunks
from ..times import milliseconds
from .results import Batch, Written, write

logger = logging.getLogger("apns_live.activities")

INTERVAL = 0.2
"""Seconds within which a result is written."""
AT_ONCE = 1_000
"""Results that are written without waiting for the interval."""
MOST = 30_000
"""Results that may wait for the store; beyond it sending pauses."""
_RETRY_FIRST, _RETRY_MOST = 0.5, 30.0


class Counted(Protocol):
    """Who wants to know when its results are in the store."""

    def recorded(self, count: int) -> None:
        """So many more are written."""


class Recorder:
    """Collects results and writes them. ``closing`` notes what is finished by them.

    Results of a term that is over are thrown away; ``dropped`` is told of their partitions. Whoever
    sent them must forget what it knows, and begin again from the store where it is the owner.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ownership: Ownership,
        *,
        closing: Callable[[], None],
        wrote: Callable[[Batch, Written], None],
        dropped: Callable[[frozenset[int]], object] = lambda partitions: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ownership = ownership
        self._closing = closing
        self._wrote = wrote
        self._dropped = dropped
        self._due = asyncio.Event()
        self._timer: Timer | None = None
        self._owners: dict[Counted, int] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._under_way: asyncio.Task[None] | None = None
        self.batch = Batch()
        self.flushed: list[Callable[[], object]] = []
        """Called when results were written: sending may go on after a pause."""
        self.batches = self.rows = 0
        self.observed = Observed()

    @property
    def writing(self) -> bool:
        """Whether a batch is on its way to the store."""
        return self._under_way is not None

    @property
    def busy(self) -> bool:
        """Whether something is not written yet."""
        return self.writing or self._timer is not None or self._due.is_set() or bool(self.batch)

    @property
    def full(self) -> bool:
        """Whether sending must pause until the store has caught up."""
        return len(self.batch) >= MOST

    def noting(self, partition: int) -> Batch:
        """Return the batch that takes results of a partition, of its present term."""
        batch = self.batch
        if partition not in batch.terms:
            batch.terms[partition] = self._ownership.terms.get(partition, NOT_HELD)
        return batch

    def count(self, owner: Counted, results: int) -> None:
        """Let ``owner`` know when this many of its results are written."""
        self._owners[owner] = self._owners.get(owner, 0) + results

    def soon(self) -> None:
        """Write within the interval, or at once when there is much."""
        if len(self.batch) >= AT_ONCE:
            self._due.set()
        elif self._timer is None and not self._due.is_set():
            self._timer = self._clock.call_later(INTERVAL, self._on_timer)

    def now(self) -> None:
        """Write at once."""
        self._due.set()

    async def written(self) -> None:
        """Return when everything noted so far is in the store; it is written at once."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.now()
        await future

    def _on_timer(self) -> None:
        self._timer = None
        self._due.set()

    async def run(self) -> None:
        """Write whenever something is due, for ever."""
        while True:
            await self._due.wait()
            await self.flush()
            for call in self.flushed:
                call()

    async def flush(self) -> None:
        """Write what there is. Tries again until the store takes it.

        Whoever waits here may be cancelled: what is being written goes on, and the next call waits
        for it. A batch that was dropped half-way would be sent a second time.
        """
        while self._under_way is not None:
            await asyncio.wait([self._under_way])
        self._under_way = task = asyncio.create_task(self._flush())
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._under_way = None

    async def aclose(self, patience: float) -> bool:
        """Write what there is within ``patience`` seconds; return whether that was enough."""
        try:
            async with asyncio.timeout(patience):
                await self.flush()
        except TimeoutError:
            return False
        finally:
            if (task := self._under_way) is not None:
                task.cancel()
                await asyncio.wait([task])
        return True

    async def _flush(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closing()
        batch, self.batch = self.batch, Batch()
        owners, self._owners = self._owners, {}
        waiting, self._waiting = self._waiting, []
        if batch:
            written = await self._write(batch)
            self.batches += 1
            self.rows += len(batch)
            self.observed.pushed(batch.outcomes)
            self.observed.finished(written.finished, milliseconds(self._clock))
            self._wrote(batch, written)
        for owner, count in owners.items():
            owner.recorded(count)
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _write(self, batch: Batch) -> Written:
        pause = _RETRY_FIRST
        lost: frozenset[int] = frozenset()
        while True:
            try:
                if lost:
                    batch = await self._without(batch, lost)
                    self._dropped(lost)
                    lost = frozenset()
                async with self._database.write() as connection:
                    await self._ownership.guard(connection, batch.terms)
                    return await write(connection, batch, now=milliseconds(self._clock))
            except NotOwner as error:
                logger.error("results are not stored: %s", error)
                lost = error.partitions
            except STORE_FAILURES as error:
                if not is_temporary(error):
                    return await self._write_halves(batch, error)
                logger.exception("results could not be stored; trying again in %.1f s", pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, _RETRY_MOST)

    async def _without(self, batch: Batch, lost: frozenset[int]) -> Batch:
        """Return a batch without what belongs to partitions of others, who do it again."""
        operations, activities = batch.subjects()
        gone: list[set[int]] = []
        async with self._database.read() as connection:
            for table, rows in ((schema.operations, operations), (schema.activities, activities)):
                found: set[int] = set()
                for part in chunks(rows):
                    query = select(table.c.id).where(
                        table.c.id.in_(part), table.c.partition.in_(lost)
                    )
                    found.update((await connection.execute(query)).scalars())
                gone.append(found)
        kept = batch.without(*gone)
        kept.terms = {each: term for each, term in batch.terms.items() if each not in lost}
        return kept

    async def _write_halves(self, batch: Batch, error: Exception) -> Written:
        """Write a batch that the store refuses without the row that it refuses it for."""
        halves = batch.halves()
        if halves is None:
            logger.error("a result cannot be stored and is dropped: %.200s", error)
            return Written()
        first, second = await self._write(halves[0]), await self._write(halves[1])
        return Written(
            first.operations + second.operations,
            first.finished + second.finished,
            first.kept + second.kept,
        )
