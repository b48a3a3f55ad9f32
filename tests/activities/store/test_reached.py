"""Devices that share a row of outcomes are read as if each had its own."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy import insert, select

from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.read.diagnosis import diagnose
from apns_live.activities.read.operations import Operations, persons_reached
from apns_live.activities.send.results import Batch, unsettled, write
from apns_live.activities.store import reached, schema
from apns_live.activities.store.database import Database
from apns_live.outcome import Outcome, Verdict
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms

DEVICES = 45
IDS = "00000000-0000-8000-9000-"


async def stored(rooms: Rooms, *, least: int) -> tuple[str, int]:
    """Store outcomes of an operation, of which so many devices share a row; return its names.

    d0 was refused, a later batch has d40 to d43, and d44 has none. Of three devices two are one user's.
    """
    names = [f"d{number}" for number in range(DEVICES)]
    users = {f"d{number}": f"u{number // 3}" for number in range(DEVICES) if number % 3}
    users["d41"] = "u0"  # reached by both batches
    records = [DeviceRecord(id=name, user=users.get(name)) for name in names]
    await rooms.devices.tell(rooms.app, records)
    rows = await rooms.device_rows(*names)
    name = f"op-{least}"
    async with rooms.database.write() as connection:
        values: dict[str, Any] = {"public_id": name, "kind": "notification", "status": "done"}
        values |= {"app_id": rooms.app.row, "created_at": rooms.now}
        added = insert(schema.operations).values(values).returning(schema.operations.c.id)
        operation = int(await connection.scalar(added) or 0)
        refused = Outcome("", Verdict.DROP_TOKEN, status=410, reason="Unregistered", apns_id="x")
        for devices in ([*random.Random(1).sample(rows[1:40], 39)], rows[40:44]):
            batch = Batch(reached={(rooms.app.row, operation, IDS, 5): list(devices)})
            batch.counts[operation] = [len(devices), 0]
            if rows[1] in devices:
                batch.add(rooms.app.row, operation, rows[0], refused)
            await write(connection, batch, now=rooms.now)
    return name, operation


@pytest.fixture
async def both(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> tuple[Rooms, list[tuple[str, int]]]:
    """Two operations with the same outcomes: each in its row, and nearly all in two rows."""
    rooms = Rooms(database)
    await rooms.fill()
    names = []
    for least in (1_000, 4):
        monkeypatch.setattr(reached, "LEAST", least)
        names.append(await stored(rooms, least=least))
    return rooms, names


def said(outcomes: list[Any]) -> list[dict[str, Any]]:
    """Return what outcomes say, without the places, by device."""
    told = [{key: value for key, value in one.items() if key != "row"} for one in outcomes]
    return sorted(told, key=lambda one: str(one["device"]))


async def test_listings_say_the_same_whatever_the_page(
    both: tuple[Rooms, list[tuple[str, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, ((old, _), (new, operation)) = both
    await rooms.devices.forget(rooms.app, "d7")
    operations = Operations(rooms.core)
    count = select(schema.outcomes.c.id).where(schema.outcomes.c.operation_id == operation)
    assert len(await rooms.database.rows(count)) == 3
    each = [one async for one in operations.export(rooms.app, old)]
    assert [one["device"] for one in each].count(None) == 1
    for size in (1, 3, 39, 40, 100):
        monkeypatch.setattr("apns_live.activities.read.operations.EXPORT_PAGE", size)
        shared = [one async for one in operations.export(rooms.app, new)]
        assert said(shared) == said(each)
        assert len({one["row"] for one in shared}) == len(shared) == DEVICES - 1
        assert max(one["row"] for one in shared) < 2**53
    tail = [one["device"] for one in await operations.outcomes(rooms.app, new, limit=100)][-4:]
    assert tail == ["d40", "d41", "d42", "d43"]  # what came last


async def test_persons_and_diagnoses_are_the_same(
    both: tuple[Rooms, list[tuple[str, int]]],
) -> None:
    rooms, ((_, first), (_, second)) = both
    async with rooms.database.read() as connection:
        persons = [await persons_reached(connection, row) for row in (first, second)]
        rows = await rooms.device_rows("d0", "d5", "d41", "d44")
        of_device = [await reached.of_device(connection, rooms.app.row, row, 9) for row in rows]
    assert persons[0] == persons[1] > 0
    assert [[row.operation_id for row in found] for found in of_device] == [
        [second, first], [second, first], [second, first], [],
    ]  # fmt: skip
    now = rooms.now + 1
    said = [await diagnose(rooms.database, rooms.devices, rooms.app, "d5", now)]
    assert "2 outcomes read" in said[0][-1].said


async def test_a_crash_finds_the_same_devices_without_an_outcome(
    both: tuple[Rooms, list[tuple[str, int]]],
) -> None:
    rooms, names = both
    last, refused, accepted = await rooms.device_rows("d44", "d0", "d9")
    async with rooms.database.read() as connection:
        for _, operation in names:
            asked = [last, refused, accepted, 999_999]
            assert await unsettled(connection, operation, asked) == [last, 999_999]


async def test_no_reading_of_shared_rows_scans_a_table(
    both: tuple[Rooms, list[tuple[str, int]]],
) -> None:
    rooms, (_, (name, operation)) = both
    async with every_query_indexed(rooms.database):
        await Operations(rooms.core).outcomes(rooms.app, name, limit=20)
        async with rooms.database.read() as connection:
            await persons_reached(connection, operation)
            await reached.of_device(connection, rooms.app.row, 5, 100)
            await unsettled(connection, operation, [1, 2])


def test_a_batch_with_shared_rows_is_halved_and_joined_again() -> None:
    key = (1, 2, IDS, 10)
    batch = Batch(reached={key: [1, 2, 3]}, counts={2: [3, 1]})
    batch.add(1, 3, 4, Outcome("", Verdict.ACCEPTED, status=200))
    batch.counts[2] = [3, 0]
    halves = batch.halves()
    assert halves is not None
    whole = Batch.of(halves)
    assert (whole.reached, whole.outcomes, whole.counts) == (
        batch.reached, batch.outcomes, batch.counts,
    )  # fmt: skip
    assert len(whole) == 4
    assert [row[6] for row in whole.each()][1:] == [f"{IDS}{row:012x}" for row in (1, 2, 3)]
