"""Devices and their tokens: told in batches, newest wins, retired by APNs' own clock.

A token is kept with the time at which the phone registered it. A registration replaces what is
stored only if it is not older (compare-and-set in the statement itself), so the order in which
calls arrive does not matter. A 410 from APNs retires a token only if it was registered before the
time that the 410 carries (Apple, "Handling notification responses from APNs").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import ApnsLiveError, InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..finding import find, row_ids
from ..store import schema
from ..store.bulk import with_rows
from ..store.commit import Batch, GroupCommit
from ..store.database import Database
from ..store.growth import Growth
from ..store.statements import chunks, insert_into
from ..times import milliseconds
from .people import rows_of_users
from .records import DeviceRecord, TokenRecord, check_device, check_token

TOLD = tuple(name for name in DeviceRecord.__struct_fields__ if name not in {"id", "user"})
"""What is told of a device, beside whose it is."""

Left = Callable[[int, str], object]
Guard = Callable[[AsyncConnection], Awaitable[None]]
"""Runs first in a write's transaction, and stops the write by raising."""


class _Registration(msgspec.Struct, frozen=True, gc=False):
    """The checked tokens of one call."""

    app: App
    records: Sequence[TokenRecord]
    guard: Guard | None


async def stopped_by(guard: Guard | None, connection: AsyncConnection) -> Exception | None:
    """Return the error with which a guard stops a write that is one of many; None if it may go on."""
    try:
        if guard is not None:
            await guard(connection)
    except ApnsLiveError as error:
        return error
    return None


class Devices:
    """What is known of the devices of each app, and the tokens to reach them by.

    ``left`` is called with an activity's row and a token that it is to be sent to no more.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        left: Left = lambda activity, token: None,
        commits: GroupCommit | None = None,
    ) -> None:
        self._database = database
        self._commits = GroupCommit(database) if commits is None else commits
        self._registrations: Batch[_Registration, None] = Batch(self._together)
        self._clock = clock
        self._growth = Growth(database)
        self._left = left

    async def tell(self, app: App, records: Iterable[DeviceRecord]) -> int:
        """Store what callers told about devices; return how many. New ones are added.

        Raises `InvalidInput` and stores nothing when one of them is wrong.
        """
        checked = [
            check_device(record, f"devices[{index}]") for index, record in enumerate(records)
        ]
        async with self._database.write() as connection:
            await self.tell_within(connection, app, checked)
        await self._growth.stored(len(checked))
        return len(checked)

    async def tell_within(
        self, connection: AsyncConnection, app: App, records: Sequence[DeviceRecord]
    ) -> None:
        """Store checked records inside a transaction of the caller."""
        now = milliseconds(self._clock)
        users = await rows_of_users(
            connection, app, [record.user for record in records if record.user], now
        )
        table = schema.devices
        new = insert_into(connection, table).on_conflict_do_nothing()
        for part in chunks(records):
            await connection.execute(
                new,
                [
                    {
                        "app_id": app.row,
                        "public_id": record.id,
                        "created_at": now,
                        "updated_at": now,
                    }
                    for record in part
                ],
            )
            told = [_told(app, record, users, now) for record in part]
            told = [values for values in told if len(values) > _PLACE_KEYS]
            # Records that tell the same columns share one statement.
            for columns in {frozenset(values) for values in told}:
                await connection.execute(
                    _update_told(columns),
                    [values for values in told if values.keys() == columns],
                )

    async def register(
        self, app: App, records: Iterable[TokenRecord], *, guard: Guard | None = None
    ) -> int:
        """Store tokens; return how many were told. Unknown devices are added.

        A token that another device held moves to the newer registration. Activity tokens need their
        activity to be known: register those through the activities. Raises `InvalidInput`.
        """
        now = milliseconds(self._clock)
        checked = [
            check_token(record, now=now, field=f"tokens[{index}]")
            for index, record in enumerate(records)
        ]
        for index, record in enumerate(checked):
            if record.kind == "activity":
                raise InvalidInput(
                    "is activity",
                    field=f"tokens[{index}].kind",
                    remedy="Register activity tokens with the activities.",
                )

        await self._commits.run_with(self._registrations, _Registration(app, checked, guard))
        await self._growth.stored(len(checked))
        return len(checked)

    async def _together(
        self, connection: AsyncConnection, items: Sequence[_Registration]
    ) -> Sequence[Exception | None]:
        """Store the registrations of many calls with a few statements for each app. See `GroupCommit`."""
        answers = [await stopped_by(item.guard, connection) for item in items]
        by_app: dict[int, tuple[App, list[TokenRecord]]] = {}
        for item, refused in zip(items, answers, strict=True):
            if refused is None:
                by_app.setdefault(item.app.row, (item.app, []))[1].extend(item.records)
        for _, (app, records) in sorted(by_app.items()):
            await self.register_within(connection, app, records)
        return answers

    async def register_within(
        self, connection: AsyncConnection, app: App, records: Sequence[TokenRecord]
    ) -> None:
        """Store checked start and device tokens inside a transaction of the caller."""
        rows = await self.rows(connection, app, [record.device for record in records])
        for kind, (register, moved) in _STATEMENTS.items():
            of_kind = [record for record in records if record.kind == kind]
            for part in chunks(_newest(of_kind, app), _TOGETHER):
                given = [
                    [
                        app.row,
                        rows[record.device],
                        record.scope,
                        record.environment or app.environment,
                        record.token,
                        record.registered_at,
                    ]
                    for record in part
                ]
                given.sort()  # one order of locks for everybody
                await with_rows(connection, register, _COLUMNS, given)
                await with_rows(connection, moved, _COLUMNS, given)

    async def rows(
        self, connection: AsyncConnection, app: App, public_ids: Iterable[str]
    ) -> dict[str, int]:
        """Return the row ids of devices, adding those that are new."""
        now = milliseconds(self._clock)
        new = {"created_at": now, "updated_at": now}
        return await row_ids(connection, app, schema.devices, public_ids, lambda _: new)

    async def get(self, app: App, public_id: str) -> dict[str, Any]:
        """Return what is known of a device, with its living start tokens by type.

        Tokens are shown by their first eight digits. Raises `NotFound`.
        """
        table = schema.devices
        async with self._database.read() as connection:
            query = select(table, schema.users.c.external_id.label("user")).outerjoin(
                schema.users, schema.users.c.id == table.c.user_id
            )
            row = await find(connection, app, table, public_id, query)
            start = schema.start_tokens
            tokens = (
                await connection.execute(
                    select(start).where(start.c.device_id == row.id, start.c.retired_at.is_(None))
                )
            ).all()
        known = {name: getattr(row, name) for name in TOLD}
        return {
            "id": row.public_id,
            "user": row.user,
            **known,
            "start_tokens": [
                {
                    "attributes_type": token.attributes_type,
                    "environment": token.environment,
                    "token": f"{token.token[:8]}…",
                    "registered_at": token.registered_at,
                }
                for token in tokens
            ],
        }

    async def forget(self, app: App, public_id: str) -> None:
        """Delete a device and all of its tokens. Raises `NotFound`."""
        table, members = schema.devices, schema.activity_devices
        place = (table.c.app_id == app.row, table.c.public_id == public_id)
        async with self._database.write() as connection:
            followed = (
                await connection.execute(
                    select(members.c.activity_id, members.c.token)
                    .join(table, table.c.id == members.c.device_id)
                    .where(*place, members.c.token.is_not(None))
                )
            ).all()
            gone = await connection.execute(delete(table).where(*place))
        if not gone.rowcount:
            raise NotFound(f"the app {app.id!r} has no device {public_id!r}")
        for activity, token in followed:
            self._left(activity, token)

    async def withdraw(
        self, app: App, device: str, attributes_type: str, *, guard: Guard | None = None
    ) -> bool:
        """Retire a device's start token because the app said so; return whether there was one."""
        table = schema.start_tokens
        owner = select(schema.devices.c.id).where(
            schema.devices.c.app_id == app.row, schema.devices.c.public_id == device
        )
        now = milliseconds(self._clock)
        async with self._database.write() as connection:
            if guard is not None:
                await guard(connection)
            retired = await connection.execute(
                update(table)
                .where(
                    table.c.device_id.in_(owner),
                    table.c.attributes_type == attributes_type,
                    table.c.retired_at.is_(None),
                )
                .values(retired_at=now, retired_reason="withdrawn")
            )
        return bool(retired.rowcount)

    async def retire(
        self, connection: AsyncConnection, app_row: int, refused: Iterable[Refused]
    ) -> None:
        """Retire tokens that APNs refused, in the caller's transaction.

        Each is (token, milliseconds of the 410 or None, reason). Without a time of its own a
        refusal counts from now on. The token is retired as of that time, so that a registration
        after it makes the token live again.
        """
        now = milliseconds(self._clock)
        values = [
            {
                "the_app": app_row,
                "the_token": token,
                "before": now if before is None else before,
                "why": reason,
            }
            for token, before, reason in refused
        ]
        for table in (schema.start_tokens, schema.device_tokens, schema.activity_devices):
            for part in chunks(values):
                await connection.execute(
                    update(table)
                    .where(
                        table.c.app_id == bindparam("the_app"),
                        table.c.token == bindparam("the_token"),
                        table.c.retired_at.is_(None),
                        table.c.registered_at <= bindparam("before"),
                    )
                    .values(retired_at=bindparam("before"), retired_reason=bindparam("why")),
                    part,
                )


Refused = tuple[str, int | None, str]
_TOGETHER = 1_000
_COLUMNS = {
    "app": "BIGINT",
    "device": "BIGINT",
    "scope": "TEXT",
    "environment": "TEXT",
    "token": "TEXT",
    "registered": "BIGINT",
}
# Newest wins; the same one told again is not written again.
_REGISTER = """
INSERT INTO {table} AS known (app_id, {place}, token, registered_at)
SELECT app, {given_place}, token, registered FROM {{given}} WHERE true
ON CONFLICT ({place}) DO UPDATE SET
    token = excluded.token,
    registered_at = excluded.registered_at,
    retired_at = CASE WHEN {alive} THEN NULL ELSE known.retired_at END,
    retired_reason = CASE WHEN {alive} THEN NULL ELSE known.retired_reason END
WHERE excluded.registered_at > known.registered_at
    OR (excluded.registered_at = known.registered_at AND excluded.token <> known.token)
"""
_ALIVE = """known.token <> excluded.token OR known.retired_at IS NULL
        OR excluded.registered_at > known.retired_at"""
# A token stays with the device that registered it last: one phone, one push. A reinstalled app is a new
# device to us and may hold the token of the old one.
_MOVED = """
UPDATE {table} SET retired_at = newer.registered_at, retired_reason = 'moved'
FROM {{given}} JOIN {table} AS newer ON newer.app_id = given.app AND newer.token = given.token
WHERE {table}.app_id = given.app AND {table}.token = given.token {same}
    AND {table}.retired_at IS NULL AND newer.retired_at IS NULL
    AND (newer.registered_at, newer.id) > ({table}.registered_at, {table}.id)
"""


def _statements(table: str, scope: str) -> tuple[str, str]:
    """Return what registers tokens of a table, and what retires them where they were before."""
    place, given_place, same = "device_id, environment", "device, environment", ""
    if scope:
        place, given_place = f"{place}, {scope}", f"{given_place}, scope"
        same = f"AND newer.{scope} = {table}.{scope}"
    return (
        _REGISTER.format(table=table, place=place, given_place=given_place, alive=_ALIVE),
        _MOVED.format(table=table, same=same),
    )


_STATEMENTS = {
    "start": _statements("start_tokens", "attributes_type"),
    "device": _statements("device_tokens", ""),
}
_PLACE_KEYS = 3  # the_app, the_id and updated_at stand in every update


def _told(app: App, record: DeviceRecord, users: Mapping[str, int], now: int) -> dict[str, Any]:
    values: dict[str, Any] = {"the_app": app.row, "the_id": record.id, "new_updated_at": now}
    for name in TOLD:
        if (value := getattr(record, name)) is not None:
            values[f"new_{name}"] = value
    if record.app_version is not None:
        values["new_app_version_order"] = checks.version_order(record.app_version)
    if record.user is not None:
        values["new_user_id"] = users[record.user]
    return values


def _update_told(columns: Iterable[str]) -> Any:
    table = schema.devices
    changes: dict[str, Any] = {
        name.removeprefix("new_"): bindparam(name) for name in columns if name.startswith("new_")
    }
    # What is known already is not written again: a file that is fed twice changes nothing.
    news = [
        table.c[name].is_distinct_from(value)
        for name, value in changes.items()
        if name != "updated_at"
    ]
    return (
        update(table)
        .where(
            table.c.app_id == bindparam("the_app"),
            table.c.public_id == bindparam("the_id"),
            or_(*news),
        )
        .values(changes)
    )


def _newest(records: Sequence[TokenRecord], app: App) -> list[TokenRecord]:
    """Keep the newest of several registrations for one place: a statement may touch a row once."""
    kept: dict[tuple[str, str, str], TokenRecord] = {}
    for record in records:
        place = (record.device, record.scope, record.environment or app.environment)
        known = kept.get(place)
        if known is None or record.registered_at >= known.registered_at:
            kept[place] = record
    return list(kept.values())
