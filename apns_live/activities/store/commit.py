"""Group commit: writes that wait while a commit is running share the next transaction.

A commit costs about the same for one write as for fifty, and SQLite has one writer at a time. So writes
wait in a queue. A worker runs all waiting writes in one transaction, each in its own SAVEPOINT, and
answers after the commit. A failing write is rolled back to its savepoint and gets its own error. If the
commit fails, all writes get the error of `Database.write`.

Writes of one kind can be handled together (`Batch`) with a few statements for the whole group.
PostgreSQL commits concurrently, and transactions that lock rows of many requests could deadlock. So
there each batch, and each other write, has its own transaction.
"""

from __future__ import annotations

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
    """A request in the queue: a separate piece of work, or an item of a batch."""

    work: Work[Any] | None = None
    committed: Callable[[Any], object] | None = None
    batch: Batch[Any, Any] | None = None
    item: Any = None
    future: asyncio.Future[Any] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


_Result = tuple[_Waiting, Any, BaseException | None]


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
            done: Result = await self._wait(_Waiting(work, committed))
            return done
        async with self._database.write() as connection:
            result = await work(connection)
        committed(result)
        return result

    async def run_with(self, batch: Batch[Item, Result], item: Item) -> Result:
        """Handle ``item`` together with others of its kind. As `run`."""
        result: Result = await self._wait(_Waiting(batch=batch, item=item))
        return result

    async def _wait(self, waiting: _Waiting) -> Any:
        if len(self._queue) >= self._waiting_limit:
            raise Busy(f"{len(self._queue)} writes wait for the database", retry_after=1.0)
        self._queue.append(waiting)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            return await waiting.future
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
        results: list[_Result] = []
        batch: Batch[Any, Any] | None = None
        try:
            async with self._database.write() as connection:
                if not taken:
                    self._take(taken)  # only now: more requests arrived during the last commit
                batches = {waiting.batch for waiting in taken}
                batch = batches.pop() if len(batches) == 1 else None
                # A single request in its transaction needs no savepoint.
                if batch is None and len(taken) == 1 and (work := taken[0].work) is not None:
                    results.append((taken[0], await work(connection), None))
                elif batch is None:
                    await _run_group(connection, taken, results)
                else:
                    items = [waiting.item for waiting in taken]
                    results += _answered(taken, await batch.together(connection, items))
        except Exception as error:  # noqa: BLE001 - those who wait are told
            if not taken:
                self._take(taken)
            if batch is not None and not results and len(taken) > 1:
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
        for waiting, result, failure in results:
            if waiting.future.done():
                continue
            if isinstance(failure, SQLAlchemyError | OSError):
                # Database errors are converted as `Database.write` does. The savepoint was rolled
                # back.
                waiting.future.set_exception(explained(failure, self._database))
            elif failure is not None:
                waiting.future.set_exception(failure)
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


def _announce(results: Sequence[_Result]) -> None:
    """Call the callbacks that follow the commit, once for each batch."""
    batches: dict[Batch[Any, Any], list[Any]] = {}
    calls: list[tuple[Callable[[Any], object], Any]] = []
    for waiting, result, failure in results:
        if failure is None and waiting.batch is not None:
            batches.setdefault(waiting.batch, []).append(result)
        elif failure is None and waiting.committed is not None:
            calls.append((waiting.committed, result))
    for committed, given in (*calls, *((batch.committed, some) for batch, some in batches.items())):
        try:
            committed(given)
        except Exception:
            logger.exception("a task after a commit failed")


async def _run_group(
    connection: AsyncConnection, taken: Sequence[_Waiting], results: list[_Result]
) -> None:
    batches: dict[Batch[Any, Any], list[_Waiting]] = {}
    for waiting in taken:
        if waiting.batch is not None:
            batches.setdefault(waiting.batch, []).append(waiting)
    for waiting in taken:
        if (work := waiting.work) is not None:
            results.append(await _alone(connection, waiting, work))  # noqa: PERF401 - one by one
    for batch, some in batches.items():
        results.extend(await _together(connection, batch, some))


async def _alone(connection: AsyncConnection, waiting: _Waiting, work: Work[Any]) -> _Result:
    try:
        async with connection.begin_nested():
            return waiting, await work(connection), None
    except Exception as error:  # noqa: BLE001 - it is the requester's
        return waiting, None, error


async def _together(
    connection: AsyncConnection, batch: Batch[Any, Any], some: Sequence[_Waiting]
) -> list[_Result]:
    try:
        async with connection.begin_nested():
            answers = await batch.together(connection, [waiting.item for waiting in some])
    except Exception as error:  # noqa: BLE001 - the requester is told
        if len(some) == 1:
            return [(some[0], None, error)]
        # One bad item must not fail the other writes.
        return [
            entry for waiting in some for entry in await _together(connection, batch, [waiting])
        ]
    return _answered(some, answers)


def _answered(some: Sequence[_Waiting], answers: Sequence[Any]) -> list[_Result]:
    return [
        (waiting, None, answer) if isinstance(answer, Exception) else (waiting, answer, None)
        for waiting, answer in zip(some, answers, strict=True)
    ]
