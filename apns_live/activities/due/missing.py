"""Reports and counts started cards that sent no activity token: their devices get no updates.

APNs answers 200 also for a start that the phone refuses (its budget is spent, Live Activities are
switched off). Or the phone shows the card and does not wake the app.
"""

import logging
from collections import Counter

from sqlalchemy import ColumnElement, select, update

from ..apps import apps_of
from ..core import Core
from ..people.suspects import SUSPECT, count_unanswered
from ..store import schema
from ..store.statements import hold, rows_of
from .due import Done, Step

logger = logging.getLogger("apns_live.activities")

_table, _operations = schema.activity_devices, schema.operations
_OVERDUE = (
    _table.c.token.is_(None),
    _table.c.missing_reported_at.is_(None),
    _table.c.retired_at.is_(None),
)


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
