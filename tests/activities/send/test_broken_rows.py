"""A stored row that cannot be read costs its own operation, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from apns_live.activities import AlertText, Audience, Notify, Presentation, Sealer
from apns_live.activities.send import fan_out, starting
from apns_live.activities.send.recorder import Recorder
from apns_live.activities.send.results import Batch
from apns_live.activities.store import schema
from apns_live.activities.store.sealing import new_key
from apns_live.errors import StoreError
from tests.activities.send.test_recovery import follow
from tests.activities.send.world import World, a_start, an_update


async def change(world: World, table: Any, where: Any, **values: Any) -> None:
    async with world.database.write() as connection:
        await connection.execute(update(table).where(where).values(**values))


async def test_a_start_whose_row_cannot_be_read_fails_alone(world: World) -> None:
    phones = await world.add_phones(3)
    await world.close()
    await world.service.activities.start(world.app, a_start("broken"))
    await world.service.activities.start(world.app, a_start("whole"))
    table = schema.activities
    await change(world, table, table.c.public_id == "broken", audience="{")
    await world.open()
    await world.settled()
    assert [operation.status for operation in await world.operations()] == ["failed", "done"]
    assert [len(phone.activities) for phone in phones] == [1, 1, 1]


async def test_an_update_whose_row_cannot_be_read_fails_alone(world: World) -> None:
    phones = await follow(world, 2)
    await world.close()
    loud = Presentation(alert=AlertText(title="Goal", body="1:0"))
    await world.service.activities.update(world.app, an_update(1, presentation=loud))
    await world.service.activities.update(world.app, an_update(2))
    operations = schema.operations
    await change(world, operations, operations.c.version == 2, request="[")
    await world.open()
    await world.settled()
    assert world.shown(phones) == [("active", 2)] * 2
    statuses = [operation.status for operation in await world.operations()]
    assert statuses == ["done", "failed", "done"]


async def test_a_state_that_cannot_be_read_holds_up_no_other_activity(world: World) -> None:
    phones = await follow(world, 2)
    await world.service.activities.start(world.app, a_start("other", attributes={"activity": "x"}))
    await world.settled()
    await world.close()
    for name in ("match", "other"):
        await world.service.activities.update(world.app, an_update(7, name))
    table = schema.activities
    await change(world, table, table.c.public_id == "match", content_state="{")
    await world.open()
    await world.settled()
    async with world.database.read() as connection:
        rows = await connection.execute(select(schema.operations).order_by(schema.operations.c.id))
        assert [row.status for row in rows] == ["done", "done", "failed", "done"]
    # The next state can be read again.
    await world.service.activities.update(world.app, an_update(8))
    await world.until(
        lambda: [phone.activities[0].content_state for phone in phones] == [{"n": 8}] * 2
    )


async def test_one_bad_result_does_not_keep_the_others_from_the_store(world: World) -> None:
    phones = await world.add_phones(3)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    recorder: Recorder = world.service.courier._recorder
    good = ("accepted", 200, "", "id", 10)
    async with world.database.read() as connection:
        row = (await connection.execute(select(schema.operations))).one()
    operation, part = row.id, recorder.noting(row.partition)
    part.outcomes += [
        (world.app.row, operation, 901, *good),
        (world.app.row, operation, None, *good),  # no device: no row can have that
        (world.app.row, operation, 902, *good),
    ]
    part.counts[operation] = [3, 0]
    await world.result_of(recorder.written())
    async with world.database.read() as connection:
        devices = await connection.execute(select(schema.outcomes.c.device_id))
        assert {901, 902} < set(devices.scalars())
    assert (await world.operations())[0].accepted == len(phones) + 2


def test_halves_keep_the_order_and_the_counts() -> None:
    batch = Batch()
    for device in range(5):
        verdict = "accepted" if device % 2 else "drop_token"
        batch.outcomes.append((1, 7, device, verdict, 200, "", "", 10))
    batch.counts[7] = [2, 3]
    batch.finished.append((3, 4, None))
    halves = batch.halves()
    assert halves is not None
    first, second = halves
    assert first.outcomes + second.outcomes == batch.outcomes
    assert [a + b for a, b in zip(first.counts[7], second.counts[7], strict=True)] == [2, 3]
    assert (first.finished, second.finished) == ([], batch.finished)
    assert Batch(finished=[(1, 1, None)]).halves() is None


async def test_a_start_that_the_store_fails_counts_each_device_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 3)
    intend, calls = starting.intend, 0

    async def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise StoreError("the store is away for a moment")
        return await intend(*arguments, **named)

    monkeypatch.setattr(starting, "intend", failing)
    phones = await world.add_phones(10)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    assert [len(phone.activities) for phone in phones] == [1] * 10
    operation = (await world.operations())[0]
    assert (operation.targeted, operation.accepted, operation.failed) == (10, 10, 0)
    assert calls > 3


async def test_a_403_that_nobody_knows_is_about_its_device_alone(world: World) -> None:
    phones = await follow(world, 3)
    token = phones[1].activities[-1].token.text
    world.fake.faults.add(action="answer", token=token, status=403, reason="DeviceNotEntitled")
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert world.shown(phones) == [("active", 1), ("active", 0), ("active", 1)]
    operation = (await world.operations())[-1]
    assert (operation.status, operation.accepted, operation.failed) == ("done", 2, 1)


async def test_a_start_that_the_store_cannot_sign_is_not_accepted(world: World) -> None:
    await world.close()
    service = await world.open(sealing=Sealer(new_key()))
    with pytest.raises(StoreError, match="does not open"):
        await service.activities.start(world.app, a_start())
    notify = Notify(audience=Audience(everyone=True), title="a", body="b")
    with pytest.raises(StoreError, match="does not open"):
        await service.notifications.send(world.app, notify)
    assert await world.operations() == []
