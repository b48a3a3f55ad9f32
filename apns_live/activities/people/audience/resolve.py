"""An audience: what is included, minus what is excluded; each device once.

An audience that names nothing is an error. So is one that names something unknown (a segment, a
group): it must never quietly mean nobody, and never everyone.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    cast,
    distinct,
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

from ....clock import Clock
from ....errors import InvalidInput
from ... import checks
from ...apps import App
from ...requests.audience import Audience
from ...store import schema
from ...store.bulk import page_of
from ...store.database import Database
from ...times import milliseconds
from .compile import compile_filter, unindexed
from .filters import Filter, parse_filter
from .segments import load_segment

MAX_IDS = 20_000
SAMPLE = 5
PAGE = 1_000

Clause = ColumnElement[bool]


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """A living start token in an audience. ``row`` is the place to read on from."""

    row: int
    device: int
    token: str
    language: str | None = None


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What an audience would reach, for an attributes type if one was given."""

    devices: int
    persons: int
    reachable: int
    """Devices that have a living start token of the type; all of them when no type was given."""
    sample: list[str]
    unindexed: list[str]
    """Conditions that no index leads to: fine beside others, slow alone on a large app."""


class Audiences:
    """Resolves audiences against the store."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def clause(self, connection: AsyncConnection, app: App, audience: Audience) -> Clause:
        """Return the condition on ``devices`` rows of the app.

        Raises `InvalidInput` for an empty audience, an unknown segment or group, or a bad filter.
        """
        if audience.is_empty:
            raise InvalidInput(
                "names nobody",
                field="audience",
                remedy="Name users, devices, groups, segments or a filter; or say everyone.",
            )
        now = milliseconds(self._clock)
        devices, users = schema.devices, schema.users
        included: list[Clause] = [true()] if audience.everyone else []
        included += self._ids(connection, users.c.external_id, audience.users, "users", app)
        included += self._ids(connection, users.c.public_id, audience.user_ids, "user_ids", app)
        for label, values in audience.aliases.items():
            included += self._alias(connection, app, label, values)
        included += self._devices(connection, audience.devices, "devices")
        for index, name in enumerate(audience.segments):
            tree = await load_segment(connection, app, name, f"audience.segments[{index}]")
            included.append(compile_filter(tree, now=now))
        for index, slug in enumerate(audience.groups):
            included.append(await self._group(connection, app, slug, f"audience.groups[{index}]"))
        if audience.filter is not None:
            tree = parse_filter(audience.filter, field="audience.filter")
            included.append(compile_filter(tree, now=now))
        excluded: list[Clause] = []
        excluded += self._ids(
            connection, users.c.external_id, audience.exclude_users, "exclude_users", app
        )
        excluded += self._devices(connection, audience.exclude_devices, "exclude_devices")
        for index, name in enumerate(audience.exclude_segments):
            tree = await load_segment(connection, app, name, f"audience.exclude_segments[{index}]")
            excluded.append(compile_filter(tree, now=now))
        for index, slug in enumerate(audience.exclude_groups):
            field = f"audience.exclude_groups[{index}]"
            excluded.append(await self._group(connection, app, slug, field))
        clause = and_(devices.c.app_id == app.row, or_(*included))
        # An exclusion that is not known to hold does not exclude: NULL counts as false.
        no = [not_(func.coalesce(one, false())) for one in excluded]
        return and_(clause, *no)

    async def dry_run(
        self, app: App, audience: Audience, *, attributes_type: str | None = None
    ) -> DryRun:
        """Count what an audience would reach, and show a few. Sends nothing. Raises `InvalidInput`."""
        devices, tokens = schema.devices, schema.start_tokens
        async with self._database.read() as connection:
            clause = await self.clause(connection, app, audience)
            count, persons, alone = (
                await connection.execute(
                    select(
                        func.count(devices.c.id),
                        func.count(distinct(devices.c.user_id)),
                        func.count(devices.c.id) - func.count(devices.c.user_id),
                    ).where(clause)
                )
            ).one()
            reachable = count
            if attributes_type is not None:
                living = exists(
                    select(tokens.c.id).where(
                        tokens.c.device_id == devices.c.id,
                        tokens.c.attributes_type == attributes_type,
                        tokens.c.retired_at.is_(None),
                    )
                )
                reachable = (
                    await connection.execute(select(func.count(devices.c.id)).where(clause, living))
                ).scalar_one()
            sample = (
                await connection.execute(
                    select(devices.c.public_id).where(clause).order_by(devices.c.id).limit(SAMPLE)
                )
            ).scalars()
            trees = [
                await load_segment(connection, app, name, "audience.segments")
                for name in audience.segments
            ]
            if audience.filter is not None:
                trees.append(parse_filter(audience.filter))
            return DryRun(
                devices=count,
                persons=persons + alone,
                reachable=reachable,
                sample=list(sample),
                unindexed=_unindexed(trees),
            )

    async def recipients(
        self,
        app: App,
        audience: Audience,
        *,
        attributes_type: str,
        environment: str,
        after: int = 0,
        until: int | None = None,
        page: int = PAGE,
    ) -> AsyncIterator[list[Recipient]]:
        """Read the living start tokens of an audience in pages by row id; nothing is held but a page.

        ``until`` is the newest row that was there when the reading was decided on, so that a
        reading that is taken up again ends where the first would have. Raises `InvalidInput`.
        """
        devices, tokens = schema.devices, schema.start_tokens
        async with self._database.read() as connection:
            clause = await self.clause(connection, app, audience)
        query = (
            select(tokens.c.id, tokens.c.device_id, tokens.c.token, devices.c.language)
            .join(devices, devices.c.id == tokens.c.device_id)
            .where(
                tokens.c.app_id == app.row,
                tokens.c.attributes_type == attributes_type,
                tokens.c.retired_at.is_(None),
                tokens.c.environment == environment,
                tokens.c.id > bindparam("after"),
                clause,
            )
            .order_by(tokens.c.id)
            .limit(page)
        )
        if until is not None:
            query = query.where(tokens.c.id <= until)
        while True:
            async with self._database.read() as connection:
                rows = await page_of(connection, query, {"after": after})
            if not rows:
                return
            recipients = [Recipient(*row) for row in rows]
            recipients.sort(key=lambda recipient: recipient.row)
            yield recipients
            after = recipients[-1].row
            if len(rows) < page:
                return

    def _ids(
        self,
        connection: AsyncConnection,
        column: ColumnElement[str],
        ids: Iterable[str],
        field: str,
        app: App,
    ) -> list[Clause]:
        values = _checked(ids, f"audience.{field}")
        if not values:
            return []
        users = schema.users
        wanted = select(users.c.id).where(
            users.c.app_id == app.row, column.in_(_items(connection, values))
        )
        return [schema.devices.c.user_id.in_(wanted)]

    def _devices(self, connection: AsyncConnection, ids: Iterable[str], field: str) -> list[Clause]:
        values = _checked(ids, f"audience.{field}")
        if not values:
            return []
        return [schema.devices.c.public_id.in_(_items(connection, values))]

    def _alias(
        self, connection: AsyncConnection, app: App, label: str, values: Iterable[str]
    ) -> list[Clause]:
        field = f"audience.aliases.{label}"
        checks.identifier(label, "audience.aliases", limit=128)
        checked = _checked(values, field)
        if not checked:
            return []
        table = schema.user_aliases
        wanted = select(table.c.user_id).where(
            table.c.app_id == app.row,
            table.c.label == label,
            table.c.value.in_(_items(connection, checked)),
        )
        return [schema.devices.c.user_id.in_(wanted)]

    async def _group(self, connection: AsyncConnection, app: App, slug: str, field: str) -> Clause:
        groups, members, devices = schema.groups, schema.group_members, schema.devices
        row = (
            await connection.execute(
                select(groups.c.id).where(groups.c.app_id == app.row, groups.c.slug == slug)
            )
        ).scalar()
        if row is None:
            raise InvalidInput(
                f"{slug!r} is no group of the app", field=field, remedy="Add the group first."
            )
        within = select(members.c.id).where(members.c.group_id == row)
        return or_(
            exists(within.where(members.c.device_id == devices.c.id)),
            and_(
                devices.c.user_id.is_not(None),
                exists(within.where(members.c.user_id == devices.c.user_id)),
            ),
        )


def _checked(ids: Iterable[str], field: str) -> list[str]:
    values = list(dict.fromkeys(ids))
    if len(values) > MAX_IDS:
        raise InvalidInput(
            f"has {len(values)} ids", field=field, remedy=f"Give at most {MAX_IDS}, or a segment."
        )
    return [checks.identifier(value, f"{field}[{n}]") for n, value in enumerate(values)]


def _items(connection: AsyncConnection, values: list[str]) -> Any:
    """Return a subquery over a list that is handed over as one parameter, however long it is."""
    text = json.dumps(values)
    if connection.dialect.name == "sqlite":
        return select(func.json_each(text).table_valued("value").c.value)
    array = func.jsonb_array_elements_text(cast(cast(text, Text), JSONB))
    return select(array.column_valued("value"))


def _unindexed(trees: Iterable[Filter]) -> list[str]:
    return list(dict.fromkeys(name for tree in trees for name in unindexed(tree)))
