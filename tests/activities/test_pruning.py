"""What is past its time is deleted, in batches, and nothing else is."""

import asyncio
import itertools
from typing import Any

import pytest
from sqlalchemy import insert, update

from apns_live.activities.due import pruning
from apns_live.activities.due.pruning import EVERY, FIRST, Pruning
from apns_live.activities.requests import End, Update
from apns_live.activities.settings import ServiceSettings
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_key, a_start

DAY = 86_400.0
HOUR = 3600.0


def days(**kept: float) -> ServiceSettings:
    """Settings that say how many days rows are kept."""
    return ServiceSettings(**{f"{name}_days": number for name, number in kept.items()})


class World(Rooms):
    async def open(self) -> None:
        await self.fill(3)
        self.core.settings = days(outcome=2, receipt=3, activity=4, token=5, audit=6)
        self.pruning = Pruning(self.core)

    async def prune(self) -> dict[str, int]:
        """One round, with as much time as it wants for its pauses."""
        task = asyncio.create_task(self.pruning.round())
        while not task.done():
            await asyncio.sleep(0)
            if self.clock.pending:
                await self.clock.advance(pruning.PAUSE)
        return await task

    async def add(self, table: Any, count: int, **values: Any) -> None:
        at = (
            {}
            if "created_at" in values or "created_at" not in table.c
            else {"created_at": self.now}
        )
        row = {"app_id": self.app.row, **at, **values}
        async with self.database.write() as connection:
            await connection.execute(insert(table), [dict(row) for _ in range(count)])

    async def outcomes_of(self, operation: int, count: int) -> None:
        await self.add(
            schema.outcomes, count, operation_id=operation, device_id=1, verdict="accepted",
            status=200, reason="", apns_id="x", priority=10,
        )  # fmt: skip

    async def finish(self) -> None:
        """Say that everything accepted was sent."""
        table = schema.operations
        async with self.database.write() as connection:
            await connection.execute(update(table).values(status="done", finished_at=self.now))


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.open()
    return world


async def test_nothing_is_deleted_before_its_time(world: World) -> None:
    await world.activities.start(world.app, a_start(), key=a_key("k"))
    await world.put_on("match-17", "d0", token="aa")
    await world.finish()
    await world.outcomes_of(1, 3)
    world.clock.advance_sync(2 * DAY - 60)
    assert await world.prune() == {}
    assert await world.count(schema.outcomes) == 3


async def test_each_kind_goes_after_its_own_time(world: World) -> None:
    await world.activities.start(world.app, a_start(), key=a_key("k"))
    await world.finish()
    await world.outcomes_of(1, 3)
    numbers = itertools.count(8)
    for _ in range(2):
        await world.add(
            schema.receipts, 1, device_id=1, operation_id=next(numbers), event="clicked",
            happened_at=world.now,
        )  # fmt: skip
    await world.add(schema.webhook_calls, 2, url_host="a.example", method="POST")
    await world.add(schema.audit_log, 2, actor="a", action="b", subject="c")
    await world.devices.withdraw(world.app, "d0", "Match")
    async with world.database.write() as connection:
        table = schema.device_tokens
        await connection.execute(
            update(table).where(table.c.id == 1).values(retired_at=world.now, retired_reason="x")
        )
    gone = []
    for day in range(1, 8):
        world.clock.advance_sync(DAY if day > 1 else DAY + 60)
        gone.append(await world.prune())
    assert gone == [
        {},
        {"outcomes": 3, "webhook_calls": 2, "operations": 1},
        {"receipts": 2},
        {},
        {"device_tokens": 1},
        {"audit_log": 2},
        {},
    ]
    assert await world.count(schema.device_tokens) == 2
    assert await world.count(schema.idempotency) == 1
    world.clock.advance_sync(24 * DAY)
    assert await world.prune() == {"idempotency": 1}
    assert await world.count(schema.activities) == 1  # it has not ended


async def test_an_ended_activity_goes_with_everything_that_is_its_own(world: World) -> None:
    for name in ("old", "living"):
        await world.activities.start(world.app, a_start(id=name))
        await world.put_on(name, "d0", token=name.encode().hex())
        await world.activities.update(world.app, Update(id=name, content_state={"home": 1}))
    await world.activities.end(world.app, End(id="old"))
    await world.finish()
    for operation in (1, 2, 3, 4, 5):
        await world.outcomes_of(operation, 2)
    for activity in (1, 2):
        await world.add(
            schema.receipts, 1, device_id=1, activity_id=activity, event="clicked",
            happened_at=world.now,
        )  # fmt: skip
        await world.add(
            schema.webhook_calls, 1, activity_id=activity, url_host="a.example", method="POST"
        )
    world.core.settings = days(outcome=99, receipt=99, activity=4, token=99, audit=99)
    table = schema.activities
    async with world.database.write() as connection:
        await connection.execute(update(table).where(table.c.id == 1).values(retired_at=world.now))
    world.clock.advance_sync(4 * DAY - 60)
    assert await world.prune() == {}
    world.clock.advance_sync(120)
    assert await world.prune() == {"activities": 1}
    assert [row.public_id for row in await world.rows(table)] == ["living"]
    assert [row.activity_id for row in await world.rows(schema.activity_devices)] == [2]
    assert [row.activity_id for row in await world.rows(schema.operations)] == [2, 2]
    assert [row.operation_id for row in await world.rows(schema.outcomes)] == [3, 3, 4, 4]
    assert [row.activity_id for row in await world.rows(schema.receipts)] == [2]
    assert [row.activity_id for row in await world.rows(schema.webhook_calls)] == [2]


async def test_a_stream_outlives_its_old_activity(world: World) -> None:
    put = await world.streams.put(world.app, a_start(id=None, stream_key="s"))
    assert put.answer.operation == "started"
    await world.activities.end(world.app, End(id=put.answer.activity or ""))
    async with world.database.write() as connection:
        await connection.execute(update(schema.activities).values(retired_at=world.now))
    await world.finish()
    world.clock.advance_sync(5 * DAY)
    assert await world.prune() == {"operations": 2, "activities": 1}
    [stream] = await world.rows(schema.streams)
    assert stream.activity_id is None
    again = await world.streams.put(world.app, a_start(id=None, stream_key="s"))
    assert again.answer.operation == "started"


async def test_ids_of_what_was_forgotten_are_not_used_again(world: World) -> None:
    """A process may remember one; it must never name another activity."""
    await world.activities.start(world.app, a_start())
    await world.activities.end(world.app, End(id="match-17"))
    async with world.database.write() as connection:
        await connection.execute(update(schema.activities).values(retired_at=world.now))
    await world.finish()
    world.clock.advance_sync(5 * DAY)
    await world.prune()
    await world.activities.start(world.app, a_start())
    assert [row.id for row in await world.rows(schema.activities)] == [2]
    assert [row.id for row in await world.rows(schema.operations)] == [3]


async def test_what_is_not_finished_stays(world: World) -> None:
    now = world.clock.time()
    for number in range(3):
        await world.activities.start(world.app, a_start(id=f"m{number}", start_at=now + 365 * DAY))
    await world.activities.start(world.app, a_start(id="done"))
    async with world.database.write() as connection:
        table = schema.operations
        await connection.execute(
            update(table).where(table.c.id == 4).values(status="failed", reason="no key")
        )
    world.clock.advance_sync(30 * DAY)
    assert await world.prune() == {"operations": 1}
    assert [row.status for row in await world.rows(schema.operations)] == ["scheduled"] * 3


async def test_no_batch_is_large(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows of one moment, many operations, many activities: in small transactions."""
    monkeypatch.setattr(pruning, "BATCH", 7)
    monkeypatch.setattr(pruning, "PARENTS", 3)
    for number in range(10):
        await world.activities.start(world.app, a_start(id=f"m{number}"), key=a_key(f"k{number}"))
        await world.activities.end(world.app, End(id=f"m{number}"))
        for device in range(3):
            await world.put_on(f"m{number}", f"d{device}", token=f"{number:02x}{device:02x}")
        await world.outcomes_of(2 * number + 1, 12)
    async with world.database.write() as connection:
        await connection.execute(update(schema.activities).values(retired_at=world.now))
    await world.finish()
    world.clock.advance_sync(40 * DAY)
    sizes = [0]
    kept = world.database.write

    def counted() -> Any:
        sizes.append(0)
        return kept()

    monkeypatch.setattr(world.database, "write", counted)
    original = pruning.delete

    def limited(table: Any) -> Any:
        sizes[-1] += 1
        return original(table)

    monkeypatch.setattr(pruning, "delete", limited)
    gone = await world.prune()
    assert gone == {"outcomes": 120, "idempotency": 10, "operations": 20, "activities": 10}
    assert len(sizes) > 120 / 7 + 20 / 3 + 10 / 3 + 30 / 7
    for table in (
        schema.outcomes, schema.operations, schema.activities, schema.activity_devices,
        schema.idempotency,
    ):  # fmt: skip
        assert await world.count(table) == 0


async def test_a_round_that_finds_nothing_writes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many servers over one database each looks every hour: none may hold up the others."""

    def write() -> Any:
        raise AssertionError

    monkeypatch.setattr(world.database, "write", write)
    assert await world.prune() == {}


async def test_it_runs_a_minute_after_the_start_and_then_every_hour(world: World) -> None:
    task = asyncio.create_task(world.pruning.run())
    try:
        for rounds, wait in enumerate((FIRST, EVERY, EVERY, EVERY)):
            await world.clock.settle(
                until=lambda rounds=rounds: world.pruning.rounds == rounds and world.clock.pending
            )
            await world.clock.advance(wait)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_round_scans_a_table(world: World) -> None:
    await world.activities.start(world.app, a_start(), key=a_key("k"))
    await world.put_on("match-17", "d0", token="aa")
    await world.activities.end(world.app, End(id="match-17"))
    await world.outcomes_of(1, 3)
    async with world.database.write() as connection:
        await connection.execute(update(schema.activities).values(retired_at=world.now))
    await world.finish()
    for passed in (3 * DAY, 40 * DAY):
        world.clock.advance_sync(passed)
        async with every_query_indexed(world.database, small={"apps"}):
            await world.prune()
    assert await world.count(schema.activities) == 0
