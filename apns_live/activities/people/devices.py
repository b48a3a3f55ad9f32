"""Devices and their tokens: told in batches, newest wins, retired by APNs' own clock.

A token is kept with the time at which the phone registered it. A registration replaces what is
stored only if it is not older (compare-and-set in the statement itself), so the order in which
calls arrive does not matter. A 410 from APNs retires a token only if it was registered before the
time that the 410 carries (Apple, "Handling notification responses from APNs").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..store import schema
from ..store.commit import GroupCommit
from ..store.database import Database
from ..store.growth import Growth
from ..store.statements import chunks, insert_into
from ..times import milliseconds
from .people import rows_of_users
from .records import DeviceRecord, TokenRecord, check_device, check_token

TOLD = (
    "language",
    "country",
    "latitude",
    "longitude",
    "app_version",
    "os_version",
    "first_session",
    "last_session",
    "session_count",
    "session_time",
    "amount_spent",
    "push_enabled",
    "frequent_updates",
)

Left = Callable[[int, str], object]
Guard = Callable[[AsyncConnection], Awaitable[None]]
"""Runs first in a write's transaction, and stops the write by raising."""


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
        self._commits = commits or GroupCommit(database)
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

        async def store(connection: AsyncConnection) -> None:
            if guard is not None:
                await guard(connection)
            await self.register_within(connection, app, checked)

        await self._commits.run(store)
        await self._growth.stored(len(checked))
        return len(checked)

    async def register_within(
        self, connection: AsyncConnection, app: App, records: Sequence[TokenRecord]
    ) -> None:
        """Store checked start and device tokens inside a transaction of the caller."""
        rows = await self.rows(connection, app, [record.device for record in records])
        for kind, table in _TABLES.items():
            of_kind = [record for record in records if record.kind == kind]
            for part in chunks(_newest(of_kind, app)):
                await connection.execute(
                    _register(connection, table),
                    [
                        {
                            "app_id": app.row,
                            "device_id": rows[record.device],
                            "environment": record.environment or app.environment,
                            "token": record.token,
                            "registered_at": record.registered_at,
                            **({"attributes_type": record.scope} if kind == "start" else {}),
                        }
                        for record in part
                    ],
                )
                await _retire_moved(connection, table, app, [record.token for record in part])

    async def rows(
        self, connection: AsyncConnection, app: App, public_ids: Iterable[str]
    ) -> dict[str, int]:
        """Return the row ids of devices, adding those that are new."""
        now = milliseconds(self._clock)
        wanted = dict.fromkeys(public_ids)
        table = schema.devices
        found: dict[str, int] = {}
        for part in chunks(wanted):
            found.update(await _find(connection, app, part))
            missing = [public_id for public_id in part if public_id not in found]
            if missing:
                await connection.execute(
                    insert_into(connection, table).on_conflict_do_nothing(),
                    [
                        {
                            "app_id": app.row,
                            "public_id": public_id,
                            "created_at": now,
                            "updated_at": now,
                        }
                        for public_id in missing
                    ],
                )
                found.update(await _find(connection, app, missing))
        return found

    async def get(self, app: App, public_id: str) -> dict[str, Any]:
        """Return what is known of a device, with its living start tokens by type.

        Tokens are shown by their first eight digits. Raises `NotFound`.
        """
        table = schema.devices
        async with self._database.read() as connection:
            row = (
                await connection.execute(
                    select(table, schema.users.c.external_id.label("user"))
                    .outerjoin(schema.users, schema.users.c.id == table.c.user_id)
                    .where(table.c.app_id == app.row, table.c.public_id == public_id)
                )
            ).one_or_none()
            if row is None:
                raise NotFound(f"the app {app.id!r} has no device {public_id!r}: register it first")
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
_TABLES: dict[str, Table] = {"start": schema.start_tokens, "device": schema.device_tokens}
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


def _register(connection: AsyncConnection, table: Table) -> Any:
    statement = insert_into(connection, table)
    place = ["device_id", "environment"]
    if "attributes_type" in table.c:
        place.insert(1, "attributes_type")
    new = statement.excluded
    alive = or_(
        table.c.token != new.token,
        table.c.retired_at.is_(None),
        new.registered_at > table.c.retired_at,
    )
    return statement.on_conflict_do_update(
        index_elements=place,
        set_={
            "token": new.token,
            "registered_at": new.registered_at,
            "retired_at": case((alive, None), else_=table.c.retired_at),
            "retired_reason": case((alive, None), else_=table.c.retired_reason),
        },
        # Newest wins; the same one told again is not written again.
        where=or_(
            new.registered_at > table.c.registered_at,
            and_(new.registered_at == table.c.registered_at, new.token != table.c.token),
        ),
    )


async def _find(connection: AsyncConnection, app: App, public_ids: Sequence[str]) -> dict[str, int]:
    table = schema.devices
    rows = await connection.execute(
        select(table.c.public_id, table.c.id).where(
            table.c.app_id == app.row, table.c.public_id.in_(public_ids)
        )
    )
    return {row.public_id: row.id for row in rows}


async def _retire_moved(
    connection: AsyncConnection, table: Table, app: App, tokens: Sequence[str]
) -> None:
    """Leave a token with the device that registered it last: one phone, one push.

    A reinstalled app is a new device to us and may hold the token of the old one.
    """
    same = [table.c.token]
    if "attributes_type" in table.c:
        same.append(table.c.attributes_type)
    # Hardly any token has two holders, so those are looked for first.
    shared = (
        await connection.execute(
            select(*same)
            .where(
                table.c.app_id == app.row,
                table.c.token.in_(tokens),
                table.c.retired_at.is_(None),
            )
            .group_by(*same)
            .having(func.count() > 1)
        )
    ).all()
    for place in shared:
        holders = (
            await connection.execute(
                select(table.c.id, table.c.registered_at)
                .where(
                    table.c.app_id == app.row,
                    table.c.retired_at.is_(None),
                    *(column == value for column, value in zip(same, place, strict=True)),
                )
                .order_by(table.c.registered_at.desc(), table.c.id.desc())
            )
        ).all()
        newest, *others = holders
        await connection.execute(
            update(table)
            .where(
                table.c.id.in_([holder.id for holder in others]),
                table.c.registered_at <= newest.registered_at,
            )
            .values(retired_at=newest.registered_at, retired_reason="moved")
        )
