"""``queued`` of an operation: who has no token yet, and fewer as tokens come."""

from __future__ import annotations

from typing import Any

from apns_live.activities import TokenRecord
from apns_live.activities.read import operations as watching
from apns_live.activities.read.operations import still_queued
from tests.activities.plans import every_query_indexed
from tests.activities.send.world import World, a_start, an_end, an_update


async def queued(world: World) -> list[int]:
    """What each operation says, the oldest first, the same in every place that says it."""
    page = await world.service.operations.page(world.app, activity="match")
    counts = [one["queued"] for one in page]
    alone = [await world.service.operations.get(world.app, one["id"]) for one in page]
    assert [one["queued"] for one in alone] == counts
    history = [
        entry["queued"]
        async for part in world.service.activities.history(world.app, "match")
        for entry in part
    ]
    assert history == counts
    return counts


async def hand_in(world: World, count: int) -> None:
    some, world.handed_in = world.handed_in[:count], world.handed_in[count:]
    await world.service.tokens.register_activity_tokens(world.app, some)
    await world.settled()


async def test_the_counters_follow_the_tokens(world: World) -> None:
    phones = await world.add_phones(5)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 5)
    first = await world.service.activities.update(world.app, an_update(1))
    assert (first.answer.devices, first.answer.queued) == (0, 5)
    await world.settled()
    assert await queued(world) == [0, 5]
    await hand_in(world, 2)
    assert await queued(world) == [0, 3]
    second = await world.service.activities.update(world.app, an_update(2))
    assert (second.answer.devices, second.answer.queued) == (2, 3)
    await world.settled()
    assert await queued(world) == [0, 3, 3]
    await hand_in(world, 2)
    assert await queued(world) == [0, 1, 1]
    # A device of another kind, that was not there when these were accepted, is none of theirs.
    await world.add_phones(1, first=100)
    late = TokenRecord(
        device="scores-100",
        kind="activity",
        token="ab" * 32,
        registered_at=world.now(),
        scope="match",
    )
    await world.service.tokens.register_activity_tokens(world.app, [late])
    assert await queued(world) == [0, 1, 1]
    await hand_in(world, 1)
    assert await queued(world) == [0, 0, 0]
    assert world.shown(phones) == [("active", 2)] * 5
    stored = await world.operations()
    assert [row.queued for row in stored] == [0, 5, 3]
    known = await world.service.operations.get(world.app, second.answer.operation)
    assert known["accepted"] >= 5


async def test_who_leaves_is_waited_for_no_more(world: World) -> None:
    phones = await world.add_phones(3)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 3)
    await world.service.activities.end(world.app, an_end(1))
    assert await queued(world) == [0, 3]
    await world.service.devices.forget(world.app, phones[0].id)
    assert await queued(world) == [0, 2]
    await world.pass_time(1.0)
    world.registering = True
    await world.hand_in()
    await world.settled()
    assert await queued(world) == [0, 0]


async def test_watching_sees_it(world: World, monkeypatch: Any) -> None:
    await world.add_phones(4)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 4)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    steps = world.service.watch(world.app, activity="match")
    seen = [await world.result_of(anext(steps))]
    await hand_in(world, 4)
    seen.append(await world.result_of(anext(steps)))
    assert [step["operation"]["queued"] for step in seen] == [4, 0]
    await steps.aclose()  # type: ignore[attr-defined]
    # Where they are many it is not counted for every step.
    monkeypatch.setattr(watching, "_LARGE", 1)
    counted = 0

    async def count(connection: Any, rows: Any) -> dict[int, int]:
        nonlocal counted
        counted += 1
        return await still_queued(connection, rows)

    monkeypatch.setattr(watching, "still_queued", count)
    await world.add_phones(3, first=10)
    await world.service.activities.start(world.app, a_start("other"))
    await world.until(lambda: len(world.handed_in) >= 3)
    await world.service.activities.update(world.app, an_update(0.5, "other"))
    [*_, update] = await world.operations()
    read = world.service.watchers._operation
    world.service.watchers._queued_counts[update.id] = (world.clock.monotonic() + 2.0, 99)
    shown, over = await read(world.app, update.public_id)
    assert over or shown["queued"] == 99
    assert counted == 0
    await world.pass_time(2.1)
    shown, _ = await read(world.app, update.public_id)
    assert shown["queued"] != 99
    assert counted == 1


async def test_no_query_scans_a_table(world: World) -> None:
    await world.add_phones(3)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 3)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    async with every_query_indexed(world.database, small={"apps"}):
        assert await queued(world) == [0, 3]
