"""Audiences: ids, groups, filters and segments (saved filters), resolved to devices.

An audience is all included devices minus the excluded ones, each once. An empty audience, or one
with an unknown segment or group, is an error.
"""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..core import Part
from ..finding import row_ids
from ..requests import Audience
from ..store import schema
from ..store.database import Database
from ..store.statements import insert_into, page_of, view_of
from . import filters
from .suspects import Which, tokens_that_are

MAX_IDS = 20_000
SAMPLE = 5
PAGE = 1_000


class Recipient(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A living start token in an audience. The next page begins after ``row``."""

    row: int
    device: int
    token: str
    language: str | None = None
    os_version: str | None = None


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `dry_run`, for an attributes type if one was given."""

    devices: int
    persons: int
    reachable: int
    """Devices with a living start token of the type; all devices if no type was given."""
    sample: list[str]
    unindexed: list[str]
    """Conditions without an index: fast together with others, slow alone on a large app."""


class Audiences(Part):
    """Resolves audiences against the store."""

    async def clause(
        self, connection: AsyncConnection, app: App, audience: Audience
    ) -> filters.Clause:
        """Return the condition on ``devices`` rows of the app.

        Raises `InvalidInput` for an empty audience, an unknown segment or group, or a bad filter.
        """
        audience.check()
        now = self.now
        devices, users = schema.devices, schema.users
        included = await _named(connection, app, audience, "", now)
        included += [true()] if audience.everyone else []
        owned = (users.c.app_id == app.row, users.c.id, users.c.public_id)
        included += _of_users(connection, owned, audience.user_ids, "audience.user_ids")
        aliases = schema.user_aliases
        for label, values in audience.aliases.items():
            checks.identifier(label, "audience.aliases", limit=128)
            labelled = and_(aliases.c.app_id == app.row, aliases.c.label == label)
            owned = (labelled, aliases.c.user_id, aliases.c.value)
            included += _of_users(connection, owned, values, f"audience.aliases.{label}")
        if audience.filter is not None:
            tree = filters.parse_filter(audience.filter, field="audience.filter")
            included.append(filters.compile_filter(tree, now=now))
        excluded = await _named(connection, app, audience, "exclude_", now)
        # An exclusion whose condition is NULL (unknown) excludes nothing: NULL counts as false.
        no = [not_(func.coalesce(one, false())) for one in excluded]
        return and_(devices.c.app_id == app.row, or_(*included), *no)

    async def dry_run(
        self, app: App, audience: Audience, *, attributes_type: str | None = None
    ) -> DryRun:
        """Count the devices of an audience, and return a few as a sample. Sends nothing. Raises `InvalidInput`."""
        devices, tokens = schema.devices, schema.start_tokens
        count = func.count(devices.c.id)
        async with self.database.read() as connection:
            clause = await self.clause(connection, app, audience)
            users = func.count(devices.c.user_id.distinct())
            counts = select(count, users + count - func.count(devices.c.user_id))
            total, persons = (await connection.execute(counts.where(clause))).one()
            reachable = total
            if attributes_type is not None:
                living = exists().where(
                    tokens.c.device_id == devices.c.id,
                    tokens.c.attributes_type == attributes_type,
                    tokens.c.retired_at.is_(None),
                )
                reachable = await connection.scalar(select(count).where(clause, living)) or 0
            some = select(devices.c.public_id).where(clause).order_by(devices.c.id).limit(SAMPLE)
            sample = list(await connection.scalars(some))
            trees = [
                await load_segment(connection, app, name, "audience.segments")
                for name in audience.segments
            ]
        if audience.filter is not None:
            trees.append(filters.parse_filter(audience.filter))
        slow = dict.fromkeys(name for tree in trees for name in filters.unindexed(tree))
        return DryRun(
            devices=total, persons=persons, reachable=reachable, sample=sample, unindexed=list(slow)
        )

    async def start_tokens(
        self,
        app: App,
        audience: Audience,
        *,
        attributes_type: str,
        environment: str,
        started: int | None = None,
        which: Which = "all",
        moment: int = 0,
    ) -> Select[Any]:
        """Return the query for the living start tokens of an audience. Raises `InvalidInput`.

        ``which`` selects the tokens that were suspect at a moment (milliseconds), or the others.
        ``started`` selects devices that have a living card of the activity with that row.
        """
        tokens = schema.start_tokens
        async with self.database.read() as connection:
            clause = await self.clause(connection, app, audience)
        query = living_tokens(tokens, app, environment)
        query = query.where(tokens.c.attributes_type == attributes_type, clause)
        if which != "all":
            query = query.where(tokens_that_are(which, moment))
        if started is not None:
            members = schema.activity_devices
            on = members.c.activity_id == started, members.c.retired_at.is_(None)
            query = query.where(tokens.c.device_id.in_(select(members.c.device_id).where(*on)))
        return query


def living_tokens(tokens: Table, app: App, environment: str) -> Select[Any]:
    """Return the query for the living start or device tokens of an app, as recipients."""
    devices = schema.devices
    columns = (tokens.c.id, tokens.c.device_id, tokens.c.token)
    query = select(*columns, devices.c.language, devices.c.os_version)
    living = tokens.c.retired_at.is_(None)
    return query.join(devices, devices.c.id == tokens.c.device_id).where(
        tokens.c.app_id == app.row, tokens.c.environment == environment, living
    )


async def recipient_pages(
    database: Database, query: Select[Any], place: ColumnElement[int], after: int, page: int
) -> AsyncGenerator[list[Recipient], None]:
    """Read recipients in pages by ``place``, their row; only one page is in memory."""
    query = query.where(place > bindparam("after")).order_by(place).limit(page)
    while True:
        async with database.read() as connection:
            recipients = await page_of(connection, query, {"after": after}, Recipient)
        if recipients:
            recipients.sort(key=lambda recipient: recipient.row)
            yield recipients
            after = recipients[-1].row
        if len(recipients) < page:
            return


async def _named(
    connection: AsyncConnection, app: App, audience: Audience, prefix: str, now: int
) -> list[filters.Clause]:
    """Return the conditions of the users, devices, segments and groups with this prefix."""
    users, field = schema.users, f"audience.{prefix}"
    names, devices, segments, groups = (
        getattr(audience, prefix + name) for name in ("users", "devices", "segments", "groups")
    )
    owned = (users.c.app_id == app.row, users.c.id, users.c.external_id)
    found = _of_users(connection, owned, names, f"{field}users")
    if values := _checked(devices, f"{field}devices"):
        found.append(schema.devices.c.public_id.in_(_items(connection, values)))
    for index, name in enumerate(segments):
        tree = await load_segment(connection, app, name, f"{field}segments[{index}]")
        found.append(filters.compile_filter(tree, now=now))
    members, rows = schema.group_members, await row_ids(connection, app, schema.groups, groups)
    for index, slug in enumerate(groups):
        if slug not in rows:
            problem = f"{slug!r} is not a group of the app"
            raise InvalidInput(problem, f"{field}groups[{index}]", "Add the group first.")
        found.append(filters.of_device_or_user(members, members.c.group_id == rows[slug]))
    return found


def _of_users(
    connection: AsyncConnection,
    owned: tuple[filters.Clause, ColumnElement[int], ColumnElement[str]],
    names: Iterable[str],
    field: str,
) -> list[filters.Clause]:
    """Return the condition on devices of users; ``owned`` is a condition on rows, their user and their name."""
    rows, user, name = owned
    if not (values := _checked(names, field)):
        return []
    wanted = select(user).where(rows, name.in_(_items(connection, values)))
    return [schema.devices.c.user_id.in_(wanted)]


def _checked(ids: Iterable[str], field: str) -> list[str]:
    values = list(dict.fromkeys(ids))
    checks.at_most(len(values), MAX_IDS, "ids", field, more=", or a segment")
    return [checks.identifier(value, f"{field}[{n}]") for n, value in enumerate(values)]


def _items(connection: AsyncConnection, values: list[str]) -> Any:
    """Return a subquery over a list. The list is one parameter, whatever its length."""
    text = json.dumps(values)
    if connection.dialect.name == "sqlite":
        return select(func.json_each(text).table_valued("value").c.value)
    array = func.jsonb_array_elements_text(cast(cast(text, Text), JSONB))
    return select(array.column_valued("value"))


_WEEK = 168
_SUBSCRIBED = {"field": "push_enabled", "relation": "=", "value": True}
_RECENT = {"field": "last_session", "relation": "<", "hours_ago": _WEEK}
_LONG_AGO = {"field": "last_session", "relation": ">=", "hours_ago": _WEEK}
_OFTEN = {"field": "session_count", "relation": ">=", "value": 4}

_EVERYONE: dict[str, Any] = {"or": [_SUBSCRIBED, {"not": _SUBSCRIBED}]}
_ENGAGED: dict[str, Any] = {"and": [_SUBSCRIBED, _RECENT, _OFTEN]}
# The segments that teams coming from a vendor expect, with the vendor's names.
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
    """A saved filter. ``id`` is empty for the segments that every app has."""

    id: str
    name: str
    filter: dict[str, Any]


class Segments(Part):
    """Stores the segments of each app."""

    async def save(
        self,
        app: App,
        name: str,
        rule: object,
        *,
        id: str | None = None,  # noqa: A002
    ) -> Segment:
        """Add a segment, or change the filter of the segment with this name.

        Raises `InvalidInput` for a bad filter or the name of a default segment.
        """
        checks.identifier(name, "name", limit=200)
        if name in DEFAULTS:
            problem = f"{name!r} is a segment that every app has"
            raise InvalidInput(problem, "name", "Choose another.")
        values = {
            "app_id": app.row,
            "public_id": self.core.new_id()
            if id is None
            else checks.identifier(id, "id", limit=64),
            "name": name,
            "filter": filters.write_filter(filters.parse_filter(rule)),
            "created_at": self.now,
        }
        table = schema.segments
        async with self.database.write() as connection:
            place, change = ["app_id", "name"], {"filter": values["filter"]}
            saved = insert_into(connection, table).values(values)
            saved = saved.on_conflict_do_update(index_elements=place, set_=change)
            return view_of(Segment, (await connection.execute(saved.returning(table))).one())

    async def list(self, app: App, *, only: str | None = None) -> list[Segment]:
        """Return the saved segments of an app by name."""
        table = schema.segments
        query = select(table).where(table.c.app_id == app.row).order_by(table.c.name)
        if only is not None:
            query = query.where(table.c.name == only)
        return [view_of(Segment, row) for row in await self.database.rows(query)]

    async def delete(self, app: App, name_or_id: str) -> None:
        """Delete a segment. Raises `NotFound`."""
        gone = delete(schema.segments).where(is_named(app, name_or_id))
        if not await self.database.change(gone):
            raise no_segment(app, name_or_id)


def is_named(app: App, name_or_id: str) -> ColumnElement[bool]:
    """Return the condition that a segment of an app has this name or id."""
    table = schema.segments
    named = or_(table.c.name == name_or_id, table.c.public_id == name_or_id)
    return and_(table.c.app_id == app.row, named)


def no_segment(app: App, name_or_id: str) -> NotFound:
    """Return the error for an unknown segment."""
    return NotFound(f"the app {app.id!r} has no segment {name_or_id!r}")


async def load_segment(
    connection: AsyncConnection, app: App, name_or_id: str, field: str
) -> filters.Filter:
    """Return the filter of a segment by name or id. Raises `InvalidInput` when there is none."""
    query = select(schema.segments.c.filter).where(is_named(app, name_or_id)).limit(1)
    if (text := await connection.scalar(query)) is not None:
        return filters.parse_filter(json.loads(text), field=field)
    if name_or_id in DEFAULTS:
        return filters.parse_filter(DEFAULTS[name_or_id], field=field)
    problem = f"{name_or_id!r} is not a segment of the app"
    raise InvalidInput(problem, field, "Save the segment first.")
