"""Metrics for widgets: the newest value of each.

A metric is created first and then gets values. Nothing is pushed: the system redraws a widget about every
quarter of an hour.
"""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update

from ...activities.store import schema
from ...activities.store.statements import insert_into, json_text
from ...activities.times import to_text
from . import requests
from .dialect import Call, Refused

MAX_METRICS = 1_000
"""Metrics of one app."""
_table = schema.metric_values


async def give(call: Call, key: str, body: Any = None) -> dict[str, Any]:
    """Store the newest value of a metric. A value measured before the stored one changes nothing.

    Raises `Refused` (404) if the metric does not exist, unless the app's settings create missing ones.
    """
    requests.metric_key(key)
    value, when = requests.metric(body, lenient=call.lenient)
    measured = call.now if when is None else when
    if call.chosen.metrics_on_demand:
        await make(call, key)
    last = _table.c.measured_at
    async with call.service.database.write() as connection:
        changed = await connection.execute(
            update(_table)
            .where(_named(call, key), or_(last.is_(None), last <= measured))
            .values(value=json_text(value), measured_at=measured, updated_at=call.now)
        )
        known = select(_table.c.id).where(_named(call, key))
        if not changed.rowcount and await connection.scalar(known) is None:
            raise _unknown(key)
    return {"success": True}


async def make(call: Call, key: str) -> dict[str, Any]:
    """Create a metric without a value. An existing one stays unchanged.

    Raises `Refused` (400) at the limit of metrics.
    """
    requests.metric_key(key)
    app, now = call.app.row, call.now
    async with call.service.database.write() as connection:
        new = insert_into(connection, _table).values(
            app_id=app, key=key, created_at=now, updated_at=now
        )
        if (await connection.execute(new.on_conflict_do_nothing())).rowcount:
            count = select(func.count()).where(_table.c.app_id == app)
            if (await connection.scalar(count) or 0) > MAX_METRICS:
                raise Refused(400, "Too many metrics", f"An app has {MAX_METRICS} metrics at most.")
    return {"success": True, "key": key}


async def get(call: Call, key: str) -> dict[str, Any]:
    """Return a metric and its value. Raises `Refused` (404)."""
    row = await call.service.database.row(select(_table).where(_named(call, key)))
    if row is None:
        raise _unknown(key)
    return _shown(row)


async def view_all(call: Call) -> dict[str, Any]:
    """Return all metrics by key."""
    query = select(_table).where(_table.c.app_id == call.app.row).order_by(_table.c.key)
    rows = await call.service.database.rows(query.limit(MAX_METRICS))
    return {"metrics": [_shown(row) for row in rows]}


async def remove(call: Call, key: str) -> dict[str, Any]:
    """Delete a metric. Raises `Refused` (404)."""
    if not await call.service.database.change(delete(_table).where(_named(call, key))):
        raise _unknown(key)
    return {"success": True}


def _named(call: Call, key: str) -> ColumnElement[bool]:
    return and_(_table.c.app_id == call.app.row, _table.c.key == requests.metric_key(key))


def _shown(row: Any) -> dict[str, Any]:
    return {
        "key": row.key,
        "value": None if row.value is None else msgspec.json.decode(row.value),
        "timestamp": to_text(row.measured_at),
    }


def _unknown(key: str) -> Refused:
    text = f"No metric {key}: make it first with PUT /metrics/{key}."
    return Refused(404, "Metric not found", text)
