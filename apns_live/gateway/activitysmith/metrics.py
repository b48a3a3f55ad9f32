"""Metrics for widgets: the newest value of each.

A metric is made first, and given values then. Nothing is pushed: the system decides when a widget is
drawn anew, about every quarter of an hour.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from ...activities.store import schema
from ...activities.store.statements import insert_into, json_text
from ...activities.times import to_text
from . import requests
from .dialect import Call
from .refusals import Refused

MAX_METRICS = 1_000
"""Metrics of one app."""
_table = schema.metric_values


async def give(call: Call, body: Any) -> dict[str, Any]:
    """Store the newest value of a metric; one that was measured before the stored one changes nothing.

    Raises `Refused` (404) for a metric that was not made, unless the app's settings make it then.
    """
    key = _key(call)
    said = requests.metric(body, lenient=call.lenient)
    measured = call.now if said.measured_at is None else said.measured_at
    if call.chosen.metrics_on_demand:
        await _make(call, key)
    last = _table.c.measured_at
    async with call.service.database.write() as connection:
        changed = await connection.execute(
            update(_table)
            .where(_named(call, key), or_(last.is_(None), last <= measured))
            .values(value=json_text(said.value), measured_at=measured, updated_at=call.now)
        )
        known = select(_table.c.id).where(_named(call, key))
        if not changed.rowcount and await connection.scalar(known) is None:
            raise _unknown(key)
    return {"success": True}


async def make(call: Call) -> dict[str, Any]:
    """Make a metric without a value; one that is there stays as it is.

    Raises `Refused` (400) when the app has as many as it may.
    """
    key = _key(call)
    await _make(call, key)
    return {"success": True, "key": key}


async def _make(call: Call, key: str) -> None:
    app, now = call.app.row, call.now
    async with call.service.database.write() as connection:
        made = await connection.execute(
            insert_into(connection, _table)
            .values(app_id=app, key=key, created_at=now, updated_at=now)
            .on_conflict_do_nothing()
        )
        if made.rowcount:
            count = select(func.count()).where(_table.c.app_id == app)
            if (await connection.scalar(count) or 0) > MAX_METRICS:
                text = f"An app has {MAX_METRICS} metrics at most."
                raise Refused(400, "Too many metrics", text)


async def get(call: Call) -> dict[str, Any]:
    """Return a metric and its value. Raises `Refused` (404)."""
    key = _key(call)
    row = await call.service.database.row(select(_table).where(_named(call, key)))
    if row is None:
        raise _unknown(key)
    return _shown(row)


async def view_all(call: Call) -> dict[str, Any]:
    """Return all metrics by key."""
    query = select(_table).where(_table.c.app_id == call.app.row).order_by(_table.c.key)
    rows = await call.service.database.rows(query.limit(MAX_METRICS))
    return {"metrics": [_shown(row) for row in rows]}


async def remove(call: Call) -> dict[str, Any]:
    """Remove a metric. Raises `Refused` (404)."""
    key = _key(call)
    if not await call.service.database.change(delete(_table).where(_named(call, key))):
        raise _unknown(key)
    return {"success": True}


def _key(call: Call) -> str:
    return requests.metric_key(call.part("key"))


def _named(call: Call, key: str) -> ColumnElement[bool]:
    return and_(_table.c.app_id == call.app.row, _table.c.key == key)


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
