"""Results and registrations of the same devices at one moment wait for each other in one order."""

from __future__ import annotations

import asyncio

from sqlalchemy import select, text

from apns_live.activities.accept.tokens import Joining
from apns_live.activities.people.records import TokenRecord
from apns_live.activities.send.results import Batch, write
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from tests.activities.world import Rooms, a_start

_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def until_waiting(database: Database, count: int) -> None:
    """Return when so many transactions wait for a lock."""
    while True:
        async with database.read() as connection:
            if await connection.scalar(_WAITING) == count:
                return


def tokens(rooms: Rooms, later: int) -> list[TokenRecord]:
    return [
        TokenRecord(
            device=f"d{n}",
            kind="activity",
            scope="match-17",
            token=f"{later:04x}{n:04x}",
            registered_at=rooms.now - 100 + later,
        )
        for n in range(2)
    ]


async def test_results_wait_for_registrations_of_their_activity(postgres_store: str) -> None:
    async with Database.open(postgres_store) as database:
        rooms = Rooms(database)
        await rooms.fill(2)
        await rooms.activities.start(rooms.app, a_start())
        joining = Joining(rooms.core)
        await joining.register_activity_tokens(rooms.app, tokens(rooms, 1))
        members = schema.activity_devices
        first, second = await rooms.rows(members)
        batch = Batch()
        for row in (second, first):  # against the order in which tokens are registered
            batch.acknowledged.append((row.activity_id, row.device_id, row.token, 1))
            batch.activities.add(row.activity_id)

        async def record() -> None:
            async with database.write() as connection:
                await write(connection, batch, now=rooms.now)

        async with asyncio.TaskGroup() as group, database.write() as held:
            await held.execute(select(members).where(members.c.id == first.id).with_for_update())
            again = tokens(rooms, 2)
            group.create_task(joining.register_activity_tokens(rooms.app, again))
            await until_waiting(database, 1)
            group.create_task(record())
            await until_waiting(database, 2)
        assert [row.token for row in await rooms.rows(members)] == [one.token for one in again]
