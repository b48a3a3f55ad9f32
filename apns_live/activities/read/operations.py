"""Reads operations, and their outcomes on every device, in pages.

Pages are read by row id. Pass the last ``row`` of a page to get the next one, whatever was added
meanwhile. At most one page is in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...outcome import Verdict
from ..apps import App
from ..checks import page_limit
from ..finding import find, find_id
from ..store import schema
from ..store.database import Database
from ..store.statements import view_of
from .views import OperationView, OutcomeView, operation_view, still_queued, with_activity

PAGE = 100
EXPORT_PAGE = 1_000


class Operations:
    """Reads operations and their outcomes.

    An operation's ``status`` is ``scheduled`` (a start that is not due), ``accepted``, ``running``,
    ``done``, ``superseded`` (replaced before it was sent) or ``failed``. A ``running`` one with a
    ``reason`` waits; the reason says why and when it is tried again. A ``done`` start with a reason
    reached no device. A ``failed`` one without ``finished_at`` continues when a key is added. The kind
    ``limit`` has ends on single devices with too many activities.
    Times are milliseconds since 1970.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, app: App, public_id: str) -> OperationView:
        """Return an operation with its counters. Raises `NotFound`.

        ``queued`` devices have no token yet; they get the newest state when it arrives. ``missing`` ones
        were started and registered no token in time. ``users`` counts the users of accepted pushes of
        a finished start or notification; a device without a user counts as one.
        """
        async with self._database.read() as connection:
            row = await find(connection, app, schema.operations, public_id, with_activity())
            queued = await still_queued(connection, [row])
        return operation_view(row, queued[row.id])

    async def page(
        self, app: App, *, after: int = 0, limit: int = PAGE, activity: str | None = None
    ) -> list[OperationView]:
        """Return a page of operations, oldest first; ``after`` is the last ``row`` of the page before.

        ``activity`` selects those of one activity. Raises `NotFound`, and `InvalidInput` for a
        limit outside 1 to 1,000.
        """
        table = schema.operations
        query = (
            with_activity().where(table.c.id > after).order_by(table.c.id).limit(page_limit(limit))
        )
        async with self._database.read() as connection:
            if activity is None:
                query = query.where(table.c.app_id == app.row)
            else:
                row = await find_id(connection, app, schema.activities, activity)
                query = query.where(table.c.activity_id == row)
            rows = (await connection.execute(query)).all()
            queued = await still_queued(connection, rows)
        return [operation_view(row, queued[row.id]) for row in rows]

    async def outcomes(
        self, app: App, public_id: str, *, after: int = 0, limit: int = PAGE
    ) -> list[OutcomeView]:
        """Return a page of an operation's outcomes, one per device, in order of arrival.

        ``after`` is the last ``row`` of the page before. A deleted device has the id None.
        Raises `NotFound`, and `InvalidInput` for a limit outside 1 to 1,000.
        """
        async with self._database.read() as connection:
            operation = await find_id(connection, app, schema.operations, public_id)
            return await _outcomes(connection, operation, after, page_limit(limit))

    async def export(self, app: App, public_id: str) -> AsyncIterator[OutcomeView]:
        """Yield all outcomes of an operation, read in pages. Raises `NotFound`."""
        async with self._database.read() as connection:
            operation = await find_id(connection, app, schema.operations, public_id)
        after = 0
        while True:
            # A connection a page: a slow reader keeps none, and no snapshot, open.
            async with self._database.read() as connection:
                page = await _outcomes(connection, operation, after, EXPORT_PAGE)
            for outcome in page:
                yield outcome
            if len(page) < EXPORT_PAGE:
                return
            after = page[-1]["row"]


async def persons_reached(connection: AsyncConnection, operation: int) -> int:
    """Count the users of an operation's accepted pushes; a device without a user counts as one."""
    outcomes, devices = schema.outcomes, schema.devices
    persons, alone = (
        await connection.execute(
            select(
                func.count(devices.c.user_id.distinct()),
                func.count() - func.count(devices.c.user_id),
            )
            .select_from(outcomes)
            .outerjoin(devices, devices.c.id == outcomes.c.device_id)
            .where(
                outcomes.c.operation_id == operation, outcomes.c.verdict == Verdict.ACCEPTED.value
            )
        )
    ).one()
    return int(persons + alone)


async def _outcomes(
    connection: AsyncConnection, operation: int, after: int, limit: int
) -> list[OutcomeView]:
    outcomes, devices = schema.outcomes, schema.devices
    rows = await connection.execute(
        select(outcomes, devices.c.public_id.label("device"))
        .outerjoin(devices, devices.c.id == outcomes.c.device_id)
        .where(outcomes.c.operation_id == operation, outcomes.c.id > after)
        .order_by(outcomes.c.id)
        .limit(limit)
    )
    return [view_of(OutcomeView, row) for row in rows]
