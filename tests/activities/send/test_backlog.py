"""What is read of activities that change meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.activities.send.backlog import ActivityBacklog
from tests.activities.send.world import World, a_start, an_update


@pytest.mark.parametrize("part", ["_newer", "_open_or_newest"])
async def test_operations_and_activity_are_of_one_moment(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    world.registering = False
    await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    read = getattr(ActivityBacklog, part)

    async def slow(connection: Any, rows: Any) -> Any:
        await world.service.activities.update(world.app, an_update(1))
        return await read(connection, rows)

    backlog = ActivityBacklog(world.database, world.service.ownership)
    [started] = await world.operations()
    known = {started.activity_id: 1} if part == "_newer" else None
    monkeypatch.setattr(ActivityBacklog, part, staticmethod(slow))
    [activity], operations = await backlog.read([started.activity_id], known)
    monkeypatch.undo()
    of_it = operations.get(started.activity_id, [])
    assert activity.version == 1
    assert all(row.version <= activity.version for row in of_it)
    [activity], operations = await backlog.read([started.activity_id], known)
    assert activity.version == 2
    assert operations[started.activity_id][-1].version == 2
