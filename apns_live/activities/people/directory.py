"""Who and what an app has, in pages: devices, tokens, users, groups, segments, streams.

Each list is read along an index: ``after`` is where the page before ended, never a count of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time
from typing import Any, Literal, NamedTuple

from sqlalchemy import Column, Row, Select, Table, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..finding import find, find_id
from ..store import schema
from ..store.database import Database
from .devices import TOLD

MOST = 1_000
"""Rows of a page, and entries of a list that belongs to one device or user."""
Member = Literal["device", "user"]
_DIGITS = 18
"""Of a row's id at most; the column holds more."""


class Page(NamedTuple):
    """Some entries, and what ``after`` is for the page behind them; None at the end."""

    items: list[dict[str, Any]]
    next: str | None


class Directory:
    """Reads devices, users and groups of each app. Times are milliseconds since 1970."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def devices(
        self,
        app: App,
        *,
        user: str | None = None,
        language: str | None = None,
        country: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Page:
        """Return devices by id, or those of a user, of a language or of a country.

        A language is exactly that one: ``de`` is not ``de-AT``. Raises `InvalidInput` for more than
        one of the three, and for an ``after`` of another list; `NotFound` for an unknown user.
        """
        if sum(value is not None for value in (user, language, country)) > 1:
            raise InvalidInput(
                "are given together",
                field="user, language, country",
                remedy="Give one of them; a segment combines them.",
            )
        table, users = schema.devices, schema.users
        query = select(table, users.c.external_id.label("user")).outerjoin(
            users, users.c.id == table.c.user_id
        )
        async with self._database.read() as connection:
            if language is not None or country is not None:
                column, value = (
                    (table.c.language, checks.language(language, "language"))
                    if language is not None
                    else (table.c.country, checks.country(country, "country"))
                )
                query = query.where(table.c.app_id == app.row, column == value)
                rows = await _read(connection, query, table.c.id, _number(after), limit)
                return _page([_device(row) for row in rows], rows, limit, "id")
            if user is not None:
                owner = await find_id(connection, app, schema.users, user)
                # The app goes without saying, and would lead along another index.
                query = query.where(table.c.user_id == owner)
            else:
                query = query.where(table.c.app_id == app.row)
            rows = await _read(connection, query, table.c.public_id, after, limit)
        return _page([_device(row) for row in rows], rows, limit, "public_id")

    async def tokens(self, app: App, device: str) -> list[dict[str, Any]]:
        """Return the tokens of a device by their first eight digits.

        Start and device tokens also when they are retired, with the reason; activity tokens while
        they live. At most 1,000 of each kind, the newest. Raises `NotFound`.
        """
        start, plain = schema.start_tokens, schema.device_tokens
        members, activities = schema.activity_devices, schema.activities
        async with self._database.read() as connection:
            owner = await find_id(connection, app, schema.devices, device)
            found = [
                ("start", row)
                for row in await connection.execute(
                    select(start)
                    .where(start.c.device_id == owner)
                    .order_by(start.c.id.desc())
                    .limit(MOST)
                )
            ]
            found += [
                ("device", row)
                for row in await connection.execute(
                    select(plain).where(plain.c.device_id == owner).order_by(plain.c.id.desc())
                )
            ]
            found += [
                ("activity", row)
                for row in await connection.execute(
                    select(members, activities.c.public_id.label("activity"))
                    .join(activities, activities.c.id == members.c.activity_id)
                    .where(
                        members.c.device_id == owner,
                        members.c.retired_at.is_(None),
                        members.c.token.is_not(None),
                    )
                    .order_by(members.c.id.desc())
                    .limit(MOST)
                )
            ]
        return [
            {
                "kind": kind,
                "attributes_type": row.attributes_type if kind == "start" else None,
                "activity": row.activity if kind == "activity" else None,
                "environment": row.environment,
                "token": f"{row.token[:8]}…",
                "registered_at": row.registered_at,
                "retired_at": row.retired_at,
                "retired_reason": row.retired_reason,
            }
            for kind, row in found
        ]

    async def users(self, app: App, *, after: str = "", limit: int = 100) -> Page:
        """Return users by external id."""
        return await self._list(app, schema.users, "external_id", after, limit, _user)

    async def user(self, app: App, external_id: str) -> dict[str, Any]:
        """Return a user with aliases, tags, attributes, groups and devices. Raises `NotFound`."""
        users, devices, aliases = schema.users, schema.devices, schema.user_aliases
        async with self._database.read() as connection:
            row = await find(connection, app, users, external_id)
            labels = await connection.execute(
                select(aliases.c.label, aliases.c.value)
                .where(aliases.c.user_id == row.id)
                .order_by(aliases.c.id)
                .limit(MOST)
            )
            named: dict[str, list[str]] = {}
            for alias in labels:
                named.setdefault(alias.label, []).append(alias.value)
            of_user = await connection.execute(
                select(devices.c.public_id)
                .where(devices.c.user_id == row.id)
                .order_by(devices.c.public_id)
                .limit(MOST)
            )
            return {
                **_user(row),
                "aliases": named,
                "devices": list(of_user.scalars()),
                **await _belongings(connection, "user", row.id),
            }

    async def belongings(self, app: App, device: str) -> dict[str, Any]:
        """Return tags, attributes and groups of a device. Raises `NotFound`."""
        async with self._database.read() as connection:
            owner = await find_id(connection, app, schema.devices, device)
            return await _belongings(connection, "device", owner)

    async def groups(self, app: App, *, after: str = "", limit: int = 100) -> Page:
        """Return groups by slug."""
        return await self._list(app, schema.groups, "slug", after, limit, _group)

    async def group(self, app: App, slug: str) -> dict[str, Any]:
        """Return a group. Raises `NotFound`."""
        async with self._database.read() as connection:
            row = await find(connection, app, schema.groups, slug)
        return _group(row)

    async def segments(self, app: App, *, after: str = "", limit: int = 100) -> Page:
        """Return the saved segments by name."""
        return await self._list(app, schema.segments, "name", after, limit, _segment)

    async def segment(self, app: App, name_or_id: str) -> dict[str, Any]:
        """Return a saved segment. Raises `NotFound`."""
        table = schema.segments
        query = select(table).where(
            table.c.app_id == app.row,
            or_(table.c.name == name_or_id, table.c.public_id == name_or_id),
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query.limit(1))).one_or_none()
        if row is None:
            raise NotFound(f"the app {app.id!r} has no segment {name_or_id!r}")
        return _segment(row)

    async def streams(self, app: App, *, after: str = "", limit: int = 100) -> Page:
        """Return streams by key, with the activity behind each."""
        return await self._list(app, schema.streams, "key", after, limit, _stream, _streams())

    async def stream(self, app: App, key: str) -> dict[str, Any]:
        """Return a stream with the activity behind it. Raises `NotFound`."""
        table = schema.streams
        async with self._database.read() as connection:
            row = await find(connection, app, table, key, _streams())
        return _stream(row)

    async def _list(
        self,
        app: App,
        table: Table,
        by: str,
        after: str,
        limit: int,
        show: Callable[[Row[Any]], dict[str, Any]],
        query: Select[Any] | None = None,
    ) -> Page:
        """Return a page of an app's rows along one of their columns."""
        query = select(table) if query is None else query
        query = query.where(table.c.app_id == app.row)
        async with self._database.read() as connection:
            rows = await _read(connection, query, table.c[by], after, limit)
        return _page([show(row) for row in rows], rows, limit, by)

    async def followers(
        self, app: App, activity: str, *, after: str = "", limit: int = 100
    ) -> Page:
        """Return the devices of an activity, with their tokens by the first eight digits.

        ``acknowledged_version`` is the newest state that APNs accepted for the device. Raises
        `NotFound`.
        """
        members, devices = schema.activity_devices, schema.devices
        async with self._database.read() as connection:
            found = await find_id(connection, app, schema.activities, activity)
            query = (
                select(members, devices.c.public_id.label("device"))
                .join(devices, devices.c.id == members.c.device_id)
                .where(members.c.activity_id == found)
            )
            rows = await _read(connection, query, members.c.device_id, _number(after), limit)
        items = [
            {
                "device": row.device,
                "environment": row.environment,
                "started_at": row.started_at,
                "joined_at": row.joined_at,
                "token": None if row.token is None else f"{row.token[:8]}…",
                "registered_at": row.registered_at,
                "acknowledged_version": row.acknowledged_version,
                "retired_at": row.retired_at,
                "retired_reason": row.retired_reason,
            }
            for row in rows
        ]
        return _page(items, rows, limit, "device_id")

    async def members(
        self, app: App, slug: str, kind: Member, *, after: str = "", limit: int = 100
    ) -> Page:
        """Return the devices or the users of a group, the oldest first. Raises `NotFound`."""
        members = schema.group_members
        if kind == "device":
            owner, table = members.c.device_id, schema.devices
            name: Column[Any] = schema.devices.c.public_id
        else:
            owner, table = members.c.user_id, schema.users
            name = schema.users.c.external_id
        async with self._database.read() as connection:
            found = await find_id(connection, app, schema.groups, slug)
            query = (
                select(owner.label("owner"), name.label("name"))
                .join(table, table.c.id == owner)
                .where(members.c.group_id == found)
            )
            rows = await _read(connection, query, owner, _number(after), limit)
        return _page([{"id": row.name} for row in rows], rows, limit, "owner")


def _streams() -> Select[Any]:
    streams, activities = schema.streams, schema.activities
    return select(
        streams, activities.c.public_id.label("activity"), activities.c.status.label("status")
    ).outerjoin(activities, activities.c.id == streams.c.activity_id)


def _stream(row: Row[Any]) -> dict[str, Any]:
    running = row.activity is not None and row.status != "ended"
    return {
        "key": row.key,
        "activity": row.activity if running else None,
        "paused_at": row.paused_at,
        "tags": json.loads(row.tags),
        "metadata": json.loads(row.metadata),
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _user(row: Row[Any]) -> dict[str, Any]:
    return {"external_id": row.external_id, "id": row.public_id, "created_at": row.created_at}


def _group(row: Row[Any]) -> dict[str, Any]:
    return {"slug": row.slug, "name": row.name, "created_at": row.created_at}


def _segment(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.public_id, "name": row.name, "filter": json.loads(row.filter)}


async def _read(
    connection: AsyncConnection,
    query: Select[Any],
    along: Column[Any],
    after: str | int,
    limit: int,
) -> list[Row[Any]]:
    if isinstance(after, str):
        checks.encodable(after, "after")
    found = await connection.execute(
        query.where(along > after).order_by(along).limit(min(limit, MOST))
    )
    return list(found.all())


def _page(items: list[dict[str, Any]], rows: list[Row[Any]], limit: int, by: str) -> Page:
    full = len(rows) == min(limit, MOST)
    return Page(items, str(getattr(rows[-1], by)) if full and rows else None)


def _number(after: str) -> int:
    """Return where a list that goes by row ids is read on. Raises `InvalidInput`."""
    if not after:
        return 0
    if not (after.isascii() and after.isdecimal() and len(after) <= _DIGITS):
        raise InvalidInput(
            "is of another list", field="after", remedy="Give `next` of this list's last page."
        )
    return int(after)


def _device(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "user": row.user,
        **{name: getattr(row, name) for name in TOLD},
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


async def _belongings(connection: AsyncConnection, kind: Member, owner: int) -> dict[str, Any]:
    values, members, groups = schema.attributes, schema.group_members, schema.groups
    column = values.c.device_id if kind == "device" else values.c.user_id
    member = members.c.device_id if kind == "device" else members.c.user_id
    rows = await connection.execute(
        select(values)
        .where(column == owner)
        .order_by(values.c.namespace, values.c.name, values.c.position)
    )
    tags: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for row in rows:
        if row.namespace == "tag":
            tags[row.name] = _value(row)
        elif row.kind == "array":
            attributes.setdefault(row.name, []).append(_value(row))
        else:
            attributes[row.name] = _value(row)
    slugs = await connection.execute(
        select(groups.c.slug)
        .join(members, members.c.group_id == groups.c.id)
        .where(member == owner)
        .order_by(groups.c.slug)
        .limit(MOST)
    )
    return {"tags": tags, "attributes": attributes, "groups": list(slugs.scalars())}


def _value(row: Row[Any]) -> str | float | bool | Mapping[str, str]:
    """Return a stored attribute as callers write it."""
    if row.kind == "boolean":
        return bool(row.number)
    if row.kind == "date":
        moment = datetime.fromtimestamp(row.number / 1000, UTC)
        midnight = moment.time() == time.min
        return {"date": moment.date().isoformat() if midnight else moment.isoformat()}
    if row.kind == "number" or row.text is None:
        number: float = row.number
        return int(number) if number.is_integer() else number
    return str(row.text)
