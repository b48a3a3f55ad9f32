"""Starts and ends at a set time, and what all steps of the scheduler share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from ..store.statements import rows_of
from ..times import ACTIVE_MILLISECONDS

logger = logging.getLogger("apns_live.activities")

BATCH = 100
MISSED = "its end had passed before it could be started"

Kind = Literal["start", "end"]


class Done:
    """What a batch did, told after its commit."""

    def __init__(self) -> None:
        self.written: list[tuple[App, int]] = []
        self.left: list[tuple[int, str]] = []
        self.activities: list[int] = []
        self.operations: list[int] = []
        self.noted = False
        """Whether rows changed in a way that only other steps care about."""

    def __bool__(self) -> bool:
        told = self.written or self.left or self.activities or self.operations
        return self.noted or bool(told)


class Timetable:
    """Does the starts, or the ends, that are due. One batch is one transaction."""

    def __init__(
        self, database: Database, activities: Activities, kind: Kind, ownership: Ownership
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._activities = activities
        self._kind = kind
        table = schema.activities
        self._column = table.c.start_at if kind == "start" else table.c.end_at
        self._status = "scheduled" if kind == "start" else "active"

    def _waiting(self) -> tuple[ColumnElement[bool], ...]:
        table = schema.activities
        mine = self._ownership.mine(table)
        return table.c.status == self._status, self._column.is_not(None), mine

    def first(self) -> ScalarSelect[int]:
        """Say when the first is due; see `Step`."""
        return earliest(self._column, *self._waiting())

    async def run(self, done: Done, now: int) -> int | None:
        """Do a batch; see `Step`."""
        column, status = self._column, self._status
        found = await self._database.rows(
            select(schema.activities.c.id, column.label("due"))
            .where(*self._waiting())
            .order_by(column)
            .limit(BATCH + 1)
        )
        due = [row.id for row in found[:BATCH] if row.due <= now]
        if due:
            async with self._database.write() as connection:
                rows = await held_rows(connection, due, status, column <= now)
                apps = await apps_of(connection, (row.app_id for row in rows))
                for row in rows:
                    if self._kind == "start":
                        await _start(connection, row, now)
                    else:
                        await self._end(connection, apps[row.app_id], row, now)
                    done.written.append((apps[row.app_id], row.id))
        return found[len(due)].due if len(due) < len(found) else None

    async def _end(self, connection: AsyncConnection, app: App, row: Row[Any], now: int) -> None:
        try:
            presentation = msgspec.json.decode(row.end_message, type=Presentation)
        except msgspec.MsgspecError:
            logger.exception("the stored end of %r cannot be read", row.public_id)
            presentation = Presentation()
        end = End(
            id=row.public_id, reason="scheduled", presentation=presentation, dialect=row.dialect
        )
        await self._activities.change_within(Writing(connection, app, now), row, end)


async def _start(connection: AsyncConnection, row: Row[Any], now: int) -> None:
    activities, operations = schema.activities, schema.operations
    waiting = (operations.c.activity_id == row.id, operations.c.status == "scheduled")
    if row.end_at is not None and row.end_at <= now:
        logger.warning("the activity %r was not started: %s", row.public_id, MISSED)
        ended = dict.fromkeys(("ended_at", "retired_at", "updated_at"), now)
        place = activities.c.id == row.id
        await connection.execute(
            update(activities).where(place).values(status="ended", end_reason="missed", **ended)
        )
        failed = {"status": "failed", "reason": MISSED, "finished_at": now}
        await connection.execute(update(operations).where(*waiting).values(failed))
        return
    begun = {"started_at": now, "expires_at": now + ACTIVE_MILLISECONDS, "updated_at": now}
    if row.hand_over_after is not None:
        begun["hand_over_at"] = now + row.hand_over_after
    place = activities.c.id == row.id
    await connection.execute(update(activities).where(place).values(status="active", **begun))
    # The start carries the newest state, so what was put in the meantime needs no push.
    await connection.execute(
        update(operations)
        .where(*waiting, operations.c.kind != "start")
        .values(status="superseded", finished_at=now)
    )
    await connection.execute(
        update(operations).where(*waiting, operations.c.kind == "start").values(status="accepted")
    )


def earliest(
    column: ColumnElement[int], *waiting: ColumnElement[bool], after: int = 0
) -> ScalarSelect[int]:
    """Return the least of a column, by its index, and ``after`` milliseconds later."""
    query = select(column + after if after else column)
    return query.where(*waiting).order_by(column).limit(1).scalar_subquery()


async def held_rows(
    connection: AsyncConnection, ids: Sequence[int], status: str, still: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Return the rows that are still due, locked; another process may have been faster."""
    table = schema.activities
    return await rows_of(
        connection,
        select(table)
        .where(table.c.id.in_(ids), table.c.status == status, still)
        .order_by(table.c.id)
        .with_for_update(skip_locked=True),
    )
