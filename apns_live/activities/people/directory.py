"""Lists of an app's devices, tokens, users, groups, segments and streams, in pages.

Each list is read in the order of an index. ``after`` is where the previous page ended, never a
count of rows.
"""

from datetime import UTC, datetime, time
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from sqlalchemy import Column, Integer, Row, Select, Table, and_, case, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from .. import checks
from ..apps import App
from ..core import Part
from ..finding import find, find_id
from ..store import schema
from ..store.statements import rows_of, view_of
from . import records
from .audience import is_named, no_segment
from .devices import devices_with_user
from .suspects import SUSPECT

MOST = 1_000
"""Rows of a page, and entries of a list that belongs to one device or user."""
Member = Literal["device", "user"]
Item = TypeVar("Item")
_DIGITS = 18
"""The longest row id in ``after``, in digits; the column holds more."""


class Page(NamedTuple, Generic[Item]):
    """A page of entries, and the ``after`` of the next page; None at the end."""

    items: list[Item]
    next: str | None


class Directory(Part):
    """Reads devices, users and groups of each app. Times are milliseconds since 1970."""

    async def devices(
        self,
        app: App,
        *,
        user: str | None = None,
        language: str | None = None,
        country: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Page[records.ListedDevice]:
        """Return devices by id, or those of a user, of a language or of a country.

        A language matches exactly: ``de`` does not match ``de-AT``. Raises `InvalidInput` for more
        than one of these filters, and for an ``after`` of another list; `NotFound` for an unknown
        user.
        """
        if sum(value is not None for value in (user, language, country)) > 1:
            remedy = "Give one of them; a segment combines them."
            raise InvalidInput("are given together", "user, language, country", remedy)
        table = schema.devices
        wanted, along = table.c.app_id == app.row, table.c.public_id
        if language is not None:
            spoken = checks.language(language, "language")
            wanted, along = and_(wanted, table.c.language == spoken), table.c.id
        elif country is not None:
            code = checks.country(country, "country")
            wanted, along = and_(wanted, table.c.country == code), table.c.id
        async with self.database.read() as connection:
            if user is not None:
                # The condition on the app is left out: the user implies it, and it would lead to
                # another index.
                wanted = table.c.user_id == await find_id(connection, app, schema.users, user)
            query = devices_with_user().where(wanted)
            return await _page(connection, query, along, after, limit, records.ListedDevice)

    async def tokens(self, app: App, device: str) -> list[records.TokenView]:
        """Return the tokens of a device by their first eight digits.

        Includes retired start and device tokens, with the reason, and living activity tokens.
        Returns at most the newest 1,000 of each kind. Raises `NotFound`.
        """
        start, plain = schema.start_tokens, schema.device_tokens
        members, activities = schema.activity_devices, schema.activities
        following = (
            select(members, activities.c.public_id.label("activity"))
            .join(activities, activities.c.id == members.c.activity_id)
            .where(members.c.retired_at.is_(None), members.c.token.is_not(None))
        )
        found: list[records.TokenView] = []
        async with self.database.read() as connection:
            owner = await find_id(connection, app, schema.devices, device)
            for kind, table, query in (
                ("start", start, select(start)),
                ("device", plain, select(plain)),
                ("activity", members, following),
            ):
                newest = query.where(table.c.device_id == owner).order_by(table.c.id.desc())
                for row in await connection.execute(newest.limit(MOST)):
                    named: dict[str, Any] = {"kind": kind}
                    for name in ("attributes_type", "activity"):
                        named[name] = getattr(row, name, None)
                    living = kind == "start" and row.retired_at is None
                    named["suspect"] = living and row.unanswered >= SUSPECT
                    found.append(view_of(records.TokenView, row, **named))
        return found

    async def users(
        self, app: App, *, after: str = "", limit: int = 100
    ) -> Page[records.ListedUser]:
        """Return users by external id."""
        return await self._list(app, schema.users, "external_id", after, limit, records.ListedUser)

    async def user(self, app: App, external_id: str) -> records.WholeUser:
        """Return a user with aliases, tags, attributes, groups and devices. Raises `NotFound`."""
        devices, aliases = schema.devices, schema.user_aliases
        async with self.database.read() as connection:
            row = await find(connection, app, schema.users, external_id)
            labels = select(aliases.c.label, aliases.c.value).where(aliases.c.user_id == row.id)
            named: dict[str, list[str]] = {}
            for alias in await connection.execute(labels.order_by(aliases.c.id).limit(MOST)):
                named.setdefault(alias.label, []).append(alias.value)
            theirs = select(devices.c.public_id).where(devices.c.user_id == row.id)
            names = await connection.scalars(theirs.order_by(devices.c.public_id).limit(MOST))
            held = await _belongings(connection, "user", row.id)
            return view_of(records.WholeUser, row, aliases=named, devices=list(names), **held)

    async def belongings(self, app: App, device: str) -> records.Belongings:
        """Return a device's tags, attributes and groups. Raises `NotFound`."""
        async with self.database.read() as connection:
            owner = await find_id(connection, app, schema.devices, device)
            return await _belongings(connection, "device", owner)

    async def groups(
        self, app: App, *, after: str = "", limit: int = 100
    ) -> Page[records.GroupView]:
        """Return groups by slug."""
        return await self._list(app, schema.groups, "slug", after, limit, records.GroupView)

    async def group(self, app: App, slug: str) -> records.GroupView:
        """Return a group. Raises `NotFound`."""
        async with self.database.read() as connection:
            return view_of(records.GroupView, await find(connection, app, schema.groups, slug))

    async def segments(
        self, app: App, *, after: str = "", limit: int = 100
    ) -> Page[records.SegmentView]:
        """Return the saved segments by name."""
        return await self._list(app, schema.segments, "name", after, limit, records.SegmentView)

    async def segment(self, app: App, name_or_id: str) -> records.SegmentView:
        """Return a saved segment. Raises `NotFound`."""
        query = select(schema.segments).where(is_named(app, name_or_id)).limit(1)
        if (row := await self.database.row(query)) is None:
            raise no_segment(app, name_or_id)
        return view_of(records.SegmentView, row)

    async def streams(
        self, app: App, *, after: str = "", limit: int = 100
    ) -> Page[records.StreamView]:
        """Return streams by key, each with its current activity."""
        return await self._list(
            app, schema.streams, "key", after, limit, records.StreamView, _streams()
        )

    async def stream(self, app: App, key: str) -> records.StreamView:
        """Return a stream with its current activity. Raises `NotFound`."""
        async with self.database.read() as connection:
            return view_of(
                records.StreamView, await find(connection, app, schema.streams, key, _streams())
            )

    async def _list(
        self,
        app: App,
        table: Table,
        by: str,
        after: str,
        limit: int,
        kind: type[Item],
        query: Select[Any] | None = None,
    ) -> Page[Item]:
        """Return a page of an app's rows in the order of one of their columns."""
        query = (select(table) if query is None else query).where(table.c.app_id == app.row)
        async with self.database.read() as connection:
            return await _page(connection, query, table.c[by], after, limit, kind)

    async def followers(
        self, app: App, activity: str, *, after: str = "", limit: int = 100
    ) -> Page[records.FollowerView]:
        """Return the devices of an activity, with their tokens by the first eight digits.

        ``acknowledged_version`` is the newest state that APNs accepted for the device. Raises
        `NotFound`.
        """
        members, devices = schema.activity_devices, schema.devices
        async with self.database.read() as connection:
            found = await find_id(connection, app, schema.activities, activity)
            query = (
                select(members, devices.c.public_id.label("device"))
                .join(devices, devices.c.id == members.c.device_id)
                .where(members.c.activity_id == found)
            )
            return await _page(
                connection, query, members.c.device_id, after, limit, records.FollowerView
            )

    async def members(
        self, app: App, slug: str, kind: Member, *, after: str = "", limit: int = 100
    ) -> Page[records.MemberView]:
        """Return the devices or the users of a group, the oldest first. Raises `NotFound`."""
        devices, users, members = schema.devices, schema.users, schema.group_members
        name = devices.c.public_id if kind == "device" else users.c.external_id
        owner = members.c[f"{kind}_id"]
        query = select(name.label("public_id")).join(members, name.table.c.id == owner)
        async with self.database.read() as connection:
            found = await find_id(connection, app, schema.groups, slug)
            query = query.where(members.c.group_id == found)
            return await _page(connection, query, owner, after, limit, records.MemberView)


async def _page(
    connection: AsyncConnection,
    query: Select[Any],
    along: Column[Any],
    after: str,
    limit: int,
    kind: type[Item],
) -> Page[Item]:
    """Read a page along a column of row ids or of names. Raises `InvalidInput` for a bad ``after``."""
    start: object = checks.encodable(after, "after")
    if isinstance(along.type, Integer):
        if after and not (after.isascii() and after.isdecimal() and len(after) <= _DIGITS):
            remedy = "Give `next` of this list's last page."
            raise InvalidInput("is of another list", "after", remedy)
        start = int(after or 0)
    most = min(limit, MOST)
    query = query.add_columns(along.label("place")).where(along > start).order_by(along)
    rows = await rows_of(connection, query.limit(most))
    more = rows and len(rows) == most
    return Page([view_of(kind, row) for row in rows], str(rows[-1].place) if more else None)


def _streams() -> Select[Any]:
    streams, activities = schema.streams, schema.activities
    running = case((activities.c.status != "ended", activities.c.public_id))
    return select(streams, running.label("activity")).outerjoin(
        activities, activities.c.id == streams.c.activity_id
    )


async def _belongings(connection: AsyncConnection, kind: Member, owner: int) -> records.Belongings:
    values, members, groups = schema.attributes, schema.group_members, schema.groups
    tags: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    held = select(values).where(values.c[f"{kind}_id"] == owner)
    held = held.order_by(values.c.namespace, values.c.name, values.c.position)
    for row in await connection.execute(held):
        if row.namespace == "tag":
            tags[row.name] = _value(row)
        elif row.kind == "array":
            attributes.setdefault(row.name, []).append(_value(row))
        else:
            attributes[row.name] = _value(row)
    slugs = select(groups.c.slug).join(members, members.c.group_id == groups.c.id)
    slugs = slugs.where(members.c[f"{kind}_id"] == owner).order_by(groups.c.slug).limit(MOST)
    return {"tags": tags, "attributes": attributes, "groups": list(await connection.scalars(slugs))}


def _value(row: Row[Any]) -> records.Value:
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
