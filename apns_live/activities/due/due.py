"""What all steps of the scheduler share, and the starts and ends at a set time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Row, ScalarSelect, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.activities import Activities
from ..accept.idempotency import Writing
from ..apps import App, apps_of
from ..requests import End, Presentation
from ..store import schema
from ..store.database import Database
from ..store.ownership import Ownership
from ..store.statements import change_row, rows_of
from ..times import ACTIVE_MILLISECONDS

logger = logging.getLogger("apns_live.activities")

MISSED = "its end had passed before it could be started"


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


class Step:
    """One kind of work. A row is due ``after`` milliseconds from the time in its column ``time``."""

    batch = 100
    """Rows that are handled in one transaction."""

    def __init__(self, database: Database, time: ColumnElement[int], after: int = 0) -> None:
        self.database = database
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

    def __init__(
        self, database: Database, ownership: Ownership, status: str, time: str, after: int = 0
    ) -> None:
        super().__init__(database, schema.activities.c[time], after)
        self.ownership = ownership
        self.status = status

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        table = schema.activities
        return table.c.status == self.status, self.time.is_not(None), self.ownership.mine(table)

    async def held(
        self, connection: AsyncConnection, rows: Sequence[Row[Any]], still: ColumnElement[bool]
    ) -> Sequence[Row[Any]]:
        """Lock and return the rows that are still due; another process may have handled some."""
        table = schema.activities
        ids = [row.id for row in rows]
        query = select(table).where(table.c.id.in_(ids), table.c.status == self.status, still)
        query = query.order_by(table.c.id).with_for_update(skip_locked=True)
        return await rows_of(connection, query)


class Timetable(StepOfActivities):
    """The starts, or the ends, at a set time."""

    def __init__(
        self,
        database: Database,
        activities: Activities,
        kind: Literal["start", "end"],
        ownership: Ownership,
    ) -> None:
        status = "scheduled" if kind == "start" else "active"
        super().__init__(database, ownership, status, f"{kind}_at")
        self._activities = activities
        self._act = self._start if kind == "start" else self._end

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        due, later = await self.due(now, schema.activities.c.id)
        if due:
            async with self.database.write() as connection:
                rows = await self.held(connection, due, self.time <= now)
                apps = await apps_of(connection, (row.app_id for row in rows))
                for row in rows:
                    app = apps[row.app_id]
                    await self._act(Writing(connection, app, now), row)
                    done.written.append((app, row.id))
        return later

    async def _end(self, writing: Writing, row: Row[Any]) -> None:
        try:
            presentation = msgspec.json.decode(row.end_message, type=Presentation)
        except msgspec.MsgspecError:
            logger.exception("the stored end of %r cannot be read", row.public_id)
            presentation = Presentation()
        end = End(
            id=row.public_id, reason="scheduled", presentation=presentation, dialect=row.dialect
        )
        await self._activities.change_within(writing, row, end)

    async def _start(self, writing: Writing, row: Row[Any]) -> None:
        connection, now = writing.connection, writing.now
        operations = schema.operations
        waiting = update(operations).where(
            operations.c.activity_id == row.id, operations.c.status == "scheduled"
        )
        if row.end_at is not None and row.end_at <= now:
            logger.warning("the activity %r was not started: %s", row.public_id, MISSED)
            values: dict[str, Any] = {"status": "ended", "end_reason": "missed"}
            values |= dict.fromkeys(("ended_at", "retired_at", "updated_at"), now)
            await change_row(connection, schema.activities, row.id, **values)
            failed = {"status": "failed", "reason": MISSED, "finished_at": now}
            await connection.execute(waiting.values(failed))
            return
        values = {"status": "active", "started_at": now, "updated_at": now}
        values["expires_at"] = now + ACTIVE_MILLISECONDS
        if row.hand_over_after is not None:
            values["hand_over_at"] = now + row.hand_over_after
        await change_row(connection, schema.activities, row.id, **values)
        # The start carries the newest state, so the updates before it need no push.
        before = waiting.where(operations.c.kind != "start")
        await connection.execute(before.values(status="superseded", finished_at=now))
        await connection.execute(waiting.values(status="accepted"))
