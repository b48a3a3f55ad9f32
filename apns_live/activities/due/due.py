"""What all steps of the scheduler share, and the starts, ends and hand-overs at a set time.

A hand-over starts a second card before iOS ends the first one at 8 hours. The step stores an operation for each
activity that has a card old enough. The sender then starts the second card with the newest state, and ends the
first one when the second one's token comes. An activity that its caller has not updated for as long as a card
lives is left to iOS: the caller may have forgotten to end it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, ScalarSelect, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.activities import Activities
from ..accept.idempotency import Writing
from ..apps import App, apps_of
from ..core import Core, Part
from ..requests import End, Presentation
from ..store import hand_over, schema
from ..store.statements import change_row, rows_of
from ..times import ACTIVE_MILLISECONDS

logger = logging.getLogger("apns_live.activities")

MISSED = "its end had passed before it could be started"
AGAIN = 300_000
"""Milliseconds until an activity is checked again while a card of it is due for a hand-over."""

_table = schema.activities
_operations = schema.operations


@dataclass
class Done:
    """The result of a batch. The scheduler sends its notifications after the commit."""

    written: list[tuple[App, int]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)
    activities: list[int] = field(default_factory=list)
    operations: list[int] = field(default_factory=list)
    noted: bool = False
    """True if rows changed that matter only to other steps."""

    def __bool__(self) -> bool:
        return self.noted or bool(self.written or self.left or self.activities or self.operations)


class Step(Part):
    """One kind of work. A row is due ``after`` milliseconds from the time in its column ``time``."""

    batch = 100
    """Rows that are handled in one transaction."""

    def __init__(self, core: Core, time: ColumnElement[int], after: int = 0) -> None:
        super().__init__(core)
        self.time = time
        self.after = after

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions of rows that are due now or later."""
        raise NotImplementedError

    async def run(self, done: Done, now: int) -> int | None:
        """Handle one batch of what is due at ``now``; return when to look again, in milliseconds.

        A past time means that more work is due; None means that no work is known.
        """
        raise NotImplementedError

    def first(self, *more: ColumnElement[bool]) -> ScalarSelect[int]:
        """Return the query for the time when the first row is due; NULL if there is none."""
        query = select(self.time + self.after if self.after else self.time)
        query = query.where(*self.waiting(), *more).order_by(self.time).limit(1)
        return query.scalar_subquery()

    async def due(self, now: int, *columns: Any) -> tuple[list[Row[Any]], int | None]:
        """Return a batch of due rows, and the due time of the first row after them."""
        query = select(*columns, self.time.label("due")).where(*self.waiting()).order_by(self.time)
        found = await self.database.rows(query.limit(self.batch + 1))
        rows = [row for row in found[: self.batch] if row.due + self.after <= now]
        return rows, found[len(rows)].due + self.after if len(rows) < len(found) else None


class StepOfActivities(Step):
    """A step over the activities of one status in the partitions that this process owns."""

    def __init__(self, core: Core, status: str, time: str, after: int = 0) -> None:
        super().__init__(core, _table.c[time], after)
        self.status = status

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        mine = self.core.ownership.mine(_table)
        return _table.c.status == self.status, self.time.is_not(None), mine

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        due, later = await self.due(now, _table.c.id)
        looks = [] if later is None else [later]
        if due:
            async with self.database.write() as connection:
                rows = await self.held(connection, due, self.time <= now)
                apps = await apps_of(connection, (row.app_id for row in rows))
                for row in rows:
                    again = await self.act(Writing(connection, apps[row.app_id], now), row, done)
                    looks += [] if again is None else [again]
        return min(looks, default=None)

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> int | None:
        """Handle an activity that is due, in a transaction; return when it is due again."""
        raise NotImplementedError

    async def held(
        self, connection: AsyncConnection, rows: Sequence[Row[Any]], still: ColumnElement[bool]
    ) -> Sequence[Row[Any]]:
        """Lock and return the rows that are still due; another process may have handled some."""
        ids = [row.id for row in rows]
        query = select(_table).where(_table.c.id.in_(ids), _table.c.status == self.status, still)
        query = query.order_by(_table.c.id).with_for_update(skip_locked=True)
        return await rows_of(connection, query)


class Ends(StepOfActivities):
    """The ends at a set time."""

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core, "active", "end_at")
        self._activities = activities

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> None:
        """See `StepOfActivities`."""
        try:
            presentation = msgspec.json.decode(row.end_message, type=Presentation)
        except msgspec.MsgspecError:
            logger.exception("the stored end of %r cannot be read", row.public_id)
            presentation = Presentation()
        end = End(
            id=row.public_id, reason="scheduled", presentation=presentation, dialect=row.dialect
        )
        await self._activities.change_within(writing, row, end)
        done.written.append((writing.app, row.id))


class Starts(StepOfActivities):
    """The starts at a set time."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, "scheduled", "start_at")

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> None:
        """See `StepOfActivities`."""
        connection, now = writing.connection, writing.now
        done.written.append((writing.app, row.id))
        waiting = update(_operations).where(
            _operations.c.activity_id == row.id, _operations.c.status == "scheduled"
        )
        if row.end_at is not None and row.end_at <= now:
            logger.warning("the activity %r was not started: %s", row.public_id, MISSED)
            values: dict[str, Any] = {"status": "ended", "end_reason": "missed"}
            values |= dict.fromkeys(("ended_at", "retired_at", "updated_at"), now)
            await change_row(connection, _table, row.id, **values)
            failed = {"status": "failed", "reason": MISSED, "finished_at": now}
            await connection.execute(waiting.values(failed))
            return
        values = {"status": "active", "started_at": now, "updated_at": now}
        values["expires_at"] = now + ACTIVE_MILLISECONDS
        if row.hand_over_after is not None:
            values["hand_over_at"] = now + row.hand_over_after
        await change_row(connection, _table, row.id, **values)
        # The start carries the newest state, so the updates before it need no push.
        before = waiting.where(_operations.c.kind != "start")
        await connection.execute(before.values(status="superseded", finished_at=now))
        await connection.execute(waiting.values(status="accepted"))


class HandOvers(StepOfActivities):
    """Activities with cards that are due for a hand-over."""

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core, "active", "hand_over_at")
        self._activities = activities

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> int:
        """See `StepOfActivities`."""
        connection, now = writing.connection, writing.now
        done.left += [(row.id, one) for one in await hand_over.leave_first(connection, row, now)]
        if await _is_wanted(connection, row, now):
            await self._activities.hand_over_within(writing, row)
            done.written.append((writing.app, row.id))
            logger.info("the cards of %r are replaced before iOS ends them", row.public_id)
        again = await _next_look(connection, row, now)
        await change_row(connection, _table, row.id, hand_over_at=again)
        return again


async def _is_wanted(connection: AsyncConnection, row: Row[Any], now: int) -> bool:
    """Return True if the caller still updates an activity, and a card of it can be handed over."""
    streams = schema.streams
    since = now - row.hand_over_after
    at_work = row.updated_at > since or await _holds(
        connection, streams.c.activity_id == row.id, streams.c.updated_at > since
    )
    soon_over = row.end_at is not None and row.end_at <= since + ACTIVE_MILLISECONDS
    unfinished_start = (
        _operations.c.activity_id == row.id,
        _operations.c.kind == "start",
        _operations.c.finished_at.is_(None),
    )
    if not at_work or soon_over or await _holds(connection, *unfinished_start):
        return False
    if await _holds(connection, hand_over.eligible(row, now)):
        return True
    return row.stream_key is not None and await _holds(connection, hand_over.over(row, now))


async def _holds(connection: AsyncConnection, *conditions: Any) -> bool:
    return bool(await connection.scalar(select(exists().where(*conditions))))


async def _next_look(connection: AsyncConnection, row: Row[Any], now: int) -> int:
    """Return when to check again: soon while a card is due, else when the next card is."""
    if await _holds(connection, hand_over.due(row, now)):
        return now + AGAIN
    members = schema.activity_devices
    younger = (members.c.activity_id == row.id, members.c.retired_at.is_(None))
    began, after = hand_over.begun(members), int(row.hand_over_after)
    query = select(func.min(began)).where(*younger, began > now - after)
    least: int | None = await connection.scalar(query)
    again = max(now + AGAIN, (now if least is None else least) + after)
    waiting = select(func.min(hand_over.first_begun())).where(hand_over.awaited(row))
    first: int | None = await connection.scalar(waiting)
    return again if first is None else min(again, max(now, first + ACTIVE_MILLISECONDS))
