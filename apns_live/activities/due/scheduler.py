"""Runs scheduled work: starts and ends, the 8-hour limit of iOS, missing tokens.

Due work is found by index and done in batches of one transaction each. After a pause of the process
the scheduler catches up, by a clock that does not follow a jump at once (`SteadyTime`). Between runs the
scheduler sleeps until the next work is due, or until a write wakes it.
"""

import asyncio
from typing import Any

from sqlalchemy import select

from ..accept.activities import Activities
from ..core import Core, Part
from .due import Done, Ends, Expiry, HandOvers, Starts, Step
from .missing import MissingTokens, UnansweredStarts
from .steady_time import SteadyTime

LONGEST = 60.0
"""The longest sleep in seconds: timers do not notice a jump of the wall clock."""
BREATH = 0.25
"""Minimum seconds between two looks, however often `wake` is called."""


class Scheduler(Part):
    """Runs beside the service as long as it is open."""

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core)
        self.time = SteadyTime(core.clock)
        self._unanswered = UnansweredStarts(core)
        self._steps: tuple[Step, ...] = (
            Starts(core),
            Ends(core, activities),
            HandOvers(core, activities),
            Expiry(core, "active"),
            Expiry(core, "ended"),
            MissingTokens(core),
            self._unanswered,
        )
        self._built: tuple[frozenset[int], Any] | None = None
        """The partitions for which the statement of `_firsts` was built, and the statement."""
        self._longest = min(LONGEST, core.settings.token_wait)
        self._woken = asyncio.Event()
        self._sleeping = self._resting = False
        self.looks = 0

    @property
    def idle(self) -> bool:
        """Whether it sleeps until work is due."""
        return self._resting or (self._sleeping and not self._woken.is_set())

    @property
    def suspected(self) -> int:
        """How many start tokens became suspect here since the start."""
        return self._unanswered.suspected

    def wake(self) -> None:
        """Look again: something was written. Cheap; may be called often."""
        self._woken.set()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            self._woken.clear()
            await self._sleep_until(await self.catch_up())

    async def catch_up(self) -> int | None:
        """Do everything that is due now; return when the next work is due, in milliseconds.

        The steps take turns, a batch each, so that much work of one kind does not delay the others.
        """
        self.looks += 1
        dues = await self._firsts()
        more = True
        while more:
            more = False
            for step in self._steps:
                due, now = dues[step], self.time.milliseconds()
                if due is None or due > now:
                    continue
                done = Done()
                again = await step.run(done, now)
                self._tell(done)
                if done:
                    # The work of one step may make rows due for others. New calls wait for the next
                    # look: under load this loop would never end.
                    dues = await self._firsts()
                    more = True
                dues[step] = again
                more = more or (again is not None and again <= now)
        return min((due for due in dues.values() if due is not None), default=None)

    async def _firsts(self) -> dict[Step, int | None]:
        """Return when each step is next due, with one statement."""
        partitions = self.core.ownership.partitions
        if self._built is None or self._built[0] != partitions:
            # Building it takes longer than running it.
            self._built = partitions, select(*(step.first() for step in self._steps))
        row = await self.database.row(self._built[1])
        return dict(zip(self._steps, row or (), strict=True))

    def _tell(self, done: Done) -> None:
        for app, row in done.written:
            self.core.hooks.due(app, row)
        for activity, token in done.left:
            self.core.hooks.left(activity, token)
        activities = [*done.activities, *(row for _, row in done.written)]
        if activities or done.operations:
            self.core.hooks.changed(activities=activities, operations=done.operations)

    async def _sleep_until(self, due: int | None) -> None:
        wait = self._longest
        if due is not None:
            wait = min(wait, (due - self.time.milliseconds()) / 1000)
        begin = self.clock.monotonic()
        timer = self.clock.call_later(max(wait, BREATH), self._woken.set)
        self._sleeping = True
        try:
            await self._woken.wait()
            breath = BREATH - (self.clock.monotonic() - begin)
            if breath > 0:
                self._resting = True
                await self.clock.sleep(breath)
        finally:
            self._sleeping = self._resting = False
            timer.cancel()
