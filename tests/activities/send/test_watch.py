"""Following an operation or an activity as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apns_live.errors import InvalidInput, NotFound
from tests.activities.send.test_recovery import follow
from tests.activities.send.world import World, a_start, an_end, an_update


async def all_of(steps: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [step async for step in steps]


async def test_an_operation_is_followed_to_its_end(world: World) -> None:
    await world.add_phones(20)
    start = (await world.service.activities.start(world.app, a_start())).answer
    watching = asyncio.ensure_future(
        all_of(world.service.watch(world.app, operation=start.operation))
    )
    await world.until(watching.done)
    steps = watching.result()
    assert steps[-1]["status"] == "done"
    assert (steps[-1]["accepted"], steps[-1]["activity"]) == (20, "match")
    assert [step["accepted"] for step in steps] == sorted(step["accepted"] for step in steps)
    again = await all_of(world.service.watch(world.app, operation=start.operation))
    assert again == steps[-1:]


async def test_an_activity_is_followed_to_its_end_and_steps_are_left_out(world: World) -> None:
    await follow(world, 3)
    watching = asyncio.ensure_future(all_of(world.service.watch(world.app, activity="match")))
    for n in range(1, 40):
        await world.service.activities.update(world.app, an_update(n))
    await world.service.activities.end(world.app, an_end(40))
    await world.until(watching.done)
    steps = watching.result()
    versions = [step["version"] for step in steps]
    assert versions == sorted(versions)
    assert (steps[-1]["status"], steps[-1]["content_state"]) == ("ended", {"n": 40})
    assert steps[-1]["operation"]["status"] == "done"
    assert len(world.service.watchers) == 0


async def test_watching_ends_when_the_service_closes(world: World) -> None:
    await follow(world, 1)
    watching = asyncio.ensure_future(all_of(world.service.watch(world.app, activity="match")))
    await world.until(lambda: len(world.service.watchers) == 1)
    await world.close()
    assert (await watching)[-1]["status"] == "active"
    await world.open()


async def test_what_cannot_be_watched(world: World) -> None:
    with pytest.raises(InvalidInput):
        world.service.watch(world.app)
    with pytest.raises(InvalidInput):
        world.service.watch(world.app, operation="a", activity="b")
    with pytest.raises(NotFound):
        await all_of(world.service.watch(world.app, operation="nothing"))
    with pytest.raises(NotFound):
        await all_of(world.service.watch(world.app, activity="nothing"))
