"""Activity tokens as phones hand them in, newest first, and devices that leave an activity.

A token belongs to one activity on one device. The newest registration wins by its own time, so the
order in which calls arrive does not matter. A device that started the activity itself is welcome:
if its id is unknown, the activity is made then, without a state until somebody puts one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..people.devices import Devices, Guard
from ..people.records import TokenRecord, check_token
from ..requests.member import Member
from ..store import schema
from ..store.bulk import with_rows
from ..store.commit import GroupCommit
from ..store.database import Database
from ..store.ownership import partition_of
from ..store.statements import chunks, insert_into
from ..times import milliseconds

Joined = Callable[[App, int, int, Sequence[Member]], object]
"""Called after a commit with the app, an activity's row and version, and who joined it."""
Left = Callable[[int, str], object]
"""Called after a commit with an activity's row and a token that it is to be sent to no more."""


class Limiting(Protocol):
    """How many activities a device may have; see `apns_live.activities.send.limits`."""

    async def within(
        self, connection: AsyncConnection, app: App, new: Sequence[tuple[int, int]], now: int
    ) -> list[tuple[int, str | None]]:
        """Let others give way to what devices have just started, in this transaction."""

    def tell(self, evicted: Sequence[tuple[int, str | None]]) -> None:
        """Say after the commit who gave way."""

    def wake(self) -> None:
        """Say that a token came that an end may be owed to."""


_COLUMNS = {
    "app": "BIGINT",
    "activity": "BIGINT",
    "device": "BIGINT",
    "token": "TEXT",
    "environment": "TEXT",
    "registered": "BIGINT",
}

_REGISTER = """
INSERT INTO activity_devices AS known
    (app_id, activity_id, device_id, token, environment, registered_at, joined_at)
SELECT app, activity, device, token, environment, registered, :now FROM {given} WHERE true
ON CONFLICT (activity_id, device_id) DO UPDATE SET
    token = excluded.token,
    environment = excluded.environment,
    registered_at = excluded.registered_at,
    retired_at = CASE WHEN known.retired_reason = 'limit' THEN known.retired_at
        WHEN known.token IS NULL OR known.token <> excluded.token
        OR excluded.registered_at > known.retired_at THEN NULL ELSE known.retired_at END,
    retired_reason = CASE WHEN known.retired_reason = 'limit' THEN known.retired_reason
        WHEN known.token IS NULL OR known.token <> excluded.token
        OR excluded.registered_at > known.retired_at THEN NULL ELSE known.retired_reason END,
    acknowledged_version = CASE WHEN known.token IS NULL OR known.token = excluded.token
        THEN known.acknowledged_version ELSE 0 END,
    sent_version = CASE WHEN known.token IS NULL OR known.token = excluded.token
        THEN known.sent_version ELSE 0 END
WHERE known.registered_at IS NULL OR excluded.registered_at > known.registered_at
    OR (excluded.registered_at = known.registered_at AND excluded.token <> known.token)
"""

_STANDING = """
SELECT known.activity_id, known.device_id, known.token, known.environment,
    known.acknowledged_version, devices.language, devices.frequent_updates, known.retired_at
FROM {given}
JOIN activity_devices AS known
    ON known.activity_id = given.activity AND known.device_id = given.device
JOIN devices ON devices.id = known.device_id
WHERE known.token IS NOT NULL
"""

_MOVED = """
UPDATE activity_devices SET retired_at = given.registered, retired_reason = 'moved'
FROM {given}
WHERE activity_devices.app_id = given.app AND activity_devices.token = given.token
    AND activity_devices.retired_at IS NULL
    AND activity_devices.registered_at <= given.registered
    AND NOT (activity_devices.activity_id = given.activity
        AND activity_devices.device_id = given.device)
RETURNING activity_devices.activity_id, activity_devices.token
"""


Told = Callable[[AsyncConnection, Mapping[int, bool]], Awaitable[None]]
"""Notes within a transaction, for other processes, which activities tokens came for, and whether one of
them lacks the newest state."""


class Joining:
    """Takes activity tokens in. ``joined`` and ``left`` tell whoever sends to them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        devices: Devices,
        *,
        joined: Joined = lambda app, activity, version, members: None,
        left: Left = lambda activity, token: None,
        limits: Limiting | None = None,
        commits: GroupCommit | None = None,
        told: Told | None = None,
    ) -> None:
        self._database = database
        self._commits = commits or GroupCommit(database)
        self._clock = clock
        self._devices = devices
        self._joined = joined
        self._left = left
        self._limits = limits
        self._told = told

    async def register_activity_tokens(
        self,
        app: App,
        records: Iterable[TokenRecord],
        *,
        attributes_type: str = "",
        guard: Guard | None = None,
    ) -> int:
        """Store activity tokens and let their devices have the newest state; return how many.

        The ``scope`` of a record is the activity's id. An unknown one is added as an activity that
        a device started itself, of ``attributes_type``. A token that arrives after the end gets
        the end. Raises `InvalidInput` and stores nothing when one record is wrong.
        """
        now = milliseconds(self._clock)
        checked: list[TokenRecord] = []
        for index, record in enumerate(records):
            if record.kind != "activity":
                raise InvalidInput(
                    f"is {record.kind!r}",
                    field=f"tokens[{index}].kind",
                    remedy="Register start and device tokens with the devices.",
                )
            checked.append(check_token(record, now=now, field=f"tokens[{index}]"))
        if attributes_type:
            checks.attributes_type(attributes_type)
        for part in chunks(_newest(checked), 1_000):
            await self._register(app, part, attributes_type, now, guard)
        return len(checked)

    async def _register(
        self,
        app: App,
        records: Sequence[TokenRecord],
        attributes_type: str,
        now: int,
        guard: Guard | None,
    ) -> None:
        async def store(connection: AsyncConnection) -> tuple[Any, ...]:
            if guard is not None:
                await guard(connection)
            devices = await self._devices.rows(
                connection, app, [record.device for record in records]
            )
            activities = await self._activities(connection, app, records, attributes_type, now)
            rows = [
                [
                    app.row,
                    activities[record.scope].id,
                    devices[record.device],
                    record.token,
                    record.environment or activities[record.scope].environment,
                    record.registered_at,
                ]
                for record in records
            ]
            rows.sort(key=lambda row: (row[1], row[2]))  # one order of locks for everybody
            before = await _standing(connection, rows)
            await with_rows(connection, _REGISTER, _COLUMNS, rows, now=now)
            moved = (await with_rows(connection, _MOVED, _COLUMNS, rows)).all()
            after = await _standing(connection, rows)
            if self._told is not None:
                versions = {row.id: row.version for row in activities.values()}
                came: dict[int, bool] = {}
                for (activity, _), known in after.items():
                    behind = known.acknowledged_version < versions[activity]
                    came[activity] = came.get(activity, False) or behind
                await self._told(connection, came)
            evicted: list[tuple[int, str | None]] = []
            if self._limits is not None:
                new = [place for place in after if place not in before]
                evicted = await self._limits.within(connection, app, new, now)
            return activities, before, moved, after, evicted

        activities, before, moved, after, evicted = await self._commits.run(store)
        if self._limits is not None:
            self._limits.tell(evicted)
            if any(known.retired_at is not None for known in after.values()):
                self._limits.wake()
        for gone in moved:
            self._left(gone.activity_id, gone.token)
        for place, known in before.items():
            if known.token != after[place].token:
                self._left(place[0], known.token)
        versions = {row.id: row.version for row in activities.values()}
        members: dict[int, list[Member]] = {}
        for (activity, device), known in after.items():
            if known.retired_at is None:
                frequent = known.frequent_updates
                members.setdefault(activity, []).append(
                    Member(
                        device,
                        known.token,
                        known.environment,
                        known.acknowledged_version,
                        known.language,
                        None if frequent is None else bool(frequent),
                    )
                )
        for activity, joined in members.items():
            self._joined(app, activity, versions[activity], joined)

    async def _activities(
        self,
        connection: AsyncConnection,
        app: App,
        records: Sequence[TokenRecord],
        attributes_type: str,
        now: int,
    ) -> dict[str, Row[Any]]:
        """Return the activities by id, locked against a change at the same moment."""
        table = schema.activities
        environments = {record.scope: record.environment for record in records}
        found = await _find(connection, app, list(environments))
        missing = [public_id for public_id in environments if public_id not in found]
        if missing:
            await connection.execute(
                insert_into(connection, table).on_conflict_do_nothing(),
                [
                    {
                        "app_id": app.row,
                        "public_id": public_id,
                        "partition": partition_of(app.row, public_id),
                        "attributes_type": attributes_type,
                        "attributes": "{}",
                        "content_state": "{}",
                        "version": 0,
                        "status": "active",
                        "environment": environments[public_id] or app.environment,
                        "started_at": now,
                        "created_at": now,
                        "updated_at": now,
                    }
                    for public_id in missing
                ],
            )
            found |= await _find(connection, app, missing)
        return found

    async def leave(
        self, app: App, activity: str, device: str, *, guard: Guard | None = None
    ) -> bool:
        """Send nothing more of an activity to a device; return whether it was following.

        Raises `NotFound` when there is no such activity.
        """
        members, owners, activities = schema.activity_devices, schema.devices, schema.activities
        async with self._database.write() as connection:
            if guard is not None:
                await guard(connection)
            row = (
                await connection.execute(
                    select(activities.c.id).where(
                        activities.c.app_id == app.row, activities.c.public_id == activity
                    )
                )
            ).scalar()
            if row is None:
                raise NotFound(f"the app {app.id!r} has no activity {activity!r}: start it first")
            owner = select(owners.c.id).where(
                owners.c.app_id == app.row, owners.c.public_id == device
            )
            gone = await connection.execute(
                update(members)
                .where(
                    members.c.activity_id == row,
                    members.c.device_id == owner.scalar_subquery(),
                    members.c.retired_at.is_(None),
                )
                .values(retired_at=milliseconds(self._clock), retired_reason="left")
                .returning(members.c.token)
            )
            tokens = gone.scalars().all()
        for token in tokens:
            if token is not None:
                self._left(row, token)
        return bool(tokens)


def _newest(records: Sequence[TokenRecord]) -> list[TokenRecord]:
    """Keep the newest of several registrations for one place: a statement may touch a row once."""
    kept: dict[tuple[str, str], TokenRecord] = {}
    for record in records:
        place = (record.scope, record.device)
        known = kept.get(place)
        if known is None or record.registered_at >= known.registered_at:
            kept[place] = record
    return list(kept.values())


async def _find(connection: AsyncConnection, app: App, ids: Sequence[str]) -> dict[str, Row[Any]]:
    table = schema.activities
    found: dict[str, Row[Any]] = {}
    for part in chunks(ids):
        rows: Iterable[Row[Any]] = await connection.execute(
            select(table.c.id, table.c.public_id, table.c.version, table.c.environment)
            .where(table.c.app_id == app.row, table.c.public_id.in_(part))
            .with_for_update(read=True)
        )
        found.update((row.public_id, row) for row in rows)
    return found


async def _standing(
    connection: AsyncConnection, rows: Sequence[Sequence[object]]
) -> dict[tuple[int, int], Row[Any]]:
    found = await with_rows(connection, _STANDING, _COLUMNS, rows)
    return {(row.activity_id, row.device_id): row for row in found}
