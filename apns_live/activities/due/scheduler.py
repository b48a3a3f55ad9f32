"""Runs scheduled work: starts and ends, the 8-hour limit of iOS, missing tokens.

Due work is found by index and done in batches of one transaction each. After a pause of the process
the scheduler catches up. If a machine's clock is a day ahead for a minute, the service must not end every
activity: a jump of the clock counts only after a while (`SteadyTime`). Between runs the scheduler sleeps
until the next work is due, or until a write wakes it.

APNs answers 200 also for a start that the phone refuses (its budget is spent, Live Activities are
switched off). Or the phone shows the card and does not wake the app. In both cases no activity
token arrives, and the device gets no updates. The last two steps report and count such starts.
"""

import asyncio
import logging
from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, select, update

from ...clock import Clock
from ..accept.activities import Activities
from ..apps import apps_of
from ..core import Core, Part
from ..people.suspects import SUSPECT, count_unanswered
from ..store import schema
from ..store.statements import hold, rows_of
from .due import Done, Ends, Expiry, HandOvers, Starts, Step

logger = logging.getLogger("apns_live.activities")

LONGEST = 60.0
"""The longest sleep in seconds: timers do not notice a jump of the wall clock."""
BREATH = 0.25
"""Minimum seconds between two looks, however often `wake` is called."""
JUMP = 30.0
"""Seconds of difference between the clocks that count as a jump; a smaller one is followed at once.
"""
CONFIRMED = 600.0
"""Seconds for which the wall clock must stay ahead before activities end by its new time."""
TOLD = 900.0
"""Seconds for which a jump stays a warning."""

_table, _operations = schema.activity_devices, schema.operations
_OVERDUE = (
    _table.c.token.is_(None),
    _table.c.missing_reported_at.is_(None),
    _table.c.retired_at.is_(None),
)


class SteadyTime:
    """Follows the wall clock, but a jump ahead only after `CONFIRMED` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trusted = self._seen = clock.time() - clock.monotonic()
        self._since = 0.0
        self._jump = 0.0
        self._told_until = 0.0

    def milliseconds(self) -> int:
        """Return the steadied time in milliseconds since 1970."""
        self.look()
        return int((self._clock.monotonic() + self._trusted) * 1000)

    def look(self) -> None:
        """Compare the clocks, and log a jump."""
        now = self._clock.monotonic()
        offset = self._clock.time() - now
        jump = offset - self._seen
        if abs(jump) > JUMP:
            self._jump, self._since, self._told_until = jump, now, now + TOLD
            logger.warning(
                "the clock was set by %+.0f s: times before and after cannot be compared", jump
            )
        self._seen = offset
        if offset - self._trusted <= JUMP or now - self._since >= CONFIRMED:
            self._trusted = offset

    def warning(self) -> str:
        """Return a warning for a quarter of an hour after a jump, else an empty text."""
        if self._clock.monotonic() < self._told_until:
            return f"the clock was set by {self._jump:+.0f} s"
        return ""


class MissingTokens(Step):
    """Reports, once each, devices whose token is overdue. Those on a channel need none."""

    batch = 1_000
    pause = 1_000
    """Milliseconds: a start that takes minutes is checked once a second, not once per page."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, _table.c.started_at, int(core.settings.token_wait * 1000))

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        return *_OVERDUE, self.time.is_not(None)

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        activities = schema.activities
        due, later = await self.due(now, _table.c.id, _table.c.activity_id)
        if due:
            done.noted = True  # These may also count as unanswered.
            places = {row.activity_id for row in due}
            starts = select(_operations.c.id).where(
                _operations.c.activity_id.in_(places), _operations.c.kind == "start"
            )
            late = update(_table).where(_table.c.id.in_([row.id for row in due]), *_OVERDUE)
            late = late.values(missing_reported_at=now)
            async with self.database.write() as connection:
                await hold(connection, activities, places)
                await hold(connection, schema.operations, await connection.scalars(starts))
                reported = await connection.execute(
                    late.returning(_table.c.activity_id, _table.c.by_channel)
                )
                counts = Counter(row.activity_id for row in reported if not row.by_channel)
                names = select(activities.c.id, activities.c.app_id, activities.c.public_id)
                rows = await rows_of(connection, names.where(activities.c.id.in_(counts)))
                apps = await apps_of(connection, (row.app_id for row in rows))
                for row in rows:
                    count = _operations.c.missing + counts[row.id]
                    theirs = _operations.c.activity_id == row.id, _operations.c.kind == "start"
                    changed = update(_operations).where(*theirs)
                    changed = changed.values(missing=count).returning(_operations.c.id)
                    done.operations += await connection.scalars(changed)
                    done.activities.append(row.id)
                    logger.warning(
                        "the activity %r of the app %r was started on %d devices that sent no token "
                        "within %g s: they get no updates until one comes",
                        row.public_id,
                        apps[row.app_id].id,
                        counts[row.id],
                        self.core.settings.token_wait,
                    )
        return later if later is None or later <= now else max(later, now + self.pause)


class UnansweredStarts(Step):
    """Counts unanswered starts at the start tokens, which may become suspect.

    Only devices that were reported for a missing token are checked, so an answered start costs
    nothing.
    """

    batch = 1_000
    pause = 10_000
    """Milliseconds between two checks of a start that takes minutes."""

    def __init__(self, core: Core) -> None:
        wait = max(core.settings.suspect_wait, core.settings.token_wait)
        super().__init__(core, _table.c.started_at, int(wait * 1000))
        self.suspected = 0
        """Tokens that became suspect since the start of the process."""

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        return (
            _table.c.missing_reported_at.is_not(None),
            _table.c.start_settled_at.is_(None),
            _table.c.token.is_(None),
            _table.c.retired_at.is_(None),
            self.time.is_not(None),
        )

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        # Until a start is finished, APNs may not have accepted all of its pushes.
        unfinished = select(_operations.c.id).where(
            _operations.c.activity_id == _table.c.activity_id,
            _operations.c.kind == "start",
            _operations.c.status.in_(("running", schema.SHARDED)),
            _operations.c.finished_at.is_(None),
        )
        finished = unfinished.limit(1).scalar_subquery().is_(None)
        due = now - self.after
        overdue = select(_table.c.id, _table.c.activity_id).where(
            *self.waiting(), self.time <= due, finished
        )
        if found := await self.database.rows(overdue.order_by(self.time).limit(self.batch)):
            async with self.database.write() as connection:
                await hold(connection, schema.activities, {row.activity_id for row in found})
                suspects = await count_unanswered(connection, [row.id for row in found], now)
            self.suspected += suspects
            if suspects:
                logger.warning(
                    "%d push-to-start tokens are suspect: %d starts in a row brought neither an "
                    "activity token nor a receipt",
                    suspects,
                    SUSPECT,
                )
        if len(found) == self.batch:
            return now
        later = await self.database.scalar(select(self.first(self.time > due)))
        return None if later is None else max(later, now + self.pause)


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
