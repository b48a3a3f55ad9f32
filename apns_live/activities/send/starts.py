"""Runs the starts that were accepted, a few side by side, each as a `StartFanOut`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from ...errors import InvalidInput
from ..apps import App
from ..read.operations import persons_reached
from .backlog import ActivityBacklog, is_open
from .failing import Failing
from .fan_out import Setting
from .jobs import Jobs
from .refusals import Pauses
from .starting import StartFanOut


class Starts:
    """The starts of a courier. ``at_once`` is how many are fanned out side by side."""

    def __init__(
        self,
        setting: Setting,
        jobs: Jobs,
        failing: Failing,
        pauses: Pauses,
        backlog: ActivityBacklog,
        at_once: int,
    ) -> None:
        self._setting = setting
        self._jobs = jobs
        self._failing = failing
        self._pauses = pauses
        self._backlog = backlog
        self._most = 2 * at_once
        self._allowed = asyncio.Semaphore(at_once)
        self._later: dict[int, None] = {}
        """Activities whose start waits until others are done."""
        self.begun: dict[int, tuple[int, int]] = {}
        """Activity and partition of each start that was begun in this term and is not finished."""

    def __len__(self) -> int:
        return len(self._later)

    def begin(self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]) -> None:
        """Begin the first start of an activity that is open and need not wait."""
        starts = [
            row
            for row in operations
            if row.kind == "start"
            and is_open(row)
            and ("start", row.id) not in self._pauses
            and not (row.status == "failed" and row.id in self._failing.for_key)
        ]
        if not starts:
            return
        place = ("start", activity.id)
        if self._jobs.running("start") >= self._most and place not in self._jobs:
            self._later[activity.id] = None
            return
        self._jobs.begin(
            place,
            lambda: self._run(app, activity, starts[0]),
            partition=activity.partition,
            operations=starts[:1],
        )
        if len(starts) > 1:
            self._jobs.again(place)

    def ended(self) -> None:
        """Look at the next that waits: a start is done."""
        if self._later:
            self._backlog.add(later := next(iter(self._later)))
            del self._later[later]

    def leave(self, partitions: frozenset[int]) -> None:
        """Forget starts of partitions that are left: another worker may go on with them."""
        self.begun = {row: begun for row, begun in self.begun.items() if begun[1] not in partitions}

    def pause_over(self, operation: int) -> None:
        """Try a start again that was refused."""
        if operation in self.begun:
            self._backlog.add(self.begun[operation][0])

    async def _run(self, app: App, activity: Row[Any], operation: Row[Any]) -> None:
        async with (
            self._allowed,
            self._failing.carrier(app, activity.environment, [operation]) as carrier,
        ):
            if carrier is None:
                return
            fan_out = StartFanOut(
                self._setting,
                app,
                activity,
                operation,
                carrier,
                resumed=operation.id not in self.begun,
            )
            try:
                whole = await fan_out.run()
            except InvalidInput as error:
                await self._failing.fail([operation], str(error), final=True)
                return
            finally:
                if fan_out.taken_over and fan_out.ours and not fan_out.left:
                    self.begun[operation.id] = activity.id, activity.partition
        place = ("start", operation.id)
        if not await self._failing.settle(self._pauses, place, operation, fan_out, final=False):
            if not fan_out.refused:
                self.begun.pop(operation.id, None)
            return
        self.begun.pop(operation.id, None)
        if operation.reason and not whole and not fan_out.accepted and not operation.accepted:
            # It ended before anybody could be started.
            await self._failing.fail([operation], operation.reason, final=True)
            return
        persons = None
        status = "done" if whole or fan_out.sent or operation.cursor else "superseded"
        if status == "done":
            async with self._setting.database.read() as connection:
                persons = await persons_reached(connection, operation.id)
        await self._failing.note(operation, status, None, final=True, persons=persons)
