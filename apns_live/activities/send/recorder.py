"""Stores results in batches: every 200 ms, or sooner when there are many."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock, Timer
from ..observed import Observed
from ..store.database import Database
from ..store.failures import STORE_FAILURES, is_temporary
from ..store.ownership import NOT_HELD, NotOwner, Ownership
from ..store.shards import Shard
from ..times import milliseconds
from .results import Batch, Written, write

logger = logging.getLogger("apns_live.activities")

INTERVAL = 0.2
"""Seconds within which a result is written."""
PATIENCE = 1.0
"""The same interval while more results of a shard are expected."""
AT_ONCE = 3_000
"""Results of a shard that are written without waiting for the interval."""
MOST = 30_000
"""Results that may wait for the store; above this sending pauses."""
_RETRY_FIRST, _RETRY_MOST = 0.5, 30.0


class Fence(NamedTuple):
    """A partition or shard, and the epoch in which results came: only then they are stored."""

    place: int
    epoch: int
    is_shard: bool = False


Parts = dict[Fence, Batch]
Recorded = Callable[[int], object]
"""Called with how many more of an owner's results are in the store."""


@dataclass(eq=False, repr=False)
class Recorder:
    """Collects results and writes them. ``closing`` records what the results complete.

    Results of an earlier term are discarded. ``dropped`` is called with their partitions, and the
    queue of shards with their shards. The sender must then forget its memory of them, and read the
    store again where it is still the owner.
    """

    database: Database
    clock: Clock
    ownership: Ownership
    _: KW_ONLY
    closing: Callable[[], None]
    wrote: Callable[[Batch, Written], None]
    dropped: Callable[[frozenset[int]], object] = lambda partitions: None

    def __post_init__(self) -> None:
        self._due = asyncio.Event()
        self._timer: Timer | None = None
        self._patient = False
        """Whether the timer waits for more results."""
        self._owners: dict[Recorded, int] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._under_way: asyncio.Task[None] | None = None
        self._parts: Parts = {}
        self._results = 0
        self.flushed: list[Callable[[], object]] = []
        """Called after results were written: paused sending may continue."""
        self.totals = Counter[str]()
        """The batches and rows that were written since the start."""
        self.observed = Observed()

    @property
    def busy(self) -> bool:
        """Whether results are not yet written."""
        due = self._timer is not None or self._due.is_set()
        return due or self._under_way is not None or bool(self._parts)

    @property
    def full(self) -> bool:
        """Whether sending must pause, because the store is behind."""
        return self._results >= MOST

    def __len__(self) -> int:
        return self._results

    def noting(self, of: int | Shard) -> Batch:
        """Return the batch for results of a partition in its present term, or of a shard."""
        if isinstance(of, Shard):
            fence = Fence(of.row, of.epoch, is_shard=True)
        else:
            fence = Fence(of, self.ownership.terms.get(of, NOT_HELD))
        if (part := self._parts.get(fence)) is None:
            part = self._parts[fence] = Batch()
        return part

    def count(self, owner: Recorded, results: int) -> None:
        """Notify ``owner`` when this many of its results are written."""
        self._owners[owner] = self._owners.get(owner, 0) + results

    def soon(self, results: int = 0, *, patient: bool = False) -> None:
        """Write ``results`` new results within the interval, or at once if there are many.

        Workers that share a start have few results per interval, and a transaction costs as much
        for few: ``patient`` waits for more.
        """
        self._results += results
        if self._results >= AT_ONCE:
            self._due.set()
        elif self._due.is_set() or (self._timer is not None and (patient or not self._patient)):
            return
        else:
            if self._timer is not None:
                self._timer.cancel()
            self._patient = patient
            self._timer = self.clock.call_later(PATIENCE if patient else INTERVAL, self._on_timer)

    async def written(self) -> None:
        """Write at once; return when everything noted so far is in the store."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._due.set()
        await future

    def _on_timer(self) -> None:
        self._timer = None
        self._due.set()

    async def run(self) -> None:
        """Write whenever results are due, until cancelled."""
        while True:
            await self._due.wait()
            await self.flush()
            for call in self.flushed:
                call()

    async def flush(self) -> None:
        """Write all results. Retries until the store accepts them.

        If the caller is cancelled, the write continues, and the next call waits for it. Results of
        an aborted write would lead to a second push.
        """
        while self._under_way is not None:
            await asyncio.wait([self._under_way])
        self._under_way = task = asyncio.create_task(self._flush())
        task.add_done_callback(lambda _: setattr(self, "_under_way", None))
        await asyncio.shield(task)

    async def aclose(self, patience: float) -> bool:
        """Write all results within ``patience`` seconds; return whether that sufficed."""
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
        self.closing()
        parts = {fence: part for fence, part in self._parts.items() if part or not fence.is_shard}
        self._parts, self._results = {}, 0
        owners, self._owners = self._owners, {}
        waiting, self._waiting = self._waiting, []
        for batch, written in await self._write(parts) if any(parts.values()) else ():
            self.totals["batches"] += 1
            self.totals["rows"] += len(batch)
            self.observed.pushed(batch.each())
            self.observed.finished(written.finished, milliseconds(self.clock))
            self.wrote(batch, written)
        for part in parts.values():
            self.ownership.shards.forget(row for (row,) in [*part.sent, *part.released])
        for owner, count in owners.items():
            owner(count)
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def _write(self, parts: Parts) -> list[tuple[Batch, Written]]:
        """Write the results whose term still lasts; return them."""
        pause = _RETRY_FIRST
        while True:
            terms = self.ownership.terms
            parts = {
                fence: part
                for fence, part in parts.items()
                if fence.is_shard or terms.get(fence.place) == fence.epoch
            }
            if not parts:
                return []
            batch = Batch.of(parts.values())
            try:
                async with self.database.write() as connection:
                    await self._guard(connection, parts)
                    written = await write(connection, batch, now=milliseconds(self.clock))
                return [(batch, written)]
            except NotOwner as error:
                logger.error("results are not stored: %s", error)
                lost = {False: error.partitions, True: error.shards}
                parts = {
                    fence: part
                    for fence, part in parts.items()
                    if fence.place not in lost[fence.is_shard]
                }
                self.ownership.shards.lose(error.shards)
                if error.partitions:
                    self.dropped(error.partitions)
            except STORE_FAILURES as error:
                if not is_temporary(error):
                    return await self._write_halves(parts, error)
                self.database.outage.failed("results could not be stored", error)
                await self.clock.sleep(pause)
                pause = min(pause * 2, _RETRY_MOST)

    async def _guard(self, connection: AsyncConnection, parts: Parts) -> None:
        """Lock the partitions and shards until the transaction ends. Raises `NotOwner`."""
        partitions = {fence.place: fence.epoch for fence in parts if not fence.is_shard}
        shards = {fence.place: fence.epoch for fence in parts if fence.is_shard}
        if partitions:
            await self.ownership.guard(connection, partitions)
        if shards and (lost := await self.ownership.shards.guard(connection, shards)):
            raise NotOwner(shards=lost)

    async def _write_halves(self, parts: Parts, error: Exception) -> list[tuple[Batch, Written]]:
        """Write everything except the row that the store refuses."""
        places = list(parts)
        if len(places) > 1:
            some = set(places[: len(places) // 2])
            halves = [
                {place: part for place, part in parts.items() if (place in some) is first}
                for first in (True, False)
            ]
        elif cut := parts[places[0]].halves():
            halves = [{places[0]: half} for half in cut]
        else:
            logger.error("a result cannot be stored and is dropped: %.200s", error)
            return []
        return await self._write(halves[0]) + await self._write(halves[1])
