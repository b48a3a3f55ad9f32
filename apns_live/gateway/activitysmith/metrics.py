"""Values that widgets show: the newest of each metric, read by the app when its widget is drawn.

Nothing is pushed: the system decides when a widget is drawn anew, about every quarter of an hour.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import delete, func, or_, select, update

from ...activities.apps import App
from ...activities.store import schema
from ...activities.store.database import Database
from ...activities.store.statements import insert_into, json_text
from ...activities.times import milliseconds, to_text
from ...clock import Clock
from .refusals import Refused
from .requests import MetricCall

MAX_METRICS = 1_000
"""Metrics of one app."""


class Metrics:
    """The metrics of each app. They are made first, and given values then."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def make(self, app: App, key: str) -> None:
        """Make a metric without a value; one that is there stays as it is.

        Raises `Refused` (400) when the app has as many as it may.
        """
        table = schema.metric_values
        now = milliseconds(self._clock)
        async with self._database.write() as connection:
            made = await connection.execute(
                insert_into(connection, table)
                .values(app_id=app.row, key=key, created_at=now, updated_at=now)
                .on_conflict_do_nothing()
            )
            if made.rowcount:
                count = select(func.count()).where(table.c.app_id == app.row)
                if (await connection.scalar(count) or 0) > MAX_METRICS:
                    raise Refused(
                        400, "Too many metrics", f"An app has {MAX_METRICS} metrics at most."
                    )

    async def give(self, app: App, key: str, call: MetricCall, *, make: bool = False) -> None:
        """Store a value; one that was measured before the stored one changes nothing.

        Raises `Refused` (404) for a metric that was not made.
        """
        table = schema.metric_values
        now = milliseconds(self._clock)
        measured = now if call.measured_at is None else call.measured_at
        if make:
            await self.make(app, key)
        place = (table.c.app_id == app.row, table.c.key == key)
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(table)
                .where(
                    *place,
                    or_(table.c.measured_at.is_(None), table.c.measured_at <= measured),
                )
                .values(
                    value=json_text(call.value),
                    measured_at=measured,
                    updated_at=now,
                )
            )
            known = changed.rowcount or await connection.scalar(select(table.c.id).where(*place))
            if not known:
                raise _unknown(key)

    async def get(self, app: App, key: str) -> dict[str, Any]:
        """Return a metric and its value. Raises `Refused` (404)."""
        table = schema.metric_values
        row = await self._database.row(
            select(table).where(table.c.app_id == app.row, table.c.key == key)
        )
        if row is None:
            raise _unknown(key)
        return _shown(row)

    async def list(self, app: App) -> list[dict[str, Any]]:
        """Return the metrics of an app by key."""
        table = schema.metric_values
        query = select(table).where(table.c.app_id == app.row).order_by(table.c.key)
        return [_shown(row) for row in await self._database.rows(query.limit(MAX_METRICS))]

    async def remove(self, app: App, key: str) -> None:
        """Remove a metric. Raises `Refused` (404)."""
        table = schema.metric_values
        place = (table.c.app_id == app.row, table.c.key == key)
        if not await self._database.change(delete(table).where(*place)):
            raise _unknown(key)


def _shown(row: Any) -> dict[str, Any]:
    return {
        "key": row.key,
        "value": None if row.value is None else msgspec.json.decode(row.value),
        "timestamp": to_text(row.measured_at),
    }


def _unknown(key: str) -> Refused:
    return Refused(
        404, "Metric not found", f"No metric {key}: make it first with PUT /metrics/{key}."
    )
