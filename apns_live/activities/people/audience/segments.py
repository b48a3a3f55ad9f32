"""Segments: saved filters of an app, and the predefined ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ....clock import Clock
from ....errors import InvalidInput, NotFound
from ... import checks
from ...apps import App
from ...store import schema
from ...store.database import Database
from ...store.statements import insert_into, view_of
from ...times import milliseconds
from .filters import Filter, parse_filter, write_filter

_WEEK = 168
_SUBSCRIBED = {"field": "push_enabled", "relation": "=", "value": True}
_RECENT = {"field": "last_session", "relation": "<", "hours_ago": _WEEK}
_LONG_AGO = {"field": "last_session", "relation": ">=", "hours_ago": _WEEK}
_OFTEN = {"field": "session_count", "relation": ">=", "value": 4}

_EVERYONE: dict[str, Any] = {"or": [_SUBSCRIBED, {"not": _SUBSCRIBED}]}
_ENGAGED: dict[str, Any] = {"and": [_SUBSCRIBED, _RECENT, _OFTEN]}
# The segments that teams coming from a vendor expect, under the names they had there.
DEFAULTS: Mapping[str, dict[str, Any]] = {
    "All": _EVERYONE,
    "Total Subscriptions": _EVERYONE,
    "Subscribed Users": _SUBSCRIBED,
    "Active Subscriptions": {"and": [_SUBSCRIBED, _RECENT]},
    "Active Users": {"and": [_SUBSCRIBED, _RECENT]},
    "Engaged Subscriptions": _ENGAGED,
    "Engaged Users": _ENGAGED,
    "Inactive Subscriptions": {"and": [_SUBSCRIBED, _LONG_AGO]},
    "Inactive Users": {"and": [_SUBSCRIBED, _LONG_AGO]},
}


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A saved filter. ``id`` is empty for those that every app has."""

    id: str
    name: str
    filter: dict[str, Any]


class Segments:
    """Keeps the segments of each app."""

    def __init__(self, database: Database, clock: Clock, new_id: Callable[[], str]) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    async def save(
        self,
        app: App,
        name: str,
        rule: object,
        *,
        id: str | None = None,  # noqa: A002
    ) -> Segment:
        """Add a segment, or change the filter of the one with this name.

        Raises `InvalidInput` for a bad filter or the name of a default segment.
        """
        checks.identifier(name, "name", limit=200)
        if name in DEFAULTS:
            raise InvalidInput(
                f"{name!r} is a segment that every app has", field="name", remedy="Choose another."
            )
        values = {
            "app_id": app.row,
            "public_id": self._new_id() if id is None else checks.identifier(id, "id", limit=64),
            "name": name,
            "filter": write_filter(parse_filter(rule)),
            "created_at": milliseconds(self._clock),
        }
        async with self._database.write() as connection:
            statement = insert_into(connection, schema.segments).values(values)
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["app_id", "name"], set_={"filter": values["filter"]}
                )
            )
        return (await self.list(app, only=name))[0]

    async def list(self, app: App, *, only: str | None = None) -> list[Segment]:
        """Return the saved segments of an app by name."""
        table = schema.segments
        query = select(table).where(table.c.app_id == app.row).order_by(table.c.name)
        if only is not None:
            query = query.where(table.c.name == only)
        return [view_of(Segment, row) for row in await self._database.rows(query)]

    async def delete(self, app: App, name_or_id: str) -> None:
        """Delete a segment. Raises `NotFound`."""
        gone = delete(schema.segments).where(is_named(app, name_or_id))
        if not await self._database.change(gone):
            raise no_segment(app, name_or_id)


def is_named(app: App, name_or_id: str) -> ColumnElement[bool]:
    """Return the condition that a segment of an app has this name or id."""
    table = schema.segments
    named = or_(table.c.name == name_or_id, table.c.public_id == name_or_id)
    return and_(table.c.app_id == app.row, named)


def no_segment(app: App, name_or_id: str) -> NotFound:
    """Return the error for a segment that is not there."""
    return NotFound(f"the app {app.id!r} has no segment {name_or_id!r}")


async def load_segment(
    connection: AsyncConnection, app: App, name_or_id: str, field: str
) -> Filter:
    """Return the filter of a segment by name or id. Raises `InvalidInput` when there is none."""
    query = select(schema.segments.c.filter).where(is_named(app, name_or_id)).limit(1)
    text = await connection.scalar(query)
    if text is not None:
        return parse_filter(json.loads(text), field=field)
    if name_or_id in DEFAULTS:
        return parse_filter(DEFAULTS[name_or_id], field=field)
    raise InvalidInput(
        f"{name_or_id!r} is not a segment of the app", field=field, remedy="Save the segment first."
    )
