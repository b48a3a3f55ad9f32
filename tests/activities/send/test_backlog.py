"""What is read of activities that change meanwhile."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from apns_live.activities.send import backlog as module
from tests.activities.send.world import World, a_start, an_update


@pytest.mark.parametrize("is_known", [True, False])
async def test_operations_and_activity_are_of_one_moment(
    world: World, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    world.registering = False
    await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.settled()

    async def slow(connection: AsyncConnection, statement: Any, *given: Any) -> Any:
        found = await execute(connection, statement, *given)
        if statement is module._ACTIVITIES and not updated:
            updated.append(statement)  # the service looks for the update too
            await world.service.activities.update(world.app, an_update(1))
        return found

    updated: list[Any] = []
    execute = AsyncConnection.execute
    backlog = module.ActivityBacklog(world.database, world.service.ownership, world.clock)
    [started] = await world.operations()
    known = {started.activity_id: (1, 1)} if is_known else None
    monkeypatch.setattr(AsyncConnection, "execute", slow)
    [activity], operations = await backlog.read([started.activity_id], known)
    monkeypatch.undo()
    of_it = operations.get(started.activity_id, [])
    assert activity.version == 1
    assert all(row.version <= activity.version for row in of_it)
    [activity], operations = await backlog.read([started.activity_id], known)
    assert activity.version == 2
    assert operations[started.activity_id][-1].version == 2


async def test_an_open_start_is_found_behind_newer_states(world: World) -> None:
    await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    for number in range(1, 4):
        await world.service.activities.update(world.app, an_update(number))
    await world.settled()
    async with world.database.write() as connection:
        await connection.execute(
            text("UPDATE operations SET finished_at = NULL, status = 'running'")
        )
    backlog = module.ActivityBacklog(world.database, world.service.ownership, world.clock)
    row = (await world.operations())[0].activity_id
    _, operations = await backlog.read([row], {row: (3, 1)})
    assert [(one.kind, one.version) for one in operations[row]] == [("start", 1), ("update", 4)]
    _, operations = await backlog.read([row], {row: (3, 2)})
    assert [(one.kind, one.version) for one in operations[row]] == [("update", 4)]


async def test_an_activity_is_looked_at_ten_times_a_second_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    await world.pass_time(1.0)
    looks: list[float] = []
    read = module.ActivityBacklog.read

    async def counted(backlog: Any, rows: Any, known: Any = None) -> Any:
        looks.append(world.clock.monotonic())
        return await read(backlog, rows, known)

    monkeypatch.setattr(module.ActivityBacklog, "read", counted)
    begin = world.clock.monotonic()
    for number in range(1, 31):
        await world.service.activities.update(world.app, an_update(number))
        await world.pass_time(0.01)
    await world.settled()
    assert world.shown(phones) == [("active", 30)]
    assert looks[0] == begin, "the first one waits for nothing"
    assert all(later - look > module.PACE - 1e-6 for look, later in itertools.pairwise(looks))
