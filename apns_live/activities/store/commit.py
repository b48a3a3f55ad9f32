"""Group commit: writes that wait while a commit is running share the next transaction.

A commit costs about the same for one write as for fifty, and SQLite has one writer at a time. So writes
wait in a queue. A worker runs all waiting writes in one transaction, each in its own SAVEPOINT, and
answers after the commit. A failing write is rolled back to its savepoint and gets its own error. If the
commit fails, all writes get the error of `Database.write`.

Writes of one kind can be handled together (`Batch`) with a few statements for the whole group.
PostgreSQL commits concurrently, and transactions that lock rows of many requests could deadlock. So
there each batch, and each other write, has its own transaction.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Busy
from .database import Database
from .failures import explained

Result = TypeVar("Result")
Item = TypeVar("Item")

WAITING = 1_024
GROUP = 128

logger = logging.getLogger("apns_live.activities")

Work = Callable[[AsyncConnection], Awaitable[Result]]
Together = Callable[[AsyncConnection, Sequence[Item]], Awaitable[Sequence[Result | Exception]]]


@dataclass(eq=False, repr=False, slots=True)
class Batch(Generic[Item, Result]):
    """A kind of request of which many are handled together.

    ``together`` returns for each item its result or its exception; of a refused item it must leave
    nothing in the database. If ``together`` raises, every item is tried by itself. ``committed`` is
    called after the commit with the results, even if their callers no longer wait.
    """

    together: Together[Item, Result]
    committed: Callable[[Sequence[Result]], object] = lambda results: None


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request in the queue."""

    batch: Batch[Any, Any]
    item: Any
    future: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


_Results = list[tuple[_Waiting, Any]]
"""Requests, each with its result or its exception."""


class GroupCommit:
    """Runs writes in groups. Needs no start: a worker runs while requests wait.

    ``waiting`` is the maximum number of waiting requests, ``group`` how many share a commit.
    """

    def __init__(self, database: Database, *, waiting: int = WAITING, group: int = GROUP) -> None:
        self._database = database
        self._waiting_limit = waiting
        self._group = group
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.commits = 0
        """Transactions so far."""
        self.requests = 0
        """Requests in them."""

    def __len__(self) -> int:
        return len(self._queue)

    def limit(self, waiting: int) -> None:
        """Set the maximum number of waiting requests."""
        self._waiting_limit = waiting

    async def run(
        self, work: Work[Result], committed: Callable[[Result], object] = lambda result: None
    ) -> Result:
        """Run ``work`` inside a transaction, behind a savepoint; return when it is committed.

        ``committed`` is called with the result after the commit. Raises the errors of ``work`` and
        of `Database.write`, and `Busy` if the queue is full. A cancelled caller leaves the queue.
        If its turn has come already, the work and ``committed`` still run.
        """
        if self._database.is_sqlite:

            async def alone(connection: AsyncConnection, _: object) -> list[Result]:
                return [await work(connection)]

            batch: Batch[None, Result] = Batch(alone, lambda results: committed(results[0]))
            return await self.run_with(batch, None)
        async with self._database.write() as connection:
            result = await work(connection)
        committed(result)
        return result

    async def run_with(self, batch: Batch[Item, Result], item: Item) -> Result:
        """Handle ``item`` together with others of its kind. As `run`."""
        if len(self._queue) >= self._waiting_limit:
            raise Busy(f"{len(self._queue)} writes wait for the database", retry_after=1.0)
        waiting = _Waiting(batch, item)
        self._queue.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            result: Result = await waiting.future
            return result
        finally:
            # The traceback of an error refers to this frame. A reference to the future, which has
            # the error, would be a cycle that keeps the request until the garbage collector runs.
            del waiting

    async def _work(self) -> None:
        taken: list[_Waiting] = []
        try:
            while self._queue:
                taken = []
                await self._commit(taken)
        finally:
            self._worker = None
            # Cancelled with the event loop: no caller may wait forever.
            for waiting in (*taken, *self._queue):
                waiting.future.cancel()
            self._queue.clear()

    async def _commit(self, taken: list[_Waiting]) -> None:
        """Run one group, which is added to ``taken``. The waiting callers get its errors."""
        results: _Results = []
        groups: dict[Batch[Any, Any], list[_Waiting]] = {}
        try:
            async with self._database.write() as connection:
                if not taken:
                    self._take(taken)  # only now: more requests arrived during the last commit
                for waiting in taken:
                    groups.setdefault(waiting.batch, []).append(waiting)
                for batch, some in groups.items():
                    if len(groups) == 1:  # one kind in its transaction needs no savepoint
                        results = await _answers(connection, batch, some)
                    else:
                        results += await _behind_savepoint(connection, batch, some)
        except Exception as error:  # noqa: BLE001 - those who wait are told
            if not taken:
                self._take(taken)
            if len(groups) == 1 and not results and len(taken) > 1:
                for waiting in taken:  # One bad item must not fail the other writes.
                    await self._commit([waiting])
                return
            for waiting in taken:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
            return
        self.commits += 1
        self.requests += len(results)
        _announce(results)
        for waiting, result in results:
            if waiting.future.done():
                continue
            if isinstance(result, SQLAlchemyError | OSError):
                # Database errors are converted as `Database.write` does. The savepoint was rolled
                # back.
                waiting.future.set_exception(explained(result, self._database))
            elif isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)

    def _take(self, taken: list[_Waiting]) -> None:
        left: list[_Waiting] = []
        while self._queue and len(taken) < self._group:
            waiting = self._queue.popleft()
            if waiting.future.done():
                continue
            one_kind = self._database.is_sqlite or not taken or waiting.batch is taken[0].batch
            (taken if one_kind else left).append(waiting)
        self._queue.extendleft(reversed(left))


def _announce(results: _Results) -> None:
    """Call the callbacks that follow the commit, once for each batch."""
    batches: dict[Batch[Any, Any], list[Any]] = {}
    for waiting, result in results:
        if not isinstance(result, Exception):
            batches.setdefault(waiting.batch, []).append(result)
    for batch, some in batches.items():
        try:
            batch.committed(some)
        except Exception:
            logger.exception("a task after a commit failed")


async def _answers(
    connection: AsyncConnection, batch: Batch[Any, Any], some: Sequence[_Waiting]
) -> _Results:
    answers = await batch.together(connection, [waiting.item for waiting in some])
    return list(zip(some, answers, strict=True))


async def _behind_savepoint(
    connection: AsyncConnection, batch: Batch[Any, Any], some: Sequence[_Waiting]
) -> _Results:
    try:
        async with connection.begin_nested():
            return await _answers(connection, batch, some)
    except Exception as error:  # noqa: BLE001 - the requester is told
        if len(some) == 1:
            return [(some[0], error)]
        # One bad item must not fail the other writes.
        return [
            entry
            for waiting in some
            for entry in await _behind_savepoint(connection, batch, [waiting])
        ]
