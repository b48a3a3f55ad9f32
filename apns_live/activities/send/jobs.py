"""Runs long work: one task for each activity and kind. An error in one does not affect others."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from ...clock import Clock
from ...errors import ApnsLiveError, InvalidInput
from ..store.failures import Outage
from ..store.ownership import NotOwner, Ownership
from .apns_clients import NoKey
from .backlog import ActivityBacklog
from .failing import Failing
from .live import Live
from .lives import Lives

logger = logging.getLogger("apns_live.activities")

TRY_AGAIN = 1.0
"""Seconds after which work is repeated when the store failed."""
_LEAVE_PATIENCE = 0.5
"""Seconds within which work on given-up partitions must end; it gets them twice."""

Place = tuple[str, int]
"""The kind of work, and an activity's row."""
Work = Callable[[], Coroutine[Any, Any, None]]
Broken = Callable[[Place, Sequence[Row[Any]], Exception], Coroutine[Any, Any, None]]


@dataclass(eq=False, repr=False)
class Jobs:
    """The tasks of a courier.

    ``ended`` is called with the place of finished work, and whether to look at the activity again.
    ``broken`` is called with the place and operations of work that failed for a reason other than
    the store.
    """

    clock: Clock
    ownership: Ownership
    outage: Outage
    _: KW_ONLY
    ended: Callable[[Place, bool], object]
    broken: Broken

    def __post_init__(self) -> None:
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._partitions: dict[Place, int] = {}
        self._again: set[Place] = set()
        self.group: asyncio.TaskGroup | None = None
        """The task group of all work; None while the courier does not run."""

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, place: object) -> bool:
        return place in self._tasks

    def running(self, kind: str) -> int:
        """Return how many jobs of a kind are running."""
        return sum(one == kind for one, _ in self._tasks)

    def again(self, place: Place) -> None:
        """Look at an activity again when its running work has ended."""
        self._again.add(place)

    def begin(
        self,
        place: Place,
        work: Work,
        *,
        partition: int | None = None,
        operations: Sequence[Row[Any]] = (),
    ) -> None:
        """Begin a job, after the running job of the same place.

        It ends when ``partition`` is given up; ``operations`` fail if it breaks.
        """
        if place in self._tasks:
            self._again.add(place)
        elif self.group is not None:
            if partition is not None:
                self._partitions[place] = partition
            self._tasks[place] = self.group.create_task(self._keep(place, work, operations))

    async def leave(self, partitions: frozenset[int]) -> bool:
        """End the work of partitions; return False if some work noticed too late that another worker owns them."""
        tasks = [
            task for place, task in self._tasks.items() if self._partitions.get(place) in partitions
        ]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LEAVE_PATIENCE)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=_LEAVE_PATIENCE)
                return False
        return True

    async def _keep(self, place: Place, work: Work, operations: Sequence[Row[Any]]) -> None:
        try:
            await work()
        except NotOwner:
            logger.info("a %s goes on with another worker", place[0])
            if self._partitions.get(place) in self.ownership.partitions:
                await self.clock.sleep(TRY_AGAIN)  # its lease was about to end, or it came back
                self._again.add(place)
        except (SQLAlchemyError, ApnsLiveError, OSError) as error:
            self.outage.failed(f"work of the kind {place[0]!r} failed", error)
            await self.clock.sleep(TRY_AGAIN)
            self._again.add(place)
        except Exception as error:
            logger.exception("a %s failed", place[0])
            await self.broken(place, operations, error)
        finally:
            del self._tasks[place]
            self._partitions.pop(place, None)
            again = place in self._again
            self._again.discard(place)
            self.ended(place, again)


_SIDE_BY_SIDE = 4


@dataclass(eq=False, repr=False)
class Reading:
    """Sets of activities whose tokens are being read. ``moved`` is called when a set is done."""

    lives: Lives
    failing: Failing
    backlog: ActivityBacklog
    jobs: Jobs
    clock: Clock
    moved: Callable[[], object]

    def __post_init__(self) -> None:
        self._under_way: set[Live] = set()
        self._free = asyncio.Semaphore(_SIDE_BY_SIDE)

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, live: object) -> bool:
        return live in self._under_way

    async def begin(self, lives: Sequence[Live]) -> None:
        """Begin to read the tokens of activities, once fewer other sets are being read."""
        await self._free.acquire()
        if self.jobs.group is not None:
            self._under_way.update(lives)
            self.jobs.group.create_task(self._read(lives))

    async def _read(self, lives: Sequence[Live]) -> None:
        try:
            try:
                failed, large = await self.lives.read_together(lives)
            finally:
                self._free.release()
            for live in large:
                failed |= await self.lives.read(live)
            for row, error in failed.items():
                if isinstance(error, NoKey | InvalidInput):
                    await self.failing.fail_changes(row, str(error), final=False)
                else:
                    logger.error("the activity %d cannot be sent", row, exc_info=error)
                    await self.failing.fail_unreadable(row, error)
        except (SQLAlchemyError, ApnsLiveError, OSError) as error:
            self.jobs.outage.failed("the tokens of activities could not be read", error)
            await self.clock.sleep(TRY_AGAIN)
            for live in lives:
                self.backlog.add(live.row)
        finally:
            for live in lives:
                self._under_way.discard(live)
                if live.to_read:  # a new state arrived meanwhile
                    self.backlog.add(live.row)
            self.moved()
