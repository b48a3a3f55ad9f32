"""Reports, once each, devices that were started and registered no activity token.

APNs answers 200 also for a start that the phone refuses (its budget is spent, Live Activities are
switched off). Or the phone shows the card and does not wake the app. In both cases no activity token
arrives, and the device gets no updates. Devices on a broadcast channel need no token.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, ScalarSelect, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..apps import apps_of
from ..store import schema
from ..store.database import Database
from ..store.statements import hold, rows_of
from .due import Done, earliest

logger = logging.getLogger("apns_live.activities")

BATCH = 1_000
_ROUND = 1_000
"""Milliseconds: a start that takes minutes is looked at once a second, not once for each page."""

_table = schema.activity_devices
_OVERDUE = (
    _table.c.token.is_(None),
    _table.c.missing_reported_at.is_(None),
    _table.c.retired_at.is_(None),
)
_WAITING = (*_OVERDUE, _table.c.started_at.is_not(None))


class MissingTokens:
    """Finds devices whose token is overdue. ``token_wait`` is seconds."""

    def __init__(self, database: Database, token_wait: float) -> None:
        self._database = database
        self._wait = int(token_wait * 1000)
        self._seconds = token_wait

    def first(self) -> ScalarSelect[int]:
        """Say when the first is overdue; see `Step`."""
        return earliest(_table.c.started_at, *_WAITING, after=self._wait)

    async def run(self, done: Done, now: int) -> int | None:
        """Report a batch; see `Step`."""
        table = _table
        waiting = (
            select(table.c.id, table.c.started_at, table.c.activity_id)
            .where(*_WAITING)
            .order_by(table.c.started_at)
            .limit(BATCH + 1)
        )
        found = await self._database.rows(waiting)
        rows = [row for row in found[:BATCH] if row.started_at + self._wait <= now]
        due = [row.id for row in rows]
        if due:
            done.noted = True  # they may have no answer either
            async with self._database.write() as connection:
                await hold(connection, schema.activities, {row.activity_id for row in rows})
                await hold(connection, schema.operations, await _starts(connection, rows))
                reported = await connection.execute(
                    update(table)
                    .where(table.c.id.in_(due), *_OVERDUE)
                    .values(missing_reported_at=now)
                    .returning(table.c.activity_id, table.c.by_channel)
                )
                # Of a card on a channel no token is expected.
                late = Counter(row.activity_id for row in reported if not row.by_channel)
                await self._report(connection, late, done)
        if len(due) == len(found):
            return None
        later: int = found[len(due)].started_at + self._wait
        return later if later <= now else max(later, now + _ROUND)

    async def _report(self, connection: AsyncConnection, counts: Counter[int], done: Done) -> None:
        activities, operations = schema.activities, schema.operations
        if not counts:
            return
        query = select(activities.c.id, activities.c.app_id, activities.c.public_id)
        query = query.where(activities.c.id.in_(counts))
        rows = await rows_of(connection, query)
        apps = await apps_of(connection, (row.app_id for row in rows))
        for row in rows:
            count = counts[row.id]
            changed = await connection.execute(
                update(operations)
                .where(operations.c.activity_id == row.id, operations.c.kind == "start")
                .values(missing=operations.c.missing + count)
                .returning(operations.c.id)
            )
            done.operations += changed.scalars()
            done.activities.append(row.id)
            logger.warning(
                "the activity %r of the app %r was started on %d devices that sent no token "
                "within %g s: they get no updates until one comes",
                row.public_id,
                apps[row.app_id].id,
                count,
                self._seconds,
            )


async def _starts(connection: AsyncConnection, rows: Iterable[Row[Any]]) -> Iterable[int]:
    """Return the operations that the report is added to."""
    table = schema.operations
    wanted = {row.activity_id for row in rows}
    query = select(table.c.id).where(table.c.activity_id.in_(wanted), table.c.kind == "start")
    return await connection.scalars(query)
