"""Operations and outcomes are read in pages, by app, and never by scanning a table."""

import pytest
from sqlalchemy import delete, insert, select

from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.read.operations import Operations, persons_reached
from apns_live.activities.requests import Update
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import InvalidInput, NotFound
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_start


@pytest.fixture
async def rooms(database: Database) -> Rooms:
    rooms = Rooms(database)
    await rooms.fill()
    return rooms


async def with_outcomes(rooms: Rooms, count: int) -> tuple[str, int]:
    """Start match-17 and give its operation outcomes of devices d0, d1, ...; two belong to ada."""
    started = (await rooms.activities.start(rooms.app, a_start())).answer
    await rooms.devices.tell(
        rooms.app, [DeviceRecord(id=f"d{n}", user="ada" if n < 2 else None) for n in range(count)]
    )
    rows = await rooms.device_rows(*(f"d{n}" for n in range(count)))
    async with rooms.database.write() as connection:
        operation = (await connection.execute(select(schema.operations.c.id))).scalar_one()
        await connection.execute(
            insert(schema.outcomes),
            [
                {
                    "app_id": rooms.app.row,
                    "operation_id": operation,
                    "device_id": row,
                    "verdict": "drop_token" if n == 0 else "accepted",
                    "status": 410 if n == 0 else 200,
                    "reason": "Unregistered" if n == 0 else "",
                    "apns_id": f"id-{n}",
                    "priority": 10,
                    "created_at": rooms.now,
                }
                for n, row in enumerate(rows)
            ],
        )
    return started.operation, operation


async def test_an_operation_is_shown_with_its_counters(rooms: Rooms) -> None:
    operations = Operations(rooms.core)
    started = (await rooms.activities.start(rooms.app, a_start(dialect="braze"))).answer
    assert await operations.get(rooms.app, started.operation) == {
        "row": 1,
        "id": started.operation,
        "kind": "start",
        "activity": "match-17",
        "version": 1,
        "status": "accepted",
        "reason": None,
        "caller": "",
        "dialect": "braze",
        "targeted": 0,
        "accepted": 0,
        "queued": 0,
        "failed": 0,
        "missing": 0,
        "users": 0,
        "created_at": rooms.now,
        "finished_at": None,
    }
    for app, name in ((rooms.other, started.operation), (rooms.app, "none")):
        with pytest.raises(NotFound, match="no operation"):
            await operations.get(app, name)
        with pytest.raises(NotFound, match="no operation"):
            await operations.outcomes(app, name)
        with pytest.raises(NotFound, match="no operation"):
            [_ async for _ in operations.export(app, name)]


async def test_operations_are_read_in_pages_of_an_app_or_an_activity(rooms: Rooms) -> None:
    operations = Operations(rooms.core)
    for number in range(3):
        await rooms.activities.start(rooms.app, a_start(id=f"m{number}"))
        await rooms.activities.start(rooms.other, a_start(id=f"m{number}"))
        await rooms.activities.update(rooms.app, Update(id="m0", content_state={"home": number}))
    found: list[tuple[str, str]] = []
    after = 0
    while page := await operations.page(rooms.app, after=after, limit=2):
        assert len(page) <= 2
        found += [(entry["kind"], entry["activity"]) for entry in page]
        after = page[-1]["row"]
    update = ("update", "m0")
    assert found == [("start", "m0"), update, ("start", "m1"), update, ("start", "m2"), update]
    of_one = await operations.page(rooms.app, activity="m0")
    assert [(entry["kind"], entry["version"]) for entry in of_one] == [
        ("start", 1),
        ("update", 2),
        ("update", 3),
        ("update", 4),
    ]
    assert [entry["row"] for entry in await operations.page(rooms.other)] == [2, 5, 8]
    with pytest.raises(NotFound, match="no activity 'none'"):
        await operations.page(rooms.app, activity="none")
    for limit in (0, 1_001, True, "5"):
        with pytest.raises(InvalidInput) as caught:
            await operations.page(rooms.app, limit=limit)
        assert (caught.value.field, caught.value.remedy) == ("limit", "Give 1 to 1000.")


async def test_outcomes_are_read_in_pages_and_exported_whole(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = Operations(rooms.core)
    name, _ = await with_outcomes(rooms, 5)
    await rooms.devices.forget(rooms.app, "d3")
    first = await operations.outcomes(rooms.app, name, limit=3)
    rest = await operations.outcomes(rooms.app, name, after=first[-1]["row"], limit=3)
    assert [entry["device"] for entry in first + rest] == ["d0", "d1", "d2", None, "d4"]
    assert first[0] == {
        "row": 1,
        "device": "d0",
        "verdict": "drop_token",
        "status": 410,
        "reason": "Unregistered",
        "apns_id": "id-0",
        "priority": 10,
        "created_at": rooms.now,
    }
    for size in (1, 2, 5, 6):
        monkeypatch.setattr("apns_live.activities.read.operations.EXPORT_PAGE", size)
        exported = [entry async for entry in operations.export(rooms.app, name)]
        assert exported == first + rest


async def test_persons_are_counted_once(rooms: Rooms) -> None:
    _, row = await with_outcomes(rooms, 5)  # d0 failed, d1 is ada's, the others are nobody's
    async with rooms.database.write() as connection:
        assert await persons_reached(connection, row) == 4
        await connection.execute(delete(schema.outcomes).where(schema.outcomes.c.id == 3))
        assert await persons_reached(connection, row) == 3


async def test_no_reading_scans_a_table(rooms: Rooms) -> None:
    operations = Operations(rooms.core)
    name, row = await with_outcomes(rooms, 3)
    async with every_query_indexed(rooms.database):
        await operations.get(rooms.app, name)
        await operations.page(rooms.app)
        await operations.page(rooms.app, activity="match-17")
        await operations.outcomes(rooms.app, name)
        assert len([_ async for _ in operations.export(rooms.app, name)]) == 3
        async with rooms.database.read() as connection:
            await persons_reached(connection, row)


async def test_the_check_of_plans_finds_a_scan(rooms: Rooms) -> None:
    """The check itself must be able to fail."""
    table = schema.operations
    for query in (
        select(table.c.id).where(table.c.caller == "x"),
        select(table.c.id).where(table.c.caller == "x").order_by(table.c.id),
    ):
        with pytest.raises(AssertionError, match="in: SELECT operations"):
            async with every_query_indexed(rooms.database), rooms.database.read() as connection:
                await connection.execute(query)
