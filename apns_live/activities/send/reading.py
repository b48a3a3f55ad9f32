"""Reads the tokens of activities that are looked at, some sets of them side by side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from ...clock import Clock
from ...errors import ApnsLiveError, InvalidInput
from .apns_clients import NoKey
from .backlog import ActivityBacklog
from .failing import Failing
from .jobs import TRY_AGAIN, Jobs
from .live import Live
from .lives import Lives

logger = logging.getLogger("apns_live.activities")

_SIDE_BY_SIDE = 4


@dataclass(eq=False, repr=False)
class Reading:
    """The sets of activities whose tokens are being read. ``moved`` is called when one is done."""

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
        """Begin to read the tokens of activities, once fewer others are being read."""
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
        except (SQLAlchemyError, ApnsLiveError, OSError):
            logger.exception("the tokens of %d activities could not be read; again", len(lives))
            await self.clock.sleep(TRY_AGAIN)
            for live in lives:
                self.backlog.add(live.row)
        finally:
            for live in lives:
                self._under_way.discard(live)
                if live.to_read:  # a state came meanwhile
                    self.backlog.add(live.row)
            self.moved()
