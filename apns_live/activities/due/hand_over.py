"""Start a second card before iOS ends the first one at 8 hours.

This module stores an operation for each activity that has a card old enough. The sender then starts the
second card with the newest state, and ends the first one when the second one's token comes. An activity that
its caller has not updated for as long as a card lives is left to iOS: the caller may have forgotten to end it.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Row, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.activities import Activities
from ..accept.idempotency import Writing
from ..apps import apps_of
from ..store import schema
from ..store.database import Database
from ..store.hand_over import awaited, begun, due, eligible, first_begun, leave_first, over
from ..store.ownership import Ownership
from ..store.statements import change_row
from ..times import ACTIVE_MILLISECONDS
from .due import Done, StepOfActivities

logger = logging.getLogger("apns_live.activities")

AGAIN = 300_000
"""Milliseconds until an activity is checked again while a card of it is due."""


class HandOvers(StepOfActivities):
    """Activities with cards that are due for a hand-over."""

    def __init__(self, database: Database, activities: Activities, ownership: Ownership) -> None:
        super().__init__(database, ownership, "active", "hand_over_at")
        self._activities = activities

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        table = schema.activities
        found, _ = await self.due(now, table.c.id)
        async with self.database.write() as connection:
            rows = await self.held(connection, found, self.time <= now)
            apps = await apps_of(connection, (row.app_id for row in rows))
            for row in rows:
                done.left += [(row.id, one) for one in await leave_first(connection, row, now)]
                if await _is_wanted(connection, row, now):
                    app = apps[row.app_id]
                    await self._activities.hand_over_within(Writing(connection, app, now), row)
                    done.written.append((app, row.id))
                    logger.info("the cards of %r are replaced before iOS ends them", row.public_id)
                again = await _next_look(connection, row, now)
                await change_row(connection, table, row.id, hand_over_at=again)
        again_at: int | None = await self.database.scalar(select(self.first()))
        return again_at


async def _is_wanted(connection: AsyncConnection, row: Row[Any], now: int) -> bool:
    """Return True if the caller still updates an activity, and a card of it can be handed over."""
    operations, streams = schema.operations, schema.streams
    since = now - row.hand_over_after
    at_work = row.updated_at > since or await _holds(
        connection, streams.c.activity_id == row.id, streams.c.updated_at > since
    )
    soon_over = row.end_at is not None and row.end_at <= since + ACTIVE_MILLISECONDS
    unfinished_start = (
        operations.c.activity_id == row.id,
        operations.c.kind == "start",
        operations.c.finished_at.is_(None),
    )
    if not at_work or soon_over or await _holds(connection, *unfinished_start):
        return False
    if await _holds(connection, eligible(row, now)):
        return True
    return row.stream_key is not None and await _holds(connection, over(row, now))


async def _holds(connection: AsyncConnection, *conditions: Any) -> bool:
    return bool(await connection.scalar(select(exists().where(*conditions))))


async def _next_look(connection: AsyncConnection, row: Row[Any], now: int) -> int:
    """Return when to check again: soon while a card is due, else when the next card is."""
    if await _holds(connection, due(row, now)):
        return now + AGAIN
    members = schema.activity_devices
    younger = (members.c.activity_id == row.id, members.c.retired_at.is_(None))
    began, after = begun(members), int(row.hand_over_after)
    query = select(func.min(began)).where(*younger, began > now - after)
    least: int | None = await connection.scalar(query)
    again = max(now + AGAIN, (now if least is None else least) + after)
    first: int | None = await connection.scalar(select(func.min(first_begun())).where(awaited(row)))
    return again if first is None else min(again, max(now, first + ACTIVE_MILLISECONDS))
